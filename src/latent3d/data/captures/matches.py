"""Matched points between pictures of a capture, and how well its poses explain them.

Pixels are those of the loaded views. P: matches of a pair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from latent3d.data.captures.capture import Capture
from latent3d.data.captures.collect import FLIP
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.epipolar import fundamental_matrix, symmetric_epipolar_distance
from latent3d.geometry.rays import invert_intrinsics
from latent3d.representations.views import Views

SIDE = 512
"""Longer side of the pictures that are matched, in pixels."""
RATIO = 0.75
"""Lowe's ratio test."""
LEAST_MATCHES = 12
"""A pair with fewer matches says nothing."""
TOLERANCE = 2.0
"""A match is explained if it lies within this many pixels of its epipolar lines, in front of both cameras."""
CONVENTIONS = (("opencv", False), ("opengl", False), ("opencv", True), ("opengl", True))
"""Candidate readings of a file's poses: axes, and whether its matrices are taken the other way round."""


@dataclass(frozen=True)
class Pair:
    """Two views of a capture and what they have in common.

    Attributes:
        frames: numbers of the two frames in the capture.
        views: the two views.
        first, second: pixels of the matches in either, (P, 2), float64.
    """

    frames: tuple[int, int]
    views: Views
    first: Float[Tensor, "p 2"]
    second: Float[Tensor, "p 2"]


def matching_size(capture: Capture) -> tuple[int, int]:
    """(height, width) at which a capture's pictures are matched and drawn."""
    height, width = capture.frames[0].height, capture.frames[0].width
    scale = min(1.0, SIDE / max(height, width))
    return max(16, round(height * scale)), max(16, round(width * scale))


def choose_pairs(capture: Capture, count: int) -> list[tuple[int, int]]:
    """Up to ``count`` pairs of frames that look the same way from different places, spread over the capture.

    The choice depends on distances and angles between cameras, which are the same in OpenCV and OpenGL axes.
    """
    c2w = capture.c2w
    centers, rotations = c2w[:, :3, 3], c2w[:, :3, :3]
    extent = np.linalg.norm(centers - centers.mean(0), axis=1).mean()
    pairs: list[tuple[int, int]] = []
    if len(c2w) < 2 or extent < 1e-9:
        return pairs
    for index in np.linspace(0, len(c2w) - 1, min(2 * count, len(c2w))).round().astype(int):
        distance = np.linalg.norm(centers - centers[index], axis=1) / extent
        cosine = (np.einsum("nij,ij->n", rotations, rotations[index]) - 1) / 2
        degrees = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        cost = distance + degrees / 20 + np.where(distance < 0.05, 1e6, 0)
        other = int(cost.argmin())
        pair = (min(int(index), other), max(int(index), other))
        if cost[other] < 1e6 and pair not in pairs:
            pairs.append(pair)
    return pairs[:: max(1, len(pairs) // count)][:count]


def match_pairs(capture: Capture, count: int = 6) -> list[Pair]:
    """Matches of a few pairs of a capture's pictures; pairs with fewer than `LEAST_MATCHES` are left out.

    Raises:
        ValueError: if the capture has no pictures, or one of them cannot be read.
    """
    height, width = matching_size(capture)
    found = []
    for frames in choose_pairs(capture, count):
        views = capture.load(frames, height, width)
        first, second = match(views.images[0], views.images[1])
        if len(first) >= LEAST_MATCHES:
            found.append(Pair(frames, views, first, second))
    return found


def match(first: Float[Tensor, "3 h w"], second: Float[Tensor, "3 h w"]) -> tuple[Tensor, Tensor]:
    """SIFT matches without any geometric check: mutual nearest neighbours that pass the ratio test, (P, 2) each."""
    import cv2

    sift = cv2.SIFT.create(nfeatures=3000, contrastThreshold=0.02)
    found = [sift.detectAndCompute(_grey(image), None) for image in (first, second)]
    if any(descriptors is None or len(descriptors) < 2 for _, descriptors in found):
        empty = torch.zeros(0, 2, dtype=torch.float64)
        return empty, empty
    (points1, one), (points2, two) = found
    matcher = cv2.BFMatcher(cv2.NORM_L2)
    forward = {m.queryIdx: m.trainIdx for m, n in matcher.knnMatch(one, two, k=2) if m.distance < RATIO * n.distance}
    backward = {m.queryIdx: m.trainIdx for (m,) in matcher.knnMatch(two, one, k=1)}
    mutual = [(a, b) for a, b in forward.items() if backward.get(b) == a]
    # OpenCV counts from the centre of the first pixel.
    pixels1 = np.array([points1[a].pt for a, _ in mutual]).reshape(-1, 2) + 0.5
    pixels2 = np.array([points2[b].pt for _, b in mutual]).reshape(-1, 2) + 0.5
    # A corner may carry several orientations; each place counts once.
    _, once = np.unique(np.concatenate([pixels1, pixels2], 1).round(1), axis=0, return_index=True)
    return torch.from_numpy(pixels1[once]), torch.from_numpy(pixels2[once])


def _grey(image: Tensor) -> np.ndarray:
    weights = image.new_tensor([0.299, 0.587, 0.114])[:, None, None]
    return ((image * weights).sum(0) * 255).round().clamp(0, 255).to(torch.uint8).numpy()


def reread(c2w: Tensor, now: tuple[str, bool], wanted: tuple[str, bool]) -> Tensor:
    """Poses (..., 4, 4) as they would be if the file's matrices were taken by another of the `CONVENTIONS`."""
    flip = torch.from_numpy(FLIP).to(c2w)
    matrix = c2w @ flip if now[0] == "opengl" else c2w
    if now[1] != wanted[1]:
        matrix = torch.linalg.inv(matrix)
    return matrix @ flip if wanted[0] == "opengl" else matrix


def triangulate(first: Cameras, second: Cameras, pixels1: Tensor, pixels2: Tensor) -> Tensor:
    """z-depths (P, 2) in either camera of matched pixels (P, 2), by least squares of d1 R x1 + t = d2 x2."""
    relative = second.w2c @ first.c2w
    one = torch.ones_like(pixels1[:, :1])
    ray1 = torch.cat([pixels1, one], 1) @ invert_intrinsics(first.k).mT @ relative[:3, :3].mT
    ray2 = torch.cat([pixels2, one], 1) @ invert_intrinsics(second.k).mT
    a, b, c = (ray1 * ray1).sum(1), (ray1 * ray2).sum(1), (ray2 * ray2).sum(1)
    p, q = -(ray1 @ relative[:3, 3]), ray2 @ relative[:3, 3]
    below = (a * c - b * b).clamp_min(1e-12 * a * c)
    return torch.stack([(c * p + b * q) / below, (b * p + a * q) / below], 1)


def explained(pair: Pair, c2w: Tensor) -> Tensor:
    """Which matches (P,) lie within `TOLERANCE` of their epipolar lines under two poses (2, 4, 4), in front of both."""
    cameras = pair.views.cameras.to(torch.float64)
    cameras = Cameras.from_c2w(c2w, cameras.k, cameras.height, cameras.width)
    distance = symmetric_epipolar_distance(fundamental_matrix(cameras[0], cameras[1]), pair.first, pair.second)
    depths = triangulate(cameras[0], cameras[1], pair.first, pair.second)
    return (distance < TOLERANCE) & (depths > 0).all(1)
