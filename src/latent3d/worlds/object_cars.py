"""Cars: sedans, hatchbacks, estates, vans, pickups, trucks, buses, sports and off-road cars.

Lengths are metres; the car drives towards -y. The body is a loft of rounded sections along y, the cabin one along z.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latent3d.worlds.object_assembly import Assembly
from latent3d.worlds.object_materials import Material
from latent3d.worlds.object_parts import Part, bar, box, cylinder, ellipsoid, lathe, loft, rectangle, slab
from latent3d.worlds.palette import chance, pick, uniform


@dataclass(frozen=True)
class Shape:
    """Proportions of a body.

    Attributes:
        length, width, clearance: of the body, and its height above the ground.
        hood, belt, deck: heights of the bonnet, below the windows, and behind the cabin.
        cabin: y of the cabin at the belt, from and to, as fractions of the length from the front.
        roof: the same at the roof.
        top: height of the roof.
        wheel: radius of the wheels.
        axles: places of the wheels as fractions of the length.
    """

    length: float
    width: float
    clearance: float
    hood: float
    belt: float
    deck: float
    cabin: tuple[float, float]
    roof: tuple[float, float]
    top: float
    wheel: float
    axles: tuple[float, float]

    def y(self, fraction: float) -> float:
        """Place along the car of a fraction of its length."""
        return (fraction - 0.5) * self.length


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
    "off-roader": "off-road car", "van": "van-like car", "pickup": "pickup car", "truck": "truck-like car",
    "bus": "bus-like car", "convertible": "convertible car",
}  # fmt: skip


def car(made: Assembly) -> None:
    """Any car."""
    rng, palette = made.rng, made.palette
    kind = pick(rng, tuple(KINDS))
    base = KINDS[kind]
    stretch, tall = uniform(rng, 0.93, 1.08), uniform(rng, 0.95, 1.07)
    shape = Shape(
        base.length * stretch, base.width * uniform(rng, 0.95, 1.06), base.clearance, base.hood * tall,
        base.belt * tall, base.deck * tall, base.cabin, base.roof, base.top * tall, base.wheel * uniform(rng, 0.93, 1.1),
        base.axles,
    )  # fmt: skip
    paint = palette.paint(pick(rng, (palette.main, palette.main, palette.main, "silver", "white")))
    dark, glass = palette.plastic("black"), palette.glass()
    made.add(paint, _body(rng, shape, kind))
    facts: list[str] = []
    if kind == "convertible":
        facts += _open_cabin(made, shape, glass)
    else:
        facts += _cabin(made, shape, kind, paint, glass)
    if kind == "pickup":
        facts.insert(0, _bed(made, shape, paint, dark))
    if kind == "truck":
        facts.insert(0, _cargo(made, shape, paint))
    if kind == "sports car" and chance(rng, 0.6):
        facts.append(_spoiler(made, shape, paint))
    if kind in ("off-roader", "estate", "van") and chance(rng, 0.45):
        facts.append(_rack(made, shape, dark))
    if kind == "off-roader" and chance(rng, 0.6):
        spare = _wheel(0.85 * shape.wheel, 0.2).turned(2, 90).moved(0.1, shape.y(1) + 0.08, 0.85 * shape.belt)
        made.add(dark, spare)
        facts.append("a spare wheel at the back")
    facts.append(_wheels(made, shape, dark))
    _front_and_rear(made, shape, dark)
    if kind not in ("truck", "bus", "pickup", "van") and chance(rng, 0.2):
        stripe = palette.paint(pick(rng, [c for c in ("white", "black", "red", "yellow") if c != paint.colour]))
        _racing_stripes(made, shape, stripe)
        facts.insert(0, f"{stripe.colour} stripes on the bonnet")
    made.say(NOUNS[kind], paint, facts, colour_only=True)


def _body(rng, shape: Shape, kind: str) -> Part:
    """Loft of rounded sections from bumper to bumper."""
    blunt = kind in ("van", "truck", "bus", "off-roader", "pickup")
    nose, tail = (0.9, 0.94) if blunt else (0.72, 0.86)
    c0, c1 = shape.cabin
    hood, belt, deck, low = shape.hood, shape.belt, shape.deck, shape.clearance
    stations = [  # place, top, half width factor, bottom
        (0.0, low + nose * 0.72 * (hood - low), 0.80, low + 0.14),
        (0.012, low + nose * 0.9 * (hood - low), 0.88, low + 0.05),
        (0.05, low + (0.5 + nose / 2) * (hood - low), 0.95, low),
        (max(0.6 * c0, 0.08), hood, 1.0, low),
        (max(c0, 0.12), belt, 1.0, low),
        (max(c0 + 0.1, 0.3), belt, 1.0, low),
        (0.55, belt if c1 > 0.56 else deck, 1.0, low),
        (max(0.72, min(c1, 0.9)), 0.5 * (belt + deck) if kind != "truck" else deck, 1.0, low),
        (0.94, deck, 0.97, low),
        (0.985, low + tail * (deck - low), 0.91, low + 0.06),
        (1.0, low + 0.86 * tail * (deck - low), 0.84, low + 0.16),
    ]
    rings = []
    for place, top, factor, bottom in stations:
        outline = rectangle(shape.width * factor, top - bottom, 0.28 * (top - bottom) if not blunt else 0.1, 3)
        height = outline[:, 1] / (top - bottom)  # -0.5 .. 0.5: sides lean in above and below the widest line
        x = outline[:, 0] * (1 - 0.22 * np.clip(height - 0.02, 0, 1) ** 2 - 0.3 * np.clip(-0.1 - height, 0, 1) ** 2)
        rings.append(np.stack([x, np.full(len(x), shape.y(place)), outline[:, 1] + (top + bottom) / 2], 1))
    return loft(np.stack(rings), ends=("smooth", "smooth"))


def _frame(shape: Shape, grow: float, low: float, high: float, bottom: float, top: float) -> np.ndarray:
    """Rings of the cabin between two heights: rounded rectangles that narrow upwards; ``grow`` moves them outwards."""
    rings = []
    for t in np.linspace((low - bottom) / (top - bottom), (high - bottom) / (top - bottom), 3):
        front = (1 - t) * shape.y(shape.cabin[0]) + t * shape.y(shape.roof[0]) - grow
        back = (1 - t) * shape.y(shape.cabin[1]) + t * shape.y(shape.roof[1]) + grow
        half = shape.width / 2 * ((1 - t) * 0.93 + t * 0.78) + grow
        outline = rectangle(2 * half, back - front, 0.12, 3) + np.array([0, (front + back) / 2])
        rings.append(np.column_stack([outline, np.full(len(outline), bottom + t * (top - bottom))]))
    return np.stack(rings)


def _cabin(made: Assembly, shape: Shape, kind: str, paint: Material, glass: Material) -> list[str]:
    """Glass all around, a roof, pillars, and panels where there are no windows."""
    rng = made.rng
    bottom, top = shape.belt - 0.06, shape.top
    made.add(glass, loft(_frame(shape, 0.0, bottom, top - 0.03, bottom, top)))
    roof = _frame(shape, 0.012, top - 0.07, top, bottom, top)
    cap = roof[-1:] * np.array([0.86, 0.93, 1.0]) + np.array([0, 0.07 * roof[-1, :, 1].mean(), 0.035])
    made.add(paint, loft(np.concatenate([roof, cap]), ends=("flat", "smooth")))

    def edge(fraction: float, side: float, level: float) -> tuple[float, float, float]:
        t = (level - bottom) / (top - bottom)
        front = (1 - t) * shape.y(shape.cabin[0]) + t * shape.y(shape.roof[0])
        back = (1 - t) * shape.y(shape.cabin[1]) + t * shape.y(shape.roof[1])
        half = shape.width / 2 * ((1 - t) * 0.93 + t * 0.78)
        return side * (half - 0.012), front + fraction * (back - front), level

    length = (shape.cabin[1] - shape.cabin[0]) * shape.length
    panes = {"bus": 6, "van": 3, "truck": 1, "pickup": 1 + int(chance(rng, 0.5)), "sports car": 1}.get(
        kind, 2 + int(length > 2.6)
    )
    inner = np.linspace(0.0, 1.0, panes + 1)[1:-1] if kind != "van" else np.array([0.3, 0.62])
    for side in (-1, 1):
        for fraction in (0.035, *inner, 0.965):
            wide = 0.09 if fraction in inner else 0.13
            made.add(paint, bar(edge(fraction, side, bottom), edge(fraction, side, top - 0.02), 0.07, wide, rows=1))
    cargo = kind == "van" and chance(rng, 0.6)
    if cargo:
        rings = _frame(shape, 0.012, bottom, top - 0.03, bottom, top)
        front = shape.y(shape.cabin[0] + 0.36 * (shape.cabin[1] - shape.cabin[0]))
        rings[..., 1] = np.maximum(rings[..., 1], front)
        middle = rings.mean(1, keepdims=True)
        back = rings[..., 1].max(1, keepdims=True)
        outline = rectangle(2.0, 2.0, 0.1, 3)
        half_x = np.abs(rings[..., 0]).max(1, keepdims=True)
        rings = np.stack(
            [outline[None, :, 0] * half_x, front + (outline[None, :, 1] + 1) / 2 * (back - front),
             np.broadcast_to(middle[..., 2], (3, len(outline)))], -1,
        )  # fmt: skip
        made.add(paint, loft(rings))
    facts = {"van": ["a closed cargo hold" if cargo else "a tall cabin"], "bus": ["a long row of windows"]}.get(
        kind, []
    )
    for side in (-1, 1):
        y = edge(0.0, 1, bottom)[1] + 0.22
        made.add(paint, ellipsoid(0.1, 0.05, 0.07, 12, 6).moved(side * (shape.width / 2 + 0.04), y, bottom + 0.1))
    if chance(rng, 0.12) and kind in ("sedan", "estate", "hatchback"):
        sign = made.palette.glow("yellow")
        made.add(
            sign, box(0.5, 0.18, 0.14, 0.03).moved(0, (shape.y(shape.roof[0]) + shape.y(shape.roof[1])) / 2, top + 0.02)
        )
        facts.append("a yellow taxi sign on the roof")
    return facts


def _open_cabin(made: Assembly, shape: Shape, glass: Material) -> list[str]:
    """A windscreen and seats without a roof."""
    leather = made.palette.leather(pick(made.rng, ("brown", "black", "beige", "red")))
    y0, y1 = shape.y(shape.cabin[0]), shape.y(shape.cabin[1])
    well = slab(rectangle(0.82 * shape.width, y1 - y0 - 0.25, 0.15, 4), shape.belt - 0.1, shape.belt + 0.015)
    made.add(made.palette.plastic("black"), well.moved(0, (y0 + y1) / 2 + 0.12))
    screen = (
        box(0.8 * shape.width, 0.05, shape.top - shape.belt, 0.02).leaning(0, y=0.55).moved(0, y0, shape.belt - 0.03)
    )
    made.add(glass, screen)
    for x in (-0.22, 0.22):
        for y in np.linspace(y0 + 0.62, y1 - 0.15, 2):
            made.add(
                leather,
                box(0.36, 0.16, 0.36, 0.06).leaning(0, y=0.2).moved(x * shape.width, float(y), shape.belt - 0.04),
            )
            made.add(leather, box(0.36, 0.3, 0.1, 0.04).moved(x * shape.width, float(y) - 0.2, shape.belt - 0.02))
    return ["an open top", f"{leather.colour} leather seats"]


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
        return f"a {colour} cargo box" if colour[0] not in "aeiou" else f"an {colour} cargo box"
    if kind == "tank":
        radius = 0.42 * shape.width
        tank = cylinder(radius, y1 - y0, 28, bevel=0.2).turned(0, 90).moved(0, y1, base + 0.95 * radius)
        made.add(skin, tank)
        return f"a {colour} tank" if colour[0] not in "aeiou" else f"an {colour} tank"
    made.add(palette.wood(), box(shape.width, y1 - y0, 0.1, 0.02).moved(0, (y0 + y1) / 2, base))
    crates = palette.wood("light brown")
    for k, y in enumerate(np.linspace(y0 + 0.6, y1 - 0.6, 3)):
        size = uniform(rng, 0.8, 1.05)
        made.add(
            crates,
            box(1.5 * size, size, size * uniform(rng, 0.7, 1.1), 0.02).moved(0.05 * (k - 1), float(y), base + 0.09),
        )
    return "wooden crates on its bed"


def _wheel(radius: float, width: float) -> Part:
    """A tyre with rounded shoulders about the x axis, its middle at the origin."""
    w, r = width / 2, radius
    profile = [(0, -0.7 * w), (0.6 * r, -0.7 * w), (0.64 * r, -w), (0.9 * r, -w), (r, -0.6 * w)]
    return lathe([*profile, *((a, -b) for a, b in reversed(profile))], 24).turned(1, 90)


def _wheels(made: Assembly, shape: Shape, dark: Material) -> str:
    rng, palette = made.rng, made.palette
    rubber = palette.rubber()
    hub = palette.metal(pick(rng, ("silver", "silver", "golden", "grey", "white")))
    width, spokes = 0.22 * shape.width / 1.75, int(pick(rng, (0, 5, 6, 8)))
    tyre = _wheel(shape.wheel, width)
    places = [*shape.axles, shape.axles[1] - 0.17] if shape.length > 5.7 and shape.axles[1] < 0.79 else [*shape.axles]
    for side in (-1, 1):
        for place in places:
            x, y = side * (shape.width / 2 - 0.42 * width), shape.y(place)
            made.add(rubber, tyre.moved(x, y, shape.wheel))
            arch = cylinder(1.16 * shape.wheel, 0.5 * width, 24).turned(1, 90)
            made.add(
                dark,
                arch.moved(
                    side * (shape.width / 2 - 0.004) - 0.25 * width - side * 0.25 * width, y, shape.wheel + 0.02
                ),
            )
            out = x + side * 0.37 * width
            cap = (
                cylinder((0.58 if not spokes else 0.2) * shape.wheel, 0.05, 18, bevel=0.015)
                .turned(1, 90)
                .moved(x=-0.025)
            )
            made.add(hub, cap.moved(out, y, shape.wheel))
            for k in range(spokes):
                spoke = bar((0, 0, 0), (0, 0, 0.6 * shape.wheel), 0.05, 0.035, rows=1).turned(0, 360.0 * k / spokes)
                made.add(hub, spoke.moved(out, y, shape.wheel))
    return f"{'spoked ' if spokes else ''}{hub.colour} wheels"


def _front_and_rear(made: Assembly, shape: Shape, dark: Material) -> None:
    """Lights, grille, bumpers and number plates."""
    rng, palette = made.rng, made.palette
    lamp, tail = palette.glow(pick(rng, ("white", "yellow"))), palette.glow("red")
    front, rear = shape.y(0.004), shape.y(0.996)
    z = shape.clearance + 0.56 * (shape.hood - shape.clearance)
    back = shape.clearance + 0.62 * (shape.deck - shape.clearance)
    round_ = chance(rng, 0.5)
    for side in (-1, 1):
        x = side * 0.33 * shape.width
        light = ellipsoid(0.13, 0.07, 0.13 if round_ else 0.075, 14, 6)
        made.add(lamp, light.moved(x, front, z))
        made.add(tail, box(0.26, 0.08, 0.13, 0.03).moved(x, rear - 0.01, back - 0.08))
    made.add(dark, box(0.36 * shape.width, 0.06, 0.16, 0.03).moved(0, front + 0.005, z - 0.11))
    bumper = palette.metal("silver") if chance(rng, 0.3) else dark
    for y, s in ((front, -1), (rear, 1)):
        made.add(bumper, box(0.84 * shape.width, 0.14, 0.13, 0.05).moved(0, y - s * 0.01, shape.clearance + 0.1))
    made.add(palette.glow("white"), box(0.5, 0.03, 0.12, 0.01).moved(0, rear + 0.015, back - 0.3))


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
