"""Where on a ray a field is asked, and what the answers add up to.

Letters: b objects, r rays, s samples, e = s + 1 edges between parts of a ray, c channels. All distances are along unit
directions, in scene units.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

LEAST_ALPHA = 1e-6
"""Expected distances are divided by alpha, but by no less than this."""
LEAST_WEIGHT = 0.01
"""Added to every smoothed weight before importance sampling, so that no part of a ray is beyond reach (Mip-NeRF)."""


@dataclass(frozen=True)
class RayRendering:
    """What R rays of each of B objects see.

    Attributes:
        rgb: colours over the background, (B, R, C).
        distance: expected distance along the ray sum(w t) / max(alpha, 1e-6) in scene units, (B, R); 0 on a miss.
        distance_sum: sum(w t), not divided, (B, R).
        alpha: 1 - final transmittance = sum(w), (B, R).
        weights: share of every sample in the pixel, w, (B, R, S); 0 on a miss.
        samples: distances t of the samples along the ray, ascending, (B, R, S); 0 on a miss.
        widths: length of the part of the ray that every sample stands for, (B, R, S); 0 on a miss.
    """

    rgb: Float[Tensor, "b r c"]
    distance: Float[Tensor, "b r"]
    distance_sum: Float[Tensor, "b r"]
    alpha: Float[Tensor, "b r"]
    weights: Float[Tensor, "b r s"]
    samples: Float[Tensor, "b r s"]
    widths: Float[Tensor, "b r s"]


def box_distances(
    origins: Float[Tensor, "b r 3"], directions: Float[Tensor, "b r 3"], half_size: float
) -> tuple[Float[Tensor, "b r"], Float[Tensor, "b r"]]:
    """Distances where rays enter and leave the box [-half_size, half_size]^3, (B, R) each; both 0 on a miss.

    The slab method (Kay and Kajiya 1986). A ray that starts inside enters at 0.
    """
    tiny = torch.finfo(directions.dtype).tiny ** 0.5
    safe = torch.where(directions.abs() < tiny, torch.full_like(directions, tiny), directions)
    first, second = (-half_size - origins) / safe, (half_size - origins) / safe
    near = torch.minimum(first, second).amax(-1).clamp_min(0)
    far = torch.maximum(first, second).amin(-1)
    zero = torch.zeros_like(near)
    return torch.where(far > near, near, zero), torch.where(far > near, far, zero)


def stratified(
    near: Float[Tensor, "b r"], far: Float[Tensor, "b r"], count: int, generator: torch.Generator | None = None
) -> Float[Tensor, "b r s"]:
    """``count`` distances, one in each equal part of [near, far]: in its middle, or anywhere with a generator."""
    offsets = _offsets((*near.shape, count), near, generator)
    return near[..., None] + (far - near)[..., None] * offsets


def _offsets(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """One number in each of the last axis' equal parts of [0, 1], ascending."""
    place = torch.full(shape, 0.5, dtype=like.dtype, device=like.device)
    if generator is not None:
        place = torch.rand(shape, dtype=like.dtype, device=like.device, generator=generator)
    return (torch.arange(shape[-1], dtype=like.dtype, device=like.device) + place) / max(shape[-1], 1)


def points_along(
    origins: Float[Tensor, "b r 3"],
    directions: Float[Tensor, "b r 3"],
    samples: Float[Tensor, "b r s"],
    half_size: float,
) -> Float[Tensor, "b r s 3"]:
    """World points at distances along rays.

    They are clamped to the box: this moves them by no more than rounding, and misses, which count nothing, inside.
    """
    return torch.addcmul(origins[:, :, None], samples[..., None], directions[:, :, None]).clamp(-half_size, half_size)


def part_edges(
    samples: Float[Tensor, "b r s"], near: Float[Tensor, "b r"], far: Float[Tensor, "b r"]
) -> Float[Tensor, "b r e"]:
    """Edges of the parts of [near, far] that are nearest to each of the ascending samples: the ends and mid-points."""
    middles = (samples[..., 1:] + samples[..., :-1]) / 2
    return torch.cat([near[..., None], middles, far[..., None]], -1)


@torch.no_grad()
def importance(
    edges: Float[Tensor, "b r e"],
    weights: Float[Tensor, "b r s"],
    count: int,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b r n"]:
    """``count`` ascending distances, dense where weights are large: inverse CDF of the weights, constant on each part.

    The weights are first widened to their neighbours and lifted by `LEAST_WEIGHT` (Mip-NeRF, Barron et al. 2021,
    section 3.1 and eq. 18), so that a surface between two coarse samples is met from both sides. Carries no gradient.
    """
    larger = F.max_pool1d(weights.flatten(0, 1)[:, None], 2, stride=1, padding=1)
    smooth = F.avg_pool1d(larger, 2, stride=1)[:, 0].view_as(weights) + LEAST_WEIGHT
    cumulated = F.pad(smooth.cumsum(-1), (1, 0))
    total = cumulated[..., -1:]
    wanted = _offsets((*weights.shape[:-1], count), weights, generator) * total
    part = (torch.searchsorted(cumulated, wanted, right=True) - 1).clamp(0, weights.shape[-1] - 1)
    start, mass = torch.gather(cumulated, -1, part), torch.gather(smooth, -1, part)
    left, right = torch.gather(edges, -1, part), torch.gather(edges, -1, part + 1)
    return left + (right - left) * ((wanted - start) / mass).clamp(0, 1)


def around(
    guide: Float[Tensor, "b r"],
    width: float,
    near: Float[Tensor, "b r"],
    far: Float[Tensor, "b r"],
    count: int,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b r s"]:
    """``count`` distances spread evenly over [guide - width, guide + width], as far as it is inside [near, far].

    Where there is no guide (0), or it is outside, they are spread over all of [near, far].
    """
    low, high = torch.maximum(near, guide - width), torch.minimum(far, guide + width)
    use = (guide > 0) & (high > low)
    return stratified(torch.where(use, low, near), torch.where(use, high, far), count, generator)


def quadrature(
    density: Float[Tensor, "b r s"], widths: Float[Tensor, "b r s"]
) -> tuple[Float[Tensor, "b r s"], Float[Tensor, "b r"]]:
    """Weights of the samples and alpha of the rays (NeRF, Mildenhall et al. 2020, eq. 3).

    w_i = exp(-sum_{j<i} sigma_j d_j) (1 - exp(-sigma_i d_i)); alpha = sum(w) = 1 - exp(-sum_j sigma_j d_j).
    """
    optical = density * widths
    through = optical.cumsum(-1)
    weights = torch.exp(optical - through) * -torch.expm1(-optical)
    return weights, -torch.expm1(-through[..., -1])


def composite(
    density: Float[Tensor, "b r s"],
    colors: Float[Tensor, "b r s c"],
    samples: Float[Tensor, "b r s"],
    edges: Float[Tensor, "b r e"],
    background: float,
) -> RayRendering:
    """What the samples add up to, over the background."""
    widths = edges.diff(dim=-1)
    weights, alpha = quadrature(density, widths)
    rgb = (weights[..., None] * colors).sum(-2) + (1 - alpha[..., None]) * background
    distance_sum = (weights * samples).sum(-1)
    distance = distance_sum / alpha.clamp_min(LEAST_ALPHA)
    return RayRendering(rgb, distance, distance_sum, alpha, weights, samples, widths)


def wide(tensor: Tensor) -> Tensor:
    """In float64 if it is, else in float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
