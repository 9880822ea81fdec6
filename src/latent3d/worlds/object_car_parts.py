"""Bodies, cabins, wheels and lights of cars. Lengths are metres; the car drives towards -y."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latent3d.worlds.object_assembly import Assembly
from latent3d.worlds.object_materials import Material
from latent3d.worlds.object_outlines import rectangle
from latent3d.worlds.object_parts import Part, bar, box, cylinder, ellipsoid, lathe, loft, slab
from latent3d.worlds.palette import chance, pick


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


def body(shape: Shape, *, blunt: bool) -> Part:
    """Loft of rounded sections from bumper to bumper; ``blunt`` for a steep nose and tail."""
    nose, tail = (0.9, 0.94) if blunt else (0.76, 0.86)
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
        (max(0.72, min(c1, 0.9)), min(deck, 0.5 * (belt + deck)), 1.0, low),
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


@dataclass(frozen=True)
class Cabin:
    """The space between the belt and the roof of a shape, narrowing upwards."""

    shape: Shape

    @property
    def bottom(self) -> float:
        """Where it starts, inside the body."""
        return self.shape.belt - 0.06

    def span(self, z: float) -> tuple[float, float, float]:
        """Front, back and half width at a height."""
        shape = self.shape
        t = (z - self.bottom) / (shape.top - self.bottom)
        front, back = ((1 - t) * shape.y(shape.cabin[k]) + t * shape.y(shape.roof[k]) for k in (0, 1))
        return front, back, shape.width / 2 * (0.93 - 0.15 * t)

    def rings(self, low: float, high: float, grow: float = 0.0, start: float = 0.0) -> np.ndarray:
        """Rounded rectangles at three heights, ``grow`` wider all around, from a fraction ``start`` of the length."""
        rings = []
        for z in np.linspace(low, high, 3):
            front, back, half = self.span(float(z))
            front += start * (back - front)
            outline = rectangle(2 * (half + grow), back - front + 2 * grow, 0.12, 3)
            rings.append(np.column_stack([outline + np.array([0, (front + back) / 2]), np.full(len(outline), z)]))
        return np.stack(rings)

    def edge(self, fraction: float, side: float, z: float) -> tuple[float, float, float]:
        """A place on the flank, a fraction of the length from the front."""
        front, back, half = self.span(z)
        return side * (half - 0.012), front + fraction * (back - front), z


PILLARS = {"bus": (0.18, 0.34, 0.5, 0.66, 0.82), "van": (0.3, 0.62), "truck": (), "sports car": ()}
"""Places of the posts between the side windows; elsewhere they follow from the length."""


def add_cabin(made: Assembly, shape: Shape, kind: str, paint: Material, glass: Material) -> list[str]:
    """Glass all around, a roof, pillars, mirrors, and panels where there are no windows; says what is special."""
    rng, cabin = made.rng, Cabin(shape)
    bottom, top = cabin.bottom, shape.top
    made.add(glass, loft(cabin.rings(bottom, top - 0.03)))
    roof = cabin.rings(top - 0.07, top, 0.012)
    middle = roof[-1, :, 1].mean()
    cap = (roof[-1:] - [0, middle, 0]) * [0.86, 0.93, 1.0] + [0, middle, 0.035]
    made.add(paint, loft(np.concatenate([roof, cap]), ends=("flat", "smooth")))
    front, back, _ = cabin.span(bottom)
    even = (0.5,) if back - front < 2.6 else (0.36, 0.68)
    posts = PILLARS.get(kind, even if kind != "pickup" or chance(rng, 0.5) else ())
    for side in (-1, 1):
        for place in (0.035, *posts, 0.965):
            wide = 0.09 if place in posts else 0.13
            foot, head = (cabin.edge(place, side, z) for z in (bottom, top - 0.02))
            made.add(paint, bar(foot, head, 0.07, wide, rows=1))
        mirror = ellipsoid(0.1, 0.05, 0.07, 10, 6)
        made.add(paint, mirror.moved(side * (shape.width / 2 + 0.04), front + 0.22, bottom + 0.1))
    if kind == "bus":
        return ["a long row of windows"]
    if kind == "van":
        closed = chance(rng, 0.6)
        if closed:
            made.add(paint, loft(cabin.rings(bottom, top - 0.03, 0.012, start=0.36)))
        return ["a closed cargo hold" if closed else "a tall cabin"]
    if kind in ("sedan", "estate", "hatchback") and chance(rng, 0.12):
        sign = box(0.5, 0.18, 0.14, 0.03).moved(0, middle, top + 0.02)
        made.add(made.palette.glow("yellow"), sign)
        return ["a yellow taxi sign on the roof"]
    return []


def add_open_cabin(made: Assembly, shape: Shape, glass: Material) -> list[str]:
    """A windscreen and seats without a roof."""
    leather = made.palette.leather(pick(made.rng, ("brown", "black", "beige", "red")))
    y0, y1 = shape.y(shape.cabin[0]), shape.y(shape.cabin[1])
    well = slab(rectangle(0.82 * shape.width, y1 - y0 - 0.25, 0.15, 4), shape.belt - 0.1, shape.belt + 0.015)
    made.add(made.palette.plastic("black"), well.moved(0, (y0 + y1) / 2 + 0.12))
    screen = box(0.8 * shape.width, 0.05, shape.top - shape.belt, 0.02).leaning(0, y=0.55)
    made.add(glass, screen.moved(0, y0, shape.belt - 0.03))
    cushion, back = box(0.36, 0.3, 0.1, 0.04).moved(0, -0.2, 0.02), box(0.36, 0.16, 0.36, 0.06).leaning(0, y=0.2)
    for x in (-0.22, 0.22):
        for y in (y0 + 0.62, y1 - 0.15):
            made.add(leather, (part.moved(x * shape.width, y, shape.belt - 0.04) for part in (cushion, back)))
    return ["an open top", f"{leather.colour} leather seats"]


def wheel(radius: float, width: float) -> Part:
    """A tyre with rounded shoulders about the x axis, its middle at the origin."""
    w, r = width / 2, radius
    profile = [(0, -0.7 * w), (0.6 * r, -0.7 * w), (0.64 * r, -w), (0.9 * r, -w), (r, -0.6 * w)]
    return lathe([*profile, *((a, -b) for a, b in reversed(profile))], 20).turned(1, 90)


def add_wheels(made: Assembly, shape: Shape, dark: Material) -> str:
    """Wheels in dark arches; says what they look like."""
    rng, palette = made.rng, made.palette
    rubber = palette.rubber()
    hub = palette.metal(pick(rng, ("silver", "silver", "golden", "grey", "white")))
    radius, width, spokes = shape.wheel, 0.22 * shape.width / 1.75, int(pick(rng, (0, 5, 6, 8)))
    tyre = wheel(radius, width)
    arch = cylinder(1.16 * radius, 0.5 * width, 20).turned(1, 90).moved(x=-0.25 * width)
    cap = cylinder((0.2 if spokes else 0.58) * radius, 0.05, 14, bevel=0.015).turned(1, 90).moved(x=-0.025)
    spoke = bar((0, 0, 0), (0, 0, 0.6 * radius), 0.05, 0.035, rows=1)
    rim = [cap, *(spoke.turned(0, 360.0 * k / spokes) for k in range(spokes))]
    long = shape.length > 5.7 and shape.axles[1] < 0.79
    for side in (-1, 1):
        for place in (*shape.axles, *((shape.axles[1] - 0.17,) if long else ())):
            x, y = side * (shape.width / 2 - 0.42 * width), shape.y(place)
            made.add(rubber, tyre.moved(x, y, radius))
            made.add(dark, arch.moved(side * (shape.width / 2 - 0.004 - 0.25 * width), y, radius + 0.02))
            made.add(hub, (part.moved(x + side * 0.37 * width, y, radius) for part in rim))
    return f"{'spoked ' if spokes else ''}{hub.colour} wheels"


def add_lights(made: Assembly, shape: Shape, dark: Material) -> None:
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
