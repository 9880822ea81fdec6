"""Splats for display at any resolution: what one resolution's low-pass closed must not gape at a higher one."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.precision import full_precision
from latent3d.rendering.base import LOW_PASS_PX, NEAR
from latent3d.representations.gaussians import Gaussians


@torch.no_grad()
@full_precision
def smoothed(gaussians: Gaussians, cameras: Cameras, low_pass: float = LOW_PASS_PX) -> Gaussians:
    """Widen every splat by the footprint of the finest pixel that shows it (the 3D filter of Mip-Splatting, Yu et al.
    2024, without its loss of opacity, which would open gaps here).

    s^2 -> s^2 + low_pass * footprint^2, see `finest_footprint`.

    Args:
        gaussians: N splats.
        cameras: (V,), at the resolution the splats were made for.
        low_pass: in square pixels, as in `render_gaussians`.
    """
    smallest = finest_footprint(gaussians.means, cameras)
    return replace(gaussians, scales=(gaussians.scales.square() + low_pass * smallest.square()[:, None]).sqrt())


@torch.no_grad()
def finest_footprint(means: Float[Tensor, "n 3"], cameras: Cameras) -> Float[Tensor, " n"]:
    """Width of a pixel at every point in scene units, depth / focal: the smallest among the cameras whose image holds
    the point, and among all cameras where none does. cameras: (V,)."""
    pixels, depth = cameras.project(means.expand(len(cameras), -1, -1))
    inside = (depth > NEAR) & (pixels >= 0).all(-1)
    inside &= (pixels[..., 0] < cameras.width) & (pixels[..., 1] < cameras.height)
    footprint = depth.clamp_min(NEAR) / cameras.k[:, 0, 0, None]
    smallest = footprint.masked_fill(~inside, torch.inf).amin(0)
    return torch.where(smallest.isinf(), footprint.amin(0), smallest)
