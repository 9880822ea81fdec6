"""Lens distortion, and its removal.

A ray (x, y, 1) of an ideal pinhole meets the distorted picture at K (x', y', 1)^T. The two models are OpenCV's:

- Brown and Conrady, rational: x' = x g + 2 p1 x y + p2 (r^2 + 2 x^2), y' = y g + p1 (r^2 + 2 y^2) + 2 p2 x y with
  g = (1 + k1 r^2 + k2 r^4 + k3 r^6) / (1 + k4 r^2 + k5 r^4 + k6 r^6), r^2 = x^2 + y^2;
- fisheye (Kannala and Brandt): (x', y') = (x, y) t' / r with t = atan(r), t' = t (1 + k1 t^2 + ... + k4 t^8).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

WIDEST, NARROWEST = 0.4, 4.0
"""The undistorted picture's focal length lies within these factors of the distorted one's."""


@dataclass(frozen=True)
class Lens:
    """Distortion of a lens; the default has none.

    Attributes:
        coefficients: (k1, k2, p1, p2[, k3[, k4, k5, k6]]), OpenCV's order; of a fisheye (k1, k2, k3, k4).
        fisheye: which of the two models.
    """

    coefficients: tuple[float, ...] = ()
    fisheye: bool = False

    def __post_init__(self) -> None:
        allowed = (4,) if self.fisheye else (0, 4, 5, 8)
        if len(self.coefficients) not in allowed:
            raise ValueError(f"a lens of this model has {allowed} coefficients, not {len(self.coefficients)}")
        if not np.isfinite(self.coefficients).all():
            raise ValueError("the lens coefficients are not finite numbers")

    @property
    def is_pinhole(self) -> bool:
        """Whether rays go through undistorted."""
        return not self.fisheye and not any(self.coefficients)

    def distort(self, rays: np.ndarray) -> np.ndarray:
        """(..., 2) ideal positions at depth 1 -> (..., 2) distorted ones, by the formulas above."""
        x, y = rays[..., 0], rays[..., 1]
        r2 = x * x + y * y
        if self.fisheye:
            r = np.sqrt(r2)
            t = np.arctan(r)
            k1, k2, k3, k4 = self.coefficients
            t2 = t * t
            bent = t * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
            return rays * np.where(r > 1e-9, bent / np.maximum(r, 1e-9), 1.0)[..., None]
        k1, k2, p1, p2, k3, k4, k5, k6 = (*self.coefficients, *[0.0] * (8 - len(self.coefficients)))
        below = 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
        gain = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / np.where(np.abs(below) < 1e-9, 1e-9, below)
        return np.stack(
            [
                x * gain + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
                y * gain + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
            ],
            -1,
        )


def undistorted_intrinsics(lens: Lens, k: np.ndarray, height: int, width: int) -> np.ndarray:
    """Intrinsics (3, 3) of the widest pinhole picture of that size which the distorted picture covers wholly.

    The principal point stays, both focal lengths are multiplied by one factor. Distorted polynomials fold back far from
    the centre; the search stops where the first ray of the border does.

    Raises:
        ValueError: if no factor in the range serves, so that the coefficients cannot belong to this camera.
    """
    if lens.is_pinhole:
        return k
    new = k.copy()
    new[[0, 1], [0, 1]] *= _zoom(lens, tuple(float(value) for value in k.ravel()), height, width)
    return new


@lru_cache(maxsize=64)
def _zoom(lens: Lens, flat: tuple[float, ...], height: int, width: int) -> float:
    """The factor of `undistorted_intrinsics`."""
    k = np.array(flat).reshape(3, 3)
    x, y = np.linspace(0, width, 33), np.linspace(0, height, 33)
    border = np.concatenate(
        [np.stack(np.broadcast_arrays(a, b), -1) for a, b in ((x, 0), (x, height), (0, y), (width, y))]
    )
    focal, center = k[[0, 1], [0, 1]], k[:2, 2]
    factors = np.geomspace(1000.0, WIDEST, 600)  # from the centre outward: that is how folding is noticed
    bent = lens.distort((border - center) / focal / factors[:, None, None])
    pixels = bent * focal + center
    inside = ((pixels >= -1e-6) & (pixels <= np.array([width, height]) + 1e-6)).all((1, 2))
    radius = np.linalg.norm(bent, axis=-1)
    growing = np.concatenate([[True], (np.diff(radius, axis=0) >= 0).all(1)])
    bad = np.flatnonzero(~(inside & growing))
    last = int(bad[0]) if len(bad) else len(factors)
    if last == 0 or factors[last - 1] > NARROWEST:
        raise ValueError("the lens coefficients fold the picture over; they cannot belong to this camera")
    return float(factors[last - 1])


@lru_cache(maxsize=2)
def _maps(lens: Lens, k: tuple[float, ...], height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each undistorted pixel lies in the distorted picture, as ``cv2.remap`` counts, and the new intrinsics."""
    matrix = np.array(k).reshape(3, 3)
    new = undistorted_intrinsics(lens, matrix, height, width)
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = (np.stack([x, y], -1) - new[:2, 2]) / new[[0, 1], [0, 1]]
    place = lens.distort(rays) * matrix[[0, 1], [0, 1]] + matrix[:2, 2] - 0.5  # OpenCV's first pixel centre is (0, 0)
    return place[..., 0].astype(np.float32), place[..., 1].astype(np.float32), new


def undistort(
    picture: np.ndarray, lens: Lens, k: np.ndarray, *, nearest: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The picture (H, W[, C]) as a pinhole camera would have taken it, and that camera's intrinsics (3, 3).

    Args:
        k: intrinsics of the distorted picture in pixels.
        nearest: take the nearest pixel (depths) instead of interpolating.
    """
    if lens.is_pinhole:
        return picture, k
    import cv2

    map_x, map_y, new = _maps(lens, tuple(float(v) for v in np.asarray(k).ravel()), *picture.shape[:2])
    mode = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    return cv2.remap(picture, map_x, map_y, mode, borderMode=cv2.BORDER_REPLICATE), new
