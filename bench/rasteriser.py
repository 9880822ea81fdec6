"""Speed and memory of the splatting back ends on the CPU, as a Markdown table and as JSON.

    python bench/rasteriser.py [--threads 2] [--clock wall] [--json FILE] [--case 4096,64,3,4 ...]

All back ends render one random cloud (projected sigma about 1 px before the low-pass). Times are of the whole call,
projection included: forward without gradients, and forward + backward with gradients to means, quaternions, scales,
opacities and channels, from images, depth and alpha. Repeats are interleaved (every back end once per round), so that a
busy machine slows all alike; ratios are medians of the rounds' ratios. The first call of a back end, which may compile,
is not counted. On a machine that has other work, ``--clock cpu --threads 1`` counts processor time instead. Memory is
the growth of the resident set's peak during one forward + backward pass (Linux only).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from latent3d.geometry.cameras import Cameras
from latent3d.rendering.splats import render_gaussians
from latent3d.representations.gaussians import Gaussians


@dataclass(frozen=True)
class Case:
    """One line of the table: N splats with C channels in V views of S x S pixels."""

    splats: int
    size: int
    channels: int
    views: int

    def __str__(self) -> str:
        return f"{self.splats}, {self.size}², {self.channels}, {self.views}"


CASES = (
    Case(4096, 64, 3, 4),
    Case(4096, 64, 64, 4),
    Case(16384, 128, 3, 4),
    Case(16384, 128, 64, 4),
    Case(65536, 256, 3, 1),
    Case(65536, 256, 128, 1),
    Case(100_000, 512, 3, 1),
)
REFERENCE_PAIRS = 1 << 27
"""The reference keeps all pairs of pixel and splat of all views; beyond this many it is left out."""
REFERENCE_ROUNDS = 3


@dataclass
class Times:
    """Milliseconds of every round, and MB."""

    forward: list[float] = field(default_factory=list)
    both: list[float] = field(default_factory=list)
    peak_mb: float | None = None


def scene(case: Case) -> tuple[Gaussians, Cameras]:
    """A random cloud in the unit cube, seen from a ring of cameras with a field of view of 50 degrees."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g)

    distance, focal = 3.2, 0.5 * case.size / math.tan(math.radians(25))
    gaussians = Gaussians(
        means=torch.rand(case.splats, 3, generator=g) * 2 - 1,
        quaternions=normal(case.splats, 4),
        scales=distance / focal * torch.exp(0.4 * normal(case.splats, 3)),
        opacities=torch.sigmoid(1.5 * normal(case.splats)),
        features=normal(case.splats, case.channels),
    )
    angles = torch.arange(case.views) * (2 * math.pi / case.views) + 0.3
    c2w = torch.eye(4).repeat(case.views, 1, 1)
    c2w[:, 0, 0], c2w[:, 0, 2], c2w[:, 2, 0], c2w[:, 2, 2] = angles.cos(), -angles.sin(), angles.sin(), angles.cos()
    c2w[:, :3, 3] = -distance * c2w[:, :3, 2]
    return gaussians, Cameras.from_fov(c2w, 50.0, case.size, case.size)


def passes(case: Case, backend: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """Forward, and forward + backward, as functions without arguments."""
    gaussians, cameras = scene(case)
    names = ("means", "quaternions", "scales", "opacities", "features")
    leaves = {name: getattr(gaussians, name).requires_grad_() for name in names}
    gaussians = replace(gaussians, **leaves)
    g = torch.Generator().manual_seed(1)
    shapes = [(case.views, count, case.size, case.size) for count in (case.channels, 1, 1)]
    incoming = [torch.randn(shape, generator=g) for shape in shapes]

    def forward() -> None:
        with torch.no_grad():
            render_gaussians(gaussians, cameras, backend=backend)

    def both() -> None:
        out = render_gaussians(gaussians, cameras, backend=backend)
        torch.autograd.grad([out.features, out.depth, out.alpha], list(leaves.values()), incoming)

    return forward, both


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def milliseconds(function: Callable[[], None], clock: Callable[[], float]) -> float:
    """Time of one call."""
    start = clock()
    function()
    return (clock() - start) * 1e3


def _status(key: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/self/status has no {key}")


def peak_growth(function: Callable[[], None]) -> float | None:
    """MB by which the resident set's peak exceeds its size before the call; None without Linux' counters."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = _status("VmRSS")
    except OSError:
        return None
    function()
    return max(0.0, _status("VmHWM") - before)


def measure(case: Case, rounds: int, seconds: float, clock: Callable[[], float]) -> dict[str, Times]:
    """Rounds over all back ends that can take the case, at least three, until ``rounds`` or ``seconds`` are used up."""
    functions = {name: passes(case, name) for name in ("numba", "torch", "reference")}
    if case.splats * case.size**2 * case.views > REFERENCE_PAIRS:
        del functions["reference"]
    times = {name: Times() for name in functions}
    for name, (_, both) in functions.items():
        if name != "reference":
            both()
        times[name].peak_mb = peak_growth(both)
    start = clock()
    for number in range(rounds):
        if number >= REFERENCE_ROUNDS and clock() - start > seconds:
            break
        for name, (forward, both) in functions.items():
            if name != "reference" or number < REFERENCE_ROUNDS:
                times[name].forward.append(milliseconds(forward, clock))
                times[name].both.append(milliseconds(both, clock))
    return times


def ratio(slow: Times | None, fast: Times) -> float | None:
    """Median over rounds of the ratio of forward + backward times."""
    if slow is None:
        return None
    return statistics.median(s / f for s, f in zip(slow.both, fast.both, strict=False))


def machine(threads: int, clock: str) -> dict[str, object]:
    """What the figures depend on."""
    import numba

    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    return {
        "processor": model,
        "logical_cores": os.cpu_count(),
        "threads": threads,
        "clock": clock,
        "load_average": [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": numba.__version__,
        "system": platform.system(),
    }


def summary(values: list[float]) -> dict[str, float | int]:
    """Median, extremes and number of repeats."""
    rounded = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {key: round(value, 3) for key, value in rounded.items()} | {"repeats": len(values)}


def cell(times: Times | None) -> str:
    """``forward / both (fastest both)`` in milliseconds."""
    if times is None:
        return "not run"
    forward, both = statistics.median(times.forward), statistics.median(times.both)
    return f"{forward:.1f} / {both:.1f} ({min(times.both):.1f})"


def line(case: Case, times: dict[str, Times]) -> str:
    """One line of the Markdown table."""
    factors = [ratio(times.get(name), times["numba"]) for name in ("reference", "torch")]
    names = ("reference", "torch", "numba")
    peaks = [times[name].peak_mb if name in times else None for name in names]
    columns = [
        str(case),
        *(cell(times.get(name)) for name in names),
        *("-" if factor is None else f"{factor:.1f}" for factor in factors),
        " / ".join("-" if peak is None else f"{peak:.0f}" for peak in peaks),
    ]
    return "| " + " | ".join(columns) + " |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: processor time of all threads")
    parser.add_argument("--rounds", type=int, default=15, help="most repeats per case")
    parser.add_argument("--seconds", type=float, default=8.0, help="time per case after which no round is started")
    parser.add_argument("--json", type=Path, help="also write the JSON to this file")
    parser.add_argument("--case", action="append", help="N,S,C,V instead of the default cases; may be repeated")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cases = [Case(*map(int, text.split(","))) for text in arguments.case] if arguments.case else CASES
    about = machine(arguments.threads, arguments.clock)
    print(", ".join(f"{key} {value}" for key, value in about.items() if value is not None))
    print()
    print("Milliseconds: forward / forward + backward (fastest), medians. MB: reference / torch / numba.")
    print()
    print("| N, image, C, views | reference | torch | numba | reference : numba | torch : numba | peak MB |")
    print("|---|---|---|---|---|---|---|", flush=True)
    results = []
    for case in cases:
        times = measure(case, arguments.rounds, arguments.seconds, CLOCKS[arguments.clock])
        print(line(case, times), flush=True)
        backends = {
            name: {"forward_ms": summary(t.forward), "both_ms": summary(t.both), "peak_mb": t.peak_mb}
            for name, t in times.items()
        }
        factors = {name: ratio(times[name], times["numba"]) for name in times if name != "numba"}
        results.append({"case": asdict(case), "backends": backends, "times_slower_than_numba": factors})
    text = json.dumps({"machine": about, "results": results}, indent=1)
    print()
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
