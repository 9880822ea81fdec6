"""Contact sheets of worlds for people to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


LAYERS = ("images", "depth", "normals")
"""What a contact sheet can show of a clip, one row each."""


def clip_rows(views: Views, layers: Sequence[str] = LAYERS) -> Tensor:
    """Picture (3, rows H, V W) of a clip: images, inverse depth, normals (0.5 + 0.5 n, in the first camera's axes)."""
    assert views.depths is not None, "clips carry depths"
    assert views.normals is not None, "clips carry normals"
    pictures = {"images": views.images, "depth": depth_picture(views.depths), "normals": 0.5 + 0.5 * views.normals}
    return rearrange(torch.stack([pictures[layer] for layer in layers]), "r v c h w -> c (r h) (v w)")


def contact_sheet(
    family: str,
    split: str = "train",
    count: int = 6,
    *,
    start: int = 0,
    num_views: int = 6,
    height: int = 128,
    width: int = 128,
    layers: Sequence[str] = LAYERS,
    on_clip: Callable[[], object] | None = None,
) -> Image.Image:
    """Clips ``start`` to ``start + count`` of a family below one another, each as rows of ``layers``.

    ``on_clip`` is called after each clip.

    Raises:
        ValueError: for unknown names (see `sample_clip`), unknown layers or ``count`` below one.
    """
    unknown = [layer for layer in layers if layer not in LAYERS]
    if count < 1 or unknown or not layers:
        raise ValueError(f"a sheet needs at least one clip and layers among {', '.join(LAYERS)}; got {count}, {layers}")
    rows = []
    for index in range(start, start + count):
        rows.append(
            clip_rows(sample_clip(family, split, index, num_views=num_views, height=height, width=width), layers)
        )
        if on_clip is not None:
            on_clip()
    sheet = rearrange(torch.cat(rows, dim=1), "c h w -> h w c")
    return Image.fromarray((sheet * 255 + 0.5).to(torch.uint8).numpy())
