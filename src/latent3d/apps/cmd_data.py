"""``latent3d data``: banks of clips and objects for training, from worlds, captures or meshes; a check of captures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from latent3d.apps.cmd_data_objects import ImportObjects, Latents, Objects, RenderMeshes

if TYPE_CHECKING:
    from latent3d.data.captures.capture import Capture


@dataclass(frozen=True, kw_only=True)
class Bank:
    """Render clips of the procedural worlds to a folder, once, for many runs of training.

    An interrupted bank goes on where it stopped; a larger --count enlarges it.
    """

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
        _check_numbers(self.count, self.views, self.workers, self.first, self.novel, self.size)
        from latent3d.data.shards import bank_command

        bank_command(
            self.out, self.family, self.split, self.first, self.count, self.views, self.novel, self.size, self.workers
        )
        print(f"the bank is in {self.out}; train on it with: latent3d train PRESET --bank {self.out}")


@dataclass(frozen=True, kw_only=True)
class Check:
    """Look at a posed capture: what was read, what is missing, whether cameras and pictures agree.

    Reads COLMAP, nerfstudio, instant-ngp, Blender, RealEstate10K, ScanNet, ScanNet++, DL3DV, ARKit, TUM, 7-Scenes,
    ShapeNet and G-Objaverse folders, cameras.json, and plain photos where pycolmap is installed.
    """

    folder: tyro.conf.Positional[Path]
    """Folder of the capture, or its camera file."""
    out: Path | None = None
    """Picture to draw: thumbnails, cameras from above and from the side, epipolar lines (.png)."""
    pictures: bool = True
    """Without, the sheet shows no picture of the capture, only what was measured on them."""
    layout: str | None = None
    """Read it as this layout instead of recognising it."""
    axes: Literal["opencv", "opengl"] | None = None
    """Camera axes of its poses where they are not what the layout says."""
    inverse: bool = False
    """Take its matrices the other way round."""

    def run(self) -> None:
        if self.out is not None and self.out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
            raise ValueError(f"'{self.out}' must end in .png or .jpg")
        from latent3d.data.captures.reading import read_capture
        from latent3d.data.captures.sheet import check_capture, draw_sheet

        capture = _verified(read_capture(self.folder, layout=self.layout, axes=self.axes, inverse=self.inverse))
        found = check_capture(capture)
        print(f"{capture.name} (layout {capture.layout})")
        for line in found.lines:
            print(f"  {line}")
        if self.out is not None:
            from latent3d.io.atomic import output_file

            with output_file(self.out) as temporary:
                draw_sheet(found, self.pictures).save(temporary)
            print(f"the sheet is in {self.out}")


@dataclass(frozen=True, kw_only=True)
class Import:
    """Cut clips out of posed captures and store them as a bank for training.

    An interrupted import goes on where it stopped; a larger --count enlarges it.
    """

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Captures, or folders of captures."""
    out: Path
    """Folder of the bank."""
    count: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 1000
    """How many clips; captures take turns."""
    views: int = 8
    """Views along each clip."""
    novel: int = 2
    """Further views of it."""
    size: int = 128
    """Side of a view in pixels."""
    frames: Literal["stride", "gap"] = "gap"
    """Frames at a constant stride, or at random between two that are a gap apart."""
    stride: int = 10
    """Distance of frames with --frames stride."""
    gap: int = 80
    """Greatest distance of first and last frame with --frames gap."""
    split: Literal["train", "val"] = "train"
    """Which clips."""
    median_depth: float | None = None
    """Scale captures that are not in metres so that their median depth is this."""
    axes: Literal["opencv", "opengl"] | None = None
    """Camera axes of the poses where they are not what the layout says."""
    workers: int = 2
    """Processes."""

    def run(self) -> None:
        _check_numbers(self.count, self.views, self.workers, 0, self.novel, self.size)
        if not self.folders:
            raise ValueError("give at least one folder of a capture")
        from tqdm import tqdm

        from latent3d.data.captures.bank import at_median_depth, capture_bank
        from latent3d.data.captures.clips import ClipFrames
        from latent3d.data.captures.reading import find_captures, read_capture

        choice = ClipFrames(mode=self.frames, stride=self.stride, gap=self.gap, min_gap=min(8, self.gap))
        captures = []
        for path in (place for folder in self.folders for place in find_captures(folder)):
            capture = _verified(read_capture(path, axes=self.axes))
            if self.median_depth is not None:
                capture = at_median_depth(capture, self.median_depth)
            left = len(capture.missing) + len(capture.problems)
            print(f"{capture.name}: {len(capture)} frames ({capture.layout})" + (f", {left} left out" if left else ""))
            captures.append(capture)
        with tqdm(total=self.count, unit="clip", desc="import") as bar:
            capture_bank(
                self.out, captures, count=self.count, num_views=self.views, extra_views=self.novel, size=self.size,
                frames=choice, split=self.split, workers=self.workers, on_clips=bar.update,
            )  # fmt: skip
        print(f"the bank is in {self.out}; train on it with: latent3d train PRESET --bank {self.out}")


@dataclass(frozen=True, kw_only=True)
class Data:
    """Make training data from worlds, captures, procedural objects, meshes and renderings, and check captures."""

    action: tyro.conf.OmitSubcommandPrefixes[
        Annotated[Bank, tyro.conf.subcommand("bank")]
        | Annotated[Check, tyro.conf.subcommand("check")]
        | Annotated[Import, tyro.conf.subcommand("import")]
        | Annotated[Objects, tyro.conf.subcommand("objects")]
        | Annotated[RenderMeshes, tyro.conf.subcommand("render")]
        | Annotated[ImportObjects, tyro.conf.subcommand("import-objects")]
        | Annotated[Latents, tyro.conf.subcommand("latents")]
    ]

    def run(self) -> None:
        self.action.run()


def _check_numbers(count: int, views: int, workers: int, first: int, novel: int, size: int) -> None:
    if min(count, views, workers) < 1 or min(first, novel) < 0:
        raise ValueError("give at least one clip, view and worker, and a --first and --novel of 0 or more")
    if not 16 <= size <= 1024:
        raise ValueError("give a --size from 16 to 1024 pixels")


def _verified(capture: Capture) -> Capture:
    """Every picture read once, with a bar, so that broken ones are named now and not in the middle of a long run."""
    if not capture.has_pictures:
        return capture
    from tqdm import tqdm

    with tqdm(total=len(capture), unit="frame", desc="reading", leave=False) as bar:
        return capture.verified(bar.update)
