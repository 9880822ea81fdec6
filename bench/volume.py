"""Speed of tri-plane sampling and volume rendering on the CPU, as tables.

    python bench/volume.py [--rounds 5] [--threads 2] [--clock wall] [--json FILE]

Training: forward + backward of 8 objects x 512 rays x 24 samples, planes of 16 channels and 64x64 pixels, one hidden
layer of 64: the sampling alone for every back end, then whole rays; "fused" does all of a point's field in one compiled
loop (CPU only, always in fp32). Inference: one view of 128x128 pixels with 64 + 64
samples, planes of 32 channels and 128x128 pixels, of an object that fills a sixth of the picture; beside the time, the
largest difference of a colour to the complete renderer in fp32. The first calls, which may compile, are not counted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from tables import Report, bench_parser, interleaved
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.nn.triplane_field import TriPlaneField, TriPlaneFieldConfig
from latent3d.rendering.occupancy import Occupancy
from latent3d.rendering.triplane_radiance import TriPlaneRadiance
from latent3d.rendering.triplane_sampling import Backend, TriPlaneRows, sample_triplane
from latent3d.rendering.volume import Field, VolumeConfig, render_rays, render_volume

HALF_SIZE = 0.45
BACKENDS: tuple[Backend, ...] = ("grid_sample", "gather", "numba")


def field_of(planes: Tensor | TriPlaneRows, network: TriPlaneField, backend: Backend = "auto") -> Field:
    """Planes and network as a function of points."""

    def field(points: Tensor) -> tuple[Tensor, Tensor]:
        values = network(sample_triplane(planes, points, HALF_SIZE, backend=backend))
        return values.density, values.colors

    return field


def fused_field(planes: Tensor, network: TriPlaneField) -> TriPlaneRadiance:
    """The same as `field_of`, as one whole."""
    return TriPlaneRadiance(TriPlaneRows.of(planes), HALF_SIZE, network)


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


def backends(device: str) -> tuple[Backend, ...]:
    """Those of a device."""
    return BACKENDS if device == "cpu" else tuple(name for name in BACKENDS if name != "numba")


def training_table(report: Report, rounds: int, device: str = "cpu") -> None:
    """What the training step pays for."""
    objects, count, channels = 8, 512, 16
    planes = torch.randn(objects, 3, channels, 64, 64).to(device).requires_grad_()
    origins = 1.9 * F.normalize(torch.randn(objects, count, 3), dim=-1).to(device)
    directions = F.normalize(0.2 * torch.randn(objects, count, 3).to(device) - origins, dim=-1)
    points = (torch.rand(objects, count * 24, 3).to(device) * 2 - 1) * HALF_SIZE
    network = TriPlaneFieldConfig(features=channels).build().to(device)
    config, generator = VolumeConfig(coarse=12, guided=12), torch.Generator(device).manual_seed(0)
    guide = torch.full((objects, count), 1.7, device=device)

    @torch.no_grad()
    def forward(backend: Backend) -> None:
        sample_triplane(planes, points, HALF_SIZE, backend=backend)

    def sample(backend: Backend) -> None:
        sample_triplane(planes, points, HALF_SIZE, backend=backend).sum().backward()
        planes.grad = None

    def rays(backend: Backend | None, bf16: bool = False) -> None:
        with torch.autocast(device, torch.bfloat16) if bf16 else contextlib.nullcontext():
            field = field_of(planes, network, backend) if backend else fused_field(planes, network)
            out = render_rays(field, origins, directions, HALF_SIZE, config, generator=generator, guide=guide)
        (out.rgb.sum() + out.alpha.sum()).backward()
        planes.grad = None

    calls: dict[tuple[str, str], Callable[[], None]] = (
        {("fused", "rays"): lambda: rays(None)} if device == "cpu" else {}
    )
    for backend in backends(device):
        calls |= {
            (backend, "forward"): lambda name=backend: forward(name),
            (backend, "both"): lambda name=backend: sample(name),
            (backend, "rays"): lambda name=backend: rays(name),
            (backend, "bf16"): lambda name=backend: rays(name, True),
        }
    times = interleaved(calls, report.clock, rounds=rounds)
    columns = ("back end", "sampling f, ms", "sampling f + b", "rays f + b, fp32", "rays f + b, bf16 network")
    table = report.table("Tri-planes: training, 8 x 512 rays x 24 samples", *columns)
    for name in dict.fromkeys(name for name, _ in [*((each, "") for each in backends(device)), *calls]):
        table.add(name, *(times.get((name, what)) for what in ("forward", "both", "rays", "bf16")))


@torch.no_grad()
def inference_table(report: Report, rounds: int, device: str = "cpu") -> None:
    """What one view costs."""
    planes, network = (each.to(device) for each in object_like())
    rows = TriPlaneRows.of(planes)
    pose = torch.eye(4, device=device)
    pose[2, 3] = -1.9
    cameras, config = Cameras.from_fov(pose[None, None], 35.0, 128, 128), VolumeConfig()
    fields = {name: field_of(planes if name == "grid_sample" else rows, network, name) for name in backends(device)}
    name, fast = list(fields.items())[-1]
    grid = Occupancy.of(fast, 1, HALF_SIZE, device=device)

    def view(field: Field, occupancy: Occupancy | None = None, bf16: bool = False) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            return render_volume(field, cameras, HALF_SIZE, config, occupancy=occupancy).rgb

    calls = {f"every sample in the box, {name}": lambda f=field: view(f) for name, field in fields.items()} | {
        f"every sample in the box, {name}, bf16 network": lambda: view(fast, bf16=True),
        f"by occupancy, {name}": lambda: view(fast, grid),
        f"by occupancy, {name}, bf16 network": lambda: view(fast, grid, bf16=True),
    }
    grids: dict[str, Field] = {"the occupancy grid, once per object": fast}
    if device == "cpu":
        fused = fused_field(planes, network)
        calls |= {
            "every sample in the box, fused": lambda: view(fused),
            "by occupancy, fused": lambda: view(fused, grid),
        }
        grids["the occupancy grid, fused"] = fused
    expected = view(fields["grid_sample"])
    errors = {name: float((call() - expected).abs().max()) for name, call in calls.items()}
    builds = {title: lambda f=field: Occupancy.of(f, 1, HALF_SIZE, device=device) for title, field in grids.items()}
    times = interleaved(calls | builds, report.clock, rounds=rounds)
    table = report.table("Tri-planes: one view of 128x128", "renderer", "ms", "largest difference")
    for name, values in times.items():
        table.add(name, values, errors.get(name))
    samples = cameras.height * cameras.width * (config.coarse + config.fine)
    flops = 2 * (12 * planes.shape[2] + sum(layer.weight.numel() for layer in network.layers))
    table.note(
        f"At most {samples * flops / 1e9:.1f} GFLOP ({samples / 1e6:.1f} M samples of {flops} FLOP); "
        f"{float(grid.cells.float().mean()):.0%} of the grid is occupied."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = bench_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    with Report("Tri-planes", options) as report:
        training_table(report, options.rounds)
        inference_table(report, options.rounds)


if __name__ == "__main__":
    main()
