"""Tensor twin of `noise`: hashed lattices, value noise, cells, soft edges, on any device.

Letters: x, y, w: (n,) floats; seed: (n,) int64.
"""

from __future__ import annotations

import torch
from torch import Tensor


def clamp01(value: Tensor) -> Tensor:
    """Clamp to [0, 1]."""
    return value.clamp(0.0, 1.0)


def lattice(ix: Tensor | int, iy: Tensor | int, seed: Tensor) -> Tensor:
    """Hash of a lattice point, uniform in [0, 1); see `textures.lattice`. Returned in float64."""
    n = (ix * 374761393 + iy * 668265263 + seed * 1442695041) & 0xFFFFFFFF
    n = ((n ^ (n >> 13)) * 1274126177) & 0xFFFFFFFF
    n = n ^ (n >> 16)
    return (n & 0xFFFFFF).double() / 16777216.0


def whole(x: Tensor) -> Tensor:
    """Floor as int64."""
    return torch.floor(x).long()


def frac(x: Tensor) -> Tensor:
    """Fraction above the floor."""
    return x - torch.floor(x)


def smooth_noise(x: Tensor, y: Tensor, seed: Tensor) -> Tensor:
    """Value noise in [0, 1], period 1."""
    ix, iy = whole(x), whole(y)
    x, y = frac(x), frac(y)
    x, y = x * x * (3.0 - 2.0 * x), y * y * (3.0 - 2.0 * y)
    a, b = lattice(ix, iy, seed), lattice(ix + 1, iy, seed)
    c, d = lattice(ix, iy + 1, seed), lattice(ix + 1, iy + 1, seed)
    return ((a * (1.0 - x) + b * x) * (1.0 - y) + (c * (1.0 - x) + d * x) * y).to(x.dtype)


def octaves(x: Tensor, y: Tensor, seed: Tensor, w: Tensor, count: int, gain: float | Tensor) -> Tensor:
    """Band-limited sum of noise octaves about 0."""
    total: Tensor = torch.zeros_like(x)
    amplitude: float | Tensor = 1.0
    for i in range(count):
        total = total + clamp01(2.0 - 3.0 * w) * amplitude * (smooth_noise(x, y, seed + i) - 0.5)
        x, y = 1.6 * x + 1.2 * y + 0.37, -1.2 * x + 1.6 * y + 0.71
        w = w * 2.0
        amplitude = amplitude * gain
    return total


def ramp_edge(x: Tensor, w: Tensor | float) -> Tensor:
    """Step at 0 spread over a footprint."""
    return clamp01(x / w + 0.5)


def line_mask(fraction: Tensor, width: float, w: Tensor) -> Tensor:
    """Coverage of a line on the cell border."""
    return ramp_edge(0.5 * width - torch.minimum(fraction, 1.0 - fraction), w)


def nearest_cells(x: Tensor, y: Tensor, seed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Squared distances to the two nearest jittered points and the number of the nearest."""
    ix, iy = whole(x), whole(y)
    first, second, label = torch.full_like(x, 9.0), torch.full_like(x, 9.0), torch.zeros_like(x)
    for a in range(-1, 2):
        for b in range(-1, 2):
            px = (ix + a) + lattice(ix + a, iy + b, seed)
            py = (iy + b) + lattice(ix + a, iy + b, seed + 5)
            d = ((px - x) * (px - x) + (py - y) * (py - y)).to(x.dtype)
            nearer = d < first
            second = torch.where(nearer, first, torch.minimum(second, d))
            label = torch.where(nearer, lattice(ix + a, iy + b, seed + 9).to(x.dtype), label)
            first = torch.where(nearer, d, first)
    return first, second, label
