"""How cost grows: with splats, pixels, channels and views of the rasteriser, and with frames of the video denoiser.

    python bench/scaling.py [--picture FILE] [--seconds 1] [--threads 2] [--clock wall] [--json FILE]

Forward + backward of the fastest back end: a cloud of 16,384 splats in one view of 128 x 128 pixels with 3 channels, of
which one number changes; and one call of the denoisers of `ggs_rooms` without gradients. The exponent p of
cost ~ size^p is fitted to the larger half of the sizes, since at the small ones fixed costs hide it. --picture needs
matplotlib: pip install 'latent3d[bench]'.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tables import PAUSE, Report, bench_parser, interleaved

from latent3d.geometry.cameras import Cameras
from latent3d.presets import ggs_rooms
from latent3d.rendering.splats import render_gaussians
from latent3d.representations.gaussians import Gaussians
from latent3d.systems.ggs import GGSConfig

SPLATS, SIDE, CHANNELS, VIEWS = 16_384, 128, 3, 1
FIELD_OF_VIEW, DISTANCE = 50.0, 3.2
Call = Callable[[], None]


@dataclass(frozen=True)
class Axis:
    """What is made larger, and what is called at a size.

    Attributes:
        lines: name of each curve, and the function that prepares its call at a size.
    """

    name: str
    sizes: tuple[int, ...]
    lines: dict[str, Callable[[int], Call]]


@dataclass(frozen=True)
class Curve:
    """Milliseconds (median) at every size, and the exponent at the large end."""

    axis: str
    name: str
    sizes: tuple[int, ...]
    ms: tuple[float, ...]

    @property
    def exponent(self) -> float:
        """See `fitted_exponent`."""
        return fitted_exponent(self.sizes, self.ms)


def fitted_exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """p of the least squares fit log cost = p log size + q to the larger half of the sizes, and to three at least.

    Raises:
        ValueError: for fewer than three sizes, or a cost that is not positive.
    """
    if len(sizes) < 3 or len(sizes) != len(costs) or min(costs) <= 0:
        raise ValueError(f"an exponent needs three sizes with positive costs; got {len(sizes)} and {list(costs)}")
    kept = sorted(zip(sizes, costs, strict=True))[-max(3, math.ceil(len(sizes) / 2)) :]
    x, y = ([math.log(value) for value in values] for values in zip(*kept, strict=True))
    mean_x, mean_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    slope = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return slope / math.fsum((a - mean_x) ** 2 for a in x)


def splatting(splats: int = SPLATS, pixels: int = SIDE**2, channels: int = CHANNELS, views: int = VIEWS) -> Call:
    """Forward + backward of a random cloud in a cube; its splats stay as large when pixels are added."""
    g = torch.Generator().manual_seed(0)
    side = math.isqrt(pixels)
    pixel = 2 * DISTANCE * math.tan(math.radians(FIELD_OF_VIEW / 2)) / SIDE
    gaussians = Gaussians(
        means=torch.rand(splats, 3, generator=g) * 2 - 1,
        quaternions=torch.randn(splats, 4, generator=g),
        scales=pixel * torch.exp(0.4 * torch.randn(splats, 3, generator=g)),
        opacities=torch.sigmoid(1.5 * torch.randn(splats, generator=g)),
        features=torch.randn(splats, channels, generator=g),
    )
    angles = torch.arange(views) * (2 * math.pi / views)
    c2w = torch.eye(4).repeat(views, 1, 1)
    c2w[:, 0, 0], c2w[:, 0, 2], c2w[:, 2, 0], c2w[:, 2, 2] = angles.cos(), -angles.sin(), angles.sin(), angles.cos()
    c2w[:, :3, 3] = -DISTANCE * c2w[:, :3, 2]
    cameras = Cameras.from_fov(c2w, FIELD_OF_VIEW, side, side)
    names = ("means", "quaternions", "scales", "opacities", "features")
    leaves = {name: getattr(gaussians, name).requires_grad_() for name in names}
    gaussians = replace(gaussians, **leaves)
    incoming = [torch.randn(views, count, side, side, generator=g) for count in (channels, 1, 1)]

    def call() -> None:
        out = render_gaussians(gaussians, cameras)
        assert out.features is not None
        torch.autograd.grad([out.features, out.depth, out.alpha], list(leaves.values()), incoming)

    return call


def denoising(name: str, frames: int) -> Call:
    """One call of a denoiser of `ggs_rooms` for one scene, as in sampling."""
    system = ggs_rooms(name).system
    assert isinstance(system, GGSConfig)
    torch.manual_seed(0)
    network = system.denoiser.build().eval()
    side = system.height // 8
    shape = (1, frames, system.vae.latent_channels, side, side)
    noisy, references, levels = torch.randn(shape), torch.randn(shape), torch.zeros(1, frames)
    rays = torch.randn(1, frames, 6, system.height, system.width)
    condition = torch.randn(1, frames, system.denoiser.condition_channels, side, side)

    def call() -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            network.velocity(network(noisy, references, levels, rays, condition=condition))

    return call


def axes() -> tuple[Axis, ...]:
    """All of them, each with sizes a factor of 2 or 4 apart."""
    quadruple = tuple(4**power for power in range(5, 10))
    denoisers = {
        "multi-view transformer": lambda frames: denoising("transformer", frames),
        "video U-Net": lambda frames: denoising("unet", frames),
    }
    return (
        Axis("splats", quadruple, {"splatting": lambda n: splatting(splats=n)}),
        Axis("pixels", (32**2, 64**2, 128**2, 256**2, 512**2, 1024**2), {"splatting": lambda n: splatting(pixels=n)}),
        Axis("channels", (1, 4, 16, 64, 256), {"splatting": lambda n: splatting(channels=n)}),
        Axis("views", (1, 2, 4, 8, 16, 32), {"splatting": lambda n: splatting(views=n)}),
        Axis("frames", (2, 4, 8, 16, 32), denoisers),
    )


def measure(report: Report, axis: Axis, seconds: float) -> list[Curve]:
    """A table of milliseconds by size, with the exponents; every size takes ``seconds``, and three calls at least."""
    table = report.table(f"Cost by number of {axis.name}", axis.name, *(f"{name}, ms" for name in axis.lines))
    medians: dict[str, list[float]] = {name: [] for name in axis.lines}
    for size in axis.sizes:
        calls = {name: prepare(size) for name, prepare in axis.lines.items()}
        times = interleaved(calls, report.clock, rounds=15, seconds=seconds, pause=PAUSE)
        table.add(size, *times.values())
        for name, values in times.items():
            medians[name].append(statistics.median(values))
    curves = [Curve(axis.name, name, axis.sizes, tuple(values)) for name, values in medians.items()]
    table.note(
        "Cost grows as "
        + ", ".join(f"{axis.name}^{curve.exponent:.2f} ({curve.name})" for curve in curves)
        + ", fitted to the larger sizes."
    )
    return curves


def short(size: int) -> str:
    """1024 as 1k."""
    for unit, letter in ((2**20, "M"), (2**10, "k")):
        if size >= unit:
            return f"{size / unit:g}{letter}"
    return str(size)


def draw(curves: Sequence[Curve], path: Path, title: str) -> None:
    """A panel per axis, logarithmic in both directions, with a line of slope 1 for comparison.

    Raises:
        SystemExit: without matplotlib.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise SystemExit("the picture needs matplotlib; add it with: pip install 'latent3d[bench]'") from error
    matplotlib.use("agg")
    from matplotlib import pyplot, ticker

    names = list(dict.fromkeys(curve.axis for curve in curves))
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure, panels = pyplot.subplots(rows, columns, figsize=(3.7 * columns, 3.0 * rows), squeeze=False)
    for panel, name in zip(panels.flat, names, strict=False):
        shown = [curve for curve in curves if curve.axis == name]
        for curve in shown:
            panel.loglog(
                curve.sizes, curve.ms, "o-", ms=4, lw=1.5, label=f"{curve.name}: {name}$^{{{curve.exponent:.2f}}}$"
            )
        sizes, last = shown[0].sizes, shown[0].ms[-1]
        panel.loglog(sizes, [last * size / sizes[-1] for size in sizes], ":", color="0.6", lw=1, label="slope 1")
        panel.set(xlabel=name, ylabel="ms")
        panel.set_ylim(min(min(curve.ms) for curve in shown) / 3, max(max(curve.ms) for curve in shown) * 1.6)
        panel.set_xticks(sizes, [short(size) for size in sizes])
        panel.yaxis.set_major_locator(
            ticker.LogLocator(subs=(1, 2, 5) if max(shown[0].ms) < 200 * min(shown[0].ms) else (1,))
        )
        panel.yaxis.set_major_formatter(ticker.FuncFormatter(lambda ms, _: f"{ms:g}"))
        panel.minorticks_off()
        panel.tick_params(labelsize=8)
        panel.grid(True, which="major", lw=0.4, color="0.88")
        panel.legend(fontsize=7.5, frameon=False, loc="lower right")
    for panel in panels.flat[len(names) :]:
        panel.axis("off")
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and draw."""
    chosen = axes()
    parser = bench_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="per size, after which no round is started")
    parser.add_argument("--picture", type=Path, help="PNG to draw the curves into")
    parser.add_argument("--only", nargs="+", choices=[axis.name for axis in chosen], help="some of the axes")
    options = parser.parse_args(arguments)
    curves: list[Curve] = []
    with Report("How cost grows", options) as report:
        for axis in chosen:
            if options.only is None or axis.name in options.only:
                curves += measure(report, axis, options.seconds)
                if options.picture is not None:
                    about = f"{report.machine['processor']}, threads: {options.threads}"
                    draw(curves, options.picture, f"Milliseconds, {about}")


if __name__ == "__main__":
    main()
