"""What the GPU benchmarks share: the device's own clock, its limits, and its memory."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

import torch
from tables import CLOCKS, Report, bench_parser, interleaved

from latent3d.optional import version

CLOCK = "cuda"
MATRIX = 8192
"""Side of the matrices whose product is timed."""
COPY_BYTES = 1 << 30
PRODUCTS = {"fp32": (torch.float32, "highest"), "tf32": (torch.float32, "high"), "bf16": (torch.bfloat16, "highest")}
"""Element type and torch's precision of float32 products."""


class EventClock:
    """Seconds between CUDA events; looking at it waits until the device is idle.

    A call that is timed so begins on an idle device: what the host needs until its first kernel runs counts, as it does
    for a user.
    """

    def __init__(self) -> None:
        self.last: torch.cuda.Event | None = None
        self.seconds = 0.0

    def __call__(self) -> float:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        event.synchronize()
        if self.last is not None:  # steps, since an interval is in float32
            self.seconds += self.last.elapsed_time(event) / 1e3
        self.last = event
        return self.seconds


CLOCKS[CLOCK] = EventClock()


def gpu_parser(description: str | None) -> ArgumentParser:
    """The options that every benchmark has, timed by the device."""
    parser = bench_parser(description)
    parser.set_defaults(clock=CLOCK)
    return parser


def missing_gpu() -> str | None:
    """Why there is nothing to measure, or None."""
    if torch.cuda.is_available():
        return None
    return (
        f"the GPU benchmark needs an NVIDIA GPU and a CUDA build of torch, but torch {torch.__version__} finds no GPU "
        "here; for this machine's processor run: make bench"
    )


def need_gpu() -> None:
    """End the program with exit code 2 and one sentence where there is no GPU."""
    sentence = missing_gpu()
    if sentence is not None:
        print(sentence, file=sys.stderr)
        raise SystemExit(2)


def describe_gpu() -> dict[str, Any]:
    """What figures depend on, besides `tables.machine`."""
    about = torch.cuda.get_device_properties(0)
    return {
        "gpu": about.name,
        "gpu_memory_gb": round(about.total_memory / 1e9, 1),
        "multiprocessors": about.multi_processor_count,
        "compute_capability": f"{about.major}.{about.minor}",
        "cuda": torch.version.cuda,
        "triton": version("triton"),
        "gsplat": version("gsplat"),
    }


def peak_mb(call: Callable[[], object], device: str) -> float | None:
    """MB of device memory by which a call's peak exceeds what was allocated before; None on a CPU."""
    if device == "cpu":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def copying(count: int, device: str) -> tuple[Callable[[], object], float]:
    """A copy inside the device's memory, and the bytes that it reads and writes."""
    source = torch.zeros(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source), 2.0 * count


def multiplying(side: int, kind: str, device: str) -> tuple[Callable[[], object], float]:
    """A product of two square matrices in a precision of `PRODUCTS`, and its operations."""
    dtype, precision = PRODUCTS[kind]
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)

    def call() -> None:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        torch.mm(a, b, out=out)
        torch.set_float32_matmul_precision(before)

    return call, 2.0 * side**3


def limits(report: Report, device: str = CLOCK, side: int = MATRIX, count: int = COPY_BYTES) -> None:
    """Add the table of what this device can do at best, measured, not looked up."""
    table = report.table("Limits of this device", "what", "ms", "GB/s", "TFLOP/s")
    copy, moved = copying(count, device)
    times = interleaved({"copy": copy}, report.clock, rounds=20, seconds=5)["copy"]
    table.add(f"copy of {count / 2**20:.0f} MiB", times, [moved / 1e6 / ms for ms in times], None)
    for kind in PRODUCTS:
        product, operations = multiplying(side, kind, device)
        times = interleaved({kind: product}, report.clock, rounds=20, seconds=5)[kind]
        table.add(f"product of matrices {side} x {side}, {kind}", times, None, [operations / 1e9 / ms for ms in times])
