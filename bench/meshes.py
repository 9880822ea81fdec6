"""Speed of mesh rendering on the CPU, as a table.

    python bench/meshes.py [--views 16] [--rounds 3] [--threads 2] [--clock wall] [--json FILE] [MESH ...]

Milliseconds per view of 128 x 128 pixels, compilation left out: `rasterize` (one sample per pixel), `render_mesh`
(four, textured and lit) and `render_surface` with its backward pass. The meshes are balls with a texture, and the files
that are given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tables import Report, Table, bench_parser, interleaved

from latent3d.geometry.cameras import Cameras
from latent3d.io.mesh_files import read_mesh
from latent3d.rendering.meshes import rasterize, render_mesh
from latent3d.rendering.soft_meshes import render_surface
from latent3d.representations.mesh import Mesh


def ball(rings: int) -> Mesh:
    """A textured, smooth ball of 4 rings (rings - 1) triangles."""
    sectors = 2 * rings
    v, u = torch.meshgrid(torch.linspace(0, 1, rings + 1), torch.linspace(0, 1, sectors + 1), indexing="ij")
    polar, angle = v * math.pi, u * 2 * math.pi
    unit = torch.stack([polar.sin() * angle.cos(), polar.sin() * angle.sin(), polar.cos()], -1).reshape(-1, 3)
    a = (torch.arange(rings)[:, None] * (sectors + 1) + torch.arange(sectors)).reshape(-1)
    below, above = a + sectors + 1, a
    upper = torch.stack([above, below, above + 1], -1)[sectors:]
    lower = torch.stack([above + 1, below, below + 1], -1)[:-sectors]
    faces = torch.cat([upper, lower])
    uvs = torch.stack([u, v], -1).reshape(-1, 2)[faces]
    texture = torch.rand(3, 512, 512, generator=torch.Generator().manual_seed(0))
    return Mesh(vertices=0.45 * unit, faces=faces, uvs=uvs, texture=texture, normals=unit[faces])


def around(views: int, size: int) -> Cameras:
    """Cameras on a circle of radius 1.6, 20 degrees up, looking at the origin."""
    angle = torch.arange(views) * (2 * math.pi / views)
    lift = torch.full_like(angle, math.radians(20))
    place = 1.6 * torch.stack([lift.cos() * angle.sin(), -lift.cos() * angle.cos(), lift.sin()], -1)
    z = -place / place.norm(dim=-1, keepdim=True)
    x = torch.nn.functional.normalize(torch.linalg.cross(z, z.new_tensor([0.0, 0.0, 1.0]).expand_as(z)), dim=-1)
    c2w = torch.eye(4).repeat(views, 1, 1)
    c2w[:, :3] = torch.stack([x, torch.linalg.cross(z, x), z, place], -1)
    return Cameras.from_fov(c2w, 40.0, size, size)


def measure(table: Table, name: str, mesh: Mesh, cameras: Cameras, clock: str, rounds: int) -> None:
    """Add a row."""

    def both_ways() -> None:
        vertices = mesh.vertices.clone().requires_grad_()
        seen = render_surface(replace(mesh, vertices=vertices), cameras)
        (seen.alpha.sum() + seen.depth.sum() + seen.normals.square().sum()).backward()

    calls = {"raster": lambda: rasterize(mesh, cameras), "picture": lambda: render_mesh(mesh, cameras)}
    times = interleaved(calls | {"both": both_ways}, clock, rounds=rounds)
    views = len(cameras)
    table.add(name, len(mesh), *([value / views for value in values] for values in times.values()))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = bench_parser(__doc__)
    parser.add_argument("files", nargs="*", type=Path, metavar="MESH", help="mesh files to render as well")
    parser.add_argument("--views", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    cameras = around(options.views, 128)
    meshes = {f"ball {rings}": ball(rings) for rings in (10, 36, 150)}
    meshes |= {path.name: read_mesh(path).fitted(0.45) for path in options.files}
    columns = ("mesh", "triangles", "rasterize, ms a view", "render_mesh", "render_surface + backward")
    with Report("Mesh rendering", options) as report:
        table = report.table("Meshes: 128x128 pixels", *columns)
        for name, mesh in meshes.items():
            measure(table, name, mesh, cameras, report.clock, options.rounds)


if __name__ == "__main__":
    main()
