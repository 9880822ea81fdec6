"""Lamps: on desks, tables and floors, with shades, globes, arms and tripods.

Lengths are metres; arms reach towards -y.
"""

from __future__ import annotations

import math

import numpy as np

from latent3d.worlds.object_assembly import Assembly
from latent3d.worlds.object_captions import with_article
from latent3d.worlds.object_lamp_parts import add_foot, add_shade, add_spokes, turned_base
from latent3d.worlds.object_materials import Material
from latent3d.worlds.object_outlines import bezier, rectangle
from latent3d.worlds.object_parts import bar, box, cylinder, ellipsoid, lathe, loft, torus, tube
from latent3d.worlds.palette import chance, pick, uniform


def lamp(made: Assembly) -> None:
    """Any lamp."""
    kinds = (_desk, _desk, _table, _table, _table, _floor, _floor, _arc, _globe, _mushroom, _lantern)
    pick(made.rng, kinds)(made)


def _table(made: Assembly) -> None:
    """A vase under a shade."""
    rng, palette = made.rng, made.palette
    base = pick(rng, (palette.ceramic, palette.ceramic, palette.any_wood, palette.metal))()
    shade = palette.fabric(pick(rng, (palette.accent, "white", "beige", palette.accent)))
    height, radius = uniform(rng, 0.2, 0.32), uniform(rng, 0.07, 0.12)
    part, words = turned_base(made, height, radius)
    made.add(base, part)
    metal = palette.metal(pick(rng, ("golden", "silver", "black")))
    stem = 0.05
    made.add(metal, cylinder(0.012, stem + 0.06, 12).moved(z=height - 0.01))
    made.add(metal, cylinder(0.018, 0.03, 12).moved(z=height + stem))
    wide, tall = uniform(rng, 0.13, 0.2), uniform(rng, 0.14, 0.22)
    form = add_shade(made, shade, wide, tall, height + stem - 0.03)
    add_spokes(made, metal, 0.6 * wide, height + stem + 0.05)
    if chance(rng, 0.4):
        made.add(metal, cylinder(1.05 * radius, 0.018, 26, bevel=0.005).moved(z=-0.017))
    if made.area(shade) > 2 * made.area(base):  # a shade has two sides
        made.say("table lamp", shade, [f"a {form}", f"{words} in {base.colour}"], look=shade.colouring)
    else:
        made.say("table lamp", base, [words, f"a {form} in {shade.colour}"])


def _floor(made: Assembly) -> None:
    """A shade on a pole or a tripod."""
    rng, palette = made.rng, made.palette
    frame = pick(rng, (palette.metal, palette.metal, palette.any_wood))()
    shade = palette.fabric(pick(rng, (palette.main, palette.accent, "white", "beige")))
    high, wide, tall = uniform(rng, 0.95, 1.3), uniform(rng, 0.2, 0.3), uniform(rng, 0.22, 0.34)
    if chance(rng, 0.4):
        joint = 0.93 * high
        for k in range(3):
            toe = (0.3 * math.sin(2.1 * k), -0.3 * math.cos(2.1 * k), 0.0)
            made.add(frame, bar((0, 0, joint), toe, 0.045, taper=0.6, round_=True))
        made.add(frame, cylinder(0.045, 0.05, 18, bevel=0.01).moved(z=joint - 0.02))
        made.add(frame, cylinder(0.014, 0.18, 12).moved(z=joint))
        words = f"{with_article(frame.stuff_word)} tripod"
    else:
        foot = add_foot(made, frame, uniform(rng, 0.15, 0.21), 0.028)
        thick = uniform(rng, 0.012, 0.02)
        made.add(frame, cylinder(thick, high + 0.12, 14).moved(z=0.02))
        for z in (0.06, 0.5 * high):
            made.add(frame, ellipsoid(2.0 * thick, 2.0 * thick, 1.6 * thick, 14, 8).moved(z=z))
        words = f"{with_article(frame.stuff_word)} pole on a {foot}"
    form = add_shade(made, shade, wide, tall, high)
    add_spokes(made, frame, 0.6 * wide, high + 0.1)
    made.say("floor lamp", shade, [f"a {form}", words, f"a stand in {frame.colour}"], look=shade.colouring)


def _desk(made: Assembly) -> None:
    """A foot, an arm and a head that opens downwards."""
    rng, palette = made.rng, made.palette
    paint = palette.metal(pick(rng, (palette.main, palette.main, "black", "white", "silver")))
    joint = palette.metal("silver") if chance(rng, 0.5) else palette.metal(pick(rng, ("golden", "black")))
    foot = add_foot(made, paint, uniform(rng, 0.09, 0.13), 0.022)
    lower, upper = uniform(rng, 0.2, 0.3), uniform(rng, 0.18, 0.28)
    lean, reach = math.radians(uniform(rng, 5, 35)), math.radians(uniform(rng, 20, 60))
    a = np.array([0.0, 0.02, 0.03])
    curved = chance(rng, 0.3)
    b = a + lower * np.array([0, math.sin(lean), math.cos(lean)])
    c = b + upper * np.array([0, -math.cos(reach), math.sin(reach)])
    if curved:
        bends = np.array([[0, 0.05, 0.9 * lower], [0, 0, 0.6 * upper], [0, 0, 0.1]])
        path = bezier(np.stack([a, *(np.stack([a, b, c]) + bends), c]), 16)
        made.add(joint, tube(path, 0.009, 10))
    else:
        arm = [bar(a, b, 0.014, round_=True), bar(b, c, 0.014, round_=True)]
        if chance(rng, 0.4):
            made.add(joint, (part.moved(x=x) for part in arm for x in (-0.014, 0.014)))
        else:
            made.add(paint, arm)
        for point in (a, b, c):
            made.add(joint, cylinder(0.02, 0.05, 16, bevel=0.004).moved(z=-0.025).turned(1, 90).moved(*point))
    form = _head(made, paint, c)
    arms = f"a curved {joint.colour} arm" if curved else "a jointed arm"
    made.say("desk lamp", paint, [arms, f"a {form}-shaped head", f"a {foot}"])


def _head(made: Assembly, paint: Material, place: np.ndarray) -> str:
    """A hood with a bulb, tilted, hanging from a place; says its form."""
    rng = made.rng
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
    hood = lathe(np.concatenate([outer, inner]), 28, loop=True, crest=len(outer) - 1)
    bulb = ellipsoid(0.03, 0.03, 0.04, 14, 8).moved(z=0.4 * deep)
    for material, part in ((paint, hood), (paint, cap), (made.palette.glow(), bulb)):
        made.add(material, part.moved(z=-0.95 * deep).turned(0, -tilt).moved(*place))
    return form


def _arc(made: Assembly) -> None:
    """A pole that bends over."""
    rng, palette = made.rng, made.palette
    frame = palette.metal(pick(rng, ("silver", "golden", "black")))
    stone = palette.marble() if chance(rng, 0.5) else frame
    shade = palette.metal(pick(rng, (palette.main, "silver", "white", palette.main)))
    high, reach = uniform(rng, 1.0, 1.3), uniform(rng, 0.6, 0.95)
    made.add(stone, cylinder(0.18, 0.06, 32, bevel=0.012) if chance(rng, 0.6) else box(0.3, 0.3, 0.08, 0.012))
    low = 0.78 * high
    bends = [(0, 0.03, 0.7 * high), (0, 0.02, 1.25 * high), (0, -0.75 * reach, 1.3 * high)]
    made.add(frame, tube(bezier([(0, 0, 0.05), *bends, (0, -reach, low)], 22), 0.015, 10))
    size = uniform(rng, 0.16, 0.22)
    angle = np.linspace(0, 0.44 * math.pi, 9)
    outer = np.stack([size * np.cos(angle), 0.85 * size * np.sin(angle)], 1)
    dome = lathe(np.concatenate([outer, outer[::-1] - [0.008, 0.006]]), 32, loop=True, crest=len(outer) - 1)
    made.add(shade, dome.moved(0, -reach, low - 0.85 * size))
    made.add(frame, cylinder(0.05, 0.05, 16, bevel=0.01).moved(0, -reach, low - 0.03))
    made.add(palette.glow(), ellipsoid(0.06, 0.06, 0.07, 16, 8).moved(0, -reach, low - 0.6 * size))
    facts = ["a dome shade on a long bent pole", with_article(f"{stone.colour} {stone.stuff_word} base")]
    made.say("arc floor lamp", shade, facts)


def _globe(made: Assembly) -> None:
    """A shining ball on a stand."""
    rng, palette = made.rng, made.palette
    glow = palette.of("glass", "shaded", pick(rng, ("white", "yellow", "orange", "beige", palette.main)))
    frame = pick(rng, (palette.metal, palette.wood, palette.marble))()
    size = uniform(rng, 0.11, 0.16)
    kind = pick(rng, ("stem", "cup", "tripod"))
    if kind == "stem":
        foot = add_foot(made, frame, 0.75 * size)
        stem = uniform(rng, 0.1, 0.35)
        made.add(frame, cylinder(0.014, stem + 0.03, 14).moved(z=0.02))
        made.add(frame, cylinder(0.05, 0.03, 18, bevel=0.008).moved(z=stem + 0.02))
        z, words = stem + 0.04 + size, f"a thin stem on a {foot}"
    elif kind == "cup":
        made.add(frame, cylinder(0.75 * size, 0.1, 28, top=0.62 * size, bevel=0.01))
        z, words = 0.06 + 0.9 * size, f"{with_article(frame.stuff_word)} cylinder as its base"
    else:
        for k in range(3):
            x, y = 0.85 * size * math.sin(2.094 * k), -0.85 * size * math.cos(2.094 * k)
            made.add(frame, bar((0.55 * x, 0.55 * y, 0.19), (1.15 * x, 1.15 * y, 0), 0.022, taper=0.7, round_=True))
        made.add(frame, cylinder(0.62 * size, 0.02, 24, bevel=0.005).moved(z=0.15))
        z, words = 0.16 + 0.95 * size, "three short legs"
    made.add(glow, ellipsoid(size, size, size * uniform(rng, 0.9, 1.15), 28, 14).moved(z=z))
    made.say("globe lamp", glow, [words, f"a stand in {frame.colour}"])


def _mushroom(made: Assembly) -> None:
    """A dome on a stem that widens downwards."""
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
    made.say("mushroom lamp", skin, ["a domed shade", with_article(f"{stem.colour} stem")])


def _lantern(made: Assembly) -> None:
    """Glowing panes between posts, a roof and a ring to carry it by."""
    rng, palette = made.rng, made.palette
    frame = palette.metal(pick(rng, ("black", "golden", "copper", palette.main)))
    glow = palette.glow(pick(rng, ("yellow", "orange", "white")))
    x, tall = uniform(rng, 0.09, 0.12), uniform(rng, 0.2, 0.3)
    round_ = chance(rng, 0.4)
    if round_:
        plate, panes, lid = (
            cylinder(1.45 * x, 0.03, 28, bevel=0.008),
            cylinder(x, tall, 28),
            cylinder(1.5 * x, 0.02, 28),
        )
        roof = lathe([(0, 0), (1.4 * x, 0), (0.8 * x, 0.06), (0.3 * x, 0.11), (0, 0.12)], 28)
    else:
        plate, panes = box(2.4 * x, 2.4 * x, 0.03, 0.006), box(1.9 * x, 1.9 * x, tall, 0.004)
        lid = box(2.5 * x, 2.5 * x, 0.02, 0.004)
        levels = ((1.2, 0.0), (0.75, 0.06), (0.25, 0.11))
        rings = [np.column_stack([rectangle(2 * s * x, 2 * s * x), np.full(4, z)]) for s, z in levels]
        roof = loft(np.stack(rings), columns=np.arange(4))
    made.add(glow, panes.moved(z=0.028))
    made.add(frame, plate, lid.moved(z=tall + 0.028), roof.moved(z=tall + 0.046))
    made.add(frame, torus(0.045, 0.006, 24, 8).turned(0, 90).moved(z=tall + 0.196))
    for k in range(6 if round_ else 4):
        angle = 2 * math.pi * (k / 6 if round_ else (k + 0.5) / 4)
        far = 1.06 * x if round_ else 1.38 * x
        px, py = far * math.cos(angle), far * math.sin(angle)
        made.add(frame, bar((px, py, 0.02), (px, py, tall + 0.035), 0.017, round_=round_))
    facts = [f"glowing {glow.colour} panes", "a round body" if round_ else "a square body", "a carrying ring"]
    made.say("lantern lamp", frame, facts, aliases=("lantern",))
