"""Textures for meshes: coordinates for their faces, and the colours of a field on their surface.

Lengths are in texels; the centre of the first texel is (0.5, 0.5), as of the first pixel of a picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from latent3d.optional import require
from latent3d.representations.mesh import Mesh

GUTTER = 1.5
"""Texels this near to a face show it: all those that bilinear lookup on the face can reach (at most sqrt(2) away)."""
LEAST_TILE = 5
"""Side of the smallest tile: a leg of one texel and the four that keep its neighbours out."""
CANDIDATES = 1 << 20
"""Pairs of face and texel that are looked at together."""


@torch.no_grad()
def bake_texture(
    mesh: Mesh,
    color: Callable[[Tensor, Tensor], Tensor],
    *,
    size: int = 1024,
    unwrap: Literal["charts", "triangles"] = "charts",
    chunk: int = 1 << 18,
) -> Mesh:
    """The mesh with a texture that shows a colour function on its surface, and without colours of vertices.

    Texels that no lookup on a face needs take the colour of the nearest one that does, so that coarser levels of detail
    do not bleed either.

    Args:
        color: points on the surface (N, 3) in scene units and unit normals there (N, 3) -> sRGB in [0, 1], (N, 3).
        size: side of the square texture.
        unwrap: ``charts``: few large pieces, by the package xatlas; the time grows steeply with the number of faces, so
            simplify large meshes before. ``triangles``: each face by itself, see `unwrap_triangles`, which needs
            nothing and is fast, but wastes texture and shows nothing sensible to people who edit it.
        chunk: largest number of points in one call.

    Raises:
        ValueError: for a mesh without faces, and for more faces than the texture has room for.
        MissingPackageError: for charts, without the package xatlas.
    """
    if not len(mesh):
        raise ValueError("the mesh has no faces to bake a texture for")
    uvs = {"charts": unwrap_charts, "triangles": unwrap_triangles}[unwrap](mesh, size)
    face, barycentric = texel_places(uvs.cpu().double().numpy() * size, size)
    shown = np.flatnonzero(face >= 0)
    device = mesh.vertices.device
    corner_normals = mesh.face_normals()[:, None].expand(-1, 3, -1) if mesh.normals is None else mesh.normals
    corners = mesh.corners()
    found = []
    for part in np.array_split(shown, -(-len(shown) // chunk)):
        which = torch.from_numpy(face[part]).to(device)
        share = torch.from_numpy(barycentric[part]).to(corners)[:, :, None]
        normals = torch.nn.functional.normalize((corner_normals[which] * share).sum(1), dim=-1)
        found.append(color((corners[which] * share).sum(1), normals).float().clamp(0, 1))
    nearest = torch.from_numpy(_nearest_shown(face >= 0, shown, size)).to(device)
    texture = torch.cat(found)[nearest].reshape(size, size, 3).permute(2, 0, 1).contiguous()
    return replace(mesh, colors=None, uvs=uvs, texture=texture)


def unwrap_charts(mesh: Mesh, size: int) -> Float[Tensor, "f 3 2"]:
    """Texture coordinates, as in `Mesh`, from charts of connected faces (package xatlas).

    Raises:
        MissingPackageError: without xatlas.
    """
    xatlas = require("xatlas")
    atlas = xatlas.Atlas()
    atlas.add_mesh(mesh.vertices.cpu().float().numpy(), mesh.faces.cpu().numpy().astype(np.uint32))
    packing = xatlas.PackOptions()
    # xatlas meets the size only nearly: its five texels are still three of ours where its atlas is half as large again.
    packing.resolution, packing.padding, packing.bilinear = size, 5, True
    atlas.generate(xatlas.ChartOptions(), packing)
    _, faces, uvs = atlas.get_mesh(0)
    return torch.from_numpy(uvs[faces.astype(np.int64)]).to(mesh.vertices)


def unwrap_triangles(mesh: Mesh, size: int) -> Float[Tensor, "f 3 2"]:
    """Texture coordinates, as in `Mesh`, that give each face its own right triangle, two to a square tile.

    Faces are sorted by their longest side, which becomes the long side of the triangle, and tiles are set in rows; all
    faces get the same number of texels per scene unit, as large as fits, but at least one texel. Faces keep more than
    two texels from each other, so that bilinear lookup on one never sees another.

    Raises:
        ValueError: if not even the smallest tiles fit.
    """
    corners = mesh.corners().detach().cpu().double().numpy()
    sides = np.linalg.norm(corners[:, [2, 0, 1]] - corners[:, [1, 2, 0]], axis=-1)  # side k is opposite to corner k
    longest = sides.max(1)
    order = np.argsort(-longest, kind="stable")
    wanted = longest[order[::2]] / np.sqrt(2)  # leg of the larger face of each pair
    room = 2 * (size // LEAST_TILE) ** 2
    if len(mesh) > room:
        raise ValueError(
            f"a texture of {size} x {size} has room for {room} separate faces, the mesh has {len(mesh)}; "
            "make the texture larger, simplify the mesh, or unwrap it into charts"
        )

    def tiles(scale: float) -> np.ndarray:
        return LEAST_TILE - 1 + np.maximum(1, np.floor(wanted * scale)).astype(np.int64)

    low, high = 0.0, size / max(wanted[0], 1e-12)
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if _in_rows(tiles(middle), size) is None else (middle, high)
    tile = tiles(low)
    place = _in_rows(tile, size)
    assert place is not None  # equal tiles of the least side fit

    pair = np.arange(len(order)) // 2
    second = (np.arange(len(order)) % 2)[:, None]
    near = np.where(second, tile[pair, None] - 1, 1)  # the right angle, the same along both axes
    far = np.where(second, 3, tile[pair, None] - 3)
    uvs = np.empty((len(order), 3, 2))
    apex = sides[order].argmax(1)
    for turn, along in enumerate((np.hstack([near, near]), np.hstack([far, near]), np.hstack([near, far]))):
        uvs[order, (apex + turn) % 3] = place[pair] + along
    return torch.from_numpy(uvs / size).to(mesh.vertices)


def _in_rows(tile: np.ndarray, size: int) -> np.ndarray | None:
    """Upper left corners (x, y) of tiles, largest first, set row by row in a square; None if they do not fit."""
    ends = np.cumsum(tile)
    place = np.empty((len(tile), 2), np.int64)
    start, top = 0, 0
    while start < len(tile):
        left = ends[start] - tile[start]
        stop = int(np.searchsorted(ends, left + size, side="right"))
        if stop == start or top + tile[start] > size:
            return None
        place[start:stop, 0] = ends[start:stop] - tile[start:stop] - left
        place[start:stop, 1] = top
        top += tile[start]
        start = stop
    return place


def texel_places(corners: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """For each texel, row by row: the nearest face within `GUTTER`, -1 without one, (size^2,); and the barycentric
    weights of the point of that face which is nearest to the texel's centre, (size^2, 3).

    Args:
        corners: of the faces on the texture, in texels, x to the right, y down, (F, 3, 2).
    """
    low = np.clip(np.floor(corners.min(1) - GUTTER), 0, size - 1).astype(np.int64)
    extent = np.clip(np.ceil(corners.max(1) + GUTTER), 1, size).astype(np.int64) - low
    number = extent.prod(1)
    face = np.full(size * size, -1, np.int64)
    distance = np.full(size * size, GUTTER)
    weights = np.zeros((size * size, 3))
    batch = np.cumsum(number) // CANDIDATES
    for which in np.split(np.arange(len(corners)), np.flatnonzero(np.diff(batch)) + 1):
        item = np.repeat(which, number[which])
        rank = np.arange(len(item)) - np.repeat(np.cumsum(number[which]) - number[which], number[which])
        x, y = low[item, 0] + rank % extent[item, 0], low[item, 1] + rank // extent[item, 0]
        share, away = _nearest_point(np.stack([x, y], -1) + 0.5, corners[item])
        texel = y * size + x
        better = np.flatnonzero(away < distance[texel])
        better = better[np.argsort(-away[better], kind="stable")]  # of several for one texel, the last one stays
        face[texel[better]] = item[better]
        distance[texel[better]] = away[better]
        weights[texel[better]] = share[better]
    return face, weights


def _nearest_point(points: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Barycentric weights of the point of a triangle that is nearest to a point in its plane, and the distance."""
    sides = corners[:, [2, 0, 1]] - corners[:, [1, 2, 0]]  # side k runs from corner k + 1 to corner k + 2
    to = points[:, None] - corners[:, [1, 2, 0]]
    area = sides[..., 0] * to[..., 1] - sides[..., 1] * to[..., 0]
    total = area.sum(1, keepdims=True)
    along = np.clip((sides * to).sum(-1) / np.maximum((sides**2).sum(-1), 1e-12), 0, 1)
    away = np.linalg.norm(to - along[..., None] * sides, axis=-1)
    side = away.argmin(1)
    index = np.arange(len(points))
    on_side = np.zeros((len(points), 3))
    on_side[index, (side + 1) % 3] = 1 - along[index, side]
    on_side[index, (side + 2) % 3] = along[index, side]
    flat = np.abs(total) < 1e-9
    share = area / np.where(flat, 1, total)
    within = (share >= 0).all(1) & ~flat[:, 0]
    return np.where(within[:, None], share, on_side), np.where(within, 0, away[index, side])


def _nearest_shown(is_shown: np.ndarray, shown: np.ndarray, size: int) -> np.ndarray:
    """For each texel, the place in ``shown`` of the nearest texel that shows a face."""
    from scipy.ndimage import distance_transform_edt

    rows, columns = distance_transform_edt(~is_shown.reshape(size, size), return_distances=False, return_indices=True)
    return np.searchsorted(shown, (rows * size + columns).reshape(-1))
