"""Differentiable pictures of meshes: gradients to vertices, attributes and cameras.

Which face a pixel shows is found by `rasterize`; everything else is computed again in torch from the vertices. Inside a
surface that gives all gradients. At its outline it does not, since a pixel's centre is covered or not; there a pixel is
blended with its neighbour by the exact place where the outline crosses between their centres, which moves with the
vertices (the idea of the anti-aliasing of Laine et al. 2020, here over all outline edges instead of the visible faces,
so that faces smaller than a pixel lose none).

Letters: V views, N vertices, F faces, E edges, P covered pixels, M crossings, H, W pixels, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.precision import full_precision
from latent3d.geometry.rays import normalized_ray_z1
from latent3d.rendering.base import NEAR
from latent3d.rendering.meshes import Fragments, rasterize
from latent3d.representations.mesh import Mesh


@dataclass(frozen=True)
class SurfaceRendering:
    """What V cameras see of a surface.

    Attributes:
        rgb: sRGB over black, (V, 3, H, W); None if the mesh has no colours per vertex. Over white: rgb + 1 - alpha.
        attributes: further channels over zero, (V, C, H, W), or None.
        depth: z-depth in scene units at the pixels' centres, 0 where nothing is, (V, 1, H, W).
        normals: unit normals in world axes at the pixels' centres, towards the camera, 0 where none, (V, 3, H, W).
        alpha: share of the pixel that is covered, in [0, 1], (V, 1, H, W).
    """

    rgb: Float[Tensor, "v 3 h w"] | None
    attributes: Float[Tensor, "v c h w"] | None
    depth: Float[Tensor, "v 1 h w"]
    normals: Float[Tensor, "v 3 h w"]
    alpha: Float[Tensor, "v 1 h w"]


@full_precision
def render_surface(
    mesh: Mesh, cameras: Cameras, attributes: Float[Tensor, "n c"] | None = None, *, near: float = NEAR
) -> SurfaceRendering:
    """Colours, attributes, depth, normals and coverage of a mesh, differentiably; either side of a face is seen.

    ``rgb``, ``attributes`` and ``alpha`` are smooth across outlines and have gradients there; depth and normals are
    those of the face at the pixel's centre (interpolated normals where the mesh has them, else of the faces) and have
    gradients wherever alpha is at least one half. Outlines that cross the border of the picture or come nearer than
    ``near`` are not smoothed.

    Args:
        mesh: float32 or float64; its texture is not used.
        cameras: V cameras, batch shape (V,).
        attributes: further channels per vertex, (N, C).
        near: least z-depth, in scene units, > 0.

    Raises:
        ValueError: as `rasterize`, and for attributes of another number of vertices.
    """
    count = mesh.vertices.shape[0]
    if attributes is not None and len(attributes) != count:
        raise ValueError(f"the mesh has {count} vertices but attributes are given for {len(attributes)}")
    local = mesh.vertices @ cameras.w2c[:, :3, :3].mT + cameras.w2c[:, None, :3, 3]
    projected = local @ cameras.k.mT
    found = rasterize(replace(mesh, texture=None), cameras, near=near)
    seen = differentiable_fragments(found, mesh.faces, projected)
    hit = seen.faces >= 0
    channels = [hit[:, None].to(projected.dtype)]
    for values in (mesh.colors, attributes):
        if values is not None:
            channels.append(interpolate(values, seen, mesh.faces))
    smooth = _blend_outlines(torch.cat(channels, 1), found.depth, mesh.faces, projected, near)
    split = 1 if mesh.colors is None else 4
    return SurfaceRendering(
        rgb=None if mesh.colors is None else smooth[:, 1:split],
        attributes=None if attributes is None else smooth[:, split:],
        depth=seen.depth[:, None],
        normals=_normals(mesh, seen, cameras),
        alpha=smooth[:, :1].clamp(0, 1),
    )


def interpolate(
    attributes: Float[Tensor, "n c"] | Float[Tensor, "f 3 c"],
    fragments: Fragments,
    faces: Int[Tensor, "f 3"] | None = None,
) -> Float[Tensor, "v c h w"]:
    """Attributes at the pixels' centres, 0 where there is no face; gradients to attributes and barycentrics.

    Args:
        attributes: per vertex (N, C) with ``faces``, or per corner of every face (F, 3, C) without.
    """
    corners = attributes if faces is None else attributes[faces]
    shape = (*fragments.faces.shape, attributes.shape[-1])
    if not len(corners):
        return attributes.new_zeros(shape).movedim(-1, 1)
    hit = fragments.faces >= 0
    values = (fragments.barycentric[hit][..., None] * corners[fragments.faces[hit]]).sum(-2)
    return values.new_zeros(shape).masked_scatter(hit[..., None], values).movedim(-1, 1)


def differentiable_fragments(
    fragments: Fragments, faces: Int[Tensor, "f 3"], projected: Float[Tensor, "v n 3"]
) -> Fragments:
    """The same faces with barycentrics and depth computed again from projected vertices (pixel * z, z), (V, N, 3).

    With q the corners minus z p in the plane, la : lb : lc = qb x qc : qc x qa : qa x qb, z = la za + lb zb + lc zc:
    the edge functions of `meshes_numba` written relative to the pixel, which loses no digits in float32.
    """
    hit = fragments.faces >= 0
    view, y, x = hit.nonzero(as_tuple=True)
    corners = projected[view[:, None], faces[fragments.faces[hit]]]
    pixel = torch.stack([x, y], -1).to(projected.dtype) + 0.5
    a, b, c = (corners[..., :2] - corners[..., 2:] * pixel[:, None]).unbind(1)
    weights = torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], -1)
    weights = weights / weights.sum(-1, keepdim=True)
    depth = (weights * corners[..., 2]).sum(-1)
    empty = projected.new_zeros(hit.shape)
    return Fragments(
        faces=fragments.faces,
        barycentric=empty[..., None].expand(*hit.shape, 3).masked_scatter(hit[..., None], weights),
        depth=empty.masked_scatter(hit, depth),
    )


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _normals(mesh: Mesh, seen: Fragments, cameras: Cameras) -> Float[Tensor, "v 3 h w"]:
    """Unit normals of what each pixel shows, on the side of the face that the camera sees."""
    flat = interpolate(mesh.face_normals()[:, None].expand(-1, 3, -1), seen)
    rays = normalized_ray_z1(cameras).movedim(-1, 1)
    plane = torch.where((flat * rays).sum(1, keepdim=True) > 0, -flat, flat)
    if mesh.normals is None:
        return plane
    smooth = normalize(interpolate(mesh.normals, seen), dim=1)
    return torch.where((smooth * plane).sum(1, keepdim=True) < 0, -smooth, smooth)


@dataclass(frozen=True)
class _Crossings:
    """Where outlines pass between the centres of neighbouring pixels.

    Attributes:
        inside, outside: number of the pixel on the surface's side and of the other one, in (V H W), (M,).
        distance: from the inner centre to the crossing, in pixels, in [0, 1], (M,).
        depth: of the edge there, (M,).
    """

    inside: Int[Tensor, " m"]
    outside: Int[Tensor, " m"]
    distance: Float[Tensor, " m"]
    depth: Float[Tensor, " m"]


def _blend_outlines(
    channels: Float[Tensor, "v c h w"],
    depth: Float[Tensor, "v h w"],
    faces: Int[Tensor, "f 3"],
    projected: Float[Tensor, "v n 3"],
    near: float,
) -> Float[Tensor, "v c h w"]:
    """Each pixel mixed with the neighbour whose surface reaches into it, or which shows behind its own outline.

    Where the outline lies at a distance d from the inner of two centres, the border between the two pixels being at
    1/2: for d > 1/2 the outer pixel takes the share d - 1/2 of the inner one, else the inner one the share 1/2 - d of
    the outer. Edges nearer to the vertical are followed from row to row, the others from column to column.
    """
    views, _, height, width = channels.shape
    if not len(faces):
        return channels
    view, ends, side = _outlines(faces, projected, near)
    place = ends[..., :2] / ends[..., 2:]
    run = (place[:, 1] - place[:, 0]).abs()
    upright = (run[:, 1] >= run[:, 0]).detach()
    parts = []
    for chosen, swap in ((upright, False), (~upright, True)):
        points = place[chosen].flip(-1) if swap else place[chosen]
        size = (width, height) if swap else (height, width)
        sign = -side[chosen] if swap else side[chosen]
        parts.append(_crossings(points, ends[chosen][..., 2], sign, view[chosen], size, swap))
    blend = _outermost(parts, depth.reshape(-1))
    flat = channels.movedim(1, -1).reshape(views * height * width, -1)
    share = blend.distance - 0.5
    target = torch.where(share > 0, blend.outside, blend.inside)
    source = torch.where(share > 0, blend.inside, blend.outside)
    mixed = flat.index_add(0, target, share.abs()[:, None] * (flat[source] - flat[target]))
    return mixed.reshape(views, height, width, -1).movedim(-1, 1)


def _outlines(
    faces: Int[Tensor, "f 3"], projected: Float[Tensor, "v n 3"], near: float
) -> tuple[Int[Tensor, " e"], Float[Tensor, "e 2 3"], Float[Tensor, " e"]]:
    """Edges all of whose faces lie on one side of them in a view: view, projected ends, and that side's sign.

    The side is that of (b - a) x (p - a) in pixels, a and b being the ends and p the third corner of a face.
    """
    count = projected.shape[1]
    corners = torch.cat([faces[:, [0, 1, 2]], faces[:, [1, 2, 0]], faces[:, [2, 0, 1]]])
    low, high = corners[:, :2].amin(1), corners[:, :2].amax(1)
    keys, edge = torch.unique(low * count + high, return_inverse=True)
    with torch.no_grad():
        first, second = keys // count, keys % count
        a, b = projected[:, low], projected[:, high]
        turn = torch.linalg.cross(a, b, dim=-1)
        sign = (turn * projected[:, corners[:, 2]]).sum(-1).sign()
        start = sign.new_full((len(projected), len(keys)), 0.0)
        index = edge.expand(len(projected), -1)
        least = start.scatter_reduce(1, index, sign, "amin", include_self=False)
        most = start.scatter_reduce(1, index, sign, "amax", include_self=False)
        beyond = (projected[..., 2] > near)[:, first] & (projected[..., 2] > near)[:, second]
        view, chosen = ((least == most) & (least != 0) & beyond).nonzero(as_tuple=True)
    ends = projected[view[:, None], torch.stack([first, second], -1)[chosen]]
    return view, ends, least[view, chosen]


def _crossings(
    ends: Float[Tensor, "e 2 2"],
    depths: Float[Tensor, "e 2"],
    side: Float[Tensor, " e"],
    view: Int[Tensor, " e"],
    size: tuple[int, int],
    swapped: bool,
) -> _Crossings:
    """Where edges cross the horizontal lines through pixel centres, between two centres of the picture.

    Args:
        ends: positions of both ends in pixels; columns and rows are exchanged where ``swapped``, as is ``size``.
        side: sign of the side on which the surface lies.
    """
    rows, columns = size
    low, high = ends[..., 1].detach().aminmax(dim=1)
    first = (low - 0.5).ceil().clamp(0, rows).long()
    last = (high - 0.5).ceil().clamp(0, rows).long()
    count = (last - first).clamp_min(0)
    edge = torch.repeat_interleave(torch.arange(len(ends), device=ends.device), count)
    step = torch.arange(len(edge), device=ends.device) - (count.cumsum(0) - count)[edge]
    row = first[edge] + step
    (xa, ya), (xb, yb) = (ends[edge, end].unbind(-1) for end in range(2))
    along = (row + 0.5 - ya) / (yb - ya)
    x = xa + along * (xb - xa)
    left = (x.detach() - 0.5).floor().long()
    keep = (left >= 0) & (left + 1 < columns)
    row, left, x, along, edge = row[keep], left[keep], x[keep], along[keep], edge[keep]
    za, zb = depths[edge].unbind(-1)
    depth = 1 / ((1 - along) / za + along / zb)
    on_left = side[edge] == (yb - ya)[keep].sign()
    part = x - (left + 0.5)
    start = view[edge] * rows * columns
    pixels = [start + (column * rows + row if swapped else row * columns + column) for column in (left, left + 1)]
    return _Crossings(
        inside=torch.where(on_left, pixels[0], pixels[1]),
        outside=torch.where(on_left, pixels[1], pixels[0]),
        distance=torch.where(on_left, part, 1 - part),
        depth=depth,
    )


def _outermost(parts: list[_Crossings], depth: Float[Tensor, " p"]) -> _Crossings:
    """Of all crossings the visible ones, and of those between the same two pixels the outermost."""
    names = ("inside", "outside", "distance", "depth")
    joined = _Crossings(*(torch.cat([getattr(part, name) for part in parts]) for name in names))
    kept = _kept(joined, depth)
    return _Crossings(*(getattr(joined, name)[kept] for name in names))


@torch.no_grad()
def _kept(crossings: _Crossings, depth: Float[Tensor, " p"]) -> Int[Tensor, " k"]:
    """Numbers of the crossings to blend by: visible ones, one for each pair of pixels, the outermost.

    Visible: something lies at the inner centre, nearer than what lies at the outer one, and so does the edge.
    """
    behind = torch.where(depth > 0, depth, torch.inf)
    inner, outer = behind[crossings.inside], behind[crossings.outside]
    visible: Bool[Tensor, " m"] = (inner < outer) & (crossings.depth < outer)
    number = visible.nonzero(as_tuple=True)[0]
    number = number[crossings.distance[number].argsort(stable=True)]
    pair = crossings.inside[number] * len(depth) + crossings.outside[number]
    pair, order = pair.sort(stable=True)
    last = torch.ones_like(pair, dtype=torch.bool)
    last[:-1] = pair[1:] != pair[:-1]
    return number[order][last]
