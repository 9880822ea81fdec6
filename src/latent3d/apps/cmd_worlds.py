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
    layers: tuple[Literal["images", "depth", "normals"], ...] = ("images",)
    """Rows per world."""
    out: Path = Path("out/worlds.png")
    """Where the picture goes."""

    def run(self) -> None:
        import numpy as np
        import torch
        from tqdm import tqdm

        from latent3d.io.images import save_image
        from latent3d.worlds import contact_sheet

        if self.views < 1 or not 16 <= self.size <= 1024 or self.first < 0:
            raise ValueError("give at least one view, a --first of 0 or more, and a --size from 16 to 1024 pixels")
        with tqdm(total=self.count, desc="worlds", unit="world") as bar:
            sheet = contact_sheet(
                self.family, self.split, self.count, start=self.first, num_views=self.views,
                height=self.size, width=self.size, layers=self.layers, on_clip=bar.update,
            )  # fmt: skip
        save_image(self.out, torch.from_numpy(np.array(sheet)).movedim(-1, 0) / 255)
        print(f"wrote {self.out}")
