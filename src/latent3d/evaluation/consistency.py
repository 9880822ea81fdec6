"""TSED: do neighbouring frames agree with the cameras they were asked for? (Yu et al. 2023, arXiv 2304.10700)

Per pair of neighbours: SIFT matches without any geometric verification, their symmetric epipolar distance (SED) under
the known cameras; the pair is consistent if it has at least ``min_matches`` matches with a median SED below T_error.

Our choices, all stated in the result record: OpenCV's SIFT (edge threshold 30 and contrast threshold 0.02 as in COLMAP)
with Lowe's ratio test at 0.8 and mutual nearest neighbours in place of COLMAP's matcher; images are enlarged before
SIFT to a shorter side of at least 256 px, because small images give too few points; pixel positions are in the original
image. The paper works at 256 x 256, and thresholds scale with the image: T_error is given in 256ths of the shorter
side, so T_error = 2 is 1 px in an image of 128 px and 2 px in one of 256 px.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from latent3d.config import Config
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.epipolar import fundamental_matrix, symmetric_epipolar_distance

REFERENCE_SIDE = 256
"""T_error is stated for images with this shorter side."""


@dataclass(frozen=True, kw_only=True)
class TSEDConfig(Config):
    """Settings of TSED.

    Attributes:
        thresholds: T_error values of the curve, pixels at a shorter side of 256.
        headline: the T_error that a table prints.
        min_matches: fewer matches make a pair inconsistent.
        ratio: Lowe's ratio test; 1 switches it off.
        contrast: SIFT's contrast threshold as OpenCV counts it; lower finds more and weaker points.
        sift_side: images with a shorter side below this are enlarged (bicubic, whole factor) before SIFT.
        min_baseline: pairs whose centres are closer than this share of their largest distance to the sequence's mean
            centre have no epipolar geometry to test and are left out.
    """

    thresholds: tuple[float, ...] = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
    headline: float = 2.0
    min_matches: int = 10
    ratio: float = 0.8
    contrast: float = 0.02
    sift_side: int = 256
    min_baseline: float = 1e-3

    def __post_init__(self) -> None:
        if self.headline not in self.thresholds:
            raise ValueError(f"the headline threshold {self.headline} is not among the thresholds {self.thresholds}")


@dataclass(frozen=True)
class TSEDPairs:
    """Raw measurements of P neighbouring pairs, from which every threshold's score follows.

    Attributes:
        matches: number of matches per pair, (P,).
        median_sed: median SED per pair in pixels of the image, infinite without matches, (P,).
        degenerate: pairs without baseline, which are not scored, (P,).
        side: shorter side of the images in pixels.
    """

    matches: np.ndarray
    median_sed: np.ndarray
    degenerate: np.ndarray
    side: int

    def score(self, threshold: float, min_matches: int) -> float:
        """Share of consistent pairs at one T_error (in pixels at a shorter side of 256); NaN without pairs."""
        if bool(self.degenerate.all()):
            return math.nan
        limit = threshold * self.side / REFERENCE_SIDE
        good = (self.matches >= min_matches) & (self.median_sed < limit)
        return float(good[~self.degenerate].mean())

    def summary(self, config: TSEDConfig) -> dict[str, Any]:
        """Plain dictionary: ``tsed`` at the headline threshold, the curve, mean matches and SED, pairs left out."""
        scored = ~self.degenerate
        finite = self.median_sed[scored & np.isfinite(self.median_sed)]
        return {
            "tsed": self.score(config.headline, config.min_matches),
            "curve": {f"{t:g}": self.score(t, config.min_matches) for t in config.thresholds},
            "matches": float(self.matches[scored].mean()) if scored.any() else math.nan,
            "median_sed_px": float(np.median(finite)) if len(finite) else math.nan,
            "pairs": int(scored.sum()),
            "pairs_without_baseline": int(self.degenerate.sum()),
        }


def tsed(images: Float[Tensor, "v 3 h w"], cameras: Cameras, config: TSEDConfig | None = None) -> TSEDPairs:
    """Measure all pairs of neighbours (i, i + 1) of a sequence of V posed frames.

    Args:
        images: sRGB in [0, 1] in path order.
        cameras: the poses that were asked for, (V,).

    Raises:
        ValueError: for fewer than two frames.
    """
    config = config or TSEDConfig()
    if len(images) < 2:
        raise ValueError("TSED compares neighbouring frames; give at least two")
    found = [sift_features(image, config.sift_side, config.contrast) for image in images]
    # Double precision: F of nearly equal cameras loses most of its digits.
    poses = Cameras(cameras.w2c.double().cpu(), cameras.k.double().cpu(), cameras.height, cameras.width)
    spread = float((poses.centers - poses.centers.mean(0)).norm(dim=-1).max())
    matches, medians, degenerate = [], [], []
    for i in range(len(images) - 1):
        baseline = float((poses.centers[i] - poses.centers[i + 1]).norm())
        degenerate.append(baseline <= config.min_baseline * spread)
        first, second = match_features(found[i], found[i + 1], config.ratio)
        sed = symmetric_epipolar_distance(fundamental_matrix(poses[i], poses[i + 1]), first, second)
        matches.append(len(first))
        medians.append(float(sed.median()) if len(first) and not degenerate[-1] else math.inf)
    side = min(cameras.height, cameras.width)
    return TSEDPairs(np.array(matches), np.array(medians), np.array(degenerate), side)


def sift_features(image: Float[Tensor, "3 h w"], side: int, contrast: float) -> tuple[np.ndarray, np.ndarray]:
    """SIFT keypoints: positions (N, 2) in the image's pixels (first pixel centre (0.5, 0.5)), descriptors (N, 128).

    The image is first enlarged by the smallest whole factor that brings its shorter side to ``side``.
    """
    import cv2

    picture = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    grey = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
    factor = max(1, math.ceil(side / min(grey.shape)))
    if factor > 1:
        grey = cv2.resize(grey, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    # Without `enable_precise_upscale` OpenCV's positions are a quarter of a pixel too far right and down.
    sift = cv2.SIFT_create(contrastThreshold=contrast, edgeThreshold=30, enable_precise_upscale=True)  # type: ignore[attr-defined]
    points, descriptors = sift.detectAndCompute(grey, None)
    if descriptors is None:
        return np.zeros((0, 2)), np.zeros((0, 128), np.float32)
    # OpenCV counts from the centre of the first pixel, we from its corner.
    return (np.array([point.pt for point in points]) + 0.5) / factor, descriptors


def match_features(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray], ratio: float
) -> tuple[Tensor, Tensor]:
    """Mutual nearest neighbours that pass the ratio test in both directions: two position lists (N, 2), float64.

    A position counts once however many orientations SIFT gave it.
    """
    if len(first[1]) < 2 or len(second[1]) < 2:
        return torch.zeros(0, 2, dtype=torch.float64), torch.zeros(0, 2, dtype=torch.float64)
    distance = torch.cdist(torch.from_numpy(first[1]), torch.from_numpy(second[1]))
    there, back = distance.topk(2, 1, largest=False), distance.topk(2, 0, largest=False)
    index = torch.arange(len(first[1]))
    nearest = there.indices[:, 0]
    keep = back.indices[0, nearest] == index
    keep &= there.values[:, 0] <= ratio * there.values[:, 1]
    keep &= (back.values[0] <= ratio * back.values[1])[nearest]
    pairs = torch.cat([torch.from_numpy(first[0])[keep], torch.from_numpy(second[0])[nearest[keep]]], 1).unique(dim=0)
    return pairs[:, :2], pairs[:, 2:]
