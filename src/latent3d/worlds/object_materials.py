"""What objects are covered with: named colours and materials that harmonise.

A material is one tile of an object's atlas (see `object_tiles`). Its words are true of its pixels: ``colours`` names
what is there, the largest share first.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latent3d.worlds.palette import Rng, chance, pick, uniform

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
    "smoke": ((200, 220), (0.2, 0.35), (0.24, 0.36)),
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


@dataclass(frozen=True, eq=False)
class Material:
    """One tile.

    Attributes:
        stuff: "wood", "metal", "fabric", "plastic", "leather", "ceramic", "paint", "glass", "rubber", "marble", "glow".
        pattern: one of `object_tiles.PAINTERS`.
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
        return f"{self.colouring} {self.stuff_word}".strip()

    @property
    def colouring(self) -> str:
        """Colour and pattern in words: "blue and white striped"."""
        return f"{' and '.join(self.colours)} {PATTERN_WORDS.get(self.pattern, '')}".strip()

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
        return self.of("glass", "shaded", "smoke")

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
