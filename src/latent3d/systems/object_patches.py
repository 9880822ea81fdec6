"""Crops of pictures that a training step renders instead of whole pictures (LN3Diff section 5.1).

Letters: b = objects, v = views, p = crops per view, s = side of a crop, c = channels, H/W = rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.rays import camera_rays

FOREGROUND_ALPHA = 0.5
"""A pixel belongs to the object where alpha is above this."""


@dataclass(frozen=True)
class PatchBoxes:
    """Square crops of the same size.

    Attributes:
        corners: (row, column) of each crop's first pixel, (B, V, P, 2).
        size: side in pixels.
    """

    corners: Int[Tensor, "b v p 2"]
    size: int


def patch_boxes(
    alphas: Float[Tensor, "b v 1 H W"],
    size: int,
    count: int,
    foreground_share: float = 0.875,
    generator: torch.Generator | None = None,
) -> PatchBoxes:
    """Draw ``count`` crops per view: a share around the object, the others anywhere.

    A crop around the object has its middle anywhere in the bounding box of the pixels with alpha > 0.5, and is then
    moved into the picture. Where a view shows no object, its crops lie anywhere.

    Args:
        generator: a CPU generator on every device, as everywhere in training.

    Raises:
        ValueError: if a crop is larger than the picture.
    """
    b, v, _, height, width = alphas.shape
    if not 1 <= size <= min(height, width):
        raise ValueError(f"crops of {size} pixels do not fit into pictures of {width}x{height}")
    draw = torch.rand(b, v, count, 3, generator=generator).to(alphas.device)
    inside = alphas[:, :, 0] > FOREGROUND_ALPHA
    around = (draw[..., 2] < foreground_share) & inside.any(-1).any(-1)[..., None]
    corners: list[Tensor] = []
    for axis, length in ((-1, height), (-2, width)):
        found = inside.any(axis).to(torch.uint8)  # (b, v, length)
        first = found.argmax(-1)[..., None]
        last = length - found.flip(-1).argmax(-1)[..., None]
        share = draw[..., len(corners)]
        middle = first + share * (last - first) - size / 2
        anywhere = share * (length - size + 1) - 0.5
        corner = torch.where(around, middle, anywhere).round().long()
        corners.append(corner.clamp(0, length - size))
    return PatchBoxes(torch.stack(corners, -1), size)


def patch_cameras(cameras: Cameras, boxes: PatchBoxes) -> Cameras:
    """A camera per crop, which sees exactly its pixels: batch shape (B, V) -> (B, V * P), views outermost."""
    count = boxes.corners.shape[2]
    top, left = rearrange(boxes.corners, "b v p rc -> rc b (v p)")
    w2c, k = (repeat(part, "b v r c -> b (v p) r c", p=count) for part in (cameras.w2c, cameras.k))
    return Cameras(w2c, k, cameras.height, cameras.width).cropped(top, left, boxes.size, boxes.size)


def patch_rays(cameras: Cameras, boxes: PatchBoxes) -> tuple[Float[Tensor, "b r 3"], Float[Tensor, "b r 3"]]:
    """Origins and unit directions of the crops' pixels, r = (v p row column), as `geometry.rays.camera_rays`."""
    origins, directions = camera_rays(patch_cameras(cameras, boxes))
    return rearrange(origins, "b n h w c -> b (n h w) c"), rearrange(directions, "b n h w c -> b (n h w) c")


def cut(images: Float[Tensor, "b v c H W"], boxes: PatchBoxes) -> Float[Tensor, "b n c s s"]:
    """The crops of pictures (or alphas, depths), n = (v p) as in `patch_cameras`."""
    b, v, p, _ = boxes.corners.shape
    steps = torch.arange(boxes.size, device=images.device)
    rows = (boxes.corners[..., 0, None] + steps)[..., :, None]
    columns = (boxes.corners[..., 1, None] + steps)[..., None, :]
    objects = torch.arange(b, device=images.device).view(b, 1, 1, 1, 1)
    views = torch.arange(v, device=images.device).view(1, v, 1, 1, 1)
    return rearrange(images[objects, views, :, rows, columns], "b v p h w c -> b (v p) c h w", p=p)


def as_images(rays: Float[Tensor, "b r c"], boxes: PatchBoxes) -> Float[Tensor, "b n c s s"]:
    """Values rendered along `patch_rays`, put together as crops like those of `cut`."""
    return rearrange(rays, "b (n h w) c -> b n c h w", h=boxes.size, w=boxes.size)
