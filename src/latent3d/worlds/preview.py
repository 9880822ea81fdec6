"""Contact sheets of worlds for people to look at."""

from __future__ import annotations

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from latent3d.representations.views import Views
from latent3d.worlds.clips import sample_clip


def depth_picture(depths: Tensor) -> Tensor:
    """z-depths (V, 1, H, W) to grey pictures (V, 3, H, W): inverse depth, near is bright, one scale for all views."""
    inverse = 1.0 / depths.clamp(min=1e-3)
    top, bottom = inverse.flatten().quantile(0.99), inverse.min()
    return ((inverse - bottom) / (top - bottom).clamp(min=1e-6)).clamp(0, 1).expand(-1, 3, -1, -1)


def clip_rows(views: Views) -> Tensor:
    """Picture (3, 3 H, V W) of a clip: images, inverse depth, normals (0.5 + 0.5 n, in the first camera's axes)."""
    assert views.depths is not None, "clips carry depths"
    assert views.normals is not None, "clips carry normals"
    rows = torch.stack([views.images, depth_picture(views.depths), 0.5 + 0.5 * views.normals])
    return rearrange(rows, "r v c h w -> c (r h) (v w)")


def contact_sheet(
    family: str,
    split: str = "train",
    count: int = 6,
    *,
    start: int = 0,
    num_views: int = 6,
    height: int = 128,
    width: int = 128,
) -> Image.Image:
    """Clips ``start`` to ``start + count`` of a family below one another, each as rows of images, depths and normals.

    Raises:
        ValueError: for unknown names (see `sample_clip`) or ``count`` below one.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    rows = [
        clip_rows(sample_clip(family, split, start + i, num_views=num_views, height=height, width=width))
        for i in range(count)
    ]
    sheet = rearrange(torch.cat(rows, dim=1), "c h w -> h w c")
    return Image.fromarray((sheet * 255 + 0.5).to(torch.uint8).numpy())
