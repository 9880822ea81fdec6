"""Tables: dining, coffee, side and writing tables on legs, pedestals, trestles, boards and hairpins.

Lengths are metres; drawers open towards -y.
"""

from __future__ import annotations

import math

import numpy as np

from latent3d.worlds.object_assembly import Assembly
from latent3d.worlds.object_captions import with_article
from latent3d.worlds.object_materials import Material
from latent3d.worlds.object_outlines import bezier, circle, rectangle
from latent3d.worlds.object_parts import Part, bar, box, ellipsoid, lathe, slab, tube
from latent3d.worlds.palette import chance, pick, uniform

SIZES = {  # half length, half depth, height
    "dining table": ((0.55, 0.95), (0.36, 0.5), (0.7, 0.78)),
    "coffee table": ((0.42, 0.65), (0.26, 0.4), (0.34, 0.48)),
    "side table": ((0.22, 0.32), (0.2, 0.3), (0.5, 0.66)),
    "bar table": ((0.3, 0.4), (0.3, 0.4), (0.95, 1.1)),
    "writing table": ((0.5, 0.72), (0.28, 0.36), (0.7, 0.78)),
}


def table(made: Assembly) -> None:
    """Any table."""
    rng, palette = made.rng, made.palette
    kind = pick(rng, ("dining table", "dining table", "coffee table", "side table", "bar table", "writing table"))
    x, y, high = (uniform(rng, *span) for span in SIZES[kind])
    shape = "rectangular"
    if kind != "writing table":
        shape = pick(rng, ("rectangular", "rectangular", "rounded", "round", "oval", "hexagonal"))
    if kind == "bar table" and shape in ("rectangular", "oval"):
        shape = "round"
    if shape in ("round", "hexagonal"):
        x = y = math.sqrt(x * y)
    top = pick(rng, (palette.any_wood, palette.any_wood, palette.any_wood, palette.plastic, palette.marble))()
    frame = top
    if top.stuff == "marble" or chance(rng, 0.35):
        frame = pick(rng, (palette.metal, palette.any_wood))()
    thick = uniform(rng, 0.025, 0.06)
    low = high - thick
    made.add(top, slab(_outline(shape, x, y), low, high, 0.35 * thick, 1))
    desk = kind == "writing table"
    facts = _desk(made, frame, x, y, low) if desk else _base(made, frame, shape, x, y, low)
    shape_fact = "rounded corners" if shape == "rounded" else with_article(f"{shape} top")
    under = "" if frame is top or frame not in made.materials() else f"a frame of {_stuff(frame)}"
    if under and not desk:
        facts, under = [f"{facts[0]} of {_stuff(frame)}", *facts[1:]], ""
    made.say(kind, top, [shape_fact, *facts, under], aliases=("desk",) if desk else ())


def _stuff(material: Material) -> str:
    """ "brown wood", "silver metal"."""
    return f"{material.colour} {'wood' if material.stuff == 'wood' else material.stuff_word}"


def _outline(shape: str, x: float, y: float) -> np.ndarray:
    if shape in ("round", "oval"):
        return circle(40) * np.array([x, y])
    if shape == "hexagonal":
        return circle(6) * x
    return rectangle(2 * x, 2 * y, 0.015 if shape == "rectangular" else 0.35 * min(x, y), 6)


def _base(made: Assembly, material: Material, shape: str, x: float, y: float, low: float) -> list[str]:
    """Adds what carries the top; says what, and what else there is."""
    rng = made.rng
    cornered = shape in ("rectangular", "rounded")
    kinds = ["pedestal", "drum", "splayed", "tapered", "turned", "crossed"]
    if cornered or shape == "oval":
        kinds = ["straight", "straight", "tapered", "turned", "splayed", "trestle", "boards", "hairpin"]
        kinds += ["two pedestals"] if x > 1.5 * y else []
    kind = pick(rng, kinds)
    inner = np.array([x, y]) * {"rectangular": 1.0, "rounded": 0.9}.get(shape, 0.72)
    if kind == "pedestal":
        made.add(material, _pedestal(made, 0.75 * min(x, y), low))
        return ["a round pedestal"]
    if kind == "two pedestals":
        stem = _pedestal(made, 0.7 * y, low)
        made.add(material, stem.moved(x=-0.5 * x), stem.moved(x=0.5 * x))
        made.add(material, box(x, 0.05, 0.09, 0.01).moved(z=0.35 * low))
        return ["two pedestals"]
    if kind == "drum":
        made.add(material, _drum(made, 0.62 * min(x, y), low))
        return ["a wide drum base"]
    if kind == "trestle":
        wide, deep = (x, y) if cornered else 1.15 * inner
        return _trestle(made, material, wide, deep, low)
    if kind == "boards":
        thick, (far, deep) = uniform(rng, 0.03, 0.06), 0.9 * inner
        made.add(material, (box(thick, 2 * deep, low + 0.003, 0.006).moved(x=s * far) for s in (-1, 1)))
        return ["two solid side panels", _shelf(made, material, far, 0.9 * deep, low)]
    if kind == "hairpin":
        return [_hairpins(made, inner, low)]
    if kind == "crossed":
        for turn in (0, 90):
            for s in (-1, 1):
                leg = bar((-0.6 * s * x, 0.0, 0.0), (0.6 * s * x, 0.004 * s, low + 0.005), 0.05, 0.04)
                made.add(material, leg.turned(2, turn + 45))
        return ["crossed legs"]
    return _four_legs(made, material, kind, inner, low, cornered)


def _four_legs(
    made: Assembly, material: Material, kind: str, inner: np.ndarray, low: float, cornered: bool
) -> list[str]:
    rng = made.rng
    width = uniform(rng, 0.04, 0.075) * (0.7 if low < 0.62 else 1.0)
    round_ = kind == "turned" or (kind != "straight" and chance(rng, 0.6))
    splay = uniform(rng, 0.12, 0.22) if kind == "splayed" else 0.0
    x, y = inner - 1.1 * width
    if kind == "splayed":
        x, y = 0.8 * x, 0.8 * y
    for sx in (-1, 1):
        for sy in (-1, 1):
            foot = (sx * (x + splay * low), sy * (y + splay * low), 0.0)
            if kind == "turned":
                made.add(material, _turned(low + 0.003, width).moved(sx * x, sy * y))
            else:
                taper = 1.0 if kind == "straight" else 0.5
                made.add(material, bar((sx * x, sy * y, low + 0.004), foot, width, taper=taper, round_=round_))
    facts = [f"four {kind} legs"]
    if cornered and kind != "splayed":
        apron = uniform(rng, 0.06, 0.1)
        drawer = chance(rng, 0.35)
        apron += 0.04 if drawer else 0.0
        for s in (-1, 1):
            made.add(material, box(2 * x, 0.022, apron, 0.004).moved(0, s * y, low - apron))
            made.add(material, box(0.022, 2 * y, apron, 0.004).moved(s * x, 0, low - apron))
        if drawer:
            _drawer(made, material, 0.0, -y - 0.012, low - 0.55 * apron, min(0.36, 1.2 * x), 0.7 * apron)
            facts.append("a drawer")
        facts.append(_shelf(made, material, x, y, low))
    return facts


def _shelf(made: Assembly, material: Material, x: float, y: float, low: float) -> str:
    """A board below the top, sometimes."""
    if not chance(made.rng, 0.3):
        return ""
    made.add(material, box(2 * x, 2 * y, 0.022, 0.004).moved(z=uniform(made.rng, 0.2, 0.4) * low))
    return "a lower shelf"


def _turned(height: float, width: float) -> Part:
    z = np.array([0, 0.03, 0.08, 0.13, 0.35, 0.6, 0.68, 0.71, 0.75, 0.78, 0.82, 1.0]) * height
    r = np.array([0.34, 0.5, 0.5, 0.32, 0.42, 0.6, 0.42, 0.66, 0.66, 0.42, 0.62, 0.62]) * width
    return lathe([(0, 0), *zip(r, z, strict=True), (0, height)], 14)


def _pedestal(made: Assembly, foot: float, low: float) -> Part:
    """A round foot, a stem and a head, plain or with a belly."""
    stem = uniform(made.rng, 0.03, 0.06)
    belly = uniform(made.rng, 1.0, 2.2)
    control = [(stem, 0.12), (stem * belly, 0.22), (stem * belly, 0.4), (stem * 0.8, 0.62), (stem, 0.86)]
    middle = [(r, z * low) for r, z in bezier(control, 9)]
    profile = [(0, 0), (foot, 0), (foot, 0.02), (0.55 * foot, 0.045), *middle, (0.45 * foot, low - 0.012)]
    return lathe([*profile, (0.45 * foot, low + 0.003), (0, low + 0.003)], 28)


def _drum(made: Assembly, radius: float, low: float) -> Part:
    waist = uniform(made.rng, 0.55, 1.0)
    curve = bezier(
        [(radius, 0.0), (radius * waist, 0.35 * low), (radius * waist, 0.65 * low), (radius, low + 0.003)], 9
    )
    return lathe([(0, 0), *curve, (0, low + 0.003)], 32)


def _trestle(made: Assembly, material: Material, x: float, y: float, low: float) -> list[str]:
    """Two A-shaped or T-shaped frames and a beam between them."""
    slanted = chance(made.rng, 0.6)
    thick = uniform(made.rng, 0.045, 0.065)
    for s in (-1, 1):
        place = s * 0.72 * x
        head = box(thick, 1.5 * y, 0.05, 0.006).moved(place, 0, low - 0.047)
        made.add(material, head)
        if slanted:
            made.add(
                material, (bar((place, t * 0.2 * y, low - 0.02), (place, t * 0.85 * y, 0), thick) for t in (-1, 1))
            )
            made.add(material, bar((place, -0.52 * y, 0.42 * low), (place, 0.52 * y, 0.42 * low), 0.7 * thick))
        else:
            made.add(material, bar((place, 0, low), (place, 0, 0.04), 1.6 * thick, 2.4 * thick))
            made.add(material, box(1.3 * thick, 1.6 * y, 0.06, 0.015).moved(place))
    z = 0.42 * low if slanted else uniform(made.rng, 0.2, 0.5) * low
    made.add(material, bar((-0.72 * x, 0, z), (0.72 * x, 0, z), 0.7 * thick, thick))
    return ["a trestle base"]


def _hairpins(made: Assembly, inner: np.ndarray, low: float) -> str:
    """Bent rods at the corners."""
    metal = made.palette.metal(pick(made.rng, ("black", "silver", "golden", "white")))
    r, gap = 0.009, 0.075
    for sx in (-1, 1):
        for sy in (-1, 1):
            x, y = sx * (inner[0] - 0.06), sy * (inner[1] - 0.06)
            top = low + 0.003
            bend = bezier([(x - sx * gap / 3, y, 0.06), (x, y, r - 0.02), (x, y - sy * gap / 3, 0.06)], 6)
            line = [(x - sx * gap, y, top), *bend, (x, y - sy * gap, top)]
            made.add(metal, tube(line, r, 8))
    return f"{metal.colour} hairpin legs"


def _drawer(made: Assembly, material: Material, x: float, y: float, z: float, width: float, height: float) -> None:
    """A front with a knob, its middle at (x, z), on the plane ``y``."""
    made.add(material, box(width, 0.02, height, 0.006).moved(x, y, z - height / 2))
    made.add(_knobs(made), ellipsoid(0.018, 0.018, 0.018, 10, 6).moved(x, y - 0.022, z))


def _knobs(made: Assembly) -> Material:
    """The one material of all knobs."""
    for material in made.materials():
        if material.stuff == "metal" and material.colour == "golden":
            return material
    return made.palette.metal("golden")


def _desk(made: Assembly, material: Material, x: float, y: float, low: float) -> list[str]:
    """A cabinet of drawers on one side or both; legs or a board elsewhere."""
    rng = made.rng
    both = chance(rng, 0.35)
    count = int(rng.integers(2, 5))
    wide = uniform(rng, 0.28, 0.36)
    feet = 0.0 if chance(rng, 0.5) else 0.1
    fronts = made.palette.painted_wood(made.palette.accent) if chance(rng, 0.3) else material
    for s in (-1, 1) if both else (pick(rng, (-1, 1)),):
        centre = s * (x - wide / 2 - 0.01)
        made.add(material, box(wide, 1.9 * y, low + 0.002 - feet, 0.006).moved(centre, 0, feet))
        if feet:
            corners = [(centre + a * (wide / 2 - 0.03), b * (0.9 * y - 0.03)) for a in (-1, 1) for b in (-1, 1)]
            made.add(material, (bar((*place, feet + 0.003), (*place, 0), 0.035, taper=0.7) for place in corners))
        step = (low - feet) / count
        for k in range(count):
            _drawer(made, fronts, centre, -0.95 * y - 0.008, feet + (k + 0.5) * step, wide - 0.03, step - 0.02)
    side = "" if both else _open_side(made, material, -s, x, y, low)
    number = ("two", "three", "four")[count - 2]
    coloured = "" if fronts is material else f"{fronts.colour} "
    return [f"{number} {coloured}drawers on {'each side' if both else 'one side'}", side]


def _open_side(made: Assembly, material: Material, s: int, x: float, y: float, low: float) -> str:
    """What carries the side of a desk without drawers, and a board across the back."""
    made.add(material, box(2 * x - 0.1, 0.02, 0.3, 0.004).moved(0, 0.8 * y, low - 0.3))
    if chance(made.rng, 0.5):
        places = [(s * (x - 0.04), t * (0.95 * y - 0.03)) for t in (-1, 1)]
        made.add(material, (bar((*place, low + 0.003), (*place, 0), 0.05, taper=0.7) for place in places))
        return "two legs"
    made.add(material, box(0.03, 1.9 * y, low + 0.002, 0.006).moved(s * (x - 0.03)))
    return "a side panel"
