"""Speed of tri-plane sampling and volume rendering on the CPU, as Markdown tables.

    python bench/volume.py [--threads 2] [--clock wall]

Training: forward + backward of 8 objects x 512 rays x 24 samples, planes of 16 channels and 64x64 pixels, one hidden
layer of 64: the sampling alone for every back end, then whole rays. Inference: one view of 128x128 pixels with 64 + 64
samples, planes of 32 channels and 128x128 pixels, of an object that fills a sixth of the picture; beside the time, the
largest difference of a colour to the complete renderer in fp32. Times are medians after one call that may compile; on a
machine that has other work, ``--clock cpu --threads 1`` counts processor time instead.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.nn.triplane_field import TriPlaneField, TriPlaneFieldConfig
from latent3d.rendering.occupancy import Occupancy
from latent3d.rendering.triplane_sampling import Backend, TriPlaneRows, sample_triplane
from latent3d.rendering.volume import Field, VolumeConfig, render_rays, render_volume

HALF_SIZE = 0.45
BACKENDS: tuple[Backend, ...] = ("grid_sample", "gather", "numba")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Stopwatch:
    """Median milliseconds of calls."""

    def __init__(self, clock: str, rounds: int) -> None:
        self.now, self.rounds = CLOCKS[clock], rounds

    def __call__(self, call: Callable[[], object]) -> float:
        call()
        times = []
        for _ in range(self.rounds):
            start = self.now()
            call()
            times.append(1e3 * (self.now() - start))
        return statistics.median(times)


def field_of(planes: Tensor | TriPlaneRows, network: TriPlaneField, backend: Backend = "auto") -> Field:
    """Planes and network as a function of points."""

    def field(points: Tensor) -> tuple[Tensor, Tensor]:
        values = network(sample_triplane(planes, points, HALF_SIZE, backend=backend))
        return values.density, values.colors

    return field


def object_like(channels: int = 32, size: int = 128) -> tuple[Tensor, TriPlaneField]:
    """Planes (1, 3, C, S, S) and a network that make a coloured ball with an uneven surface, opaque, in empty space.

    The first channel holds (u^2 + v^2) 3/2, whose mean over the planes is the squared distance to the middle.
    """
    torch.manual_seed(0)
    place = (torch.arange(size) + 0.5) / size * 2 - 1
    coarse = torch.randn(3, channels, 8, 8)
    planes = 0.1 * F.interpolate(coarse, size=(size, size), mode="bicubic")
    planes[:, 0] = 1.5 * (place[:, None] ** 2 + place**2)
    network = TriPlaneFieldConfig(features=channels).build()
    first, last = network.layers
    with torch.no_grad():
        for unit, sign in ((0, -1.0), (1, 1.0)):  # the difference of two softplus units is linear
            first.weight[unit] = sign * 15.0
            first.weight[unit, 0] = sign * 200.0
            first.bias[unit] = -sign * 200.0 * 0.42
            last.weight[0, unit] = -sign
        last.weight[1:, :2] = 0
        last.weight[1:] *= 4
    return planes[None], network


def training_table(watch: Stopwatch) -> None:
    """Print what the training step pays for."""
    objects, count, channels = 8, 512, 16
    planes = torch.randn(objects, 3, channels, 64, 64, requires_grad=True)
    origins = 1.9 * F.normalize(torch.randn(objects, count, 3), dim=-1)
    directions = F.normalize(0.2 * torch.randn(objects, count, 3) - origins, dim=-1)
    points = (torch.rand(objects, count * 24, 3) * 2 - 1) * HALF_SIZE
    network = TriPlaneFieldConfig(features=channels).build()
    config, generator = VolumeConfig(coarse=12, guided=12), torch.Generator().manual_seed(0)
    guide = torch.full((objects, count), 1.7)

    def sample(backend: Backend) -> None:
        sample_triplane(planes, points, HALF_SIZE, backend=backend).sum().backward()
        planes.grad = None

    def rays(backend: Backend, bf16: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext():
            field = field_of(planes, network, backend)
            out = render_rays(field, origins, directions, HALF_SIZE, config, generator=generator, guide=guide)
        (out.rgb.sum() + out.alpha.sum()).backward()
        planes.grad = None

    print("| back end | sampling f, ms | sampling f + b | rays f + b, fp32 | rays f + b, bf16 network |")
    print("|---|---|---|---|---|")
    for backend in BACKENDS:
        with torch.no_grad():
            forward = watch(lambda name=backend: sample_triplane(planes, points, HALF_SIZE, backend=name))
        times = (forward, watch(lambda name=backend: sample(name)), watch(lambda name=backend: rays(name, False)),
                 watch(lambda name=backend: rays(name, True)))  # fmt: skip
        print(f"| {backend} | " + " | ".join(f"{ms:.1f}" for ms in times) + " |", flush=True)


@torch.no_grad()
def inference_table(watch: Stopwatch) -> None:
    """Print what one view costs."""
    planes, network = object_like()
    rows = TriPlaneRows.of(planes)
    pose = torch.eye(4)
    pose[2, 3] = -1.9
    cameras, config = Cameras.from_fov(pose[None, None], 35.0, 128, 128), VolumeConfig()
    fields = {name: field_of(planes if name == "grid_sample" else rows, network, name) for name in BACKENDS}
    fast = fields["numba"]
    occupancy = Occupancy.of(fast, 1, HALF_SIZE)
    expected = render_volume(fields["grid_sample"], cameras, HALF_SIZE, config).rgb

    def line(title: str, call: Callable[[], Tensor]) -> None:
        print(f"| {title} | {watch(call):.0f} | {float((call() - expected).abs().max()):.0e} |", flush=True)

    def half(occupancy: Occupancy | None) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return render_volume(fast, cameras, HALF_SIZE, config, occupancy=occupancy).rgb

    samples = cameras.height * cameras.width * (config.coarse + config.fine)
    flops = 2 * (12 * planes.shape[2] + sum(layer.weight.numel() for layer in network.layers))
    print(f"One view: at most {samples * flops / 1e9:.1f} GFLOP ({samples / 1e6:.1f} M samples of {flops} FLOP).\n")
    print("| renderer | ms | largest difference |\n|---|---|---|")
    for name, field in fields.items():
        line(f"every sample in the box, {name}", lambda f=field: render_volume(f, cameras, HALF_SIZE, config).rgb)
    line("the same, bf16 network", lambda: half(None))
    line(
        "by occupancy, numba",
        lambda: render_volume(fast, cameras, HALF_SIZE, config, occupancy=occupancy).rgb,
    )
    line("the same, bf16 network", lambda: half(occupancy))
    grid = watch(lambda: Occupancy.of(fast, 1, HALF_SIZE))
    share = float(occupancy.cells.float().mean())
    print(f"| the occupancy grid, once per object ({share:.0%} of it occupied) | {grid:.0f} | |")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    watch = Stopwatch(options.clock, options.rounds)
    training_table(watch)
    print()
    inference_table(watch)


if __name__ == "__main__":
    main()
