"""From a field that can be asked anywhere to a triangle mesh; and what one then asks of meshes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from latent3d.optional import require
from latent3d.rendering.flexicubes import extract_surface
from latent3d.representations.mesh import Mesh
from latent3d.representations.sdf_grid import SdfGrid

Field = Callable[[Tensor], Tensor]
"""Points (N, 3) in scene units -> one value (N,) or colour (N, 3) each."""


@torch.no_grad()
def field_to_mesh(
    density: Field,
    half_size: float,
    *,
    resolution: int = 128,
    threshold: float,
    colors: Field | None = None,
    coarse: int = 4,
    margin: int = 1,
    chunk: int = 1 << 18,
    min_share: float = 0.0,
    faces: int | None = None,
    device: torch.device | str = "cpu",
) -> Mesh:
    """Closed surface around where a field exceeds a threshold, in the box [-half_size, half_size]^3.

    First every ``coarse``-th point of the grid is asked; then all points of those coarse cells in which the surface was
    met or which lie within ``margin`` cells of one; then, as often as needed, those of further cells that it runs into.
    So each piece of surface that is met at all is complete. Missed is only a piece that is separate and holds no coarse
    point: never one into which a cube of the side of a coarse cell fits along the axes. Where the inside reaches the
    border of the box it is cut off flat. The vertices are those of `extract_surface` without weights.

    Args:
        density: larger inside; for a signed distance that is negative inside, its negative with threshold 0.
        resolution: cells along each side of the box.
        threshold: level of the surface.
        colors: sRGB in [0, 1], asked at the vertices.
        coarse: side of a coarse cell in cells; 1 asks everywhere.
        margin: how many coarse cells around those of the surface are asked as well.
        chunk: largest number of points in one call.
        min_share: leave out pieces with less than this share of the whole area, see `large_components`.
        faces: simplify to about so many faces, see `simplified`.
        device: where the field is asked.

    Raises:
        ValueError: for a resolution that is no multiple of ``coarse``, for a field that is not finite, and if nothing
            lies inside.
        MissingPackageError: with ``faces``, without the package that simplifies.
    """
    if coarse < 1 or resolution < coarse or resolution % coarse:
        raise ValueError(f"the resolution {resolution} is no multiple of the coarse step {coarse}; change one of them")
    values = threshold - _sparse_samples(density, half_size, resolution, threshold, coarse, margin, chunk, device)
    grid = SdfGrid(values, half_size).closed()
    if not (grid.values < 0).any():  # on the border of the box alone there is no surface either
        raise ValueError(
            f"the field nowhere exceeds the threshold {threshold:g}: the largest value met is "
            f"{threshold - grid.values.min():g}; lower the threshold"
        )
    mesh = extract_surface(grid).mesh
    if min_share > 0:
        mesh = large_components(mesh, min_share)
    if faces is not None:
        mesh = simplified(mesh, faces)
    if colors is None:
        return mesh
    return replace(mesh, colors=_in_chunks(colors, mesh.vertices, chunk).clamp(0, 1))


def _in_chunks(field: Field, points: Tensor, chunk: int) -> Tensor:
    return torch.cat([field(part).float() for part in points.split(chunk)])


def _sparse_samples(
    density: Field,
    half_size: float,
    resolution: int,
    threshold: float,
    coarse: int,
    margin: int,
    chunk: int,
    device: torch.device | str,
) -> Float[Tensor, "m m m"]:
    """The field on the grid: asked near its surface, interpolated between coarse points elsewhere."""

    def ask(index: Tensor) -> Tensor:
        found = _in_chunks(density, index * (2 * half_size / resolution) - half_size, chunk)
        if not found.isfinite().all():
            raise ValueError("the field is not finite everywhere in the box; its network has likely diverged")
        return found

    sides = resolution // coarse + 1
    step = torch.arange(0, resolution + 1, coarse, device=device)
    every = ask(torch.cartesian_prod(step, step, step)).reshape(sides, sides, sides)
    if coarse == 1:
        return every
    active = _mixed(every > threshold, 1)
    for _ in range(margin):
        active = F.max_pool3d(active[None].float(), 3, 1, 1)[0] > 0
    values = F.interpolate(every[None, None], size=(resolution + 1,) * 3, mode="trilinear", align_corners=True)[0, 0]
    known = torch.zeros_like(values, dtype=torch.bool)
    values[::coarse, ::coarse, ::coarse], known[::coarse, ::coarse, ::coarse] = every, True
    within = torch.cartesian_prod(*[torch.arange(coarse + 1, device=device)] * 3)
    fresh = active
    while fresh.any():
        index = (torch.nonzero(fresh)[:, None] * coarse + within).reshape(-1, 3)
        todo = torch.zeros_like(known).index_put_(tuple(index.T), torch.tensor(True, device=device)) & ~known
        values[todo] = ask(torch.nonzero(todo))
        known |= todo
        fresh = _mixed(values > threshold, coarse) & ~active
        active = active | fresh
    return values


def _mixed(inside: Bool[Tensor, "m m m"], side: int) -> Bool[Tensor, "n n n"]:
    """Cells of ``side`` steps that hold points inside and points outside, their borders included."""
    some, others = (F.max_pool3d(part[None].float(), side + 1, side)[0] > 0 for part in (inside, ~inside))
    return some & others


def is_watertight(mesh: Mesh) -> bool:
    """Whether the mesh has faces, and every side of a face is shared with exactly one other, which runs along it the
    other way: closed, and with all normals on the same side."""
    faces = mesh.faces
    sides = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    if not len(sides) or (sides[:, 0] == sides[:, 1]).any():
        return False
    count = int(faces.max()) + 1
    there = torch.sort(sides[:, 0] * count + sides[:, 1]).values
    back = torch.sort(sides[:, 1] * count + sides[:, 0]).values
    return bool((there[1:] != there[:-1]).all() and (there == back).all())


def with_faces(mesh: Mesh, keep: Bool[Tensor, " f"]) -> Mesh:
    """Some of the faces, and the vertices that they use."""
    used, faces = torch.unique(mesh.faces[keep], return_inverse=True)
    return Mesh(
        vertices=mesh.vertices[used],
        faces=faces.reshape(-1, 3),
        colors=None if mesh.colors is None else mesh.colors[used],
        uvs=None if mesh.uvs is None else mesh.uvs[keep],
        texture=mesh.texture,
        normals=None if mesh.normals is None else mesh.normals[keep],
    )


def large_components(mesh: Mesh, min_share: float) -> Mesh:
    """Without the connected pieces of less than ``min_share`` of the whole area; the largest one always stays."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    faces = mesh.faces.cpu().numpy()
    links = np.concatenate([faces[:, :2], faces[:, 1:]])
    size = len(mesh.vertices)
    graph = coo_array((np.ones(len(links), bool), (links[:, 0], links[:, 1])), shape=(size, size))
    piece = torch.from_numpy(connected_components(graph, directed=False)[1].astype(np.int64))[mesh.faces[:, 0].cpu()]
    a, b, c = mesh.corners().detach().double().cpu().unbind(1)
    area = torch.bincount(piece, torch.linalg.cross(b - a, c - a, dim=-1).norm(dim=-1) / 2)
    keep = area >= min(min_share * float(area.sum()), float(area.max()))
    return with_faces(mesh, keep[piece].to(mesh.faces.device))


def simplified(mesh: Mesh, faces: int) -> Mesh:
    """About ``faces`` faces of nearly the same shape, by contraction of edges in order of the quadric error (Garland
    and Heckbert 1997). Vertices take the colour of the nearest one before. Closed meshes mostly stay closed.

    Raises:
        ValueError: for a mesh with a texture (bake it afterwards), or less than four faces asked for.
        MissingPackageError: without the package fast-simplification.
    """
    from scipy.spatial import cKDTree

    if mesh.texture is not None or mesh.uvs is not None:
        raise ValueError("simplify the mesh before its texture is baked: texture coordinates would be lost")
    if faces < 4:
        raise ValueError(f"a closed mesh has at least 4 faces, {faces} were asked for")
    simplify = require("fast_simplification").simplify
    if len(mesh) <= faces:
        return mesh
    before = mesh.vertices.detach().cpu().numpy()
    points, triangles = simplify(before.astype(np.float32), mesh.faces.cpu().int().numpy(), 1 - faces / len(mesh))
    device = mesh.vertices.device
    colors = None
    if mesh.colors is not None:
        colors = mesh.colors[torch.from_numpy(cKDTree(before).query(points)[1]).to(device)]
    whole = (triangles != np.roll(triangles, 1, 1)).all(1)
    fewer = Mesh(
        torch.from_numpy(points).to(mesh.vertices), torch.from_numpy(triangles.astype(np.int64)).to(device), colors
    )
    return with_faces(fewer, torch.from_numpy(whole).to(device))
