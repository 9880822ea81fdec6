"""A small pool of threads for compiled kernels that run without the interpreter lock.

Own threads instead of OpenMP: they sleep between calls (no spinning beside torch's threads), need no second OpenMP
runtime in the process, and a forked child simply starts its own.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from queue import SimpleQueue

import torch


class _Process:
    """Threads of this process, and what is left of its parent's."""

    jobs: list[SimpleQueue] = []  # noqa: RUF012 (one set of threads per process)
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
    _Process.jobs = []
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
            threading.Thread(target=_serve, args=(jobs,), daemon=True, name=f"splats-{len(_Process.jobs)}").start()
            _Process.jobs.append(jobs)
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
