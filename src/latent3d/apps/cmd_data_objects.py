"""``latent3d data objects`` and ``latent3d data render``: pictures of objects for training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from latent3d.data.object_sources import ObjectSource


@dataclass(frozen=True, kw_only=True)
class Objects:
    """Render procedural objects (chairs, cars, mugs ...) to a bank, once, for many runs of training.

    An interrupted bank goes on where it stopped; a larger --count enlarges it.
    """

    out: Path
    """Folder of the bank."""
    count: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 1000
    """How many objects."""
    split: Literal["train", "val", "test"] = "train"
    """Which part of the seeds."""
    first: int = 0
    """Number of the first object."""
    labels: str = ""
    """Kinds that take turns, for example chair,car; all kinds if not given."""
    views: int = 16
    """Views of each object, drawn anew for each."""
    size: int = 128
    """Side of a view in pixels."""
    workers: int = 2
    """Processes."""

    def run(self) -> None:
        check_numbers(self.count, self.views, self.workers, self.first, self.size)
        from latent3d.data.object_sources import ObjectCameras, ProceduralObjects

        labels = tuple(label.strip() for label in self.labels.split(",") if label.strip())
        source = ProceduralObjects(ObjectCameras(views=self.views, size=self.size), self.split, labels)
        write_bank(self.out, source, self.first, self.count, self.workers)


def write_bank(out: Path, source: ObjectSource, first: int, count: int, workers: int) -> None:
    """A bank of objects, with a progress bar."""
    from tqdm import tqdm

    from latent3d.data.object_bank import render_object_bank

    with tqdm(total=count, unit="object", desc="rendering") as bar:
        render_object_bank(out, source, first, count, workers, on_objects=bar.update)
    print(f"the bank is in {out}; train on it with: latent3d train PRESET --bank {out}")


def check_numbers(count: int, views: int, workers: int, first: int, size: int) -> None:
    """Raises ValueError for numbers that make no bank."""
    if min(count, views, workers) < 1 or first < 0:
        raise ValueError("give at least one object, view and worker, and a --first of 0 or more")
    if not 16 <= size <= 1024:
        raise ValueError("give a --size from 16 to 1024 pixels")
