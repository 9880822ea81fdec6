"""How large a capture is: baselines, depths, and the one number that makes it metric.

Structure from motion knows a place up to a factor; so do RealEstate10K's cameras. 4DiM (arXiv 2407.07860) brings such
poses to approximate metres by one factor per sequence, median(metric depth / reconstructed depth).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from latent3d.data.captures.capture import Capture
from latent3d.data.captures.matches import Pair, explained, triangulate
from latent3d.data.captures.pictures import read_depth
from latent3d.geometry.cameras import Cameras

QUANTILES = (0.02, 0.5, 0.98)


@dataclass(frozen=True)
class Scale:
    """Sizes in scene units.

    Attributes:
        step: median distance of neighbouring cameras.
        extent: greatest distance between two cameras.
        depth: 2 %, 50 % and 98 % quantile of known z-depths, or None.
        source: where the depths come from, in words.
    """

    step: float
    extent: float
    depth: tuple[float, float, float] | None
    source: str


def measure(capture: Capture, pairs: Sequence[Pair] = (), most: int = 8) -> Scale:
    """Measure a capture: depths from (at most ``most``) depth maps, its sparse points, or matched points."""
    centers = capture.c2w[:, :3, 3]
    steps = np.linalg.norm(np.diff(centers, axis=0), axis=1)
    spread = centers[:: max(1, len(centers) // 200)]
    extent = float(np.linalg.norm(spread[:, None] - spread[None], axis=-1).max())
    values, source = _depths(capture, pairs, most)
    depth = None
    if len(values):
        low, middle, high = (float(value) for value in np.quantile(values, QUANTILES))
        depth = (low, middle, high)
    return Scale(float(np.median(steps)) if len(steps) else 0.0, extent, depth, source if depth else "")


def _depths(capture: Capture, pairs: Sequence[Pair], most: int) -> tuple[np.ndarray, str]:
    files = [frame.depth for frame in capture.frames if frame.depth is not None]
    if files:
        maps = [read_depth(file) for file in files[:: -(-len(files) // most)]]
        return np.concatenate([depth[depth > 0] for depth in maps]), f"{len(maps)} depth maps"
    if capture.points is not None and len(capture.points):
        parts = []
        for frame in capture.frames[:: -(-len(capture.frames) // most)]:
            local = (capture.points - frame.c2w[:3, 3]) @ frame.c2w[:3, :3]
            pixels = local @ frame.k.T
            z = local[:, 2]
            safe = np.where(z > 0, z, 1)
            seen = (z > 0) & (np.abs(pixels[:, 0] / safe - frame.width / 2) < frame.width / 2)
            parts.append(z[seen & (np.abs(pixels[:, 1] / safe - frame.height / 2) < frame.height / 2)])
        return np.concatenate(parts), "sparse points"
    parts = [pair_depths(capture, pair).numpy() for pair in pairs]
    return (np.concatenate(parts) if parts else np.zeros(0)), "matched points"


def pair_depths(capture: Capture, pair: Pair) -> torch.Tensor:
    """z-depths in the first camera of the matches that the capture's poses explain."""
    c2w = torch.from_numpy(capture.c2w[list(pair.frames)])
    good = explained(pair, c2w)
    k = pair.views.cameras.k.double()
    cameras = Cameras.from_c2w(c2w, k, pair.views.cameras.height, pair.views.cameras.width)
    return triangulate(cameras[0], cameras[1], pair.first, pair.second)[good, 0]


def metric_factor(metric_depth: np.ndarray, scene_depth: np.ndarray) -> float:
    """median(metric depth / scene depth) over pixels where both are known (> 0): what translations are multiplied by.

    Raises:
        ValueError: if no pixel has both.
    """
    known = (metric_depth > 0) & (scene_depth > 0)
    if not known.any():
        raise ValueError("no pixel has both a metric depth and a depth of the scene; the scale cannot be found")
    return float(np.median(metric_depth[known] / scene_depth[known]))
