"""Tensor twin of `shapes`: every ray against every primitive, chunked, on any device.

Letters: r rays, n primitives. Rays: origins (r, 3), unit directions (r, 3). Distances in metres; `MISS` where nothing
is hit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from latent3d.worlds import tables as tb

MISS = 1e9
MIN_T = 1e-4
MARCH_STEPS = 48
MARCH_TOLERANCE = 2e-4


def nonzero_sign(d: Tensor) -> Tensor:
    """d with exact and near zeros replaced by 1e-12."""
    return torch.where(d.abs() > 1e-12, d, torch.full_like(d, 1e-12))


def slabs(o: Tensor, d: Tensor, half: Tensor, near: float, far: Tensor | float) -> tuple[Tensor, Tensor]:
    """Entry and exit of |o + t d| <= half over the last axis (3)."""
    inverse = 1.0 / nonzero_sign(d)
    t1, t2 = (-half - o) * inverse, (half - o) * inverse
    entry = torch.minimum(t1, t2).amax(-1).clamp(min=near)
    leave = torch.maximum(t1, t2).amin(-1)
    return entry, leave.clamp(max=far) if isinstance(far, float) else torch.minimum(leave, far)


def distance(kind: int, p: Tensor, half: Tensor, q: Tensor) -> Tensor:
    """Lower bound of the signed distance of local points p (m, 3) to one marched kind; see `shapes.distance`."""
    x, y, z = p.unbind(-1)
    a, b, h = half.unbind(-1)
    p0, p1, p2 = q.unbind(-1)
    ring = torch.sqrt(x * x + y * y)
    if kind == tb.ROUND_BOX:
        outside = p.abs() - half + p0[..., None]
        positive = outside.clamp(min=0.0)
        return torch.sqrt((positive * positive).sum(-1)) + outside.amax(-1).clamp(max=0.0) - p0
    if kind == tb.TUBE:
        outer = torch.maximum(ring - a, z.abs() - h)
        return torch.maximum(outer, -torch.maximum(ring - a + p0, p0 - (z + h)))
    if kind == tb.BOWL:
        reach = torch.sqrt(ring * ring + (z - h) * (z - h))
        return torch.maximum((reach - a + 0.5 * p0).abs() - 0.5 * p0, z - h)
    if kind == tb.VASE:
        slope = 0.5 * a * (1.0 - p0) * p1 / h
        radius = a * (p0 + (1.0 - p0) * (0.5 + 0.5 * torch.sin(p1 * z / h + p2)))
        return torch.maximum((ring - radius) / torch.sqrt(1.0 + slope * slope), z.abs() - h)
    if kind == tb.BLOB:
        sx, sy, sz = x / a, y / b, z / h
        lumps = torch.sin(p1 * sx + p2) * torch.sin(p1 * sy + 2.0 * p2) * torch.sin(p1 * sz + 3.0 * p2)
        fine = torch.sin(2.7 * p1 * sx - p2) * torch.sin(2.7 * p1 * sy) * torch.sin(2.7 * p1 * sz + p2)
        reach = torch.sqrt(sx * sx + sy * sy + sz * sz)
        return half.amin(-1) * (reach - 1.0 + 1.4 * p0 - p0 * (lumps + 0.4 * fine)) * 0.55
    if kind == tb.TORUS:
        ring = ring - (a - h)
        return torch.sqrt(ring * ring + z * z) - h
    if kind == tb.CAPSULE:
        rest = (z.abs() - (h - a)).clamp(min=0.0)
        return torch.sqrt(ring * ring + rest * rest) - a
    block = torch.maximum(x.abs() - a, torch.maximum(y.abs() - b, z.abs() - h))
    vault = torch.sqrt(x * x + (z - p1) * (z - p1)) - p0
    return torch.maximum(block, -torch.where(z > p1, vault, x.abs() - p0))


def taper_planes(half: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Normals (n, 6, 3) and offsets (n, 6) of tapered blocks."""
    a, b, h = half.unbind(-1)
    p0, p1, p2 = q.unbind(-1)
    ka, kb, shift = (p0 - 1.0) * a / (2.0 * h), (p1 - 1.0) * b / (2.0 * h), p2 / (2.0 * h)
    ma, mb = 0.5 * (1.0 + p0) * a, 0.5 * (1.0 + p1) * b
    one, nil = torch.ones_like(a), torch.zeros_like(a)
    normals = [
        (one, nil, -ka - shift), (-one, nil, -ka + shift), (nil, one, -kb), (nil, -one, -kb), (nil, nil, one),
        (nil, nil, -one),
    ]  # fmt: skip
    offsets = [ma + 0.5 * p2, ma - 0.5 * p2, mb, mb, h, h]
    return torch.stack([torch.stack(row, -1) for row in normals], -2), torch.stack(offsets, -1)


def hit_frustum(o: Tensor, d: Tensor, half: Tensor, q: Tensor) -> Tensor:
    """Distances (r, n) to elliptic frusta with caps."""
    scale = torch.stack([half[:, 0], half[:, 1], torch.ones_like(half[:, 0])], -1)
    x, y, z = (o / scale).unbind(-1)
    dx, dy, dz = (d / scale).unbind(-1)
    h, r0, r1 = half[:, 2], q[:, 0], q[:, 1]
    k, rm = (r1 - r0) / (2.0 * h), 0.5 * (r0 + r1)
    rad = rm + k * z
    A = dx * dx + dy * dy - k * k * dz * dz
    B = x * dx + y * dy - k * dz * rad
    C = x * x + y * y - rad * rad
    root = torch.sqrt((B * B - A * C).clamp(min=0.0))
    best = torch.full_like(x, MISS)
    for sign in (-1.0, 1.0):
        t = (-B + sign * root) / nonzero_sign(A)
        pz = z + t * dz
        ok = (B * B - A * C > 0.0) & (A.abs() > 1e-12) & (t > MIN_T) & (pz.abs() <= h) & (rm + k * pz >= 0.0)
        best = torch.where(ok & (t < best), t, best)
    for level, radius in ((h, r1), (-h, r0)):
        t = (level - z) / nonzero_sign(dz)
        px, py = x + t * dx, y + t * dy
        ok = (dz.abs() > 1e-12) & (t > MIN_T) & (px * px + py * py <= radius * radius)
        best = torch.where(ok & (t < best), t, best)
    return best


def hit_taper(o: Tensor, d: Tensor, half: Tensor, q: Tensor) -> Tensor:
    """Distances (r, n) to tapered blocks."""
    normals, offsets = taper_planes(half, q)
    rate = torch.einsum("njc,rnc->rnj", normals, d)
    gap = offsets - torch.einsum("njc,rnc->rnj", normals, o)
    level = rate.abs() < 1e-12
    t = gap / torch.where(level, torch.ones_like(rate), rate)
    near = torch.where((rate < 0.0) & ~level, t, torch.full_like(t, MIN_T)).amax(-1).clamp(min=MIN_T)
    far = torch.where((rate > 0.0) & ~level, t, torch.full_like(t, MISS)).amin(-1)
    outside = (level & (gap < 0.0)).any(-1)
    return torch.where((near > MIN_T) & (near < far) & ~outside, near, torch.full_like(near, MISS))


def hit_marched(kind: int, o: Tensor, d: Tensor, half: Tensor, q: Tensor) -> Tensor:
    """Distances (r, n) to marched shapes; only pairs whose boxes are met are marched."""
    near, far = slabs(o, d, half, MIN_T, MISS)
    out = torch.full_like(near, MISS)
    ray, one = (near < far).nonzero(as_tuple=True)
    o, d, half, q, t, far = o[ray, one], d[ray, one], half[one], q[one], near[ray, one], far[ray, one]
    found = torch.full_like(t, MISS)
    open_ = torch.ones_like(t, dtype=torch.bool)
    for _ in range(MARCH_STEPS):
        open_ = open_ & (t < far)
        if not bool(open_.any()):
            break
        gap = distance(kind, o + t[:, None] * d, half, q)
        stop = open_ & (gap < MARCH_TOLERANCE)
        found = torch.where(stop & (t > 5.0 * MARCH_TOLERANCE), t, found)
        open_ = open_ & ~stop
        t = torch.where(open_, t + gap, t)
    out[ray, one] = found
    return out


def to_local(primitives: Tensor, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Rays in the axes of each primitive: (r, n, 3) origins and directions."""
    turn = primitives[:, 4:13].reshape(-1, 3, 3)
    o = torch.einsum("nij,rnj->rni", turn, origins[:, None] - primitives[None, :, 1:4])
    return o, torch.einsum("nij,rj->rni", turn, directions)


def hit_group(kind: int, rows: Tensor, origins: Tensor, directions: Tensor) -> Tensor:
    """Distances (r, n) of rays to primitives of one kind."""
    o, d = to_local(rows, origins, directions)
    half, q = rows[:, 13:16], rows[:, 16:19]
    if kind == tb.BOX:
        near, far = slabs(o, d, half, -MISS, MISS)
        return torch.where((near < far) & (near > MIN_T), near, torch.full_like(near, MISS))
    if kind == tb.ELLIPSOID:
        o, d = o / half, d / half
        A, B, C = (d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1) - 1.0
        disc = B * B - A * C
        t = (-B - torch.sqrt(disc.clamp(min=0.0))) / A
        return torch.where((disc > 0.0) & (t > MIN_T), t, torch.full_like(t, MISS))
    if kind == tb.FRUSTUM:
        return hit_frustum(o, d, half, q)
    if kind == tb.TAPER:
        return hit_taper(o, d, half, q)
    return hit_marched(kind, o, d, half, q)


def trace(primitives: Tensor, origins: Tensor, directions: Tensor, *, shadow: bool = False) -> tuple[Tensor, Tensor]:
    """Nearest hits: distances (r,) and primitives (r,), -1 where nothing is hit; ``shadow`` skips NO_SHADOW rows."""
    best = torch.full_like(origins[:, 0], MISS)
    winner = torch.full((len(origins),), -1, dtype=torch.long, device=origins.device)
    kinds = primitives[:, 0].long()
    for kind in kinds.unique().tolist():
        member = kinds == kind
        if shadow:
            member = member & (primitives[:, 20] != tb.NO_SHADOW)
        at = member.nonzero()[:, 0]
        if not len(at):
            continue
        t, which = hit_group(kind, primitives[at], origins, directions).min(-1)
        nearer = t < best
        best, winner = torch.where(nearer, t, best), torch.where(nearer, at[which], winner)
    return best, winner


def local_normal(kind: int, p: Tensor, half: Tensor, q: Tensor) -> Tensor:
    """Unnormalised outward normals (m, 3) at local surface points of one kind."""
    if kind == tb.BOX:
        gap = p.abs() - half
        axis = gap.argmax(-1)  # the first of equal gaps, as in the loops
        sign = torch.where(p > 0.0, 1.0, -1.0).to(p.dtype)
        return torch.nn.functional.one_hot(axis, 3).to(p.dtype) * sign
    if kind == tb.ELLIPSOID:
        return p / (half * half)
    if kind == tb.FRUSTUM:
        x, y, z = p.unbind(-1)
        a, b, h = half.unbind(-1)
        k = (q[:, 1] - q[:, 0]) / (2.0 * h)
        ring = torch.sqrt(x * x / (a * a) + y * y / (b * b))
        side = (ring - (0.5 * (q[:, 0] + q[:, 1]) + k * z)).abs() * torch.minimum(a, b) <= h - z.abs()
        lateral = torch.stack([x / (a * a), y / (b * b), -k * ring.clamp(min=1e-6)], -1)
        cap = torch.stack([torch.zeros_like(z), torch.zeros_like(z), torch.where(z > 0.0, 1.0, -1.0).to(z.dtype)], -1)
        return torch.where(side[:, None], lateral, cap)
    if kind == tb.TAPER:
        normals, offsets = taper_planes(half, q)
        gap = (torch.einsum("mjc,mc->mj", normals, p) - offsets) / normals.norm(dim=-1)
        return normals[torch.arange(len(p), device=p.device), gap.argmax(-1)]
    step = 5e-4 * torch.eye(3, dtype=p.dtype, device=p.device)
    return torch.stack([distance(kind, p + s, half, q) - distance(kind, p - s, half, q) for s in step], -1)


def surface(primitives: Tensor, number: Tensor, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """At hit points (r, 3) of primitives ``number`` (r,): unit normals facing the rays (r, 3), u (r,), v (r,)."""
    rows = primitives[number]
    kinds = rows[:, 0].long()
    turn, half = rows[:, 4:13].reshape(-1, 3, 3), rows[:, 13:16]
    p = torch.einsum("rij,rj->ri", turn, points - rows[:, 1:4])
    normal = torch.zeros_like(p)
    for kind in kinds.unique().tolist():
        at = (kinds == kind).nonzero()[:, 0]
        normal[at] = local_normal(kind, p[at], half[at], rows[at, 16:19])
    normal = normal / torch.sqrt((normal * normal).sum(-1, keepdim=True) + 1e-30)
    x, y, z = p.unbind(-1)
    nx, ny, nz = normal.abs().unbind(-1)
    round_ = ((kinds == tb.ELLIPSOID) | (kinds == tb.FRUSTUM) | (kinds == tb.VASE)) & (nz < 0.95)
    top = (nz >= nx) & (nz >= ny) & ~round_
    u = torch.where(round_, torch.atan2(y, x) * 0.5 * (half[:, 0] + half[:, 1]), torch.where(~top & (nx >= ny), y, x))
    v = torch.where(top, y, z)
    world = torch.einsum("rij,ri->rj", turn, normal)
    world = torch.where(
        (kinds >= tb.FIRST_MARCHED)[:, None] & ((world * world).sum(-1, keepdim=True) < 0.5), -directions, world
    )
    world = torch.where((world * directions).sum(-1, keepdim=True) > 0.0, -world, world)
    return world, u + rows[:, 21], v + rows[:, 22]
