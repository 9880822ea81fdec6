"""Sample sheets: rows of pictures with their names, one PNG."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

LABEL_HEIGHT = 14


def colour_depth(depths: Tensor) -> Tensor:
    """Depths (N, 1, H, W) to colours (N, 3, H, W): near is bright yellow, far is dark blue, unknown (<= 0) is black.

    Inverse depth is spread between its 2nd and 98th percentile over the whole row.
    """
    known = torch.isfinite(depths) & (depths > 0)
    if not known.any():
        return torch.zeros_like(depths).expand(-1, 3, -1, -1)
    inverse = torch.where(known, 1 / depths.clamp_min(1e-6), torch.zeros_like(depths))
    low, high = np.quantile(inverse[known].double().numpy(), (0.02, 0.98))
    level = ((inverse - low) / max(high - low, 1e-9)).clamp(0, 1)
    anchors = torch.tensor([[0.05, 0.03, 0.30], [0.45, 0.10, 0.55], [0.90, 0.35, 0.30], [1.0, 0.95, 0.45]])
    place = level * (len(anchors) - 1)
    index = place.long().clamp_max(len(anchors) - 2)
    weight = place - index
    colours = anchors[index] * (1 - weight[..., None]) + anchors[index + 1] * weight[..., None]
    return (colours * known[..., None])[:, 0].permute(0, 3, 1, 2)


def draw_sheet(rows: Mapping[str, Tensor], columns: int = 12) -> np.ndarray:
    """One picture (H, W, 3) uint8 with a labelled row per entry.

    Args:
        rows: pictures (..., N, 3, H, W) in [0, 1] or depths (..., N, 1, H, W); leading axes are laid out one after
            another, at most ``columns`` of them. Sizes may differ between rows; small ones are enlarged without blur.

    Raises:
        ValueError: no rows, or an entry that is neither pictures nor depths.
    """
    from PIL import Image, ImageDraw

    strips = []
    for name, value in rows.items():
        if value.ndim < 4 or value.shape[-3] not in (1, 3):
            raise ValueError(f"sheet row '{name}' has shape {tuple(value.shape)}; give (N, 3, H, W) or (N, 1, H, W)")
        tiles = value.detach().float().cpu().flatten(0, -4)[:columns]
        tiles = colour_depth(tiles) if tiles.shape[1] == 1 else tiles.nan_to_num().clamp(0, 1)
        strips.append((name, torch.cat(list(tiles), dim=-1)))
    if not strips:
        raise ValueError("a sheet needs at least one row of pictures")
    tallest = max(strip.shape[-2] for _, strip in strips)
    pictures = []
    for name, strip in strips:
        scale = max(1, tallest // strip.shape[-2])
        pixels = (strip.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        pictures.append((name, pixels.repeat(scale, 0).repeat(scale, 1)))
    width = max(pixels.shape[1] for _, pixels in pictures)
    height = sum(pixels.shape[0] + LABEL_HEIGHT for _, pixels in pictures)
    canvas = Image.new("RGB", (width, height), (24, 24, 24))
    pen = ImageDraw.Draw(canvas)
    top = 0
    for name, pixels in pictures:
        pen.text((2, top + 1), name, fill=(230, 230, 230))
        canvas.paste(Image.fromarray(pixels), (0, top + LABEL_HEIGHT))
        top += pixels.shape[0] + LABEL_HEIGHT
    return np.asarray(canvas)


def save_sheet(path: Path, rows: Mapping[str, Tensor], columns: int = 12) -> Path:
    """`draw_sheet` as a PNG file, in place at once."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.tmp.png")
    Image.fromarray(draw_sheet(rows, columns)).save(temporary)
    os.replace(temporary, path)
    return path
