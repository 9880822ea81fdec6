"""Distances of shapes and of sets of shapes: points on surfaces, Chamfer distance, coverage, MMD, 1-NNA.

Protocol of LN3Diff and GET3D: points on the outer surface, clouds centred and scaled to [-1, 1], squared Chamfer
distance. Coverage rewards noise, since a bad sample can be the nearest to some reference too: read it beside the
minimum matching distance or 1-NNA.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from latent3d.geometry.object_cameras import sphere
from latent3d.representations.mesh import Mesh
from latent3d.representations.surface_points import draw_on_surface

CLOUD_POINTS = 2048
"""Points per shape (GET3D, PointFlow)."""
CLOUD_SEED = 41
"""All clouds are drawn with this seed (GET3D's), so that equal surfaces have equal clouds."""
OUTER_CAMERAS = 32
OUTER_SIZE = 256
OUTER_FOV_DEG = 26.0
"""Shows a box with equal sides, turned any way, from a distance of four sides."""
OUTER_TOLERANCE = 0.01
"""A point counts as seen down to this depth behind the first surface, as a share of the mesh's longest side."""

Outside = Callable[[Float[Tensor, "n 3"]], Bool[Tensor, " n"]]


def sample_surface(
    mesh: Mesh, count: int = CLOUD_POINTS, seed: int = CLOUD_SEED, *, outside: Outside | None = None
) -> Float[Tensor, "n 3"]:
    """Points drawn evenly over a mesh's area, (count, 3) in its units, float32.

    Args:
        mesh: any triangles; open and intersecting ones too.
        count: number of points.
        seed: same seed and mesh, same points.
        outside: which points (n, 3) count; the others are drawn anew (see `seen_from_outside`). All by default.

    Raises:
        ValueError: for a mesh without area, or one of whose points (almost) none lies outside.
    """
    rng, found = np.random.default_rng(seed), []
    drawn = kept = 0
    while kept < count:
        if drawn >= 100 * count:
            raise ValueError("fewer than one in a hundred points of the mesh can be seen from outside")
        points, _ = draw_on_surface(mesh, count, rng)
        if outside is not None:
            points = points[outside(points)]
        found.append(points)
        drawn, kept = drawn + count, kept + len(points)
    return torch.cat(found)[:count]


def seen_from_outside(mesh: Mesh, views: int = OUTER_CAMERAS, size: int = OUTER_SIZE) -> Outside:
    """The outer surface: what cameras all around see, so that a car's seats or a double wall do not count.

    GET3D takes the points of rendered depth instead, which makes their density depend on the cameras. Here the points
    stay even over the area: one counts when it lies no deeper than `OUTER_TOLERANCE` of the longest side behind the
    depth that some camera sees at its pixel. Inner walls closer than that to the outer ones still count.

    Args:
        views: cameras, evenly spread over a sphere.
        size: side of the depth maps in pixels.
    """
    from latent3d.rendering.meshes import rasterize

    low, high = mesh.bounds()
    centre, span = (low + high) / 2, float((high - low).max())
    cameras = sphere(views, 0, 4 * span, OUTER_FOV_DEG, size)
    depth = rasterize(replace(mesh, vertices=mesh.vertices - centre), cameras).depth

    def outside(points: Float[Tensor, "n 3"]) -> Bool[Tensor, " n"]:
        pixels, own = cameras.project((points - centre).expand(views, -1, 3))
        column, line = pixels.floor().long().clamp(0, size - 1).unbind(-1)
        first = depth[torch.arange(views)[:, None], line, column]
        return ((first > 0) & (own <= first + OUTER_TOLERANCE * span)).any(0)

    return outside


def normalized(points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """A cloud moved so that its box is centred, and scaled evenly so that the longest side spans [-1, 1].

    Raises:
        ValueError: for a cloud without extent.
    """
    low, high = points.amin(0), points.amax(0)
    half = float((high - low).max()) / 2
    if half <= 0:
        raise ValueError("the points coincide; a cloud needs an extent")
    return (points - (low + high) / 2) / half


def farthest_points(points: Float[Tensor, "n 3"], count: int) -> Float[Tensor, "m 3"]:
    """``count`` of the points, each the farthest from those before; starts with the first (Eldar et al. 1997).

    For comparisons in GaussianAnything's way: 16,384 points on the surface, 4,096 of them.

    Raises:
        ValueError: if there are fewer points.
    """
    if len(points) < count:
        raise ValueError(f"{count} points cannot be chosen among {len(points)}; sample more")
    chosen = torch.zeros(count, dtype=torch.long)
    distance = torch.full((len(points),), math.inf, dtype=points.dtype)
    for i in range(1, count):
        distance = torch.minimum(distance, (points - points[chosen[i - 1]]).square().sum(1))
        chosen[i] = distance.argmax()
    return points[chosen]


def chamfer(a: Float[Tensor, "n 3"], b: Float[Tensor, "m 3"]) -> float:
    """Squared Chamfer distance mean_a min_b |a - b|^2 + mean_b min_a |a - b|^2: the sum of both directions' means.

    The means are GET3D's (and kaolin's); LN3Diff writes sums, and its tables' sizes say means. Other libraries print
    the unsquared one, which does not compare.
    """
    return float(pairwise_chamfer([a], [b])[0, 0])


def pairwise_chamfer(
    references: Sequence[Float[Tensor, "_ 3"]],
    generated: Sequence[Float[Tensor, "_ 3"]],
    progress: Callable[[int, int], None] | None = None,
) -> Float[Tensor, "r g"]:
    """`chamfer` of every reference (rows) with every generated cloud (columns), float64, by one KD-tree per cloud.

    Args:
        progress: called with rows done and rows in all.
    """
    from scipy.spatial import cKDTree

    rows, columns = ([np.asarray(cloud, dtype=np.float64) for cloud in part] for part in (references, generated))
    trees = [cKDTree(cloud) for cloud in columns]
    out = torch.zeros(len(rows), len(columns), dtype=torch.float64)
    for i, cloud in enumerate(rows):
        tree = cKDTree(cloud)
        for j, (other, others) in enumerate(zip(columns, trees, strict=True)):
            out[i, j] = np.square(others.query(cloud)[0]).mean() + np.square(tree.query(other)[0]).mean()
        if progress is not None:
            progress(i + 1, len(rows))
    return out


def minimum_matching_distance(distances: Float[Tensor, "r g"]) -> float:
    """MMD: mean over references (rows) of the distance to the nearest generated shape (Achlioptas et al. 2018)."""
    return float(distances.min(1).values.mean())


def coverage(distances: Float[Tensor, "r g"]) -> float:
    """COV: share of references (rows) that are the nearest one of some generated shape, in [0, 1]."""
    return len(distances.argmin(0).unique()) / len(distances)


def one_nearest_neighbour_accuracy(
    between: Float[Tensor, "r g"], references: Float[Tensor, "r r"], generated: Float[Tensor, "g g"]
) -> float:
    """1-NNA: share of shapes whose nearest other shape is of their own set (Lopez-Paz and Oquab 2017), in [0, 1].

    0.5 is ideal; 1: the sets can be told apart; below 0.5: samples copy references. Every shape is left out of its own
    neighbours; of equally near ones the other set's counts.

    Args:
        between, references, generated: `pairwise_chamfer` of both sets, and of each with itself.

    Raises:
        ValueError: if a set holds fewer than two shapes.
    """
    if min(between.shape) < 2:
        raise ValueError("1-NNA needs at least two shapes of either kind")
    own = [part + torch.diag(torch.full((len(part),), math.inf, dtype=part.dtype)) for part in (references, generated)]
    right = (own[0].min(1).values < between.min(1).values).sum() + (own[1].min(1).values < between.min(0).values).sum()
    return int(right) / sum(between.shape)
