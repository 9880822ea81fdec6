"""The references' pixels as splats at their estimated depth, seen from elsewhere.

Ours, beyond the paper: what is seen is carried into every view instead of being found again by the denoiser.

Letters: b = scenes, m = views, k = references, h/w = latent rows and columns, H/W = image rows and columns.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.depth_range import DepthRange
from latent3d.rendering.base import stack
from latent3d.rendering.splats import render_gaussians
from latent3d.representations.gaussians import Gaussians
from latent3d.systems.splat_decoder import shown_elsewhere
from latent3d.systems.splat_head import lift_pixels, surface_frames

CARRIED_SCALE = 0.4
"""Standard deviation of carried splats, in steps between neighbouring pixels' points."""


@torch.no_grad()
def carry_pixels(
    references: Float[Tensor, "b k 3 H W"],
    relative: Float[Tensor, "b k 1 H W"],
    cameras: Cameras,
    is_reference: Bool[Tensor, " m"],
    *,
    depth_range: DepthRange,
    stride: int,
    low_pass: float,
) -> tuple[Float[Tensor, "b m 5 H W"], Float[Tensor, "b k 5 H W"]]:
    """Lift every ``stride``-th pixel of the references and look at them: colour 3, alpha 1, depth coordinate 1.

    Args:
        relative: depth coordinate of the references in ``depth_range``.
        cameras: of all views, (b, m).
        low_pass: of the renders, square pixels of the coarse grid.

    Returns:
        what every view sees of them, (b, m, 5, H, W), the picture itself on references; and what every reference
        sees of the other references alone, (b, k, 5, H, W), which tells where they contradict each other.
    """
    b, m = cameras.shape
    size = (references.shape[-2], references.shape[-1])
    index, rest = is_reference.nonzero()[:, 0], (~is_reference).nonzero()[:, 0]
    color = F.avg_pool2d(references.flatten(0, 1), stride).unflatten(0, (b, -1))
    depth = depth_range.depth(relative[..., stride // 2 :: stride, stride // 2 :: stride])
    small = cameras.resized(size[0] // stride, size[1] // stride)
    sources, small = small[:, index], small[:, rest]
    surface, stretch = surface_frames(sources, depth)
    scale = CARRIED_SCALE * stretch
    opaque = torch.full_like(depth, 0.99)
    splats = lift_pixels(sources, depth, color=color, quaternion=surface, scale_px=scale, opacity=opaque)

    carried = torch.zeros(b, m, 5, *size, device=references.device)
    carried[:, index] = torch.cat([references, torch.ones_like(relative), relative], 2).float()
    if len(rest):
        owned = (opaque - 0.94 * shown_elsewhere(sources, depth)).flatten(1)
        finest = [replace(scene, opacities=owned[i]) for i, scene in enumerate(splats)]
        carried[:, rest] = _seen(finest, small, size, depth_range, low_pass)
    crossed = torch.zeros_like(carried[:, : len(index)])
    if len(index) > 1:
        owner = torch.arange(len(index), device=depth.device).repeat_interleave(depth[0, 0].numel())
        for one in range(len(index)):
            others = [scene[owner != one] for scene in splats]
            crossed[:, one : one + 1] = _seen(others, sources[:, one : one + 1], size, depth_range, low_pass)
    return carried, crossed


def _seen(
    splats: list[Gaussians], cameras: Cameras, size: tuple[int, int], depth_range: DepthRange, low_pass: float
) -> Tensor:
    """Colour, alpha and depth coordinate of splats in every view at image size, (b, v, 5, H, W)."""
    renders = [render_gaussians(scene, cameras[i], low_pass=low_pass) for i, scene in enumerate(splats)]
    rgb, alpha, depth = (stack(renders, name) for name in ("rgb", "alpha", "depth"))
    maps = torch.cat([rgb / alpha.clamp_min(1e-3), alpha, depth_range.relative(depth)], 2)
    maps = F.interpolate(maps.flatten(0, 1), size=size, mode="bilinear").unflatten(0, cameras.shape)
    return maps.clamp(0, 1)


def pool_known(relative: Tensor, alpha: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Depth coordinates (b, m, 1, H, W) with their alpha -> latent resolution: the median of the covered pixels of each
    patch (no mixing across edges; 0 where none is) and the covered share."""
    b = relative.shape[0]
    covered = F.pixel_unshuffle(alpha.flatten(0, 1), factor)
    covered = covered * (covered >= 0.5)
    values = F.pixel_unshuffle(relative.flatten(0, 1), factor).masked_fill(covered == 0, torch.nan)
    median = values.nanmedian(1, keepdim=True).values.nan_to_num(0.0)
    return median.unflatten(0, (b, -1)), covered.mean(1, keepdim=True).unflatten(0, (b, -1))
