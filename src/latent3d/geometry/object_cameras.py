"""Cameras around an object at the origin: all look at it, with +z upright in the picture.

Azimuth 0 is in front of the object (on the -y axis) and grows towards +x, counter-clockwise seen from above; elevation
is the angle above the horizon. Every set is a function of its arguments, and of a seed where it is drawn.

Objects fill the box [-0.45, 0.45]^3; at the default radius and field of view they fill the picture well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from latent3d.geometry.cameras import Cameras

RADIUS = 1.7
FOV_DEG = 40.0
ELEVATION_DEG = 20.0
SPIRAL_TURN = 20.0
"""Radians of azimuth of the `spiral`, horizon to pole."""
OBJAVERSE_RINGS = ((11.0, 24), (-2.0, 12))
"""Elevation in degrees and number of views of the rings of a G-Objaverse object; a view from above and one from below
are added by `rings`."""


def look_at_origin(
    azimuth: Float[Tensor, " n"],
    elevation: Float[Tensor, " n"],
    radius: Float[Tensor, " n"],
    fov_deg: float = FOV_DEG,
    size: int | tuple[int, int] = 128,
) -> Cameras:
    """Cameras (N,) by angles in radians and distance from the origin, float32.

    The picture's upward direction is the derivative of the viewpoint by elevation, so that it is +z for every camera
    but those on the poles, which continue the meridian of their azimuth.

    Args:
        fov_deg: horizontal field of view in degrees.
        size: side in pixels, or (height, width).

    Raises:
        ValueError: for no camera, or a radius, field of view or size that cannot be.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if not len(azimuth):
        raise ValueError("a set of cameras needs at least one")
    if not bool(torch.isfinite(radius).all() and (radius > 0).all()):
        raise ValueError("cameras stand at a positive, finite distance from the origin")
    if not 0 < fov_deg < 180 or min(height, width) < 1:
        raise ValueError(f"a field of view of {fov_deg:g} degrees at {width} x {height} pixels cannot be")
    azimuth, elevation, radius = azimuth.double(), elevation.double(), radius.double()
    zero = torch.zeros_like(azimuth)
    outwards = torch.stack([azimuth.sin() * elevation.cos(), -azimuth.cos() * elevation.cos(), elevation.sin()], -1)
    right = torch.stack([azimuth.cos(), azimuth.sin(), zero], -1)
    down = torch.stack([azimuth.sin() * elevation.sin(), -azimuth.cos() * elevation.sin(), -elevation.cos()], -1)
    c2w = torch.eye(4, dtype=torch.float64).repeat(len(azimuth), 1, 1)
    c2w[:, :3] = torch.stack([right, down, -outwards, radius[:, None] * outwards], -1)
    return Cameras.from_fov(c2w, fov_deg, height, width).to(torch.float32)


def orbit(
    count: int,
    elevation_deg: float = ELEVATION_DEG,
    radius: float = RADIUS,
    fov_deg: float = FOV_DEG,
    size: int | tuple[int, int] = 128,
) -> Cameras:
    """A closed ring of ``count`` equally spaced cameras, the first in front of the object."""
    azimuth = 2 * math.pi * torch.arange(count, dtype=torch.float64) / max(count, 1)
    return _placed(azimuth, torch.full_like(azimuth, math.radians(elevation_deg)), radius, fov_deg, size)


def turntable(size: int | tuple[int, int] = 128, count: int = 24, *, fov_deg: float = FOV_DEG) -> Cameras:
    """The ring of the 24-view video of an object."""
    return orbit(count, ELEVATION_DEG, RADIUS, fov_deg, size)


def spiral(count: int, radius: float = RADIUS, fov_deg: float = FOV_DEG, size: int | tuple[int, int] = 128) -> Cameras:
    """Archimedean spiral on the upper hemisphere, from the horizon to just below the pole.

    Elevation grows in proportion to azimuth over `SPIRAL_TURN` radians, as in the test cameras of scene representation
    networks (arXiv 1906.01618), on which unconditional ShapeNet models are compared.
    """
    share = torch.arange(count, dtype=torch.float64) / max(count, 1)
    return _placed(SPIRAL_TURN * share, 0.5 * math.pi * share, radius, fov_deg, size)


def rings(
    layout: Sequence[tuple[float, int]] = OBJAVERSE_RINGS,
    radius: float = RADIUS,
    fov_deg: float = FOV_DEG,
    size: int | tuple[int, int] = 128,
    *,
    poles: bool = True,
) -> Cameras:
    """Rings of (elevation in degrees, count), then, with ``poles``, a view from above and one from below."""
    sets = [orbit(count, elevation, radius, fov_deg, size) for elevation, count in layout]
    if poles:
        sets += [orbit(1, elevation, radius, fov_deg, size) for elevation in (90.0, -90.0)]
    if not sets:
        raise ValueError("a set of cameras needs at least one")
    return Cameras.cat(sets)


def sphere(
    count: int,
    seed: int | Sequence[int] = 0,
    radius: float | tuple[float, float] = RADIUS,
    fov_deg: float = FOV_DEG,
    size: int | tuple[int, int] = 128,
    *,
    elevations_deg: tuple[float, float] = (-90.0, 90.0),
) -> Cameras:
    """Cameras drawn evenly by area from the sphere, or from the part of it between two elevations.

    They are spread: one lies in each of ``count`` equal sectors of azimuth and one in each of ``count`` bands of equal
    area, paired by chance, in random order.

    Args:
        seed: one or several non-negative integers.
        radius: distance from the origin, or the interval from which it is drawn for each camera.

    Raises:
        ValueError: as `look_at_origin`, and for elevations that are not an interval within [-90, 90].
    """
    low, high = elevations_deg
    if not -90 <= low <= high <= 90:
        raise ValueError(f"elevations from {low:g} to {high:g} degrees are not an interval within -90 to 90")
    rng = np.random.default_rng(seed)
    azimuth = 2 * math.pi * (rng.permutation(count) + rng.random(count)) / max(count, 1)
    share = (rng.permutation(count) + rng.random(count)) / max(count, 1)
    bottom, top = math.sin(math.radians(low)), math.sin(math.radians(high))
    elevation = np.arcsin(np.clip(bottom + (top - bottom) * share, -1, 1))
    near, far = radius if isinstance(radius, tuple) else (radius, radius)
    distance = near + (far - near) * rng.random(count)
    around, above, away = (torch.from_numpy(values) for values in (azimuth, elevation, distance))
    return look_at_origin(around, above, away, fov_deg, size)


def upper_hemisphere(
    count: int,
    seed: int | Sequence[int] = 0,
    radius: float | tuple[float, float] = RADIUS,
    fov_deg: float = FOV_DEG,
    size: int | tuple[int, int] = 128,
) -> Cameras:
    """`sphere` above the horizon."""
    return sphere(count, seed, radius, fov_deg, size, elevations_deg=(0.0, 90.0))


LAYOUTS: dict[str, Callable[..., Cameras]] = {
    "sphere": sphere,
    "hemisphere": upper_hemisphere,
    "orbit": orbit,
    "spiral": spiral,
}
"""Camera sets by name; all take ``count`` and the keywords ``radius``, ``fov_deg`` and ``size``."""


def _placed(azimuth: Tensor, elevation: Tensor, radius: float, fov_deg: float, size: int | tuple[int, int]) -> Cameras:
    return look_at_origin(azimuth, elevation, torch.full_like(azimuth, radius), fov_deg, size)
