"""Which frames of a capture make a training clip, and which ones published evaluations use.

GGS (specification section 5): with one reference, 8 frames at a stride of 10 (RealEstate10K); with two, pixelSplat's
way: 8 frames within a gap of at most 80, the two references at its ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from latent3d.config import Config
from latent3d.data.captures.collect import read_json


@dataclass(frozen=True, kw_only=True)
class ClipFrames(Config):
    """How clips are cut out of a capture.

    Attributes:
        mode: ``stride`` takes frames at a constant distance; ``gap`` takes both ends of a window and random frames
            between them.
        stride: distance of neighbouring frames in mode ``stride``; less where a capture is too short.
        gap: greatest distance of first and last frame in mode ``gap``; less where a capture is too short.
        min_gap: least such distance.
    """

    mode: Literal["stride", "gap"] = "gap"
    stride: int = 10
    gap: int = 80
    min_gap: int = 8

    def __post_init__(self) -> None:
        if self.mode not in ("stride", "gap"):
            raise ValueError(f"the frame choice '{self.mode}' is unknown; choose 'stride' or 'gap'")
        if self.stride < 1 or not 1 <= self.min_gap <= self.gap:
            raise ValueError("a stride of at least 1 and 1 <= min_gap <= gap are needed")

    def choose(self, rng: np.random.Generator, frames: int, views: int, extra: int = 0) -> np.ndarray:
        """Frame numbers (views + extra,) of a capture of so many frames: a path in order, then further frames.

        Extra frames lie between the first and the last of the path where enough are left there, else anywhere nearest.

        Raises:
            ValueError: if the capture has fewer frames than are asked for.
        """
        if frames < views + extra:
            raise ValueError(f"a clip of {views} + {extra} frames cannot be cut from {frames} frames")
        if self.mode == "stride":
            stride = 1 if views == 1 else max(1, min(self.stride, (frames - 1) // (views - 1)))
            span = (views - 1) * stride
            start = int(rng.integers(frames - span))
            path = start + stride * np.arange(views)
        else:
            least = max(views + extra - 1, min(self.min_gap, frames - 1))
            span = int(rng.integers(least, max(least, min(self.gap, frames - 1)) + 1))
            start = int(rng.integers(frames - span))
            between = 1 + rng.permutation(span - 1)[: max(views - 2, 0)] if span > 1 else np.zeros(0, int)
            ends = [0, span][: min(views, 2)]
            path = start + np.sort(np.concatenate([ends, between])).astype(int)
        rest = np.setdiff1d(np.arange(frames), path)
        outside = np.maximum(path[0] - rest, rest - path[-1]).clip(0)
        order = rng.permutation(len(rest))
        nearest = order[np.argsort(outside[order], kind="stable")]
        return np.concatenate([path, rest[nearest[:extra]]]).astype(np.int64)


@dataclass(frozen=True)
class EvaluationIndex:
    """One published test case: a scene's name, its context frames and its target frames."""

    scene: str
    context: tuple[int, ...]
    target: tuple[int, ...]


def read_evaluation_index(path: str | Path) -> tuple[list[EvaluationIndex], int]:
    """The cases of pixelSplat, latentSplat and MVSplat360: ``{scene: {"context": [...], "target": [...]} | null}``.

    latentSplat gives a list of cases per scene. Scenes without a case (null or an empty list) are counted.

    Returns:
        the cases in file order, and the number of scenes without one.

    Raises:
        FileNotFoundError, ValueError: naming the file and the scene.
    """
    path = Path(path)
    content = read_json(path)
    if not isinstance(content, dict) or not content:
        raise ValueError(f"'{path}' is not an evaluation index: an object with one entry per scene is expected")
    cases, without = [], 0
    for scene, entry in content.items():
        entries = entry if isinstance(entry, list) else [] if entry is None else [entry]
        without += not entries
        for case in entries:
            if not isinstance(case, dict):
                raise ValueError(f"'{path}', scene '{scene}': a case must be an object with 'context' and 'target'")
            context, target = (_indices(case.get(key), f"'{path}', scene '{scene}', '{key}'") for key in _KEYS)
            if len(set(context)) != len(context):
                raise ValueError(f"'{path}', scene '{scene}': a context frame occurs twice")
            cases.append(EvaluationIndex(scene, context, target))
    if not cases:
        raise ValueError(f"'{path}' holds no test case; all its {without} scenes are empty")
    return cases, without


_KEYS = ("context", "target")


def _indices(value: Any, where: str) -> tuple[int, ...]:
    right = isinstance(value, list) and value
    if not right or any(isinstance(item, bool) or not isinstance(item, int) or item < 0 for item in value):
        raise ValueError(f"{where} must be a list of frame numbers, 0 or more")
    return tuple(value)
