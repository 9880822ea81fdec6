"""Closed surfaces that objects are assembled from: lofts, and lathes, tubes, slabs and balls made of them.

Every part is watertight and its faces are counter-clockwise seen from outside. Letters: K rings of n points, P points
of a profile, F faces. Lengths are in the units of the caller; +z is up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np

from latent3d.worlds.object_outlines import circle, inset, rectangle, rotation

End = Literal["flat", "smooth"]

FLAT_END = 1 << 20
CREASE = math.radians(38.0)
"""Neighbouring pieces of a profile that turn by more than this do not share normals."""


@dataclass(frozen=True)
class Part:
    """One closed surface.

    Attributes:
        points: (N, 3).
        faces: point numbers, counter-clockwise from outside, (F, 3).
        uvs: surface coordinates of the corners in units of length, v against the direction of growth, (F, 3, 2).
        groups: faces of one number share normals at the points they share, (F,).
    """

    points: np.ndarray
    faces: np.ndarray
    uvs: np.ndarray
    groups: np.ndarray

    def mapped(self, function: Callable[[np.ndarray], np.ndarray]) -> Part:
        """Points (N, 3) moved by a map that keeps inside inside."""
        return replace(self, points=function(self.points))

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Part:
        """Shifted."""
        return replace(self, points=self.points + np.array([x, y, z]))

    def scaled(self, x: float, y: float | None = None, z: float | None = None) -> Part:
        """Scaled by positive factors, evenly where only one is given; surface coordinates stay."""
        return replace(self, points=self.points * np.array([x, x if y is None else y, x if z is None else z]))

    def turned(self, axis: int, degrees: float) -> Part:
        """Turned about the axis 0, 1 or 2 through the origin, right-handed."""
        return replace(self, points=self.points @ rotation(axis, degrees).T)

    def leaning(self, z: float, x: float = 0.0, y: float = 0.0) -> Part:
        """Sheared: moved by ``x``, ``y`` per unit of height above ``z``."""
        return replace(self, points=self.points + (self.points[:, 2:] - z) * np.array([x, y, 0.0]))

    def mirrored(self, axis: int = 0) -> Part:
        """Mirror image along an axis, inside still inside."""
        flip = np.ones(3)
        flip[axis] = -1.0
        return Part(self.points * flip, self.faces[:, ::-1], self.uvs[:, ::-1], self.groups)

    def both_sides(self, axis: int = 0) -> tuple[Part, Part]:
        """The part and its mirror image."""
        return self, self.mirrored(axis)

    def boxed(self) -> Part:
        """Surface coordinates by projection along each face's main axis, v along the longer side of the part."""
        corners = self.points[self.faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        main = np.abs(normals).argmax(1)
        low = self.points.min(0)
        order = np.argsort(self.points.max(0) - low)
        pairs = np.array([[a for a in order if a != axis] for axis in range(3)])[main]
        return replace(self, uvs=np.take_along_axis(corners - low, pairs[:, None, :].repeat(3, 1), 2))


def signed_volume(points: np.ndarray, faces: np.ndarray) -> float:
    """Volume enclosed by a closed surface, negative where its faces look inwards (divergence theorem)."""
    a, b, c = points[faces[:, 0]], points[faces[:, 1]], points[faces[:, 2]]
    return float((a * np.cross(b, c)).sum() / 6.0)


@lru_cache(maxsize=1024)
def _net(rings: int, n: int, loop: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Faces (F, 3) into points and into a (rows + 1, n + 1) grid without seams, row and column of each face."""
    rows = rings if loop else rings - 1
    i, j = (a.ravel() for a in np.meshgrid(np.arange(rows), np.arange(n), indexing="ij"))
    quads = np.stack([(i, j), (i, j + 1), (i + 1, j + 1), (i + 1, j)])  # (4, 2, rows n)
    points = (quads[:, 0] % rings) * n + quads[:, 1] % n
    grid = quads[:, 0] * (n + 1) + quads[:, 1]
    halves = np.array([[0, 1, 2], [0, 2, 3]])
    triangles = (array[halves].transpose(2, 0, 1).reshape(-1, 3) for array in (points, grid))
    return *triangles, i.repeat(2), j.repeat(2)


def loft(
    rings: np.ndarray,
    *,
    ends: tuple[End, End] = ("flat", "flat"),
    tips: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
    loop: bool = False,
    rows: np.ndarray | None = None,
    columns: np.ndarray | None = None,
    folds: int = 0,
    crest: int | None = None,
) -> Part:
    """Skin over closed rings of equally many points, its ends closed by fans.

    Args:
        rings: (K, n, 3).
        ends: a "flat" end has normals of its own, a "smooth" one those of the surface it closes.
        tips: centres of the fans; None for the mean of the ring, which must be star-shaped about it.
        loop: joins the last ring to the first instead of closing the ends.
        rows: smoothing group of each strip between rings, (K - 1,), with ``loop`` (K,).
        columns: smoothing group of each strip along the rings, (n,).
        folds: how often the coordinate u runs forth and back around; 0 leaves a seam. Divides n / 2.
        crest: ring at which the coordinate v turns back, where one side is the inside of a wall.
    """
    count, n = rings.shape[:2]
    faces, cells, row_of, column_of = _net(count, n, loop)
    rows = np.zeros(count, int) if rows is None else rows
    columns = np.zeros(n, int) if columns is None else columns
    around = np.linalg.norm(np.roll(rings, -1, 1) - rings, axis=-1).mean(0)
    along = np.linalg.norm(np.roll(rings, -1, 0) - rings, axis=-1).mean(1)
    u = np.concatenate([[0.0], np.cumsum(around)])
    if folds:
        half = n // (2 * folds)
        u = np.abs((np.arange(n + 1) + half) % (2 * half) - half) * around.mean()
    v = np.concatenate([[0.0], np.cumsum(along if loop else along[:-1])])
    v = v[-1] - v if crest is None else np.abs(v - v[crest])
    grid = np.stack(np.meshgrid(v, u, indexing="ij")[::-1], -1).reshape(-1, 2)
    pieces = [(faces, grid[cells], rows[row_of] * 64 + columns[column_of])]
    points = [rings.reshape(-1, 3)]
    if not loop:
        for k in (0, 1):
            centre = rings[-k].mean(0) if tips[k] is None else np.asarray(tips[k], float)
            points.append(centre[None])
            pieces.append(_fan(rings, k, centre, u, v, crest, ends[k] == "smooth", rows, columns))
    part = Part(np.concatenate(points), *(np.concatenate(arrays) for arrays in zip(*pieces, strict=True)))
    if signed_volume(part.points, part.faces) < 0:
        part = replace(part, faces=part.faces[:, ::-1], uvs=part.uvs[:, ::-1])
    return part


def _fan(
    rings: np.ndarray, k: int, centre: np.ndarray, u: np.ndarray, v: np.ndarray, crest: int | None, smooth: bool,
    rows: np.ndarray, columns: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Faces, coordinates and smoothing groups that close the first (k = 0) or the last (k = 1) ring."""
    count, n = rings.shape[:2]
    start = (count - 1) * n * k
    near, far = np.arange(n), (np.arange(n) + 1) % n
    near, far = (near, far) if k else (far, near)
    faces = np.stack([np.full(n, count * n + k), start + near, start + far], 1)
    if not smooth:
        disc = np.concatenate([rings[-k], centre[None]])
        low = disc.min(0)
        axes = np.sort(np.argsort(disc.max(0) - low)[1:])
        place = (disc - low)[:, axes]
        return faces, place[np.stack([np.full(n, n), near, far], 1)], np.full(n, FLAT_END + k)
    reach = float(np.linalg.norm(rings[-k] - centre, axis=-1).mean())
    top = v[-k] - reach if k and crest is None else v[-k] + reach
    sides = (u[:-1], u[1:]) if k else (u[1:], u[:-1])
    corners = [((u[:-1] + u[1:]) / 2, np.full(n, top)), *((side, np.full(n, v[-k])) for side in sides)]
    uvs = np.stack([np.stack(pair, -1) for pair in corners], 1)
    return faces, uvs, rows[(count - 2) * k] * 64 + columns


def runs(points: np.ndarray, loop: bool) -> np.ndarray:
    """Smoothing groups of the segments of a polyline (P, 2 or 3): a new one after each turn sharper than `CREASE`.

    (P,) for a closed line, else (P - 1,).
    """
    steps = np.roll(points, -1, 0) - points
    steps = steps / np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1e-12)
    sharp = (steps * np.roll(steps, 1, 0)).sum(1) < math.cos(CREASE)
    if not loop:
        return np.cumsum(sharp[:-1] & (np.arange(len(points) - 1) > 0))
    groups = np.cumsum(sharp)
    return np.where(groups == groups[-1], 0, groups) if not sharp[0] else groups


def slab(outline: np.ndarray, low: float, high: float, bevel: float = 0.0, rows: int = 1) -> Part:
    """An outline (n, 2) in x, y, star-shaped about its mean, extruded from ``low`` to ``high``, its edges bevelled."""
    bevel = min(bevel, 0.45 * (high - low))
    levels = [(z, outline) for z in np.linspace(low + bevel, high - bevel, rows + 1)]
    if bevel > 0:
        small, middle = inset(outline, bevel), inset(outline, 0.3 * bevel)
        levels = [(low, small), (low + 0.3 * bevel, middle), *levels, (high - 0.3 * bevel, middle), (high, small)]
    rings = np.stack([np.column_stack([line, np.full(len(line), z)]) for z, line in levels])
    end: End = "smooth" if bevel > 0 else "flat"
    return loft(rings, ends=(end, end), columns=runs(outline, True)).boxed()


def box(width: float, depth: float, height: float, bevel: float = 0.0, *, rows: int = 1) -> Part:
    """Box about the z axis standing on z = 0; with ``bevel`` all edges are rounded."""
    return slab(rectangle(width, depth, bevel), 0.0, height, bevel, rows)


def upright(outline: np.ndarray, front: float, back: float, bevel: float = 0.0) -> Part:
    """An outline (n, 2) in x, z extruded along y from ``front`` to ``back``: panels that stand."""
    flat = slab(outline, -back, -front, bevel)
    return flat.turned(0, 90.0).boxed()


def lathe(
    profile: Sequence[Sequence[float]] | np.ndarray, n: int = 24, *, loop: bool = False, crest: int | None = None
) -> Part:
    """A profile (P, 2) of (radius, height) turned about the z axis; a first or last radius of 0 makes a tip.

    With ``loop`` the profile is a closed line that stays away from the axis. ``crest`` is the place in the profile
    where the outer side of a wall becomes the inner one. Patterns run forth and back around, without a seam.
    """
    line = np.asarray(profile, float)
    groups = runs(line, loop)
    first, last = int(line[0, 0] <= 1e-9), len(line) - int(line[-1, 0] <= 1e-9)
    inner = line[first:last]
    section = circle(n)
    rings = np.concatenate(
        [inner[:, None, :1] * section, np.broadcast_to(inner[:, None, 1:], (len(inner), n, 1))], axis=-1
    )
    tips = tuple(np.array([0.0, 0.0, line[k, 1]]) for k in (0, -1))
    ends: list[End] = ["flat", "flat"]
    # a fan takes its smoothing group from the strip beside it: only where the profile is smooth there
    if first and len(groups) > 1 and groups[0] == groups[1]:
        ends[0] = "smooth"
    if last < len(line) and len(groups) > 1 and groups[-1] == groups[-2]:
        ends[1] = "smooth"
    rows = groups if loop else groups[first : first + max(len(inner) - 1, 1)]
    turn = None if crest is None else crest - first
    folds = 2 if n % 4 == 0 else n % 2 == 0
    return loft(
        rings, ends=(ends[0], ends[1]), tips=(tips[0], tips[1]), loop=loop, rows=rows, folds=int(folds), crest=turn
    )


def cylinder(radius: float, height: float, n: int = 20, *, top: float | None = None, bevel: float = 0.0) -> Part:
    """Cylinder on z = 0, or a cone's stump of upper radius ``top`` (0 for a cone)."""
    upper = radius if top is None else top
    if bevel <= 0 or upper <= bevel:
        side = [(radius, 0), (upper, height)] if upper > 0 else [(radius, 0), (radius / 2, height / 2)]
        return lathe([(0, 0), *side, (0, height)], n)
    b, c = bevel, 0.3 * bevel
    low, high = [(radius - b, 0), (radius - c, c), (radius, b)], [(upper, height - b), (upper - c, height - c)]
    return lathe([(0, 0), *low, *high, (upper - b, height), (0, height)], n)


def ellipsoid(x: float, y: float, z: float, n: int = 20, m: int = 10) -> Part:
    """Ellipsoid of half axes ``x``, ``y``, ``z`` about the origin."""
    angle = np.linspace(-math.pi / 2, math.pi / 2, m + 1)
    profile = np.stack([np.cos(angle), np.sin(angle)], 1) * max(x, y, z)
    profile[[0, -1], 0] = 0.0
    part = lathe(profile, n)
    largest = max(x, y, z)
    return part.scaled(x / largest, y / largest, z / largest)


def torus(major: float, minor: float, n: int = 28, m: int = 12) -> Part:
    """Ring about the z axis."""
    return lathe(circle(m) * minor + np.array([major, 0.0]), n, loop=True)


def tube(
    path: np.ndarray | Sequence[Sequence[float]],
    radius: float | Sequence[float] | np.ndarray,
    n: int = 10,
    *,
    section: np.ndarray | None = None,
    loop: bool = False,
) -> Part:
    """A section swept along a path.

    Args:
        path: (K, 3), best planar; a straight path has the section's second axis as near to +z (else +y) as it goes.
        radius: scale of the section, one for all or one per point.
        n: corners of the round section used where none is given.
        section: counter-clockwise outline (n, 2), star-shaped about the origin.
        loop: joins the end to the start.
    """
    line = np.asarray(path, float)
    outline = circle(n) if section is None else section
    steps = np.diff(line, axis=0, append=line[:1]) if loop else np.diff(line, axis=0)
    steps = steps / np.linalg.norm(steps, axis=1, keepdims=True)
    before = np.roll(steps, 1, 0) if loop else np.concatenate([steps[:1], steps])
    after = steps if loop else np.concatenate([steps, steps[-1:]])
    tangents = before + after
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    across = np.cross(before, after).sum(0)
    if np.linalg.norm(across) < 1e-6:
        main = steps[0]
        across = np.cross(main, (0.0, 0.0, 1.0) if abs(main[2]) < 0.9 else (0.0, 1.0, 0.0))
    second = np.cross(across / np.linalg.norm(across), tangents)
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    first = np.cross(tangents, second)
    # at a bend the section is wider across it, so that straight pieces keep their thickness
    stretch = 1.0 / np.maximum(np.sqrt(np.maximum((1 + (before * after).sum(1)) / 2, 0.0)), 0.5)
    scale = np.broadcast_to(np.asarray(radius, float), (len(line),))[:, None, None]
    offsets = outline[None, :, :1] * first[:, None] + outline[None, :, 1:] * (second * stretch[:, None])[:, None]
    return loft(line[:, None] + scale * offsets, loop=loop, columns=runs(outline, True))


def bar(
    start: Sequence[float] | np.ndarray, end: Sequence[float] | np.ndarray, width: float, depth: float | None = None,
    *, taper: float = 1.0, round_: bool = False, n: int = 10, rows: int = 3,
) -> Part:  # fmt: skip
    """A straight bar, square or round, ``taper`` times as thick at its end as at its start."""
    path = np.linspace(np.asarray(start, float), np.asarray(end, float), rows + 1)
    depth = width if depth is None else depth
    section = (
        circle(n) * np.array([width, depth]) / 2 if round_ else rectangle(width, depth, 0.12 * min(width, depth), 1)
    )
    return tube(path, np.linspace(1.0, taper, rows + 1), section=section)
