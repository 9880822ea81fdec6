"""Rendering without looking where nothing is: a grid of what may be occupied, and rays that ask the field only there.

For inference; nothing here carries gradients. Letters: b objects, r rays, s samples, n points, g cells of the grid
along each axis, c channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from latent3d.rendering.ray_samples import (
    RayRendering,
    composite,
    importance,
    part_edges,
    points_along,
    quadrature,
    stratified,
    wide,
)
from latent3d.rendering.triplane_radiance import TriPlaneRadiance

EMPTY_DENSITY = 1e-3
"""Density per scene unit below which a cell counts as empty; over a length L, a ray loses at most L times this."""
OPAQUE = 9.3
"""Optical depth at which a ray ends: what is behind adds less than exp(-9.3) = 1e-4 to the pixel."""
BLOCK = 16
"""Samples between two looks at whether a ray has ended."""
QUERY_POINTS = 1 << 16
"""Points of all objects together that the field is asked at once while the grid is built."""


@dataclass(frozen=True)
class Occupancy:
    """Where the fields of B objects may be more than empty.

    Attributes:
        cells: (B, G, G, G), indexed by x, y, z; the grid fills the box.
        half_size: half the side of the box in scene units.
    """

    cells: Bool[Tensor, "b g g g"]
    half_size: float

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        field: Callable[[Tensor], tuple[Tensor, Tensor]],
        objects: int,
        half_size: float,
        *,
        resolution: int = 64,
        empty_density: float = EMPTY_DENSITY,
        device: torch.device | str | None = None,
    ) -> Occupancy:
        """Ask the field at the middle of every cell; a cell is occupied if it or one of its 26 neighbours is dense.

        Something that is thinner than a cell, and dense at no middle around it, would be overlooked; two pixels of a
        plane per cell are safe in practice.

        Args:
            field: of ``objects`` objects, as of `render_volume`.
            objects: number of objects, B.
            half_size: half the side of the box in scene units.
            resolution: cells along each axis, G.
            empty_density: what counts as empty, per scene unit.
            device: of the points.
        """
        middles = ((torch.arange(resolution, device=device) + 0.5) * (2 / resolution) - 1) * half_size
        if isinstance(field, TriPlaneRadiance) and field.compiled(middles):
            density = field.grid_density(middles)
        else:
            size = max(1, QUERY_POINTS // objects)
            points = torch.cartesian_prod(middles, middles, middles).split(size)
            parts = [wide(field(part.expand(objects, -1, -1))[0]) for part in points]
            density = rearrange(torch.cat(parts, 1), "b (x y z) -> b x y z", x=resolution, y=resolution)
        return cls(_grown(density >= empty_density), half_size)

    def at(self, points: Float[Tensor, "b r s 3"]) -> Bool[Tensor, "b r s"]:
        """Whether points inside the box are in occupied cells."""
        count = self.cells.shape[-1]
        place = ((points / self.half_size + 1) * (count / 2)).long().clamp_(0, count - 1)
        flat = (place[..., 0] * count + place[..., 1]) * count + place[..., 2]
        return self.cells.flatten(1).gather(1, flat.flatten(1)).view(flat.shape)

    def on_rays(
        self,
        origins: Float[Tensor, "b r 3"],
        directions: Float[Tensor, "b r 3"],
        near: Float[Tensor, "b r"],
        far: Float[Tensor, "b r"],
        count: int,
    ) -> Bool[Tensor, "b r"]:
        """Whether any of ``count`` even samples of each ray is in an occupied cell."""
        points = points_along(origins, directions, stratified(near, far, count), self.half_size)
        return self.at(points).any(-1) & (far > near)


def _grown(cells: Bool[Tensor, "b g g g"]) -> Bool[Tensor, "b g g g"]:
    """With the 26 neighbours of every occupied cell."""
    for axis in (1, 2, 3):
        grown, last = cells.clone(), cells.shape[axis] - 1
        grown.narrow(axis, 0, last).logical_or_(cells.narrow(axis, 1, last))
        grown.narrow(axis, 1, last).logical_or_(cells.narrow(axis, 0, last))
        cells = grown
    return cells


@torch.no_grad()
def march_occupied(
    field: Callable[[Tensor], tuple[Tensor, Tensor]],
    origins: Float[Tensor, "b r 3"],
    directions: Float[Tensor, "b r 3"],
    near: Float[Tensor, "b r"],
    far: Float[Tensor, "b r"],
    occupancy: Occupancy,
    coarse: int,
    fine: int,
    background: float,
) -> RayRendering:
    """What `render_rays` computes without jitter, but empty samples and those behind `OPAQUE` are not asked for."""
    rays = _Rays(field, origins, directions, near, far, occupancy)
    samples = stratified(near, far, coarse)
    unknown = _Answers.none(rays, samples)
    answers = rays.ask(samples, unknown)
    if fine:
        edges = part_edges(samples, near, far)
        weights, _ = quadrature(answers.density, edges.diff(dim=-1))
        further = importance(edges, weights, fine)
        samples, order = torch.cat([samples, further], -1).sort(dim=-1, stable=True)
        answers = rays.ask(samples, answers.joined(_Answers.none(rays, further), order))
    return composite(answers.density, answers.colors, samples, part_edges(samples, near, far), background)


@dataclass(frozen=True)
class _Answers:
    """Densities (B, R, S) and colours (B, R, S, C) of samples, zero where not ``known`` (B, R, S) or empty."""

    density: Tensor
    colors: Tensor
    known: Tensor

    @classmethod
    def none(cls, rays: _Rays, samples: Tensor) -> _Answers:
        """Nothing is known yet."""
        density = torch.zeros_like(samples, dtype=rays.dtype)
        return cls(density, density[..., None].repeat(1, 1, 1, rays.channels), torch.zeros_like(density).bool())

    def joined(self, other: _Answers, order: Tensor) -> _Answers:
        """Both along the samples, then in this order (B, R, S + S')."""
        color_order = order[..., None].expand(*order.shape, self.colors.shape[-1])
        return _Answers(
            torch.cat([self.density, other.density], -1).gather(-1, order),
            torch.cat([self.colors, other.colors], -2).gather(-2, color_order),
            torch.cat([self.known, other.known], -1).gather(-1, order),
        )


class _Rays:
    """Rays of which the part in the box is known, and the field they go through."""

    def __init__(self, field, origins, directions, near, far, occupancy: Occupancy) -> None:
        self.field, self.occupancy = field, occupancy
        self.origins, self.directions, self.near, self.far = origins, directions, near, far
        self.hit = (far > near)[..., None]
        _, colors = field(origins[:, :0])
        self.channels, self.dtype = colors.shape[-1], wide(colors).dtype

    def ask(self, samples: Tensor, answers: _Answers) -> _Answers:
        """Fill in what is not known, block of samples by block, as long as rays have not ended; changes ``answers``."""
        widths = part_edges(samples, self.near, self.far).diff(dim=-1)
        optical = torch.zeros_like(self.near)
        for start in range(0, samples.shape[-1], BLOCK):
            block = slice(start, start + BLOCK)
            points = points_along(self.origins, self.directions, samples[..., block], self.occupancy.half_size)
            wanted = ~answers.known[..., block] & (optical < OPAQUE)[..., None] & self.occupancy.at(points) & self.hit
            density, colors = self._evaluate(points, wanted)
            answers.density[..., block][wanted] = density
            answers.colors[..., block, :][wanted] = colors
            answers.known[..., block] |= wanted
            optical += (answers.density[..., block] * widths[..., block]).sum(-1)
        return answers

    def _evaluate(self, points: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Densities (M,) and colours (M, C) of the M wanted points, in order; one call of the field for all objects."""
        mask = wanted.flatten(1)
        owner, place = mask.nonzero(as_tuple=True)
        among = (mask.cumsum(1) - 1)[owner, place]
        most = int(mask.sum(1).max())
        packed = points.new_zeros(len(mask), most, 3)
        packed[owner, among] = points.flatten(1, 2)[owner, place]
        density, colors = self.field(packed)
        return wide(density)[owner, among], wide(colors)[owner, among]
