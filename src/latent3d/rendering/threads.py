"""A small pool of threads for compiled kernels that run without the interpreter lock.

Own threads instead of OpenMP: they sleep between calls (no spinning beside torch's threads), need no second OpenMP
runtime in the process, and a forked child simply starts its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
import threading
import warnings
from collections.abc import Callable
from queue import SimpleQueue

import torch


class _Process:
    """Threads of this process, and what is left of its parent's."""

    jobs: list[SimpleQueue] = []  # noqa: RUF012 (one set of threads per process)
    numbers: list[int] = []  # noqa: RUF012 (of the threads, as the system knows them)
    placed: object = None  # the caller's core and the cores it may use, as the threads were last told
    lock = threading.Lock()
    rendered = False
    forked_after_rendering = False


def _serve(jobs: SimpleQueue) -> None:
    while True:
        kernel, arguments, done = jobs.get()
        try:
            kernel(*arguments)
        except BaseException as error:  # handed to the caller, who raises it
            done.put(error)
        else:
            done.put(None)


def _after_fork() -> None:
    _Process.jobs, _Process.numbers, _Process.placed = [], [], None
    _Process.lock = threading.Lock()
    _Process.forked_after_rendering = _Process.forked_after_rendering or _Process.rendered


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def thread_count() -> int:
    """Number of shares to cut work into: torch's thread count (`torch.set_num_threads`)."""
    return max(1, torch.get_num_threads())


def warn_if_forked() -> None:
    """Warn in a child that was forked after its parent rendered; remember that this process renders."""
    if _Process.forked_after_rendering:
        warnings.warn(
            "splats are rendered in a process forked from one that had already rendered; parallel torch operations "
            "can hang in such a process, so start workers with the 'spawn' method",
            RuntimeWarning,
            stacklevel=3,
        )
    _Process.rendered = True


def run_shares(kernel: Callable[..., object], shares: int, *arguments: object) -> None:
    """Run ``kernel(share, shares, *arguments)`` for all shares, the first on the calling thread; return when all did.

    Raises:
        Exception: the first error that a share raised.
    """
    if shares == 1:
        kernel(0, 1, *arguments)
        return
    with _Process.lock:
        while len(_Process.jobs) < shares - 1:
            jobs: SimpleQueue = SimpleQueue()
            thread = threading.Thread(target=_serve, args=(jobs,), daemon=True, name=f"splats-{len(_Process.jobs)}")
            thread.start()
            assert thread.native_id is not None
            _Process.jobs.append(jobs)
            _Process.numbers.append(thread.native_id)
            _Process.placed = None
        _leave_callers_core()
        workers = _Process.jobs[: shares - 1]
    done: SimpleQueue = SimpleQueue()
    for share, jobs in enumerate(workers, start=1):
        jobs.put((kernel, (share, shares, *arguments), done))
    try:
        kernel(0, shares, *arguments)
    finally:
        errors = [done.get() for _ in workers]
    for error in errors:
        if error is not None:
            raise error


def _leave_callers_core() -> None:
    """Keep the threads off the core that this one runs on, as long as there are others.

    Virtual machines were seen to wake a thread on the core of the one that woke it, with another core idle. There it
    waits until the caller has done its own share, and work of some milliseconds is over before one of them is moved.
    """
    where = _current_core()
    if where < 0:
        return
    allowed = os.sched_getaffinity(0)
    if _Process.placed == (where, allowed):
        return
    with contextlib.suppress(OSError):  # forbidden, say in a sandbox: only slower
        for number in _Process.numbers:
            os.sched_setaffinity(number, allowed - {where} or allowed)
    _Process.placed = where, allowed


def _current_core() -> int:
    """The core that runs the calling thread, or -1 where the system does not say."""
    ask = _core_asker()
    return -1 if ask is None else ask()


@functools.cache
def _core_asker() -> Callable[[], int] | None:
    """The C library's `sched_getcpu`, on Linux."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "sched_getcpu", None)
