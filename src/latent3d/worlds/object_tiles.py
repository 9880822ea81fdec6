"""The atlas of an object: one tile per material, painted from the material's colours and seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from latent3d.worlds.object_materials import Material
from latent3d.worlds.palette import Rng, pick, uniform

TILE = 64
GRID = 4
MARGIN = 4.0
"""Texels kept free of coordinates around each tile, so that look-ups stay in it down to a quarter of the resolution."""


@lru_cache(maxsize=64)
def _blend(cells: int) -> np.ndarray:
    """Matrix (TILE, cells + 1) that interpolates lattice values smoothly across a tile."""
    place = (np.arange(TILE) + 0.5) / TILE * cells
    cell = np.minimum(place.astype(int), cells - 1)
    t = place - cell
    t = t * t * (3 - 2 * t)
    out = np.zeros((TILE, cells + 1))
    out[np.arange(TILE), cell] = 1 - t
    out[np.arange(TILE), cell + 1] += t
    return out


def noise(rng: Rng, down: int, across: int) -> np.ndarray:
    """Smooth noise (TILE, TILE) in [0, 1] with so many cells down and across."""
    return _blend(down) @ rng.random((down + 1, across + 1)) @ _blend(across).T


@lru_cache(maxsize=1)
def _axes() -> tuple[np.ndarray, np.ndarray]:
    """v (TILE, 1) down and u (1, TILE) to the right, over the part of the tile that coordinates reach."""
    place = (np.arange(TILE) + 0.5 - MARGIN) / (TILE - 2 * MARGIN)
    return place[:, None], place[None, :]


def _soft(distance: np.ndarray) -> np.ndarray:
    """Coverage of where ``distance`` (in tiles) is positive, softened over a texel."""
    return np.clip(distance * TILE + 0.5, 0.0, 1.0)


def _fill(mask: np.ndarray, rgb: Sequence[np.ndarray]) -> np.ndarray:
    """First colour where the mask is 0, second where it is 1."""
    mask = np.broadcast_to(mask, (TILE, TILE))[..., None]
    return rgb[0] * (1 - mask) + rgb[1] * mask


def _lit(rgb: Sequence[np.ndarray], factor: np.ndarray) -> np.ndarray:
    return rgb[0] * np.broadcast_to(factor, (TILE, TILE))[..., None]


def _plain(rng: Rng, rgb: Sequence[np.ndarray]) -> np.ndarray:
    return _lit(rgb, 0.97 + 0.05 * noise(rng, 6, 6))


def _shaded(rng: Rng, rgb: Sequence[np.ndarray]) -> np.ndarray:
    low, high = uniform(rng, 0.75, 0.95), uniform(rng, 1.0, 1.06)
    return _lit(rgb, high + (low - high) * _axes()[0])


def _grain(rng: Rng, rgb: Sequence[np.ndarray], depth: float = 0.3) -> np.ndarray:
    u = _axes()[1]
    rings = uniform(rng, 5, 11) * u + uniform(rng, 1.0, 2.2) * noise(rng, 2, 3)
    lines = (0.5 + 0.5 * np.sin(2 * np.pi * rings)) ** 2
    return _lit(rgb, 1.06 - depth * (0.6 * lines + 0.4 * noise(rng, 4, 40)))


def _faint_grain(rng: Rng, rgb: Sequence[np.ndarray]) -> np.ndarray:
    return _grain(rng, rgb, 0.1)


def _weave(rng: Rng, rgb: Sequence[np.ndarray]) -> np.ndarray:
    v, u = _axes()
    threads = pick(rng, (10, 12, 15))
    over = np.sin(2 * np.pi * threads * u) * np.sin(2 * np.pi * threads * v)
    return _lit(rgb, 0.96 + 0.1 * over + 0.06 * (noise(rng, 20, 20) - 0.5))


def _hide(rng: Rng, rgb: Sequence[np.ndarray]) -> np.ndarray:
    return _lit(rgb, 0.88 + 0.16 * noise(rng, 22, 22) + 0.08 * noise(rng, 4, 4))


def _brushed(rng: Rng, rgb: Sequence[np.ndarray]) -> np.ndarray:
    return _lit(rgb, 0.93 + 0.1 * noise(rng, 48, 2) + 0.04 * noise(rng, 4, 4))


def _wave(place: np.ndarray, count: float, share: float, phase: float) -> np.ndarray:
    """Coverage of bars of a share of their period along one axis."""
    distance = share / 2 - np.abs((place * count + phase) % 1.0 - 0.5)
    return _soft(distance / count)


def _stripes(rng: Rng, rgb: Sequence[np.ndarray]) -> np.ndarray:
    return _fill(_wave(_axes()[1], pick(rng, (4, 5, 6, 8)), uniform(rng, 0.28, 0.42), rng.random()), rgb)


def _bands(rng: Rng, rgb: Sequence[np.ndarray]) -> np.ndarray:
    return _fill(_wave(_axes()[0], pick(rng, (2, 3, 4)), uniform(rng, 0.25, 0.4), rng.random()), rgb)


def _checks(rng: Rng, rgb: Sequence[np.ndarray]) -> np.ndarray:
    v, u = _axes()
    count = pick(rng, (2.5, 3, 4))
    wave = np.sin(2 * np.pi * count * u) * np.sin(2 * np.pi * count * v)
    return _fill(np.clip(0.47 + wave * 5.0, 0, 1), rgb)


def _dots(rng: Rng, rgb: Sequence[np.ndarray]) -> np.ndarray:
    v, u = _axes()
    count, radius = pick(rng, (4, 5, 6)), uniform(rng, 0.24, 0.32)
    shift = 0.5 * (np.floor(v * count) % 2)
    distance = radius - np.hypot((u * count + shift) % 1 - 0.5, (v * count) % 1 - 0.5)
    return _fill(_soft(distance / count), rgb)


def _speckles(rng: Rng, rgb: Sequence[np.ndarray]) -> np.ndarray:
    return _fill(np.clip((noise(rng, 14, 14) - 0.6) * 7, 0, 1), rgb)


def _veins(rng: Rng, rgb: Sequence[np.ndarray]) -> np.ndarray:
    flow = noise(rng, 3, 3) + 0.5 * noise(rng, 7, 7) + 0.2 * noise(rng, 16, 16)
    vein = np.exp(-(((flow * 3) % 1.0 - 0.5) ** 2) * 60) * noise(rng, 4, 4)
    contrast = rgb[0] + (0.55 if rgb[0].mean() < 0.4 else -0.5) * vein[..., None]
    return np.clip(contrast, 0, 1)


def _livery(rng: Rng, rgb: Sequence[np.ndarray]) -> np.ndarray:
    """Lines along both flanks: u runs once around from the belly, whose side is coloured too."""
    u = np.abs(_axes()[1] - 0.5)
    line = _soft(uniform(rng, 0.016, 0.03) - np.abs(u - uniform(rng, 0.26, 0.29)))
    belly = _soft(u - uniform(rng, 0.36, 0.4))
    return _fill(np.maximum(line, belly), rgb)


PAINTERS: dict[str, Callable[[Rng, Sequence[np.ndarray]], np.ndarray]] = {
    "plain": _plain, "shaded": _shaded, "grain": _grain, "faint grain": _faint_grain, "weave": _weave, "hide": _hide,
    "brushed": _brushed, "stripes": _stripes, "bands": _bands, "checks": _checks, "dots": _dots,
    "speckles": _speckles, "veins": _veins, "livery": _livery,
}  # fmt: skip
"""How each pattern is drawn: a function of a generator and the colours, giving (TILE, TILE, 3)."""


def paint_tile(material: Material) -> np.ndarray:
    """sRGB (TILE, TILE, 3) in [0, 1]."""
    return np.clip(PAINTERS[material.pattern](np.random.default_rng(material.seed), material.rgb), 0.0, 1.0)


def paint_atlas(materials: Sequence[Material]) -> np.ndarray:
    """Tiles side by side, row by row: sRGB (GRID TILE, GRID TILE, 3) float32; places without a material are grey.

    Raises:
        ValueError: for more materials than the atlas has places.
    """
    if len(materials) > GRID * GRID:
        raise ValueError(f"an atlas holds {GRID * GRID} materials, not {len(materials)}; share some between parts")
    atlas = np.full((GRID, GRID, TILE, TILE, 3), 0.5, np.float32)
    for place, material in enumerate(materials):
        atlas[divmod(place, GRID)] = paint_tile(material)
    return atlas.transpose(0, 2, 1, 3, 4).reshape(GRID * TILE, GRID * TILE, 3)


def in_tile(uvs: np.ndarray, place: np.ndarray | int) -> np.ndarray:
    """Coordinates in [0, 1]^2 of a tile (..., 2) to coordinates in the atlas, by the tile's number."""
    row, column = np.divmod(place, GRID)
    corner = np.stack([column, row], -1) * float(TILE)
    return (corner + MARGIN + uvs * (TILE - 2 * MARGIN)) / (GRID * TILE)
