"""Speed, memory and error of the splatting back ends on an NVIDIA GPU, beside what the device can do, as tables.

    python bench/gpu_rasteriser.py [--json FILE] [--contest whole] [--case 4096,64,3,4 ...] [--garden FILE]

Two contests per scene. *The whole call* starts from splats in space: the Triton back end in each precision, and as one
CUDA graph; the tiled PyTorch twin; gsplat where it is installed. *Blending* starts from splats on the screen, for the
comparison with gsplat's per-pixel scheme (`gpu_per_pixel`), so that only what differs is compared. Forward is without
gradients, forward + backward with gradients to everything that the contest starts from, from features, depth and alpha.
Everything takes its turn in every round, timed by CUDA events; what compiles is not counted.

Errors are relative, |found - true| / |true| in the Euclidean norm, the largest of features, depth and alpha, and of all
gradients; the truth is the PyTorch twin in float64 (in float32 where memory ends, which the table says). Bytes are the
least that must move: splats and pictures, each read or written once per pass. FLOP are those of the products of
channels with weights on tiles of 8 x 8, 128 per channel and splat that a tile blends, three times for forward +
backward: what the matrix scheme computes; gsplat's computes fewer, the pairs that contribute.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from gpu_contests import GRAPH, Contest, Renderer, Work, blending, on_screen, whole_call, work
from gpu_timing import CLOCK, describe_gpu, gpu_parser, limits, need_gpu, peak_mb
from rasteriser import GARDEN, Case, cloud, garden
from tables import Cell, Report, Table, interleaved, ratio
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.representations.gaussians import Gaussians

SIZES = (("4096,64", 4), ("16384,128", 4), ("65536,256", 1), ("100000,512", 1), ("500000,1920x1080", 1))
CHANNELS = (128, 320, 3, 32)
CASES = tuple(Case.parse(f"{size},{count},{views}") for size, views in SIZES for count in CHANNELS)
BASELINES = ("gsplat", "per-pixel", "torch")
"""What speed is compared with, if it takes part: the first that does."""
CONTESTS = {"whole": "the whole call", "blending": "blending of splats on the screen"}
HEAD = ("scene", "splats", "image", "channels", "views")
COLUMNS = (
    *("renderer", "forward, ms", "forward + backward, ms", "GB/s, f + b", "TFLOP/s, f + b"),
    *("times as fast, forward", "times as fast, forward + backward", "error", "error of gradients", "peak, MB"),
)


@dataclass
class Result:
    """Milliseconds per round, errors and memory of one renderer; what prevented it, if anything did."""

    forward: list[float] | None = None
    both: list[float] | None = None
    error: float | None = None
    gradient_error: float | None = None
    peak_mb: float | None = None
    obstacle: str | None = None


def incoming(pictures: Sequence[Tensor]) -> list[Tensor]:
    """Fixed random gradients of features, depth and alpha."""
    g = torch.Generator(pictures[0].device).manual_seed(1)
    return [torch.randn(t.shape, generator=g, device=t.device).to(t.dtype) for t in pictures]


def values(render: Renderer, leaves: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Pictures and gradients."""
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    pictures = render(leaves)
    gradients = torch.autograd.grad(pictures, leaves, incoming(pictures))
    return [picture.detach() for picture in pictures], list(gradients)


def truth_of(contest: Contest) -> tuple[str, tuple[list[Tensor], list[Tensor]]]:
    """Pictures and gradients in float64, or in float32 where memory ends."""
    try:
        return "float64", values(contest.truth, [leaf.double() for leaf in contest.leaves])
    except torch.OutOfMemoryError:
        release()
        return "float32", values(contest.truth, contest.leaves)


def relative_error(found: Sequence[Tensor], truth: Sequence[Tensor]) -> float:
    """Largest of the tensors' |found - true| / |true|, in the Euclidean norm."""
    pairs = [(f.double(), t.double()) for f, t in zip(found, truth, strict=True)]
    return max(float((f - t).norm() / t.norm().clamp_min(1e-30)) for f, t in pairs)


def release() -> None:
    """Give memory back between renderers."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def captured(call: Callable[[], object]) -> Callable[[], object]:
    """The same work as a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def passes(
    render: Renderer, leaves: Sequence[Tensor], gradients: Sequence[Tensor]
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Forward, and forward + backward from the gradients of the pictures."""
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]

    def forward() -> None:
        with torch.no_grad():
            render(leaves)

    def both() -> None:
        torch.autograd.grad(render(leaves), leaves, gradients)

    return forward, both


def prepare(
    contest: Contest, name: str, truth: tuple[list[Tensor], list[Tensor]], gradients: Sequence[Tensor], device: str
) -> tuple[Result, Callable[[], object], Callable[[], object]]:
    """A renderer's result so far, with errors and memory, and its two passes."""
    render, result = contest.renderers[name], Result()
    found = values(render, contest.leaves)
    result.error, result.gradient_error = (relative_error(f, t) for f, t in zip(found, truth, strict=True))
    del found
    forward, both = passes(render, contest.leaves, gradients)
    result.peak_mb = peak_mb(both, device)
    if name == GRAPH and device != "cpu":
        forward, both = captured(forward), captured(both)
    return result, forward, both


def compete(
    contest: Contest, report: Report, rounds: int, seconds: float, device: str
) -> tuple[str, dict[str, Result]]:
    """The dtype of the truth, and errors, memory and times of all renderers; what fails is named and left out."""
    results: dict[str, Result] = {}
    dtype, truth = truth_of(contest)
    gradients = [gradient.float() for gradient in incoming(truth[0])]
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    for name in contest.renderers:
        try:
            results[name], calls[name, "forward"], calls[name, "both"] = prepare(
                contest, name, truth, gradients, device
            )
        except Exception as error:  # memory, compiler, driver: the table says what and goes on with the others
            lines = str(error).strip().splitlines()
            results[name] = Result(obstacle=f"{type(error).__name__}: {lines[0] if lines else 'no message'}")
        release()
    del truth
    release()
    times = interleaved(calls, report.clock, rounds=rounds, seconds=seconds)
    for (name, which), milliseconds in times.items():
        setattr(results[name], which, milliseconds)
    return dtype, results


def add_rows(table: Table, label: Sequence[Cell], results: dict[str, Result], done: Work, truth: str) -> None:
    """A row per renderer, with speed relative to the first of `BASELINES` that was timed."""
    baseline = next((name for name in BASELINES if name in results and results[name].both is not None), "nothing")
    for name, result in results.items():
        if result.forward is None or result.both is None:
            table.add(*label, f"{name}: {result.obstacle}", *[None] * (len(COLUMNS) - 1))
            continue
        against = results[baseline] if baseline != name else Result()
        rates = [[scale / ms for ms in result.both] for scale in (done.bytes / 1e6, done.flop / 1e9)]
        faster = [
            None if slow is None else ratio(slow, fast)
            for slow, fast in ((against.forward, result.forward), (against.both, result.both))
        ]
        table.add(
            *label, name, result.forward, result.both, *rates, *faster, result.error, result.gradient_error,
            result.peak_mb,
        )  # fmt: skip
    table.note(
        f"{', '.join(map(str, label))}: compared with {baseline}, truth in {truth}; {done.entries} "
        f"pairs of splat and tile, {done.blended} of them blended, "
        f"{done.pairs / 1e6:.2f} M pairs of splat and pixel contribute."
    )


def scenes(options: argparse.Namespace) -> Iterator[tuple[str, Gaussians, Cameras]]:
    """Kind, splats and cameras of everything to render, made one after the other."""
    for case in CASES if options.case is None else map(Case.parse, options.case):
        yield "cloud", *cloud(case)
    if options.garden.is_file() and options.case is None:
        yield "garden", *garden(options.garden)


def measure(
    report: Report, options: argparse.Namespace, contest: str, device: str = CLOCK, triton: bool = True
) -> None:
    """The table of a contest of `CONTESTS`, a scene at a time."""
    table = report.table(f"Splatting on the GPU: {CONTESTS[contest]}", *HEAD, *COLUMNS)
    for kind, gaussians, cameras in scenes(options):
        gaussians, cameras = gaussians.to(device), cameras.to(device)
        channels, size = cast(Tensor, gaussians.features).shape[1], (cameras.height, cameras.width)
        projected = on_screen(gaussians, cameras)
        done = work(projected, channels, *size)
        if contest == "whole":
            compared = whole_call(gaussians, cameras, done.entries, triton)
        else:
            compared = blending(gaussians, cameras, projected, triton)
        dtype, results = compete(compared, report, options.rounds, options.seconds, device)
        label = (kind, len(gaussians), f"{size[1]}x{size[0]}", channels, len(cameras))
        add_rows(table, label, results, done, dtype)
        del gaussians, cameras, projected, compared
        release()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = gpu_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="most repeats per scene")
    parser.add_argument("--seconds", type=float, default=4.0, help="time per contest after which no round is started")
    parser.add_argument(
        "--case", action="append", help="N,SIDE,C,V or N,WxH,C,V instead of all scenes; may be repeated"
    )
    parser.add_argument("--garden", type=type(GARDEN), default=GARDEN, help="npz file with real points and cameras")
    parser.add_argument("--contest", action="append", choices=CONTESTS, help="one of them only")
    options = parser.parse_args(arguments)
    need_gpu()
    with Report("Splatting on a GPU", options, **describe_gpu()) as report:
        limits(report)
        for contest in options.contest or CONTESTS:
            measure(report, options, contest)


if __name__ == "__main__":
    main()
