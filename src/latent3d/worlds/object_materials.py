"""What objects are covered with: named colours, materials that harmonise, and the atlas that holds their tiles.

A material is one tile of the atlas. Its words are true of its pixels: ``colours`` names what is there, the largest share
first.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from latent3d.worlds.palette import Rng, chance, pick, uniform

TILE = 64
GRID = 4
MARGIN = 2.0
"""Texels kept free of coordinates around each tile, so that bilinear look-ups never leave it."""

COLOURS: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "red": ((-8, 6), (0.75, 0.92), (0.62, 0.88)),
    "orange": ((20, 30), (0.8, 0.95), (0.88, 0.98)),
    "yellow": ((47, 55), (0.7, 0.9), (0.88, 0.98)),
    "green": ((95, 145), (0.5, 0.8), (0.35, 0.65)),
    "turquoise": ((172, 184), (0.55, 0.8), (0.6, 0.8)),
    "blue": ((208, 230), (0.65, 0.9), (0.5, 0.85)),
    "purple": ((265, 285), (0.45, 0.7), (0.42, 0.68)),
    "pink": ((325, 345), (0.35, 0.55), (0.88, 0.98)),
    "brown": ((18, 28), (0.5, 0.66), (0.38, 0.5)),
    "dark brown": ((16, 26), (0.45, 0.6), (0.2, 0.28)),
    "light brown": ((28, 35), (0.38, 0.5), (0.68, 0.8)),
    "beige": ((34, 42), (0.18, 0.28), (0.82, 0.9)),
    "white": ((0, 360), (0.0, 0.03), (0.9, 0.97)),
    "grey": ((0, 360), (0.0, 0.06), (0.42, 0.58)),
    "black": ((0, 360), (0.0, 0.12), (0.07, 0.14)),
    "silver": ((0, 360), (0.0, 0.05), (0.68, 0.78)),
    "golden": ((42, 47), (0.52, 0.64), (0.74, 0.84)),
    "copper": ((16, 22), (0.45, 0.56), (0.68, 0.78)),
}
"""Ranges of hue in degrees, saturation and value (sRGB) that a word stands for."""

VIVID = ("red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink")
CALM = ("white", "grey", "black", "beige", "brown")
PARTNERS = {
    "red": ("white", "black", "beige", "yellow", "grey"),
    "orange": ("white", "blue", "grey", "brown", "turquoise"),
    "yellow": ("white", "grey", "blue", "black", "purple"),
    "green": ("white", "beige", "brown", "yellow", "black"),
    "turquoise": ("white", "orange", "beige", "pink", "grey"),
    "blue": ("white", "yellow", "red", "beige", "grey"),
    "purple": ("white", "pink", "yellow", "grey", "black"),
    "pink": ("white", "grey", "purple", "turquoise", "black"),
    "white": ("red", "blue", "green", "black", "turquoise", "orange", "pink"),
    "grey": ("yellow", "red", "white", "blue", "orange", "turquoise"),
    "black": ("red", "white", "yellow", "orange", "green"),
    "beige": ("red", "blue", "green", "brown", "black"),
    "brown": ("beige", "white", "green", "turquoise", "orange"),
}
"""Colours that go well beside each one."""

STUFF_WORDS = {"wood": "wooden", "paint": "", "fabric": "fabric", "glow": "", "rubber": "rubber"}
PATTERN_WORDS = {
    "stripes": "striped", "checks": "checked", "dots": "dotted", "speckles": "speckled", "bands": "banded",
}  # fmt: skip
TWO_COLOURED = (*PATTERN_WORDS, "livery")


@dataclass(frozen=True, eq=False)
class Material:
    """One tile.

    Attributes:
        stuff: "wood", "metal", "fabric", "plastic", "leather", "ceramic", "paint", "glass", "rubber", "marble", "glow".
        pattern: one of `PAINTERS`.
        colours: names of its colours in `COLOURS`, the largest share first.
        rgb: sRGB of these colours.
        seed: of the pattern.
        stretch: the tile covers each part once; otherwise all parts share one scale.
    """

    stuff: str
    pattern: str
    colours: tuple[str, ...]
    rgb: tuple[np.ndarray, ...]
    seed: int
    stretch: bool = False

    @property
    def look(self) -> str:
        """Colour, pattern and stuff in words: "red wooden", "blue and white striped fabric"."""
        words = [" and ".join(self.colours), PATTERN_WORDS.get(self.pattern, ""), self.stuff_word]
        return " ".join(word for word in words if word)

    @property
    def stuff_word(self) -> str:
        """The stuff as an adjective; empty where one would not say it."""
        return STUFF_WORDS.get(self.stuff, self.stuff)

    @property
    def colour(self) -> str:
        """The main colour's name."""
        return self.colours[0]


def shade(rng: Rng, name: str) -> np.ndarray:
    """sRGB (3,) of a named colour."""
    hue, saturation, value = (uniform(rng, *span) for span in COLOURS[name])
    return np.array(colorsys.hsv_to_rgb(hue / 360.0 % 1.0, saturation, value))


class Palette:
    """Materials of one object: its second and third colours suit the first."""

    def __init__(self, rng: Rng) -> None:
        self.rng = rng
        self.main = pick(rng, VIVID) if chance(rng, 0.7) else pick(rng, CALM)
        self.accent = pick(rng, PARTNERS[self.main])

    def of(self, stuff: str, pattern: str, *colours: str, stretch: bool = False) -> Material:
        """A material of named colours."""
        rgb = tuple(shade(self.rng, name) for name in colours)
        return Material(stuff, pattern, colours, rgb, int(self.rng.integers(1 << 31)), stretch)

    def _patterned(
        self, stuff: str, plain: Sequence[str], patterns: Sequence[str], share: float, colour: str
    ) -> Material:
        if not chance(self.rng, share):
            return self.of(stuff, pick(self.rng, plain), colour)
        second = pick(self.rng, PARTNERS.get(colour, VIVID))
        return self.of(stuff, pick(self.rng, patterns), colour, second)

    def wood(self, tone: str | None = None) -> Material:
        """Wood with its grain."""
        return self.of("wood", "grain", tone or pick(self.rng, ("light brown", "light brown", "brown", "dark brown")))

    def painted_wood(self, colour: str | None = None) -> Material:
        """Wood under paint, its grain just to be seen."""
        return self.of("wood", "faint grain", colour or self.main)

    def any_wood(self) -> Material:
        """Natural two times in three."""
        return self.wood() if chance(self.rng, 0.65) else self.painted_wood()

    def metal(self, colour: str | None = None) -> Material:
        """Metal, brushed or lacquered."""
        colour = colour or pick(self.rng, ("silver", "silver", "black", "golden", "grey", "copper", "white"))
        return self.of("metal", "plain" if colour in ("black", "white") else "brushed", colour)

    def fabric(self, colour: str | None = None) -> Material:
        """Cloth, woven or with a pattern."""
        return self._patterned("fabric", ("weave",), ("stripes", "checks", "dots"), 0.35, colour or self.main)

    def leather(self, colour: str | None = None) -> Material:
        """Leather."""
        return self.of("leather", "hide", colour or pick(self.rng, ("black", "brown", "dark brown", "red", "beige")))

    def plastic(self, colour: str | None = None) -> Material:
        """Plastic in one colour."""
        return self.of("plastic", "plain", colour or self.main)

    def paint(self, colour: str | None = None) -> Material:
        """Lacquer over anything."""
        return self.of("paint", pick(self.rng, ("plain", "shaded")), colour or self.main)

    def ceramic(self, colour: str | None = None) -> Material:
        """Glazed clay, often decorated."""
        return self._patterned(
            "ceramic", ("plain", "shaded"), ("bands", "dots", "stripes", "checks", "speckles"), 0.5, colour or self.main
        )

    def ceramic_plain(self, colour: str) -> Material:
        """Glazed clay without decoration."""
        return self.of("ceramic", "plain", colour)

    def marble(self) -> Material:
        """Veined stone."""
        return self.of("marble", "veins", pick(self.rng, ("white", "white", "black", "green", "beige")))

    def glass(self) -> Material:
        """Dark panes of vehicles."""
        return self.of("glass", "shaded", "black")

    def rubber(self) -> Material:
        """Tyres and feet."""
        return self.of("rubber", "plain", "black")

    def glow(self, colour: str = "yellow") -> Material:
        """Lamps and lights."""
        return self.of("glow", "plain", colour)

    def surface(self, colour: str | None = None) -> Material:
        """Anything a solid may be covered with."""
        colour = colour or self.main
        choice = self.rng.random()
        if choice < 0.12:
            return self.any_wood()
        if choice < 0.2:
            return self.metal()
        return self._patterned(
            "paint", ("plain", "shaded", "plain"), ("stripes", "checks", "dots", "bands", "speckles"), 0.45, colour
        )


# ---------------------------------------------------------------- tiles


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
    return _fill(np.clip((noise(rng, 26, 26) - 0.62) * 12, 0, 1), rgb)


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
