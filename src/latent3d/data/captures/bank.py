"""Captures as a bank of clips (`latent3d.data.shards`), so that training reads them as it reads worlds.

Clip n is cut from capture n modulo their number, by a choice of frames that depends on (split, n) alone; a bank that
was interrupted goes on with the same clips. ``captures.json`` in it says what went in, and it is only continued with
the same captures. Cameras are relative to the clip's first frame; depths are 0 where unknown.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from latent3d.data.captures.capture import Capture
from latent3d.data.captures.clips import ClipFrames
from latent3d.data.captures.matches import match_pairs
from latent3d.data.captures.scale import measure
from latent3d.data.shards import render_bank
from latent3d.io.atomic import write_text
from latent3d.representations.views import Views

FAMILY = "captures"
SOURCES = "captures.json"
SPLITS = {"train": 0, "val": 1, "test": 2}


@dataclass(frozen=True)
class CaptureClips:
    """Numbered clips of captures; a sampler for `latent3d.data.shards.render_bank`."""

    captures: tuple[Capture, ...]
    frames: ClipFrames

    def __call__(
        self, family: str, split: str, index: int, *, num_views: int, height: int, width: int, extra_views: int
    ) -> Views:
        """Clip ``index``: num_views frames along the path and extra_views others, (V + J) views of that size.

        Raises:
            ValueError: for an unknown split, or a capture with too few frames or an unreadable picture.
        """
        if split not in SPLITS:
            raise ValueError(f"there is no split '{split}'; choose one of {', '.join(SPLITS)}")
        capture = self.captures[index % len(self.captures)]
        rng = np.random.default_rng([SPLITS[split], index])
        chosen = self.frames.choose(rng, len(capture), num_views, extra_views)
        # Relative in double precision: a capture may stand far from its origin.
        origin = np.linalg.inv(capture.frames[int(chosen[0])].c2w)
        local = replace(
            capture, frames=tuple(replace(capture.frames[i], c2w=origin @ capture.frames[i].c2w) for i in chosen)
        )
        return local.load(range(len(chosen)), height, width)


def capture_bank(
    folder: str | Path,
    captures: Sequence[Capture],
    *,
    count: int,
    num_views: int = 8,
    extra_views: int = 2,
    size: int | tuple[int, int] = 128,
    frames: ClipFrames | None = None,
    split: str = "train",
    start: int = 0,
    workers: int = 1,
    shard_clips: int = 32,
    on_clips: Callable[[int], None] | None = None,
) -> Path:
    """Write ``count`` clips of captures as a bank; what is there already is kept. Arguments as `render_bank`.

    Raises:
        ValueError: if a capture has no pictures or too few frames, or the folder holds another bank.
    """
    folder, frames = Path(folder), frames or ClipFrames()
    if not captures:
        raise ValueError("a bank needs at least one capture; give the folder of one")
    for capture in captures:
        if not capture.has_pictures:
            raise ValueError(f"'{capture.folder}' has cameras only; a bank needs its pictures")
        if len(capture) < num_views + extra_views:
            raise ValueError(
                f"'{capture.folder}' has {len(capture)} usable frames, fewer than the {num_views} + {extra_views} of a "
                "clip; ask for fewer --views or --novel, or leave it out"
            )
    about = {"frames": asdict(frames), "captures": [_describe(capture) for capture in captures]}
    known = folder / SOURCES
    if known.is_file():
        if json.loads(known.read_text(encoding="utf-8")) != about:
            raise ValueError(f"'{folder}' holds clips of other captures or other frames; choose another folder")
    elif (folder / "bank.json").is_file():
        raise ValueError(f"'{folder}' holds a bank that was not made of captures; choose another folder")
    else:
        write_text(known, json.dumps(about, indent=1) + "\n")
    return render_bank(
        folder, FAMILY, split, start, count, num_views, extra_views, size, workers,
        shard_clips=shard_clips, sampler=CaptureClips(tuple(captures), frames), on_clips=on_clips,
    )  # fmt: skip


def _describe(capture: Capture) -> dict[str, Any]:
    """What tells a capture from another: name, layout, number of frames and a digest of names, poses and intrinsics."""
    digest = hashlib.sha256()
    for frame in capture.frames:
        digest.update(frame.name.encode())
        digest.update(np.round(frame.c2w, 9).tobytes() + np.round(frame.k, 6).tobytes())
    return {
        "name": capture.name,
        "layout": capture.layout,
        "frames": len(capture),
        "sha256": digest.hexdigest()[:16],
    }


def at_median_depth(capture: Capture, depth: float) -> Capture:
    """The capture scaled so that its median depth is as given: one unit for captures of arbitrary scale.

    Metric captures are left alone.

    Raises:
        ValueError: if no depth is known: neither depth maps, sparse points nor matched points.
    """
    if capture.metric:
        return capture
    pairs = () if capture.has_depth or capture.points is not None else match_pairs(capture)
    scale = measure(capture, pairs)
    if scale.depth is None:
        raise ValueError(f"'{capture.folder}' has no points to tell its depth by; leave out --median-depth")
    return capture.scaled(depth / scale.depth[1])
