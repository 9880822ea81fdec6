"""``latent3d worlds preview``: look at the procedural worlds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Worlds:
    """Draw a contact sheet of the procedural worlds that the models are trained on."""

    action: tyro.conf.Positional[Literal["preview"]]
    """What to do: preview draws one row of views per world."""
    family: str = "mixed"
    """Kind of world: rooms, open, objects, mixed, or other (never trained on)."""
    split: Literal["train", "val", "test"] = "train"
    """Which part of the seeds."""
    first: int = 0
    """Number of the first world."""
    count: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 6
    """How many worlds."""
    views: int = 8
    """Views per world."""
    size: int = 128
    """Side of a view in pixels."""
    depth: bool = False
    """Add a row of depth maps under each world."""
    out: Path = Path("out/worlds.png")
    """Where the picture goes."""

    def run(self) -> None:
        import torch
        from tqdm import tqdm

        from latent3d.io.images import depth_picture, save_image
        from latent3d.worlds import sample_clip

        if min(self.count, self.views) < 1 or not 16 <= self.size <= 1024 or self.first < 0:
            raise ValueError("give at least one world and one view, and a --size from 16 to 1024 pixels")
        rows = []
        for index in tqdm(range(self.first, self.first + self.count), desc="worlds", unit="world"):
            clip = sample_clip(self.family, self.split, index, num_views=self.views, height=self.size, width=self.size)
            rows.append(torch.cat(list(clip.images), dim=-1))
            if self.depth and clip.depths is not None:
                known = clip.depths[clip.depths > 0]
                near, far = (float(known.quantile(q)) for q in (0.02, 0.98)) if known.numel() else (1.0, 2.0)
                rows.append(torch.cat([depth_picture(depth, near, far) for depth in clip.depths], dim=-1))
        save_image(self.out, torch.cat(rows, dim=-2))
        print(f"wrote {self.out}")
