"""Picture sheets: one row per scene (references, truth, what each method makes of it, depth), as PNG."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

PALETTE = ((0.05, 0.03, 0.25), (0.35, 0.1, 0.55), (0.8, 0.25, 0.4), (0.98, 0.6, 0.25), (0.98, 0.98, 0.7))
"""Depth colours from far to near, equally spaced in disparity."""
GAP = 4
HEADER = 16


def depth_picture(depth: Float[Tensor, "1 h w"], truth: Float[Tensor, "1 h w"] | None = None) -> Float[Tensor, "3 h w"]:
    """Depth as colour: disparity between the 2 % and 98 % quantiles of ``truth`` (of itself when None), near is bright.

    Unknown depth (0) is grey.
    """
    scale = depth if truth is None else truth
    known = scale[scale > 0]
    if known.numel() == 0:
        return torch.full((3, *depth.shape[-2:]), 0.5)
    disparity = 1 / known
    low, high = disparity.quantile(0.02), disparity.quantile(0.98)
    level = ((1 / depth.clamp_min(1e-6) - low) / (high - low).clamp_min(1e-9)).clamp(0, 1) * (len(PALETTE) - 1)
    colours = torch.tensor(PALETTE, dtype=depth.dtype)
    lower = level.floor().long().clamp(max=len(PALETTE) - 2)
    share = (level - lower)[..., None]
    picture = (colours[lower] * (1 - share) + colours[lower + 1] * share)[0].permute(2, 0, 1)
    return torch.where(depth > 0, picture, torch.full_like(picture, 0.5))


def row(pictures: list[Tensor]) -> Float[Tensor, "3 h w"]:
    """Pictures (3, h, w) of one height side by side, with white gaps."""
    gap = torch.ones(3, pictures[0].shape[-2], GAP)
    parts = [part for picture in pictures for part in (picture.float().cpu().clamp(0, 1), gap)]
    return torch.cat(parts[:-1], -1)


def sheet(rows: list[Tensor], titles: list[str]) -> Float[Tensor, "3 h w"]:
    """Rows of equal width under a line of column titles.

    Raises:
        ValueError: without rows.
    """
    if not rows:
        raise ValueError("a picture sheet needs at least one row")
    width = rows[0].shape[-1]
    gap = torch.ones(3, GAP, width)
    parts = [_titles(titles, width)] + [part for item in rows for part in (item, gap)]
    return torch.cat(parts[:-1], -2)


def _titles(titles: list[str], width: int) -> Float[Tensor, "3 h w"]:
    from PIL import Image, ImageDraw

    strip = Image.new("RGB", (width, HEADER), "white")
    draw = ImageDraw.Draw(strip)
    step = (width + GAP) / max(1, len(titles))
    for i, title in enumerate(titles):
        draw.text((round(i * step) + 2, 2), title, fill="black")
    return torch.frombuffer(bytearray(strip.tobytes()), dtype=torch.uint8).view(HEADER, width, 3).permute(2, 0, 1) / 255
