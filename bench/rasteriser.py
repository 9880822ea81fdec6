"""Speed and memory of the splatting back ends on the CPU, beside a compiled C++ version, as tables.

    python bench/rasteriser.py [--threads 2] [--clock wall] [--json FILE] [--case 4096,64,3,4 ...] [--garden FILE]

Scenes are random clouds (projected sigma about 1 px before the low-pass), and the real points of the "garden" capture
(`test_garden.npz` of gsplat's repository) where that file is. Times are of the whole call, projection included:
forward without gradients, and forward + backward with gradients to means, quaternions, scales, opacities and features
from features, depth and alpha. Everything that can render a scene takes its turn in every round, so that a busy machine
slows all alike; ratios are medians of the rounds' ratios. The all-pairs reference renders the smallest cloud only. The
C++ version (`splats_cpp.cpp`) is built where a compiler is, and is called without the checks and the autograd of
`render_gaussians`. Memory is the growth of the resident set's peak during one forward + backward pass (Linux only).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import splats_cpp
import torch
from tables import PAUSE, Cell, Report, bench_parser, interleaved, peak_growth, ratio

from latent3d.geometry.cameras import Cameras
from latent3d.rendering.splats import Backend, render_gaussians
from latent3d.representations.gaussians import Gaussians

GARDEN = Path(__file__).resolve().parents[2] / "shared" / "data" / "garden_points_cameras" / "test_garden.npz"
REFERENCE_PAIRS = 1 << 26
"""The reference keeps about 50 bytes of every pair of pixel and splat of all views; it renders no more than these."""
CPP = "C++"
COMPARED = (("reference", "numba"), ("torch", "numba"), ("numba", CPP))
LEAVES = ("means", "quaternions", "scales", "opacities", "features")


@dataclass(frozen=True)
class Case:
    """N splats with C channels in V views of height x width pixels."""

    splats: int
    height: int
    width: int
    channels: int
    views: int

    @classmethod
    def parse(cls, text: str) -> Case:
        """``4096,64,3,4`` or, for pictures that are not square, ``4096,1920x1080,3,4`` (width first)."""
        splats, size, channels, views = text.split(",")
        width, _, height = size.partition("x")
        return cls(int(splats), int(height or width), int(width), int(channels), int(views))


CASES = tuple(
    Case.parse(text)
    for text in (
        *("4096,64,3,4", "4096,64,64,4", "16384,128,3,4", "16384,128,64,4", "16384,128,320,4"),
        *("65536,256,3,1", "65536,256,128,1", "100000,512,3,1", "500000,1920x1080,3,1"),
    )
)


def cloud(case: Case) -> tuple[Gaussians, Cameras]:
    """A random cloud in a cube, seen from a ring of cameras with a field of view of 50 degrees.

    The cube is as wide as a picture that is higher than wide allows, and stretched sideways as the picture is.
    """
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g)

    distance, focal = 3.2, 0.5 * case.height / math.tan(math.radians(25))
    gaussians = Gaussians(
        means=(torch.rand(case.splats, 3, generator=g) * 2 - 1) * torch.tensor([case.width / case.height, 1.0, 1.0]),
        quaternions=normal(case.splats, 4),
        scales=distance / focal * torch.exp(0.4 * normal(case.splats, 3)),
        opacities=torch.sigmoid(1.5 * normal(case.splats)),
        features=normal(case.splats, case.channels),
    )
    angles = torch.arange(case.views) * (2 * math.pi / case.views) + 0.3
    w2c = torch.eye(4).repeat(case.views, 1, 1)
    w2c[:, 0, 0], w2c[:, 0, 2], w2c[:, 2, 0], w2c[:, 2, 2] = angles.cos(), angles.sin(), -angles.sin(), angles.cos()
    w2c[:, 2, 3] = distance
    k = torch.tensor([[focal, 0, case.width / 2], [0, focal, case.height / 2], [0, 0, 1]]).repeat(case.views, 1, 1)
    return gaussians, Cameras(w2c, k, case.height, case.width)


def garden(file: Path) -> tuple[Gaussians, Cameras]:
    """Real points with their colours as features and real cameras; as wide as the mean distance of three neighbours."""
    from scipy.spatial import cKDTree

    data = np.load(file, allow_pickle=False)
    points = data["means3d"].astype(np.float64)
    distances = cKDTree(points).query(points, k=4)[0][:, 1:].mean(1)
    width = torch.from_numpy(distances).float().clamp(1e-4, float(np.quantile(distances, 0.99)))
    gaussians = Gaussians(
        means=torch.from_numpy(data["means3d"]),
        quaternions=torch.tensor([1.0, 0, 0, 0]).repeat(len(points), 1),
        scales=width[:, None].repeat(1, 3),
        opacities=torch.full((len(points),), 0.5),
        features=torch.from_numpy(data["colors"]).float() / 255,
    )
    w2c, k = torch.from_numpy(data["viewmats"]).float(), torch.from_numpy(data["Ks"]).float()
    return gaussians, Cameras(w2c, k, int(data["height"]), int(data["width"]))


@dataclass(frozen=True)
class Passes:
    """Forward, and forward + backward."""

    forward: Callable[[], object]
    both: Callable[[], object]


def passes(gaussians: Gaussians, cameras: Cameras, backend: str, threads: int) -> Passes:
    """What one back end does with a scene, features only."""
    leaves = {name: getattr(gaussians, name).detach().requires_grad_() for name in LEAVES}
    gaussians = replace(gaussians, **leaves)
    g = torch.Generator().manual_seed(1)
    counts = (leaves["features"].shape[1], 1, 1)
    incoming = [torch.randn(len(cameras), count, cameras.height, cameras.width, generator=g) for count in counts]
    if backend == CPP:
        return Passes(
            lambda: splats_cpp.render(gaussians, cameras, threads=threads),
            lambda: splats_cpp.render(gaussians, cameras, threads=threads).backward(*incoming),
        )
    run = cast(Backend, backend)

    def forward() -> None:
        with torch.no_grad():
            render_gaussians(gaussians, cameras, backend=run)

    def both() -> None:
        out = render_gaussians(gaussians, cameras, backend=run)
        torch.autograd.grad([out.features, out.depth, out.alpha], list(leaves.values()), incoming)

    return Passes(forward, both)


@dataclass(frozen=True)
class Times:
    """Milliseconds of every round, and MB."""

    forward: list[float]
    both: list[float]
    peak_mb: float | None


def measure(
    gaussians: Gaussians, cameras: Cameras, names: Sequence[str], report: Report, options: argparse.Namespace
) -> dict[str, Times]:
    """Rounds over the back ends; of the reference, which takes seconds, one that is not counted and one that is."""
    functions = {name: passes(gaussians, cameras, name, options.threads) for name in names}
    peaks = {}
    for name, each in functions.items():
        if name != "reference":
            each.both()
        peaks[name] = peak_growth(each.both)
    times: dict[tuple[str, str], list[float]] = {}
    for slow in (True, False):
        group = {name: each for name, each in functions.items() if (name == "reference") is slow}
        calls = {(name, "forward"): each.forward for name, each in group.items()}
        calls |= {(name, "both"): each.both for name, each in group.items()}
        rounds = 1 if slow else options.rounds
        times |= interleaved(calls, report.clock, rounds=rounds, seconds=options.seconds, pause=PAUSE)
    return {name: Times(times[name, "forward"], times[name, "both"], peaks[name]) for name in names}


def scenes(options: argparse.Namespace) -> Iterator[tuple[str, Gaussians, Cameras]]:
    """Kind, splats and cameras of everything to render, made one after the other."""
    for case in CASES if options.case is None else map(Case.parse, options.case):
        yield "cloud", *cloud(case)
    if options.garden.is_file() and options.case is None:
        yield "garden", *garden(options.garden)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = bench_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="most repeats per scene")
    parser.add_argument("--seconds", type=float, default=5.0, help="time per scene after which no round is started")
    parser.add_argument("--case", action="append", help="N,SIDE,C,V or N,WxH,C,V instead of all; may be repeated")
    parser.add_argument("--garden", type=Path, default=GARDEN, help="npz file with real points and cameras")
    options = parser.parse_args(arguments)
    head = ("scene", "splats", "image", "channels", "views")
    without_cpp = splats_cpp.missing()
    compared: list[tuple[Cell, ...]] = []
    with Report("Splatting on the CPU", options) as report:
        table = report.table("Splatting", *head, "back end", "forward, ms", "forward + backward, ms", "peak growth, MB")
        for kind, gaussians, cameras in scenes(options):
            channels = cast(torch.Tensor, gaussians.features).shape[1]
            label = (kind, len(gaussians), f"{cameras.width}x{cameras.height}", channels, len(cameras))
            pairs = len(gaussians) * cameras.width * cameras.height * len(cameras)
            names = ["torch", "numba"] if compared or pairs > REFERENCE_PAIRS else ["reference", "torch", "numba"]
            names += [CPP] if without_cpp is None else []
            times = measure(gaussians, cameras, names, report, options)
            for name, each in times.items():
                table.add(*label, name, each.forward, each.both, each.peak_mb)
            both = {name: each.both for name, each in times.items()}
            ratios = [ratio(both[slow], both[fast]) if {slow, fast} <= both.keys() else None for slow, fast in COMPARED]
            compared.append((*label, *ratios))
        if without_cpp is not None:
            table.note(f"{without_cpp[0].upper()}{without_cpp[1:]}.")
        if not options.garden.is_file():
            table.note("Real points are left out: --garden names their file, test_garden.npz.")
        slower = report.table(
            "Splatting: times slower, forward + backward", *head, *(f"{slow} : {fast}" for slow, fast in COMPARED)
        )
        for row in compared:
            slower.add(*row)


if __name__ == "__main__":
    main()
