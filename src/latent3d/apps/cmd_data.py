"""``latent3d data bank``: render clips of the procedural worlds to disk once, for many runs of training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Data:
    """Make training data. An interrupted bank goes on where it stopped; a larger --count enlarges it."""

    action: tyro.conf.Positional[Literal["bank"]]
    """What to do: bank renders clips of the procedural worlds to a folder."""
    out: Path
    """Folder of the bank."""
    family: str = "mixed"
    """Kind of world: rooms, open, objects or mixed."""
    split: Literal["train", "val"] = "train"
    """Which part of the seeds."""
    first: int = 0
    """Number of the first clip."""
    count: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 1000
    """How many clips."""
    views: int = 8
    """Views along each camera path."""
    novel: int = 2
    """Further views between them."""
    size: int = 128
    """Side of a view in pixels."""
    workers: int = 2
    """Processes."""

    def run(self) -> None:
        if min(self.count, self.views, self.workers) < 1 or min(self.first, self.novel) < 0:
            raise ValueError("give at least one clip, view and worker, and a --first and --novel of 0 or more")
        if not 16 <= self.size <= 1024:
            raise ValueError("give a --size from 16 to 1024 pixels")
        from latent3d.data.shards import bank_command

        bank_command(
            self.out, self.family, self.split, self.first, self.count, self.views, self.novel, self.size, self.workers
        )
        print(f"the bank is in {self.out}; train on it with: latent3d train PRESET --bank {self.out}")
