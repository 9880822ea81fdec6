"""Free compositions: two to six solids that stand on, beside and around one another, always in contact."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from latent3d.worlds.object_assembly import Assembly
from latent3d.worlds.object_captions import listed, with_article
from latent3d.worlds.object_materials import Material
from latent3d.worlds.object_outlines import arc, circle, rectangle
from latent3d.worlds.object_parts import End, Part, box, cylinder, ellipsoid, lathe, loft, slab, torus, tube, upright
from latent3d.worlds.palette import Rng, chance, pick, uniform


@dataclass(frozen=True)
class Solid:
    """A solid that stands on z = 0 about the z axis: half extents, height, and whether others can stand on it."""

    name: str
    part: Part
    flat: bool

    @property
    def half(self) -> np.ndarray:
        """Half extents in x and y."""
        return np.abs(self.part.points[:, :2]).max(0)

    @property
    def height(self) -> float:
        """Height of the top."""
        return float(self.part.points[:, 2].max())


def _star(points: int, radius: float, waist: float) -> np.ndarray:
    return circle(2 * points, 0.0) * np.where(np.arange(2 * points) % 2 == 0, radius, waist * radius)[:, None]


def _stump(sides: int, radius: float, height: float, top: float) -> Part:
    """A pyramid or its stump over a regular polygon."""
    ring = circle(sides)
    levels = [(radius * (1 + (top - 1) * t), height * t) for t in ((0, 0.5, 1.0) if top > 0 else (0, 0.45))]
    rings = np.stack([np.column_stack([ring * r, np.full(sides, z)]) for r, z in levels])
    tip = None if top > 0 else np.array([0, 0, height])
    end: End = "flat" if top > 0 else "smooth"
    return loft(rings, ends=("flat", end), tips=(None, tip), columns=np.arange(sides))


def _cube(rng: Rng) -> Solid:
    s = uniform(rng, 0.3, 0.5)
    return Solid("cube", box(s, s, s, pick(rng, (0.01, 0.01, 0.06))), True)


def _box(rng: Rng) -> Solid:
    x, y, z = uniform(rng, 0.4, 0.7), uniform(rng, 0.3, 0.5), uniform(rng, 0.12, 0.25)
    return Solid("box", box(x, y, z, 0.015), True)


def _cylinder(rng: Rng) -> Solid:
    return Solid("cylinder", cylinder(uniform(rng, 0.14, 0.26), uniform(rng, 0.25, 0.55), 32, bevel=0.008), True)


def _disc(rng: Rng) -> Solid:
    return Solid("disc", cylinder(uniform(rng, 0.28, 0.4), uniform(rng, 0.06, 0.11), 36, bevel=0.015), True)


def _cone(rng: Rng) -> Solid:
    return Solid("cone", cylinder(uniform(rng, 0.18, 0.28), uniform(rng, 0.35, 0.55), 32, top=0.0), False)


def _pyramid(rng: Rng) -> Solid:
    return Solid("pyramid", _stump(4, uniform(rng, 0.25, 0.36), uniform(rng, 0.3, 0.5), 0.0), False)


def _sphere(rng: Rng) -> Solid:
    r = uniform(rng, 0.16, 0.27)
    return Solid("sphere", ellipsoid(r, r, r, 28, 14).moved(z=r), False)


def _egg(rng: Rng) -> Solid:
    r, h = uniform(rng, 0.15, 0.2), uniform(rng, 0.45, 0.55)
    t = np.linspace(0, math.pi, 15)
    profile = np.stack([r * np.sin(t) * (1 + 0.22 * np.cos(t)), h / 2 * (1 - np.cos(t))], 1)
    profile[[0, -1], 0] = 0.0
    return Solid("egg", lathe(profile, 28), False)


def _dome(rng: Rng) -> Solid:
    r = uniform(rng, 0.2, 0.32)
    t = np.linspace(0, math.pi / 2, 9)
    profile = np.stack([r * np.cos(t), r * np.sin(t)], 1)
    profile[-1, 0] = 0.0
    return Solid("half sphere", lathe([(0, 0), *profile], 32), False)


def _ring(rng: Rng) -> Solid:
    big, small = uniform(rng, 0.18, 0.26), uniform(rng, 0.05, 0.085)
    if chance(rng, 0.5):
        return Solid("ring", torus(big, small, 36, 14).moved(z=small), False)
    return Solid("upright ring", torus(big, small, 36, 14).turned(0, 90).moved(z=big + small), False)


def _prism(rng: Rng) -> Solid:
    sides = int(pick(rng, (3, 6, 6)))
    part = _stump(sides, uniform(rng, 0.2, 0.3), uniform(rng, 0.25, 0.5), 1.0)
    return Solid("triangular prism" if sides == 3 else "hexagonal prism", part, True)


def _star_prism(rng: Rng) -> Solid:
    return Solid("star", slab(_star(5, uniform(rng, 0.28, 0.36), 0.5), 0, uniform(rng, 0.1, 0.18), 0.01), True)


def _capsule(rng: Rng) -> Solid:
    r, h = uniform(rng, 0.11, 0.16), uniform(rng, 0.2, 0.35)
    t = np.linspace(0, math.pi / 2, 7)
    low = np.stack([r * np.sin(t), r - r * np.cos(t)], 1)
    profile = np.concatenate([low, np.array([0, 2 * r + h]) + low[::-1] * [1, -1]])
    profile[[0, -1], 0] = 0.0
    return Solid("capsule", lathe(profile, 28), False)


def _arch(rng: Rng) -> Solid:
    r, high, y = uniform(rng, 0.18, 0.24), uniform(rng, 0.08, 0.25), uniform(rng, 0.12, 0.2)
    bow = arc(r, 0, 180, 17)
    path = np.array([(r, 0, 0), *((x, 0, high + z) for x, z in bow), (-r, 0, 0)])
    return Solid("arch", tube(path, 1.0, section=rectangle(2 * y, 0.11)), False)


def _stump_solid(rng: Rng) -> Solid:
    part = cylinder(uniform(rng, 0.24, 0.32), uniform(rng, 0.2, 0.35), 32, top=0.16, bevel=0.006)
    return Solid("truncated cone", part, True)


def _heart(rng: Rng) -> Solid:
    t = np.linspace(0, 2 * math.pi, 29)[:-1]
    x, z = np.sin(t) ** 3, (13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
    size = uniform(rng, 0.2, 0.26)
    outline = np.stack([x, z], 1)[::-1] * size
    part = upright(outline, -0.06, 0.06, 0.012)
    return Solid("heart", part.moved(z=-float(part.points[:, 2].min())), False)


SOLIDS: tuple[Callable[[Rng], Solid], ...] = (
    _cube, _cube, _box, _cylinder, _cylinder, _disc, _cone, _cone, _pyramid, _sphere, _sphere, _egg, _dome, _ring,
    _ring, _prism, _star_prism, _capsule, _arch, _stump_solid, _heart,
)  # fmt: skip


def composition(made: Assembly) -> None:
    """Any composition."""
    kind = pick(made.rng, ("tower", "tower", "row", "base", "base", "ring"))
    {"tower": _tower, "row": _row, "base": _base, "ring": _satellites}[kind](made)


def _draw(made: Assembly, flat: bool = False) -> Solid:
    """A solid, one that carries others where ``flat``."""
    while True:
        solid = pick(made.rng, SOLIDS)(made.rng)
        if solid.flat or not flat:
            return solid


def _skins(made: Assembly, count: int) -> list[Material]:
    """Materials of different colours that suit."""
    rng, palette = made.rng, made.palette
    pool = [palette.main, palette.accent, "red", "blue", "yellow", "green", "orange", "white", "purple", "turquoise"]
    colours = list(dict.fromkeys(pool))
    chosen = [*colours[:2], *rng.permutation(colours[2:])[: max(0, count - 2)]]
    return [palette.surface(str(colour)) for colour in chosen[:count]]


def _named(solid: Solid, skin: Material) -> str:
    return with_article(f"{skin.look} {solid.name}")


def _speak(made: Assembly, names: list[str], phrase: str) -> None:
    """Names the composition, after all was added: by the material of the largest surface, a phrase and a list."""
    made.say_phrases("composition", max(made.materials(), key=made.area), phrase, listed(names))


def _tower(made: Assembly) -> None:
    """One on another; each next one no wider than it can stand."""
    rng = made.rng
    count = int(rng.integers(2, 6))
    solids = [_draw(made, flat=k < count - 1) for k in range(count)]
    skins = _skins(made, count)
    z, width = 0.0, math.inf
    for solid, skin in zip(solids, skins, strict=True):
        scale = min(1.0, 0.92 * width / float(solid.half.max()))
        turn = uniform(rng, -40, 40) if chance(rng, 0.4) else 0.0
        made.add(skin, solid.part.scaled(scale).turned(2, turn).moved(z=z))
        z += scale * solid.height
        width = scale * float(solid.half.min())
    names = [_named(solid, skin) for solid, skin in zip(solids, skins, strict=True)]
    _speak(made, names, " on ".join(reversed(names)))


def _row(made: Assembly) -> None:
    """Side by side, touching."""
    count = int(made.rng.integers(2, 5))
    solids = [_draw(made) for _ in range(count)]
    skins = _skins(made, count)
    x = before = 0.0
    for solid, skin in zip(solids, skins, strict=True):
        left, right = -float(solid.part.points[:, 0].min()), float(solid.part.points[:, 0].max())
        x += before + left - 0.35 * min(before, left)  # slanted and round ones meet inside their boxes
        made.add(skin, solid.part.moved(x=x))
        before = right
    names = [_named(solid, skin) for solid, skin in zip(solids, skins, strict=True)]
    _speak(made, names, f"{listed(names)} side by side")


def _base(made: Assembly) -> None:
    """Several on one slab."""
    rng = made.rng
    count = int(rng.integers(2, 5))
    solids = [_draw(made) for _ in range(count)]
    skins = _skins(made, count + 1)
    round_ = chance(rng, 0.4)
    far = 0.46
    under = cylinder(far + 0.32, 0.09, 40, bevel=0.02) if round_ else box(1.35, 1.35, 0.09, 0.02)
    made.add(skins[0], under)
    start = rng.random()
    for k, (solid, skin) in enumerate(zip(solids, skins[1:], strict=True)):
        angle = 2 * math.pi * (k / count + start)
        scale = min(1.0, 0.3 / float(solid.half.max()))
        part = solid.part.scaled(scale).turned(2, uniform(rng, 0, 90))
        made.add(skin, part.moved(far * math.cos(angle), far * math.sin(angle), 0.088))
    names = [_named(solid, skin) for solid, skin in zip(solids, skins[1:], strict=True)]
    floor = _named(Solid("disc" if round_ else "square slab", under, True), skins[0])
    _speak(made, [floor, *names], f"{listed(names)} on {floor}")


def _satellites(made: Assembly) -> None:
    """One large ball with equal smaller solids stuck to its sides and top."""
    rng = made.rng
    size = uniform(rng, 0.26, 0.34)
    centre = Solid("sphere", ellipsoid(size, size, size, 32, 16).moved(z=size), False)
    skins = _skins(made, 2)
    made.add(skins[0], centre.part)
    kind = pick(rng, ("cone", "sphere", "cylinder", "capsule"))
    count = int(rng.integers(3, 6))
    small = {
        "cone": lambda: cylinder(0.1, 0.28, 24, top=0.0),
        "sphere": lambda: ellipsoid(0.12, 0.12, 0.12, 20, 10).moved(z=0.11),
        "cylinder": lambda: cylinder(0.07, 0.26, 24, bevel=0.008),
        "capsule": lambda: _capsule(rng).part.scaled(0.5),
    }[kind]()
    lifted = small.moved(z=0.96 * size)
    made.add(skins[1], lifted.moved(z=size))
    for k in range(count - 1):
        made.add(skins[1], lifted.turned(1, 90).turned(2, 360.0 * k / (count - 1)).moved(z=size))
    number = ("three", "four", "five")[count - 3]
    ball, others = _named(centre, skins[0]), f"{number} {skins[1].look} {kind}s"
    _speak(made, [ball, others], f"{ball} with {others} stuck to it")
