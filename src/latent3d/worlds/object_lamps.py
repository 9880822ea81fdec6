"""Lamps: on desks, tables and floors, with shades, globes, arms and tripods.

Lengths are metres; arms reach towards -y.
"""

from __future__ import annotations

import math

import numpy as np

from latent3d.worlds.object_assembly import Assembly
from latent3d.worlds.object_materials import Material
from latent3d.worlds.object_parts import (
    Part, bar, bezier, box, cylinder, ellipsoid, lathe, rectangle, slab, tube,
)  # fmt: skip
from latent3d.worlds.palette import chance, pick, uniform


def lamp(made: Assembly) -> None:
    """Any lamp."""
    kind = pick(
        made.rng, ("desk", "desk", "table", "table", "table", "floor", "floor", "arc", "globe", "mushroom", "lantern")
    )
    {
        "desk": _desk,
        "table": _table,
        "floor": _floor,
        "arc": _arc,
        "globe": _globe,
        "mushroom": _mushroom,
        "lantern": _lantern,
    }[kind](made)


# ---------------------------------------------------------------- shades and bases


def _shell(outer: list[tuple[float, float]], thick: float, n: int = 32) -> Part:
    """A surface of revolution of some thickness from a profile (radius, height) that goes up."""
    line = np.array(outer)
    inner = line - np.array([thick, 0.0])
    return lathe(np.concatenate([line, inner[::-1]]), n, loop=True)


def _shade(made: Assembly, material: Material, radius: float, height: float, z: float) -> str:
    """A cloth shade around the axis from ``z`` up, with rims and a bulb inside; says its form."""
    form = pick(made.rng, ("drum", "cone", "cone", "bell", "pleated", "square"))
    top = {"drum": 0.97, "cone": uniform(made.rng, 0.45, 0.7), "bell": 0.5, "pleated": 0.62, "square": 0.7}[form]
    t = np.linspace(0, 1, 5)
    curve = radius * (1 + (top - 1) * (t if form != "bell" else np.sqrt(t)))
    outer = [(float(r), z + float(s) * height) for r, s in zip(curve, t, strict=True)]
    if form == "square":
        part = _square_shell(radius, top, height).moved(z=z)
    else:
        part = _shell(outer, 0.006 if form != "pleated" else 0.014, 32 if form != "pleated" else 64)
    if form == "pleated":
        part = part.mapped(_pleats)
    made.add(material, part)
    bulb = made.palette.glow("yellow")
    size = min(0.032, 0.3 * radius)
    made.add(bulb, ellipsoid(size, size, 1.3 * size, 14, 8).moved(z=z + 0.4 * height))
    return f"{form} shade"


def _pleats(points: np.ndarray) -> np.ndarray:
    angle = np.arctan2(points[:, 1], points[:, 0])
    return points * (1 + 0.025 * np.cos(32 * angle))[:, None] ** np.array([1, 1, 0])


def _square_shell(radius: float, top: float, height: float) -> Part:
    """Four slanted walls of some thickness."""
    from latent3d.worlds.object_parts import loft, runs

    levels = [(1.0, 0.0), ((1 + top) / 2, 0.5), (top, 1.0)]
    outer = [(radius * s, z * height) for s, z in levels]
    profile = [*outer, *((r - 0.006, z) for r, z in reversed(outer))]
    square = rectangle(1.7, 1.7, 0.06, 2)
    rings = np.stack([np.column_stack([square * r, np.full(len(square), z)]) for r, z in profile])
    return loft(rings, loop=True, rows=runs(np.array(profile), True), columns=runs(square, True))


def _turned_base(made: Assembly, height: float, radius: float) -> tuple[Part, str]:
    """A vase from the lathe, and what it looks like."""
    form = pick(made.rng, ("round", "gourd", "bottle", "column", "stacked"))
    r, h = radius, height
    if form == "stacked":
        count = int(made.rng.integers(2, 5))
        step = h / count
        beads = []
        for k in range(count):
            size = r * (1 - 0.18 * k)
            angle = np.linspace(-0.45 * math.pi, 0.45 * math.pi, 7)
            beads += [(size * math.cos(a), (k + 0.5 + 0.5 * math.sin(a)) * step) for a in angle]
        return lathe([(0, 0), *beads, (0, h)], 24), "a base of stacked balls"
    control = {
        "round": [(0.5, 0), (1.25, 0.05), (1.35, 0.65), (0.5, 0.75), (0.14, 0.85), (0.16, 1.0)],
        "gourd": [(0.6, 0), (1.7, 0.2), (0.1, 0.5), (0.95, 0.7), (0.2, 0.9), (0.16, 1.0)],
        "bottle": [(0.75, 0), (0.85, 0.3), (0.9, 0.6), (0.2, 0.6), (0.15, 0.85), (0.15, 1.0)],
        "column": [(0.55, 0.0), (0.4, 0.3), (0.36, 0.6), (0.34, 0.8), (0.36, 0.9), (0.4, 1.0)],
    }[form]
    curve = bezier([(a * r, b * h) for a, b in control], 16)
    words = {
        "round": "a round base",
        "gourd": "a gourd-shaped base",
        "bottle": "a bottle-shaped base",
        "column": "a column base",
    }
    return lathe([(0, 0), *curve, (0, h)], 28), words[form]


def _foot(made: Assembly, material: Material, radius: float, thick: float = 0.02) -> str:
    """A plate to stand on; says its form."""
    if chance(made.rng, 0.3):
        made.add(material, slab(rectangle(1.8 * radius, 1.8 * radius, 0.2 * radius, 4), 0, thick, 0.3 * thick))
        return "square foot"
    profile = [
        (0, 0),
        (radius, 0),
        (radius, 0.5 * thick),
        (0.9 * radius, thick),
        (0.15 * radius, 1.5 * thick),
        (0, 1.5 * thick),
    ]
    made.add(material, lathe(profile, 30))
    return "round foot"


# ---------------------------------------------------------------- kinds


def _table(made: Assembly) -> None:
    rng, palette = made.rng, made.palette
    base = pick(rng, (palette.ceramic, palette.ceramic, palette.any_wood, palette.metal))()
    shade = palette.fabric(pick(rng, (palette.accent, "white", "beige", palette.accent)))
    height, radius = uniform(rng, 0.2, 0.32), uniform(rng, 0.07, 0.12)
    part, words = _turned_base(made, height, radius)
    made.add(base, part)
    metal = palette.metal(pick(rng, ("golden", "silver", "black")))
    stem = 0.05
    made.add(
        metal, cylinder(0.012, stem + 0.06, 12).moved(z=height - 0.01), cylinder(0.018, 0.03, 12).moved(z=height + stem)
    )
    wide, tall = uniform(rng, 0.13, 0.2), uniform(rng, 0.14, 0.22)
    form = _shade(made, shade, wide, tall, height + stem - 0.03)
    _spider(made, metal, 0.6 * wide, height + stem + 0.05)
    if chance(rng, 0.4):
        made.add(metal, cylinder(1.05 * radius, 0.018, 26, bevel=0.005).moved(z=-0.017))
    main, other = (shade, f"{words} in {base.colours[0]}") if wide * tall > 0.9 * radius * height * 1.4 else (base, "")
    if main is shade:
        made.say("table lamp", shade, [f"a {form}", other])
    else:
        made.say("table lamp", base, [words, f"a {form} in {shade.colours[0]}"])


def _spider(made: Assembly, metal: Material, radius: float, z: float) -> None:
    """Spokes that hold a shade."""
    for turn in (0, 60, 120):
        made.add(metal, bar((-radius, 0, z), (radius, 0, z), 0.006, round_=True, n=6, rows=1).turned(2, turn))


def _floor(made: Assembly) -> None:
    rng, palette = made.rng, made.palette
    frame = pick(rng, (palette.metal, palette.metal, palette.any_wood))()
    shade = palette.fabric(pick(rng, (palette.main, palette.accent, "white", "beige")))
    high, wide, tall = uniform(rng, 0.95, 1.3), uniform(rng, 0.2, 0.3), uniform(rng, 0.22, 0.34)
    if chance(rng, 0.4):
        joint = 0.93 * high
        for k in range(3):
            foot = (0.3 * math.sin(2.1 * k), -0.3 * math.cos(2.1 * k), 0.0)
            made.add(frame, bar((0, 0, joint), foot, 0.045, taper=0.6, round_=True))
        made.add(
            frame, cylinder(0.045, 0.05, 18, bevel=0.01).moved(z=joint - 0.02), cylinder(0.014, 0.18, 12).moved(z=joint)
        )
        words = f"{_a(frame.stuff_word)} tripod"
    else:
        foot = _foot(made, frame, uniform(rng, 0.15, 0.21), 0.028)
        thick = uniform(rng, 0.012, 0.02)
        made.add(frame, cylinder(thick, high + 0.12, 14).moved(z=0.02))
        for z in (0.06, 0.5 * high):
            made.add(frame, ellipsoid(2.0 * thick, 2.0 * thick, 1.6 * thick, 14, 8).moved(z=z))
        words = f"{_a(frame.stuff_word)} pole on a {foot}"
    form = _shade(made, shade, wide, tall, high)
    _spider(made, frame, 0.6 * wide, high + 0.1)
    made.say("floor lamp", shade, [f"a {form}", words, f"a stand in {frame.colour}"])


def _a(word: str) -> str:
    return f"{'an' if word[:1] in tuple('aeiou') else 'a'} {word}".strip()


def _desk(made: Assembly) -> None:
    """A foot, two arms with joints and a head that opens downwards."""
    rng, palette = made.rng, made.palette
    paint = palette.metal(pick(rng, (palette.main, palette.main, "black", "white", "silver")))
    joint = palette.metal("silver") if chance(rng, 0.5) else palette.metal(pick(rng, ("golden", "black")))
    foot = _foot(made, paint, uniform(rng, 0.09, 0.13), 0.022)
    lower, upper = uniform(rng, 0.2, 0.3), uniform(rng, 0.18, 0.28)
    lean, reach = math.radians(uniform(rng, 5, 35)), math.radians(uniform(rng, 20, 60))
    a = np.array([0.0, 0.02, 0.03])
    curved = chance(rng, 0.3)
    b = a + lower * np.array([0, math.sin(lean), math.cos(lean)])
    c = b + upper * np.array([0, -math.cos(reach), math.sin(reach)])
    if curved:
        path = bezier([a, a + [0, 0.05, 0.9 * lower], b + [0, 0, 0.6 * upper], c + [0, 0, 0.1], c], 16)
        made.add(joint, tube(path, 0.009, 10))
    else:
        arms = (-0.014, 0.014) if chance(rng, 0.4) else (0.0,)
        for x in arms:
            shift = np.array([x, 0, 0])
            made.add(
                paint if len(arms) == 1 else joint,
                bar(a + shift, b + shift, 0.014, round_=True),
                bar(b + shift, c + shift, 0.014, round_=True),
            )
        for point in (a, b, c):
            made.add(joint, cylinder(0.02, 0.05, 16, bevel=0.004).moved(z=-0.025).turned(1, 90).moved(*point))
    size, deep = uniform(rng, 0.075, 0.1), uniform(rng, 0.1, 0.14)
    form = pick(rng, ("cone", "bell", "bowl"))
    control = {
        "cone": [(1.0, 0), (0.8, 0.25), (0.5, 0.6), (0.3, 0.85)],
        "bell": [(1.0, 0), (0.9, 0.6), (0.5, 0.75), (0.28, 0.85)],
        "bowl": [(1.0, 0), (1.0, 0.45), (0.8, 0.75), (0.25, 0.85)],
    }[form]
    outer = bezier([(r * size, h * deep) for r, h in control], 8)
    inner = outer[::-1] - np.array([0.005, 0.0])
    tilt = uniform(rng, 15, 50)
    cap = lathe([(0, 0.84 * deep), (0.33 * size, 0.82 * deep), (0.3 * size, 1.1 * deep), (0, 1.15 * deep)], 16)
    head = [(paint, lathe(np.concatenate([outer, inner]), 28, loop=True)), (paint, cap)]
    head.append((palette.glow("yellow"), ellipsoid(0.03, 0.03, 0.04, 14, 8).moved(z=0.4 * deep)))
    for material, part in head:
        made.add(material, part.moved(z=-0.95 * deep).turned(0, -tilt).moved(*c))
    arm = f"a curved {joint.colour} arm" if curved else "a jointed arm"
    made.say("desk lamp", paint, [arm, f"a {form}-shaped head", f"a {foot}"])


def _arc(made: Assembly) -> None:
    """A pole that bends over."""
    rng, palette = made.rng, made.palette
    frame = palette.metal(pick(rng, ("silver", "golden", "black")))
    stone = palette.marble() if chance(rng, 0.5) else frame
    shade = palette.metal(pick(rng, (palette.main, "silver", "white", palette.main)))
    high, reach = uniform(rng, 1.0, 1.3), uniform(rng, 0.6, 0.95)
    made.add(stone, cylinder(0.18, 0.06, 32, bevel=0.012) if chance(rng, 0.6) else box(0.3, 0.3, 0.08, 0.012))
    end = (0.0, -reach, 0.78 * high)
    path = bezier(
        [(0, 0, 0.05), (0, 0.03, 0.7 * high), (0, 0.02, 1.25 * high), (0, -0.75 * reach, 1.3 * high), end], 22
    )
    made.add(frame, tube(path, 0.015, 10))
    size = uniform(rng, 0.16, 0.22)
    angle = np.linspace(0, 0.44 * math.pi, 9)
    outer = np.stack([size * np.cos(angle), 0.85 * size * np.sin(angle)], 1)
    made.add(
        shade,
        lathe(np.concatenate([outer, outer[::-1] - [0.008, 0.006]]), 32, loop=True).moved(
            0, -reach, end[2] - 0.85 * size
        ),
    )
    made.add(frame, cylinder(0.05, 0.05, 16, bevel=0.01).moved(0, -reach, end[2] - 0.03))
    made.add(palette.glow("yellow"), ellipsoid(0.06, 0.06, 0.07, 16, 8).moved(0, -reach, end[2] - 0.6 * size))
    made.say(
        "arc floor lamp",
        shade,
        ["a dome shade on a long bent pole", f"a {stone.colour} {stone.stuff_word} base"],
        colour_only=True,
    )


def _globe(made: Assembly) -> None:
    """A shining ball on a stand."""
    rng, palette = made.rng, made.palette
    glow = palette.of("glass", "shaded", pick(rng, ("white", "yellow", "orange", "beige", palette.main)))
    frame = pick(rng, (palette.metal, palette.wood, palette.marble))()
    size = uniform(rng, 0.11, 0.16)
    kind = pick(rng, ("stem", "cup", "tripod"))
    if kind == "stem":
        foot = _foot(made, frame, 0.75 * size)
        stem = uniform(rng, 0.1, 0.35)
        made.add(
            frame,
            cylinder(0.014, stem + 0.03, 14).moved(z=0.02),
            cylinder(0.05, 0.03, 18, bevel=0.008).moved(z=stem + 0.02),
        )
        z, words = stem + 0.04 + size, f"a thin stem on a {foot}"
    elif kind == "cup":
        made.add(frame, cylinder(0.75 * size, 0.1, 28, top=0.62 * size, bevel=0.01))
        z, words = 0.06 + 0.9 * size, f"{_a(frame.stuff_word)} cylinder as its base"
    else:
        for k in range(3):
            x, y = 0.85 * size * math.sin(2.094 * k), -0.85 * size * math.cos(2.094 * k)
            made.add(frame, bar((0.55 * x, 0.55 * y, 0.19), (1.15 * x, 1.15 * y, 0), 0.022, taper=0.7, round_=True))
        made.add(frame, cylinder(0.62 * size, 0.02, 24, bevel=0.005).moved(z=0.15))
        z, words = 0.16 + 0.95 * size, "three short legs"
    made.add(glow, ellipsoid(size, size, size * uniform(rng, 0.9, 1.15), 28, 14).moved(z=z))
    made.say("globe lamp", glow, [words, f"a stand in {frame.colour}"])


def _mushroom(made: Assembly) -> None:
    rng, palette = made.rng, made.palette
    skin = pick(rng, (palette.plastic, palette.metal, palette.ceramic))(palette.main)
    stem = skin if chance(rng, 0.4) else palette.plastic(pick(rng, ("white", palette.accent)))
    size, high = uniform(rng, 0.16, 0.22), uniform(rng, 0.24, 0.36)
    profile = bezier([(0.75 * size, 0), (0.55 * size, 0.1), (0.15 * size, 0.5 * high), (0.28 * size, high)], 12)
    made.add(stem, lathe([(0, 0), *profile, (0, high)], 28))
    angle = np.linspace(-0.1 * math.pi, 0.5 * math.pi, 11)
    dome = np.stack([size * np.cos(angle), uniform(rng, 0.6, 1.0) * size * np.sin(angle)], 1)
    dome[-1, 0] = 0.0
    low = dome[0]
    made.add(skin, lathe([(0, low[1] + 0.03), (0.8 * low[0], low[1] + 0.01), *dome], 32).moved(z=high + 0.01))
    facts = [
        "a domed shade",
        f"a {stem.colour} stem" if stem is not skin and stem.colour[0] != "o" else "a flared stem",
    ]
    made.say("mushroom lamp", skin, facts)


def _lantern(made: Assembly) -> None:
    """Glowing panes between posts, a roof and a ring to carry it by."""
    rng, palette = made.rng, made.palette
    frame = palette.metal(pick(rng, ("black", "golden", "copper", palette.main)))
    glow = palette.glow(pick(rng, ("yellow", "orange", "white")))
    x, tall = uniform(rng, 0.09, 0.12), uniform(rng, 0.2, 0.3)
    round_ = chance(rng, 0.4)
    made.add(frame, cylinder(1.45 * x, 0.03, 28, bevel=0.008) if round_ else box(2.4 * x, 2.4 * x, 0.03, 0.006))
    made.add(
        glow, cylinder(x, tall, 28).moved(z=0.028) if round_ else box(1.9 * x, 1.9 * x, tall, 0.004).moved(z=0.028)
    )
    for k in range(6 if round_ else 4):
        angle = 2 * math.pi * (k / 6 if round_ else (k + 0.5) / 4)
        far = 1.06 * x if round_ else 1.38 * x
        px, py = far * math.cos(angle), far * math.sin(angle)
        made.add(frame, bar((px, py, 0.02), (px, py, tall + 0.035), 0.017, round_=round_))
    made.add(
        frame,
        cylinder(1.5 * x, 0.02, 28).moved(z=tall + 0.028)
        if round_
        else box(2.5 * x, 2.5 * x, 0.02, 0.004).moved(z=tall + 0.028),
    )
    top = tall + 0.046
    if round_:
        made.add(frame, lathe([(0, 0), (1.4 * x, 0), (0.8 * x, 0.06), (0.3 * x, 0.11), (0, 0.12)], 28).moved(z=top))
    else:
        from latent3d.worlds.object_parts import loft

        rings = np.stack(
            [
                np.column_stack([rectangle(2 * s * x, 2 * s * x), np.full(4, z)])
                for s, z in ((1.2, 0), (0.75, 0.06), (0.25, 0.11))
            ]
        )
        made.add(frame, loft(rings, columns=np.arange(4)).moved(z=top))
    ring = lathe(
        np.array([(0.045, 0)]) + 0.006 * np.array([(math.cos(t), math.sin(t)) for t in np.arange(8) * math.pi / 4]),
        24,
        loop=True,
    )
    made.add(frame, ring.turned(0, 90).moved(z=top + 0.15))
    made.say(
        "lantern lamp",
        frame,
        [f"glowing {glow.colour} panes", "a round body" if round_ else "a square body", "a carrying ring"],
    )
