"""Places on the surface of a field: evenly spread points to which splats can be tied.

Letters: b objects, n points, r cells along a side of the box.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor

from latent3d.rendering.volume import Field

FAINT, FULL = 0.02, 0.98
"""Cells are looked at closely unless all around them have less, or all have more, than these opacities."""
SURFACE = 0.25
"""A cell is of the surface where its opacity times the openness of its most open neighbour is at least this."""


@dataclass(frozen=True)
class Anchors:
    """The same number of points for every object.

    Attributes:
        points: in world axes and scene units, (B, N, 3).
        spacing: about how far neighbouring points are apart on the surface, in scene units, (B,).
    """

    points: Float[Tensor, "b n 3"]
    spacing: Float[Tensor, " b"]


@torch.no_grad()
def surface_anchors(
    field: Field,
    objects: int,
    count: int,
    half_size: float,
    *,
    coarse: int = 32,
    refine: int = 2,
    chunk: int = 1 << 18,
    device: torch.device | str = "cpu",
) -> Anchors:
    """``count`` points per object in the surface cells of a grid of ``coarse * refine`` cells a side.

    The field is asked in the middle of every coarse cell, then in that of every fine cell where the coarse ones and
    their neighbours are neither all empty nor all full. A fine cell is of the surface if it is opaque (over the length
    of a coarse cell) and one of its six neighbours is not; where that holds nowhere, the cells come nearest to it that
    have at least half the largest value. Points are spread evenly over these cells: with more cells than points some
    are passed over, with fewer the further points of a cell lie off its middle, in the order of a low-discrepancy
    sequence. Nothing is random.

    Args:
        field: of B objects, points (B, N, 3) to densities (B, N) per scene unit and colours.
        objects: B.
        half_size: half the side of the box in scene units.
        chunk: largest number of points, of all objects together, in one call.
        device: where the field is asked.

    Raises:
        ValueError: if a number is not positive.
    """
    if min(objects, count, coarse, refine, chunk) < 1 or not half_size > 0:
        raise ValueError("objects, count, coarse, refine, chunk and half_size must be positive")
    length = 2 * half_size / coarse

    def opacity(cells: Tensor, side: int) -> Tensor:
        """Of cells (B, N, 3) of a grid of ``side`` cells."""
        parts = cells.split(max(1, chunk // objects), 1)
        points = ((part + 0.5) * (2 * half_size / side) - half_size for part in parts)
        return torch.cat([1 - torch.exp(-length * field(part)[0].float()) for part in points], 1)

    steps = torch.arange(coarse, device=device)
    every = repeat(torch.cartesian_prod(steps, steps, steps), "n xyz -> b n xyz", b=objects)
    alphas = opacity(every, coarse).unflatten(1, (coarse,) * 3)
    if refine > 1:
        alphas = _refined(alphas, refine, opacity)
    wide = F.pad(1 - alphas, [1] * 6, value=1.0)  # what lies outside the box is open
    openness = torch.stack([_largest(wide, axis) for axis in range(3)]).amax(0)
    placed = [_spread(score, count, half_size) for score in alphas * openness]
    return Anchors(torch.stack([points for points, _ in placed]), torch.stack([gap for _, gap in placed]))


def _refined(
    alphas: Float[Tensor, "b r r r"], refine: int, opacity: Callable[[Tensor, int], Tensor]
) -> Float[Tensor, "b s s s"]:
    """The grid ``refine`` times finer, asked anew where it matters and copied elsewhere."""
    side = alphas.shape[-1] * refine
    fine = alphas
    for axis in (1, 2, 3):
        fine = fine.repeat_interleave(refine, axis)
    active = _undecided(alphas)
    owner, *place = torch.nonzero(active, as_tuple=True)
    counts = torch.bincount(owner, minlength=len(alphas))
    if not len(owner):
        return fine
    # every object asks as often as the one with most cells; what the others ask more (of corner cells) is dropped
    slot = torch.arange(len(owner), device=alphas.device) - (counts.cumsum(0) - counts)[owner]
    cells = torch.zeros(len(alphas), int(counts.max()), 3, dtype=torch.long, device=alphas.device)
    cells[owner, slot] = torch.stack(place, -1)
    steps = torch.arange(refine, device=alphas.device)
    inner = cells[:, :, None] * refine + torch.cartesian_prod(steps, steps, steps)
    values = opacity(rearrange(inner, "b m k xyz -> b (m k) xyz"), side).unflatten(1, inner.shape[1:3])
    x, y, z = inner[owner, slot].unbind(-1)
    fine[owner[:, None], x, y, z] = values[owner, slot]
    return fine


def _undecided(alphas: Float[Tensor, "b r r r"]) -> Bool[Tensor, "b r r r"]:
    """Cells with something in their 3x3x3 neighbourhood, but not everywhere in it."""
    wide = F.pad(alphas, [1] * 6)[:, None]
    most, least = F.max_pool3d(wide, 3, 1)[:, 0], -F.max_pool3d(-wide, 3, 1)[:, 0]
    faint = (0.5 * alphas.flatten(1).amax(1)).clamp_max(FAINT)[:, None, None, None]
    return (most > faint) & (least < FULL)


def _largest(wide: Float[Tensor, "b w w w"], axis: int) -> Float[Tensor, "b r r r"]:
    """Largest of the values before, at and after each cell along an axis; ``wide`` has a border of one cell."""
    kernel = [3 if i == axis else 1 for i in range(3)]
    pooled = F.max_pool3d(wide[:, None], kernel, 1)[:, 0]
    inner = [slice(None) if i == axis else slice(1, -1) for i in range(3)]
    return pooled[:, inner[0], inner[1], inner[2]]


def _spread(
    score: Float[Tensor, "s s s"], count: int, half_size: float
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, ""]]:
    """Points of one object and their spacing, from how much each cell is of its surface."""
    cell = 2 * half_size / score.shape[-1]
    cells = torch.nonzero(score >= torch.clamp(0.5 * score.max(), max=SURFACE))
    places = torch.div(
        (2 * torch.arange(count, device=score.device) + 1) * len(cells), 2 * count, rounding_mode="floor"
    )
    again = torch.arange(count, device=score.device) - torch.searchsorted(places, places)
    # the sequence of multiples of (1/g, 1/g^2, 1/g^3) modulo 1, g^4 = g + 1 (Roberts 2018), from the middle on
    ratio = 1.2207440846057596 ** -torch.arange(1.0, 4.0, device=score.device)
    offset = (0.5 + again[:, None] * ratio) % 1.0
    points = (cells[places] + offset) * cell - half_size
    share = min(max(len(cells) / count, 0.25), 16.0)
    return points, torch.tensor(cell * math.sqrt(share), device=score.device)
