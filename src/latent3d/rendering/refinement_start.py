"""Where refinement starts: how large a scene is, and splats from nothing. V views, N splats."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.precision import full_precision
from latent3d.geometry.rays import rays_z1
from latent3d.rendering.base import NEAR
from latent3d.representations.gaussians import Gaussians

NEAREST_NEIGHBOUR = math.gamma(4 / 3) * (4 * math.pi / 3) ** (-1 / 3)
"""Mean distance to the nearest of points scattered at density 1 (Poisson process in space): 0.554."""
SCATTERED_OPACITY = 0.1
"""Of splats that start from nothing (3DGS)."""


@torch.no_grad()
def scene_extent(means: Float[Tensor, "n 3"], cameras: Cameras) -> float:
    """Median depth in scene units of the points that a camera shows, averaged over the cameras (V,) that show any.

    3DGS takes the radius of the cameras' places, which is about the same where a capture surrounds its subject, and far
    too small for a few cameras close together.

    Raises:
        ValueError: if no camera shows any point.
    """
    medians = []
    for index in range(len(cameras)):
        pixels, depth = cameras[index : index + 1].project(means[None])
        limit = pixels.new_tensor([cameras.width, cameras.height])
        inside = (depth > NEAR) & (pixels >= 0).all(-1) & (pixels < limit).all(-1)
        if bool(inside.any()):
            medians.append(float(depth[inside].median()))
    if not medians:
        raise ValueError("none of the views shows any of the splats; check that cameras and splats share one world")
    return sum(medians) / len(medians)


@full_precision
def scatter_splats(cameras: Cameras, count: int, near: float, far: float, seed: int) -> Gaussians:
    """Grey round splats at random places that cameras see: a start from nothing for `refine`.

    Places are uniform in the pixels of random cameras and in the logarithm of depth. A splat's standard deviation is
    the mean distance between nearest neighbours at the density of points where it lies, 0.554 density^(-1/3), with

        density(x) = sum over cameras that show x of (count / V) fx fy / (W H ln(far / near) z^3),

    because a pixel's step in depth holds the volume z^3 dln(z) / (fx fy).

    Args:
        cameras: (V,), V >= 1.
        count: number of splats, >= 1.
        near, far: z-depths in scene units, 0 < near < far.
        seed: of the places.

    Raises:
        ValueError: for a count below 1, no cameras or depths out of order.
    """
    if count < 1 or len(cameras.shape) != 1 or len(cameras) < 1 or not 0 < near < far < math.inf:
        raise ValueError(
            "scatter_splats needs cameras (V,), a count of at least 1 and 0 < near < far, got "
            f"{tuple(cameras.shape)}, {count}, {near} and {far}"
        )
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(4, count, generator=generator, dtype=torch.float64)
    which = (draws[3] * len(cameras)).long().clamp_max(len(cameras) - 1).to(cameras.w2c.device)
    depth = (near * torch.exp(draws[2] * math.log(far / near))).to(cameras.w2c)
    pixels = torch.stack([draws[0] * cameras.width, draws[1] * cameras.height], -1).to(cameras.w2c)
    chosen = cameras[which]
    means = chosen.centers + depth[:, None] * rays_z1(pixels[:, None], chosen)[:, 0]
    density = _density(means, which, cameras, near, far)
    size = NEAREST_NEIGHBOUR * density.pow(-1 / 3)
    quaternions = torch.zeros(count, 4).to(means)
    quaternions[:, 0] = 1
    return Gaussians(
        means=means,
        quaternions=quaternions,
        scales=size[:, None].expand(-1, 3).contiguous(),
        opacities=torch.full((count,), SCATTERED_OPACITY).to(means),
        colors=torch.full((count, 3), 0.5).to(means),
    )


def _density(
    means: Float[Tensor, "n 3"], which: Int[Tensor, " n"], cameras: Cameras, near: float, far: float
) -> Float[Tensor, " n"]:
    """Splats per volume at the given places, see `scatter_splats`; a splat always counts in the camera that drew it."""
    density = means.new_zeros(len(means))
    for index in range(len(cameras)):
        camera = cameras[index]
        pixels, depth = camera.project(means)
        limit = pixels.new_tensor([cameras.width, cameras.height])
        shown = (pixels >= 0).all(-1) & (pixels < limit).all(-1) & (depth > near) & (depth < far)
        per_step = camera.k[0, 0] * camera.k[1, 1] / (limit.prod() * math.log(far / near))
        density += (shown | (which == index)) * (per_step / depth.clamp_min(near).pow(3))
    return density * (len(means) / len(cameras))
