"""Hashed lattices, value noise, cells and soft edges: what the compiled textures are made of."""

from __future__ import annotations

import math

from latent3d.worlds.compiled import compiled


@compiled
def clamp01(value):
    """Clamp to [0, 1]."""
    return min(1.0, max(0.0, value))


@compiled
def lattice(ix, iy, seed):
    """Uniform number in [0, 1) from a lattice point: a 32-bit multiply-xorshift hash."""
    n = (ix * 374761393 + iy * 668265263 + seed * 1442695041) & 0xFFFFFFFF
    n = ((n ^ (n >> 13)) * 1274126177) & 0xFFFFFFFF
    n = n ^ (n >> 16)
    return (n & 0xFFFFFF) / 16777216.0


@compiled
def smooth_noise(x, y, seed):
    """Value noise in [0, 1] with period 1, cubic interpolation."""
    fx = math.floor(x)
    fy = math.floor(y)
    ix = int(fx)
    iy = int(fy)
    x -= fx
    y -= fy
    x = x * x * (3.0 - 2.0 * x)
    y = y * y * (3.0 - 2.0 * y)
    a = lattice(ix, iy, seed)
    b = lattice(ix + 1, iy, seed)
    c = lattice(ix, iy + 1, seed)
    d = lattice(ix + 1, iy + 1, seed)
    return (a * (1.0 - x) + b * x) * (1.0 - y) + (c * (1.0 - x) + d * x) * y


@compiled
def octaves(x, y, seed, w, count, gain):
    """Sum of ``count`` noise octaves about 0, amplitude ``gain`` per octave, cut at the footprint ``w``."""
    total = 0.0
    amplitude = 1.0
    for i in range(count):
        keep = clamp01(2.0 - 3.0 * w)
        if keep <= 0.0:
            break
        total += keep * amplitude * (smooth_noise(x, y, seed + i) - 0.5)
        # rotate a little between octaves so that lattice directions do not add up
        x, y = 1.6 * x + 1.2 * y + 0.37, -1.2 * x + 1.6 * y + 0.71
        w *= 2.0
        amplitude *= gain
    return total


@compiled
def ramp_edge(x, w):
    """Step at 0 spread over a footprint: 0 below, 1 above."""
    return clamp01(x / w + 0.5)


@compiled
def line_mask(fraction, width, w):
    """Coverage of a line of ``width`` centred on the cell border; ``fraction`` in [0, 1) is the place in the cell."""
    distance = min(fraction, 1.0 - fraction)
    return ramp_edge(0.5 * width - distance, w)


@compiled
def nearest_cells(x, y, seed):
    """Jittered lattice: squared distances to the two nearest points and the number of the nearest."""
    ix = math.floor(x)
    iy = math.floor(y)
    first = 9.0
    second = 9.0
    label = 0.0
    for a in range(-1, 2):
        for b in range(-1, 2):
            px = ix + a + lattice(ix + a, iy + b, seed)
            py = iy + b + lattice(ix + a, iy + b, seed + 5)
            d = (px - x) * (px - x) + (py - y) * (py - y)
            if d < first:
                second = first
                first = d
                label = lattice(ix + a, iy + b, seed + 9)
            elif d < second:
                second = d
    return first, second, label
