"""Do the views show one scene? Features of a view, carried into another by depth and cameras, against the other's own.

The measure has the form of MEt3R (Asim et al. 2025, arXiv 2501.06336), 1 - (S_12 + S_21) / 2 with S the mean cosine of
features where both views see the same surface, but neither its networks nor its geometry: depth and cameras are given
here, where MEt3R estimates point maps, and the features are those of the named extractor. So it is never called MEt3R;
its score is ``WD_<extractor>``. Range [0, 2], lower is better.

What it does not see: surfaces that only one of the two views shows, and whatever fails the depth test, so that depth
without agreement shrinks the overlap instead of raising the distance. The share of overlap is therefore a number of its
own, and belongs beside every distance. Blurred pictures agree more easily than sharp ones: true pictures are no lower
bound, and the score says nothing without one of quality.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from latent3d.evaluation.dense_features import DenseExtractor
from latent3d.evaluation.visibility import SEEN_TOLERANCE, seen_mask
from latent3d.geometry.rays import pixel_grid, unproject
from latent3d.representations.views import Views

MIN_OVERLAP = 0.01
"""Pairs of views that share less than this part of either picture have no distance."""


@dataclass(frozen=True)
class WarpDistances:
    """Measurements of P pairs of views.

    Attributes:
        distance: 1 - (S_12 + S_21) / 2, NaN without enough overlap, (P,).
        overlap: smaller one of the two shares of pixels that the other view sees too, (P,).
    """

    distance: np.ndarray
    overlap: np.ndarray

    @property
    def mean(self) -> float:
        """Mean distance of the pairs that overlap; NaN if none does."""
        scored = self.distance[np.isfinite(self.distance)]
        return float(scored.mean()) if len(scored) else math.nan

    @property
    def mean_overlap(self) -> float:
        """Mean share of overlap of all pairs; NaN without pairs."""
        return float(self.overlap.mean()) if len(self.overlap) else math.nan


@dataclass(frozen=True)
class WarpMetric:
    """Which features are compared where.

    Attributes:
        extractor: of the feature maps.
        tolerance: relative difference of depth up to which two views see the same surface.
    """

    extractor: DenseExtractor
    tolerance: float = SEEN_TOLERANCE

    @property
    def name(self) -> str:
        """``WD_<extractor>``."""
        return f"WD_{self.extractor.name}"

    def to_dict(self) -> dict[str, Any]:
        """What a record says of it."""
        return {
            "name": self.name,
            "extractor": self.extractor.to_dict(),
            "tolerance": self.tolerance,
            "min_overlap": MIN_OVERLAP,
            "pairs": "neighbours along the path",
        }


def warp_distances(
    features: Float[Tensor, "v d a b"], views: Views, *, tolerance: float = SEEN_TOLERANCE
) -> WarpDistances:
    """Distances of all pairs of neighbours (i, i + 1) of V posed views of one scene.

    Args:
        features: a map of every picture, from edge to edge; read with bilinear interpolation.
        views: cameras and depths in path order, the pictures are not read; pixels of depth 0 (unknown) are left out.
        tolerance: relative difference of depth that counts as equal, see `visibility.seen_mask`.

    Raises:
        ValueError: if there are no depths, or another number of maps than views.
    """
    if len(features) != len(views):
        raise ValueError(f"{len(features)} feature maps do not belong to {len(views)} views; give one of each")
    distances, overlaps = [], []
    for i in range(len(views) - 1):
        there = _similarity(features[i + 1], views[i + 1], features[i], views[i], tolerance)
        back = _similarity(features[i], views[i], features[i + 1], views[i + 1], tolerance)
        overlaps.append(min(there[1], back[1]))
        distances.append(1 - 0.5 * (there[0] + back[0]) if overlaps[-1] >= MIN_OVERLAP else math.nan)
    return WarpDistances(np.array(distances), np.array(overlaps))


def _similarity(
    carried: Float[Tensor, "d a b"], source: Views, own: Float[Tensor, "d a b"], target: Views, tolerance: float
) -> tuple[float, float]:
    """Mean cosine of the source's features, carried into the target view, with its own, and the share of pixels."""
    one, other = source[None], target[None]
    mask = rearrange(seen_mask(one, other, tolerance), "1 1 h w -> h w")
    if not bool(mask.any()):
        return math.nan, 0.0
    assert other.depths is not None
    camera = target.cameras
    grid = pixel_grid(camera.height, camera.width, dtype=camera.k.dtype, device=camera.k.device)
    points = rearrange(unproject(other.cameras, other.depths), "1 h w c -> h w c")[mask]
    position = source.cameras.project(points)[0]
    pair = (_read(carried, position, source), _read(own, grid[mask], target))
    return float(F.cosine_similarity(*pair, dim=1).mean()), float(mask.float().mean())


def _read(features: Float[Tensor, "d a b"], position: Float[Tensor, "p 2"], view: Views) -> Float[Tensor, "p d"]:
    """Features at positions in the view's pixels."""
    grid = position * (2 / position.new_tensor([view.cameras.width, view.cameras.height])) - 1
    found = F.grid_sample(
        features[None], grid[None, None].to(features), mode="bilinear", padding_mode="border", align_corners=False
    )
    return rearrange(found, "1 d 1 p -> p d")
