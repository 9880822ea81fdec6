"""Cars: sedans, hatchbacks, estates, vans, pickups, trucks, buses, sports and off-road cars.

Lengths are metres; the car drives towards -y. The body is a loft of rounded sections along y, the cabin one along z.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from latent3d.worlds.object_assembly import Assembly
from latent3d.worlds.object_captions import with_article
from latent3d.worlds.object_car_parts import Shape, add_cabin, add_lights, add_open_cabin, add_wheels, body, wheel
from latent3d.worlds.object_materials import Material
from latent3d.worlds.object_outlines import rectangle
from latent3d.worlds.object_parts import bar, box, cylinder, loft
from latent3d.worlds.palette import chance, pick, uniform

KINDS: dict[str, Shape] = {
    "sedan": Shape(4.5, 1.75, 0.22, 0.86, 0.92, 0.96, (0.27, 0.84), (0.42, 0.70), 1.42, 0.33, (0.19, 0.8)),
    "hatchback": Shape(3.8, 1.7, 0.22, 0.88, 0.95, 0.95, (0.24, 0.985), (0.40, 0.88), 1.48, 0.32, (0.18, 0.82)),
    "estate": Shape(4.6, 1.75, 0.22, 0.86, 0.93, 0.94, (0.26, 0.985), (0.39, 0.93), 1.46, 0.33, (0.18, 0.79)),
    "sports car": Shape(4.3, 1.85, 0.16, 0.68, 0.80, 0.82, (0.33, 0.86), (0.50, 0.68), 1.14, 0.34, (0.19, 0.81)),
    "off-roader": Shape(4.2, 1.85, 0.38, 1.12, 1.18, 1.18, (0.27, 0.985), (0.33, 0.96), 1.85, 0.42, (0.19, 0.8)),
    "van": Shape(4.9, 1.9, 0.28, 1.05, 1.15, 1.15, (0.08, 0.99), (0.22, 0.98), 2.1, 0.35, (0.17, 0.78)),
    "pickup": Shape(5.0, 1.85, 0.34, 1.02, 1.08, 1.02, (0.25, 0.58), (0.34, 0.55), 1.72, 0.4, (0.18, 0.79)),
    "truck": Shape(6.2, 2.1, 0.45, 1.1, 1.25, 0.8, (0.01, 0.25), (0.05, 0.24), 2.1, 0.44, (0.14, 0.78)),
    "bus": Shape(7.2, 2.1, 0.36, 1.15, 1.15, 1.15, (0.005, 0.995), (0.02, 0.985), 2.45, 0.45, (0.17, 0.8)),
    "convertible": Shape(4.2, 1.75, 0.18, 0.78, 0.84, 0.86, (0.33, 0.7), (0.44, 0.7), 1.25, 0.33, (0.19, 0.81)),
}
NOUNS = {
    "sedan": "sedan car", "hatchback": "hatchback car", "estate": "estate car", "sports car": "sports car",
    "off-roader": "off-road car", "van": "car in the form of a van", "pickup": "pickup car",
    "truck": "car in the form of a truck", "bus": "car in the form of a bus", "convertible": "convertible car",
}  # fmt: skip
ALIASES = {
    "sedan": ("sedan",), "hatchback": ("hatchback",), "off-roader": ("off-roader",), "van": ("van",),
    "pickup": ("pickup",), "truck": ("truck", "lorry"), "bus": ("bus",), "convertible": ("convertible",),
}  # fmt: skip


def car(made: Assembly) -> None:
    """Any car."""
    rng, palette = made.rng, made.palette
    kind = pick(rng, tuple(KINDS))
    base = KINDS[kind]
    tall = uniform(rng, 0.95, 1.07)
    shape = replace(
        base,
        **{name: getattr(base, name) * tall for name in ("hood", "belt", "deck", "top")},
        length=base.length * uniform(rng, 0.93, 1.08),
        width=base.width * uniform(rng, 0.95, 1.06),
        wheel=base.wheel * uniform(rng, 0.93, 1.1),
    )
    paint = palette.paint(pick(rng, (palette.main, palette.main, palette.main, "silver", "white")))
    dark, glass = palette.plastic("black"), palette.glass()
    made.add(paint, body(shape, blunt=kind in ("van", "truck", "bus", "off-roader", "pickup")))
    facts: list[str] = []
    if kind == "convertible":
        facts += add_open_cabin(made, shape, glass)
    else:
        facts += add_cabin(made, shape, kind, paint, glass)
    if kind == "pickup":
        facts.insert(0, _bed(made, shape, paint, dark))
    if kind == "truck":
        facts.insert(0, _cargo(made, shape, paint))
    if kind == "sports car" and chance(rng, 0.6):
        facts.append(_spoiler(made, shape, paint))
    if kind in ("off-roader", "estate", "van") and chance(rng, 0.45):
        facts.append(_rack(made, shape, dark))
    if kind == "off-roader" and chance(rng, 0.6):
        spare = wheel(0.85 * shape.wheel, 0.2).turned(2, 90).moved(0.1, shape.y(1) + 0.08, 0.85 * shape.belt)
        made.add(dark, spare)
        facts.append("a spare wheel at the back")
    facts.append(add_wheels(made, shape, dark))
    add_lights(made, shape, dark)
    if kind not in ("truck", "bus", "pickup", "van") and chance(rng, 0.2):
        stripe = palette.paint(pick(rng, [c for c in ("white", "black", "red", "yellow") if c != paint.colour]))
        _racing_stripes(made, shape, stripe)
        facts.insert(0, f"{stripe.colour} stripes on the bonnet")
    made.say(NOUNS[kind], paint, facts, look=paint.colour, aliases=ALIASES.get(kind, ()))


def _bed(made: Assembly, shape: Shape, paint: Material, dark: Material) -> str:
    """Walls around a dark floor behind the cabin."""
    y0, y1 = shape.y(shape.cabin[1] + 0.015), shape.y(0.995)
    high, x = 0.24, shape.width / 2 - 0.07
    z = shape.deck - 0.05
    made.add(paint, (box(0.1, y1 - y0, high, 0.02).moved(s * x, (y0 + y1) / 2, z) for s in (-1, 1)))
    made.add(paint, (box(2 * x, 0.08, high, 0.02).moved(0, y, z) for y in (y0 + 0.04, y1 - 0.04)))
    made.add(dark, box(2 * x, y1 - y0 - 0.02, 0.08).moved(0, (y0 + y1) / 2, z))
    return "an open cargo bed"


def _cargo(made: Assembly, shape: Shape, paint: Material) -> str:
    """A box, a tank or a flat bed with crates behind the cabin."""
    rng, palette = made.rng, made.palette
    y0, y1 = shape.y(0.28), shape.y(1.0)
    colour = pick(rng, [c for c in ("white", "silver", palette.accent, "grey") if c != paint.colour])
    skin = palette.paint(colour)
    kind = pick(rng, ("box", "box", "tank", "crates"))
    base = shape.deck - 0.02
    if kind == "box":
        high = uniform(rng, 1.4, 1.9)
        made.add(skin, box(1.02 * shape.width, y1 - y0, high, 0.04).moved(0, (y0 + y1) / 2, base))
        return with_article(f"{colour} cargo box")
    if kind == "tank":
        radius = 0.42 * shape.width
        tank = cylinder(radius, y1 - y0, 28, bevel=0.2).turned(0, 90).moved(0, y1, base + 0.95 * radius)
        made.add(skin, tank)
        return with_article(f"{colour} tank")
    made.add(palette.wood(), box(shape.width, y1 - y0, 0.1, 0.02).moved(0, (y0 + y1) / 2, base))
    crates = palette.wood("light brown")
    for k, y in enumerate(np.linspace(y0 + 0.6, y1 - 0.6, 3)):
        size = uniform(rng, 0.8, 1.05)
        made.add(
            crates,
            box(1.5 * size, size, size * uniform(rng, 0.7, 1.1), 0.02).moved(0.05 * (k - 1), float(y), base + 0.09),
        )
    return "wooden crates on its bed"


def _spoiler(made: Assembly, shape: Shape, paint: Material) -> str:
    z = shape.deck + uniform(made.rng, 0.12, 0.25)
    y = shape.y(0.95)
    made.add(paint, box(0.86 * shape.width, 0.28, 0.05, 0.02).leaning(0, y=0.3).moved(0, y, z))
    made.add(
        paint,
        (
            bar((s * 0.3 * shape.width, y, shape.deck - 0.1), (s * 0.3 * shape.width, y, z + 0.02), 0.06, 0.14)
            for s in (-1, 1)
        ),
    )
    return "a rear spoiler"


def _rack(made: Assembly, shape: Shape, dark: Material) -> str:
    y0, y1 = shape.y(shape.roof[0] + 0.08), shape.y(shape.roof[1] - 0.05)
    x, z = 0.3 * shape.width, shape.top + 0.08
    made.add(dark, (bar((s * x, y0, z), (s * x, y1, z), 0.05, round_=True, n=8) for s in (-1, 1)))
    for y in np.linspace(y0 + 0.1, y1 - 0.1, 3):
        made.add(dark, bar((-x, float(y), z), (x, float(y), z), 0.04, round_=True, n=8))
        made.add(dark, (bar((s * x, float(y), shape.top - 0.02), (s * x, float(y), z), 0.04, rows=1) for s in (-1, 1)))
    return "a roof rack"


def _racing_stripes(made: Assembly, shape: Shape, stripe: Material) -> None:
    """Two thin bands that follow the bonnet."""
    places = [(0.05, 0.0), (0.6 * shape.cabin[0], 1.0), (shape.cabin[0], 2.0)]
    heights = [shape.clearance + 0.86 * (shape.hood - shape.clearance), shape.hood, shape.belt]
    line = np.array([(0.0, shape.y(p), h + 0.002) for (p, _), h in zip(places, heights, strict=True)])
    for x in (-0.16, 0.16):
        rings = np.stack(
            [
                np.column_stack([rectangle(0.17, 0.03)[:, 0] + x, np.full(4, p[1]), rectangle(0.17, 0.03)[:, 1] + p[2]])
                for p in line
            ]
        )
        made.add(stripe, loft(rings, columns=np.arange(4)))
