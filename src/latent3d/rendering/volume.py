"""Volume rendering of any field in a box: rays and whole pictures of batches of objects.

A field is a function of points (B, N, 3) to densities (B, N) >= 0, per scene unit, and colours (B, N, C). Every ray is
cut to the box first; rays that miss it show the background, and no point outside is ever asked for.

Letters: b objects, v views, r rays, s samples, c channels, h/w image size. "Distance" is along the ray, "depth" along
the camera's axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TypeAlias, TypeGuard

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor

from latent3d.config import Config
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.rays import camera_rays
from latent3d.rendering.occupancy import BLOCK, OPAQUE, Occupancy, march_occupied
from latent3d.rendering.ray_samples import (
    RayRendering,
    around,
    box_distances,
    composite,
    importance,
    part_edges,
    points_along,
    quadrature,
    stratified,
    wide,
)
from latent3d.rendering.triplane_radiance import TriPlaneRadiance

Field: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Points (B, N, 3) to densities (B, N) and colours (B, N, C)."""

NORMAL_ALPHA = 0.01
"""Rays that meet less than this have no normal."""


@dataclass(frozen=True, kw_only=True)
class VolumeConfig(Config):
    """Samples of a ray, and how rays are worked off. The defaults are LN3Diff's for Objaverse.

    Attributes:
        coarse: samples spread evenly over the part of the ray inside the box.
        fine: further samples where the coarse ones found something (inverse CDF of their weights).
        guided: instead of the fine ones where rays come with a guide: further samples in a band around it.
        guide_width: half the width of that band, as a fraction of half the box's side.
        background: value behind everything, in all channels; 1 is white.
        density_noise: standard deviation of noise on densities while training (`render_rays` with a generator).
        chunk_rays: rays of all objects together that are worked on at once by `render_volume`.
        normal_step: half the distance of the finite differences for normals, as a fraction of half the box's side.
    """

    coarse: int = 64
    fine: int = 64
    guided: int = 12
    guide_width: float = 0.1
    background: float = 1.0
    density_noise: float = 0.0
    chunk_rays: int = 1024
    normal_step: float = 0.02

    def __post_init__(self) -> None:
        if self.coarse < 1 or min(self.fine, self.guided) < 0 or self.chunk_rays < 1:
            raise ValueError("volume rendering needs at least one coarse sample, and at least one ray at a time")
        if not (self.guide_width > 0 and self.normal_step > 0 and self.density_noise >= 0):
            raise ValueError("guide_width and normal_step must be positive, density_noise not negative")


@dataclass(frozen=True)
class VolumeRendering:
    """What V cameras of each of B objects see.

    Attributes:
        rgb: colours over the background, (B, V, C, H, W).
        depth: expected z-depth sum(w z) / max(alpha, 1e-6) in scene units, 0 where nothing is, (B, V, 1, H, W).
        depth_sum: sum(w z), not divided, (B, V, 1, H, W).
        alpha: 1 - final transmittance, in [0, 1], (B, V, 1, H, W).
        normals: unit vectors in world axes, out of the surface, (B, V, 3, H, W); 0 where nothing is. None if not asked
            for.
    """

    rgb: Float[Tensor, "b v c h w"]
    depth: Float[Tensor, "b v 1 h w"]
    depth_sum: Float[Tensor, "b v 1 h w"]
    alpha: Float[Tensor, "b v 1 h w"]
    normals: Float[Tensor, "b v 3 h w"] | None = None


def render_volume(
    field: Field,
    cameras: Cameras,
    half_size: float,
    config: VolumeConfig,
    *,
    normals: bool = False,
    generator: torch.Generator | None = None,
    occupancy: Occupancy | None = None,
) -> VolumeRendering:
    """Whole pictures of B objects by V cameras each, worked off in chunks of rays; differentiable.

    Args:
        field: of all B objects.
        cameras: batch shape (B, V).
        half_size: half the side of the box in scene units.
        config: numbers of samples and the like.
        normals: also compute normals (`field_normals`, six more evaluations of the field per ray).
        generator: for jittered samples; without one, samples are at fixed places and two calls give the same.
        occupancy: of the field, for inference: several times faster, without gradients (`render_rays`).

    Raises:
        ValueError: if the cameras' batch shape is not (B, V), ``half_size`` is not positive, or an occupancy comes with
            a generator.
    """
    if len(cameras.shape) != 2:
        raise ValueError(f"cameras must have the batch shape (objects, views), found {tuple(cameras.shape)}")
    origins, directions = (rearrange(rays, "b v h w xyz -> b (v h w) xyz") for rays in camera_rays(cameras))
    size = max(1, config.chunk_rays // max(1, len(cameras)))
    seen, facing = [], []
    for rays in zip(origins.split(size, 1), directions.split(size, 1), strict=True):
        part = render_rays(field, *rays, half_size, config, generator=generator, occupancy=occupancy)
        if normals:
            facing.append(field_normals(field, *rays, part, half_size, config))
        seen.append((part.rgb, part.distance, part.distance_sum, part.alpha))
    rgb, distance, distance_sum, alpha = (torch.cat(parts, 1) for parts in zip(*seen, strict=True))
    # the axis of a camera in world axes is the last row of its rotation; a ray's z-depth is its share along it
    axes = repeat(cameras.w2c[..., 2, :3], "b v xyz -> b (v n) xyz", n=cameras.height * cameras.width)
    along = (directions * axes).sum(-1)

    def image(values: Tensor) -> Tensor:
        return rearrange(values, "b (v h w) c -> b v c h w", h=cameras.height, w=cameras.width)

    depth, depth_sum, alpha = (image(value[..., None]) for value in (distance * along, distance_sum * along, alpha))
    return VolumeRendering(image(rgb), depth, depth_sum, alpha, image(torch.cat(facing, 1)) if normals else None)


def render_rays(
    field: Field,
    origins: Float[Tensor, "b r 3"],
    directions: Float[Tensor, "b r 3"],
    half_size: float,
    config: VolumeConfig,
    *,
    generator: torch.Generator | None = None,
    guide: Float[Tensor, "b r"] | None = None,
    occupancy: Occupancy | None = None,
) -> RayRendering:
    """Volume rendering of R rays of each of B objects; differentiable. Compositing is in at least float32.

    Without a guide: ``config.coarse`` samples, then ``config.fine`` ones where these found something. With one: the
    coarse samples and ``config.guided`` ones within ``guide_width * half_size`` of it, in a single evaluation of the
    field; rays without a guide spread theirs over the whole box. The quadrature is the same for both: each sample
    stands for the part of the ray that is nearest to it, so a constant density gives alpha = 1 - exp(-density length)
    exactly.

    Args:
        field: of all B objects; evaluated inside the box only, and under the caller's autocast. A `TriPlaneRadiance`
            that compiled loops apply to goes through its rays in one of them where nothing needs a gradient: the same
            up to rounding, faster, and always in float32.
        origins: in world axes and scene units, (B, R, 3).
        directions: unit vectors, (B, R, 3).
        half_size: half the side of the box in scene units.
        config: numbers of samples and the like.
        generator: for training: jitters the samples within their strata and draws the density noise. Without one,
            samples are in the middle of their strata.
        guide: true distance along the ray in scene units, 0 where there is none, (B, R).
        occupancy: where the fields may be more than empty. The field is then asked only there, and not behind what is
            opaque, without gradients; colours and alpha differ from the complete answer by about `EMPTY_DENSITY` times
            the box's diagonal at most.

    Raises:
        ValueError: if ``half_size`` is not positive, or an occupancy comes with a generator or a guide.
    """
    if not half_size > 0:
        raise ValueError(f"half_size must be positive, found {half_size}")
    if occupancy is not None and (generator is not None or guide is not None):
        raise ValueError("rays through an occupancy grid are for inference: leave out the generator and the guide")
    near, far = box_distances(origins, directions, half_size)
    if guide is None and generator is None and _marches(field, origins, directions, occupancy):
        cells, limit = (None, math.inf) if occupancy is None else (occupancy.cells, OPAQUE)
        return field.march(
            origins, directions, near, far, coarse=config.coarse, fine=config.fine, background=config.background,
            cells=cells, limit=limit, block=BLOCK,
        )  # fmt: skip
    wanted = far > near
    if occupancy is not None:
        wanted = occupancy.on_rays(origins, directions, near, far, config.coarse)
    keep = _places(wanted)
    rays, ends = (_taken(origins, keep), _taken(directions, keep)), (_taken(near, keep), _taken(far, keep))
    if occupancy is not None:
        seen = march_occupied(field, *rays, *ends, occupancy, config.coarse, config.fine, config.background)
    else:
        nearby = None if guide is None else _taken(guide, keep)
        seen = _march(_along(field, *rays, half_size), *ends, half_size, config, generator, nearby)
    return _restored(seen, keep, origins.shape[1], config.background)


def _marches(
    field: Field, origins: Tensor, directions: Tensor, occupancy: Occupancy | None
) -> TypeGuard[TriPlaneRadiance]:
    """Whether one compiled loop can do it all: without gradients, as an occupancy grid is without them anyway."""
    if not isinstance(field, TriPlaneRadiance) or not field.compiled(origins, directions):
        return False
    return occupancy is not None or field.constant(origins, directions)


def _march(
    along: Field,
    near: Float[Tensor, "b r"],
    far: Float[Tensor, "b r"],
    half_size: float,
    config: VolumeConfig,
    generator: torch.Generator | None,
    guide: Float[Tensor, "b r"] | None,
) -> RayRendering:
    """`render_rays` of rays of which the part inside the box is known; ``along`` is the field by distance."""
    samples = stratified(near, far, config.coarse, generator)
    if guide is not None and config.guided:
        further = around(guide, config.guide_width * half_size, near, far, config.guided, generator)
        samples = torch.cat([samples, further], -1).sort(-1).values
    density, colors = along(samples)
    if guide is None and config.fine:
        edges = part_edges(samples, near, far)
        weights, _ = quadrature(density.detach(), edges.diff(dim=-1))
        further = importance(edges, weights, config.fine, generator)
        more_density, more_colors = along(further)
        samples, order = torch.cat([samples, further], -1).sort(dim=-1, stable=True)
        density = torch.cat([density, more_density], -1).gather(-1, order)
        colors = torch.cat([colors, more_colors], -2)
        colors = colors.gather(-2, order[..., None].expand_as(colors))
    if generator is not None and config.density_noise > 0:
        noise = torch.randn(density.shape, dtype=density.dtype, device=density.device, generator=generator)
        density = (density + config.density_noise * noise).relu()
    return composite(density, colors, samples, part_edges(samples, near, far), config.background)


def field_normals(
    field: Field,
    origins: Float[Tensor, "b r 3"],
    directions: Float[Tensor, "b r 3"],
    seen: RayRendering,
    half_size: float,
    config: VolumeConfig,
) -> Float[Tensor, "b r 3"]:
    """Unit normals -grad(density) / |grad(density)| where the rays end on average, in world axes, (B, R, 3).

    Central differences over ``2 normal_step half_size`` along each axis; 0 where a ray meets less than `NORMAL_ALPHA`.
    Differentiable in the field, not in the place.
    """
    keep = _places(seen.alpha > NORMAL_ALPHA)
    points = _taken(origins, keep) + _taken(seen.distance.detach(), keep)[..., None] * _taken(directions, keep)
    step = config.normal_step * half_size * torch.eye(3, dtype=points.dtype, device=points.device)
    around_it = (points[..., None, None, :] + torch.stack([step, -step])).clamp(-half_size, half_size)
    density, _ = field(rearrange(around_it, "b r side xyz step -> b (r side xyz) step"))
    sides = rearrange(wide(density), "b (r side xyz) -> side b r xyz", side=2, xyz=3)
    normals = F.normalize(sides[1] - sides[0], dim=-1) * (_taken(seen.alpha, keep) > NORMAL_ALPHA)[..., None]
    return _put(normals, keep, origins.shape[1], 0.0)


def _along(field: Field, origins: Tensor, directions: Tensor, half_size: float) -> Field:
    """The field by distances (B, R, S): densities (B, R, S) and colours (B, R, S, C), both in at least float32."""

    def along(distances: Tensor) -> tuple[Tensor, Tensor]:
        density, colors = field(points_along(origins, directions, distances, half_size).flatten(1, 2))
        shape = distances.shape[1:]
        return wide(density).unflatten(1, shape), wide(colors).unflatten(1, shape)

    return along


def _places(wanted: Bool[Tensor, "b r"]) -> Tensor:
    """Places (B, K) of the wanted rays, in order, K the most of any object; the others are filled up with unwanted."""
    most = int(wanted.sum(1).max())
    return torch.argsort((~wanted).byte(), dim=1, stable=True)[:, :most]


def _taken(values: Tensor, places: Tensor) -> Tensor:
    """values (B, R, ...) at places (B, K)."""
    index = places.reshape(*places.shape, *[1] * (values.ndim - 2))
    return values.gather(1, index.expand(*places.shape, *values.shape[2:]))


def _put(values: Tensor, places: Tensor, count: int, empty: float) -> Tensor:
    """Inverse of `_taken`: values (B, K, ...) at their places among ``count``, ``empty`` elsewhere."""
    index = places.reshape(*places.shape, *[1] * (values.ndim - 2)).expand_as(values)
    return values.new_full((values.shape[0], count, *values.shape[2:]), empty).scatter(1, index, values)


def _restored(seen: RayRendering, places: Tensor, count: int, background: float) -> RayRendering:
    """With the rays that miss the box put back."""
    empty = {"rgb": background}
    values = {f.name: _put(getattr(seen, f.name), places, count, empty.get(f.name, 0.0)) for f in fields(seen)}
    return RayRendering(**values)
