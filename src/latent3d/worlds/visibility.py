"""Which pixels of some views are seen by other views, from true depth."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Bool
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.representations.views import Views


def world_points(cameras: Cameras, depths: Tensor) -> Tensor:
    """World points (V, H W, 3) of the pixel centres of V cameras with z-depths (V, 1, H, W)."""
    height, width = depths.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, dtype=depths.dtype, device=depths.device) + 0.5,
        torch.arange(width, dtype=depths.dtype, device=depths.device) + 0.5,
        indexing="ij",
    )
    pixel = rearrange(torch.stack([x, y, torch.ones_like(x)], -1), "h w c -> (h w) c")
    local = (pixel @ torch.linalg.inv(cameras.k).mT) * rearrange(depths, "v 1 h w -> v (h w) 1")
    return local @ cameras.w2c[:, :3, :3] + cameras.centers[:, None]


def seen_mask(reference: Views, target: Views, tolerance: float = 0.03) -> Bool[Tensor, "targets 1 height width"]:
    """Which target pixels show a surface that at least one reference view sees.

    A target pixel is lifted by its true depth, projected into each reference and compared with the reference's bilinearly
    sampled z-depth: seen where the two differ by at most ``tolerance`` of the depth. Bilinear means across a depth edge
    are no surface; such samples count as unseen unless the nearest pixel agrees.

    Args:
        reference: R views with depths (R, 1, H', W').
        target: T views with depths (T, 1, H, W), in the same world.

    Raises:
        ValueError: where depths are missing.
    """
    if reference.depths is None or target.depths is None:
        raise ValueError("seen_mask compares true depths; give views that carry depths")
    count, _, height, width = target.depths.shape
    points = world_points(target.cameras, target.depths)
    known = (target.depths > 0).reshape(count, -1)
    seen = torch.zeros_like(known)
    size = points.new_tensor([reference.cameras.width, reference.cameras.height])
    for r in range(len(reference)):
        camera, depth = reference.cameras[r], reference.depths[r]
        pixel, z = camera.project(points.reshape(-1, 3))
        inside = (z > 1e-6) & (pixel >= 0).all(-1) & (pixel < size).all(-1)
        grid = (2 * pixel / size - 1).clamp(-2, 2)[None, None]
        agrees = torch.zeros_like(inside)
        for mode in ("bilinear", "nearest"):
            there = torch.nn.functional.grid_sample(
                depth[None], grid, mode=mode, padding_mode="border", align_corners=False
            )[0, 0, 0]
            agrees = agrees | ((there - z).abs() <= tolerance * z)
        seen = seen | (inside & agrees).reshape(count, -1)
    return (seen & known).reshape(count, 1, height, width)
