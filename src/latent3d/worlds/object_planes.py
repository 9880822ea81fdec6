"""Planes: airliners, business jets, fighters, propeller planes, biplanes, gliders and seaplanes.

Lengths are in units of the fuselage (about 1 long); the nose is at -y.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latent3d.worlds.object_assembly import Assembly
from latent3d.worlds.object_materials import Material
from latent3d.worlds.object_parts import Part, bar, bezier, box, cylinder, ellipsoid, lathe, loft, rectangle
from latent3d.worlds.palette import chance, pick, uniform

AIRFOIL = np.array(
    [(1.0, 0.0), (0.7, 0.055), (0.4, 0.085), (0.15, 0.075), (0.03, 0.035), (0.0, 0.0), (0.03, -0.02), (0.2, -0.035),
     (0.6, -0.025)]
)  # fmt: skip
"""Section of a wing of unit chord, leading edge at 0: (along the chord, up)."""


@dataclass(frozen=True)
class Craft:
    """Fuselage: radius, how high the nose and the tail point, and where its widest stretch lies (fractions)."""

    radius: float
    nose: float
    tail: float
    lift: float
    tall: float = 1.0


def plane(made: Assembly) -> None:
    """Any plane."""
    kind = pick(
        made.rng,
        ("airliner", "airliner", "business jet", "fighter", "propeller", "propeller", "biplane", "glider", "seaplane"),
    )
    {"airliner": _airliner, "business jet": _business_jet, "fighter": _fighter, "glider": _glider}.get(
        kind, _propeller
    )(*((made, kind) if kind in ("propeller", "biplane", "seaplane") else (made,)))


def _skins(made: Assembly) -> tuple[Material, Material, Material]:
    """Fuselage, wings and tail: one colour, or a livery with a fin in its second colour."""
    rng, palette = made.rng, made.palette
    hull = pick(rng, (palette.main, "white", "white", "silver", palette.main, "grey"))
    second = pick(rng, [c for c in (palette.main, palette.accent, "red", "blue") if c != hull])
    body = palette.paint(hull)
    if chance(rng, 0.55):
        body = palette.of("paint", "livery", hull, second, stretch=True)
    wings = palette.paint(second) if chance(rng, 0.25) else palette.of("paint", "plain", hull)
    fin = palette.paint(second) if chance(rng, 0.6) else wings
    return body, wings, fin


def _fuselage(craft: Craft) -> Part:
    """Sections along y; surface coordinates run around from the belly."""
    stations = np.concatenate(
        [
            craft.nose * (1 - np.cos(np.linspace(0.12, 1, 6) * np.pi / 2)),
            np.linspace(craft.nose, 1 - craft.tail, 5)[1:],
            1 - craft.tail * (1 - np.linspace(0, 1, 7)[1:]),
        ]
    )
    nose = np.clip(stations / craft.nose, 0, 1)
    tail = np.clip((1 - stations) / craft.tail, 0, 1)
    radius = (
        craft.radius * np.sqrt(np.clip(1 - (1 - nose) ** 2, 0, 1)) ** 0.95 * (0.16 + 0.84 * np.sin(tail * np.pi / 2))
    )
    z = craft.lift * craft.radius * (1 - np.sin(tail * np.pi / 2)) - 0.12 * craft.radius * (1 - nose) ** 2
    angle = np.arange(20) / 20 * 2 * np.pi - np.pi / 2
    rings = np.stack(
        [radius[:, None] * np.cos(angle), np.broadcast_to(stations[:, None] - 0.5, (len(stations), 20)),
         z[:, None] + craft.tall * radius[:, None] * np.sin(angle)], -1,
    )  # fmt: skip
    return loft(rings, ends=("smooth", "smooth"))


def _half_height(craft: Craft, y: float) -> float:
    tail = np.clip((0.5 - y) / craft.tail, 0, 1)
    return float(craft.radius * craft.tall * (0.16 + 0.84 * np.sin(tail * np.pi / 2)))


def wing(
    root: tuple[float, float, float], span: float, chord: float, tip: float, sweep: float, rise: float = 0.0,
    *, thick: float = 1.0, bent: float = 0.0,
) -> Part:  # fmt: skip
    """A wing to +x from the leading edge of its root.

    Args:
        root: leading edge at the middle of the plane.
        span: length of this half; chord, tip: depths at root and tip.
        sweep: how far the tip's leading edge lies behind the root's.
        rise: how far the tip lies above the root.
        thick: scale of the section's height.
        bent: height of a winglet.
    """
    places = [*np.linspace(0, 1, 5)]
    rings = []
    for t in places:
        depth = chord + (tip - chord) * t
        section = AIRFOIL * np.array([depth, depth * thick])
        rings.append(
            np.column_stack(
                [
                    np.full(len(section), root[0] + span * t),
                    root[1] + sweep * t + section[:, 0],
                    root[2] + rise * t + section[:, 1],
                ]
            )
        )
    if bent:
        section = AIRFOIL * np.array([0.5 * tip, 0.5 * tip * thick])
        last = rings[-1][:, 1].min() + 0.45 * tip
        rings.append(
            np.column_stack(
                [
                    np.full(len(section), root[0] + span * 1.03) - section[:, 1],
                    last + section[:, 0],
                    np.full(len(section), root[2] + rise + bent),
                ]
            )
        )
    return loft(np.stack(rings)).boxed()


def _fins(
    made: Assembly, wings: Material, fin: Material, craft: Craft, high: float, span: float, t_tail: bool, sweep: float
) -> None:
    """Fin and tail plane."""
    y, z = 0.5 - 0.17, craft.lift * craft.radius
    upright = wing((0, 0, 0), high, 0.16, 0.09, sweep, thick=0.8).turned(1, -90).moved(0, y, z * 0.7)
    made.add(fin, upright)
    level = z * 0.7 + high if t_tail else z * 0.8
    back = y + sweep * 0.9 + 0.005 if t_tail else y + 0.045
    made.add(wings, wing((0, back, level), span, 0.11, 0.06, 0.06, 0.0 if t_tail else 0.015).both_sides())


def _nacelle(radius: float, length: float) -> Part:
    """A jet engine along y from 0: a lip, a dark throat is added apart, a tapering jet pipe."""
    profile = [(0, 0.03 * length), (0.78 * radius, 0.03 * length), (0.86 * radius, 0), (0.95 * radius, 0.04 * length), (radius, 0.25 * length),
               (0.85 * radius, 0.7 * length), (0.6 * radius, length), (0, length)]  # fmt: skip
    return lathe(profile, 18).turned(0, -90)


def _jet(
    made: Assembly, skin: Material, dark: Material, x: float, y: float, z: float, radius: float, length: float
) -> None:
    made.add(skin, _nacelle(radius, length).moved(x, y, z))
    throat = cylinder(0.74 * radius, 0.01, 16).turned(0, 90).moved(x, y + 0.028 * length, z)
    made.add(dark, throat, ellipsoid(0.22 * radius, 0.4 * radius, 0.22 * radius, 10, 6).moved(x, y + 0.02 * length, z))
    made.add(dark, cylinder(0.42 * radius, 0.02, 12).turned(0, -90).moved(x, y + length - 0.012, z))


def _cabin_windows(made: Assembly, dark: Material, craft: Craft, first: float, last: float, count: int) -> None:
    """A row of panes on each side and the pilots' windows."""
    size = 0.011
    for y in np.linspace(first, last, count):
        pane = box(2.02 * craft.radius * 0.985, size, 1.5 * size, 0.0).moved(
            0, float(y), 0.2 * craft.radius * craft.tall
        )
        made.add(dark, pane)


def _cockpit(made: Assembly, dark: Material, craft: Craft) -> None:
    """Panes around the nose."""
    y = -0.5 + 0.45 * craft.nose
    made.add(
        dark,
        ellipsoid(0.66 * craft.radius, 0.32 * craft.nose, 0.34 * craft.radius, 16, 8)
        .turned(0, 20)
        .moved(0, y, 0.5 * craft.radius * craft.tall),
    )


def _airliner(made: Assembly) -> None:
    rng, palette = made.rng, made.palette
    body, wings, fin = _skins(made)
    dark, engine = palette.glass(), palette.metal(pick(rng, ("silver", "white", "grey")))
    craft = Craft(uniform(rng, 0.05, 0.066), uniform(rng, 0.12, 0.18), uniform(rng, 0.3, 0.42), 0.55)
    made.add(body, _fuselage(craft))
    _cockpit(made, dark, craft)
    _cabin_windows(made, dark, craft, -0.3, 0.18, int(rng.integers(10, 16)))
    high = chance(rng, 0.15)
    span, sweep = uniform(rng, 0.42, 0.52), uniform(rng, 0.16, 0.3)
    z = 0.75 * craft.radius if high else -0.55 * craft.radius
    winglet = 0.05 if chance(rng, 0.4) else 0.0
    rise = -0.01 if high else 0.05
    made.add(wings, wing((0, -0.14, z), span, 0.21, 0.065, sweep, rise, bent=winglet).both_sides())
    t_tail = high or chance(rng, 0.15)
    _fins(made, wings, fin, craft, uniform(rng, 0.15, 0.2), uniform(rng, 0.16, 0.2), t_tail, 0.12)
    count = int(pick(rng, (2, 2, 4)))
    spots = (0.34,) if count == 2 else (0.3, 0.58)
    size = uniform(rng, 0.024, 0.032) * (1.0 if count == 2 else 0.85)
    for t in spots:
        y, level = -0.14 + sweep * t - 0.055, z + rise * t - 1.15 * size
        for side in (-1, 1):
            _jet(made, engine, dark, side * span * t, y, level, size, 0.14)
            made.add(wings, box(0.008, 0.1, 1.3 * size).moved(side * span * t, y + 0.09, level))
    livery = _stripe(body)
    facts = [
        f"{'two' if count == 2 else 'four'} jet engines under its wings",
        livery,
        "winglets" if winglet else "",
        "swept wings",
    ]
    made.say("passenger plane", body, [fact for fact in facts if fact], colour_only=True)


def _stripe(body: Material) -> str:
    return f"{with_an(body.colours[1])} stripe along its side" if body.pattern == "livery" else ""


def with_an(colour: str) -> str:
    """Article and colour."""
    return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour}"


def _business_jet(made: Assembly) -> None:
    rng, palette = made.rng, made.palette
    body, wings, fin = _skins(made)
    dark, engine = palette.glass(), palette.metal(pick(rng, ("silver", "white", "black")))
    craft = Craft(uniform(rng, 0.056, 0.068), uniform(rng, 0.2, 0.28), uniform(rng, 0.35, 0.45), 0.5)
    made.add(body, _fuselage(craft))
    _cockpit(made, dark, craft)
    _cabin_windows(made, dark, craft, -0.2, 0.05, int(rng.integers(5, 8)))
    winglet = 0.05 if chance(rng, 0.6) else 0.0
    made.add(
        wings,
        wing(
            (0, -0.1, -0.6 * craft.radius),
            uniform(rng, 0.4, 0.48),
            0.19,
            0.06,
            uniform(rng, 0.12, 0.22),
            0.04,
            bent=winglet,
        ).both_sides(),
    )
    _fins(made, wings, fin, craft, uniform(rng, 0.16, 0.2), 0.16, True, 0.14)
    for side in (-1, 1):
        _jet(made, engine, dark, side * (craft.radius + 0.032), 0.13, 0.45 * craft.radius, 0.028, 0.15)
        made.add(
            body if body.pattern != "livery" else wings,
            box(0.05, 0.08, 0.012).moved(side * (craft.radius + 0.01), 0.21, 0.4 * craft.radius),
        )
    facts = ["two jet engines at its tail", _stripe(body), "a T-shaped tail", "winglets" if winglet else ""]
    made.say("business jet plane", body, facts, colour_only=True)


def _fighter(made: Assembly) -> None:
    rng, palette = made.rng, made.palette
    colour = pick(rng, ("grey", "grey", "green", "silver", "black", palette.main, "beige"))
    skin, second = (
        palette.paint(colour),
        palette.paint(pick(rng, [c for c in ("red", "yellow", "blue") if c != colour])),
    )
    dark = palette.plastic("black")
    craft = Craft(uniform(rng, 0.05, 0.06), uniform(rng, 0.35, 0.45), 0.22, 0.1)
    made.add(skin, _fuselage(craft))
    y = uniform(rng, -0.24, -0.16)
    canopy = palette.of("glass", "shaded", pick(rng, ("black", "blue", "golden")))
    made.add(canopy, ellipsoid(0.6 * craft.radius, 0.1, 0.75 * craft.radius, 16, 8).moved(0, y, 0.7 * craft.radius))
    for side in (-1, 1):
        inlet = box(0.05, 0.4, 0.06, 0.014).moved(side * 1.0 * craft.radius, 0.1, -0.045)
        made.add(skin, inlet)
        made.add(dark, box(0.036, 0.02, 0.044).moved(side * 1.0 * craft.radius, -0.094, -0.038))
    delta = chance(rng, 0.5)
    span = uniform(rng, 0.3, 0.38)
    if delta:
        made.add(skin, wing((0, -0.14, -0.01), span, 0.56, 0.07, 0.44, thick=0.4).both_sides())
        if chance(rng, 0.5):
            made.add(second, wing((0, -0.26, 0.015), 0.14, 0.12, 0.04, 0.1, thick=0.6).both_sides())
    else:
        made.add(skin, wing((0, -0.08, -0.01), span, 0.36, 0.09, 0.22, thick=0.5).both_sides())
        made.add(skin, wing((0, 0.3, -0.01), 0.2, 0.18, 0.07, 0.12, thick=0.6).both_sides())
    twin = chance(rng, 0.5)
    fin_skin = second if chance(rng, 0.5) else skin
    fin = wing((0, 0, 0), uniform(rng, 0.15, 0.19), 0.2, 0.07, 0.13, thick=0.6).turned(1, -90)
    if twin:
        made.add(
            fin_skin, fin.turned(1, 14).moved(0.055, 0.22, 0.0), fin.turned(1, 14).moved(0.055, 0.22, 0.0).mirrored()
        )
    else:
        made.add(fin_skin, fin.moved(0, 0.24, 0.02))
    pipes = (-0.03, 0.03) if twin else (0.0,)
    for x in pipes:
        made.add(
            dark,
            cylinder(0.026 if twin else 0.036, 0.1, 18, top=0.02 if twin else 0.03)
            .turned(0, -90)
            .moved(x, 0.45, 0.005),
        )
    missiles = chance(rng, 0.45)
    for side in (-1, 1) if missiles else ():
        for t in (0.55, 0.8):
            shaft = lathe([(0, 0), (0.008, 0.02), (0.01, 0.05), (0.01, 0.2), (0, 0.2)], 10).turned(0, -90)
            made.add(second, shaft.moved(side * span * t, 0.06 + 0.2 * t, -0.035))
    facts = [
        "delta wings" if delta else "swept wings",
        "twin tail fins" if twin else "a single tail fin",
        f"{second.colour} missiles under its wings" if missiles else "",
    ]
    made.say("fighter plane", skin, facts, colour_only=True)


def _glider(made: Assembly) -> None:
    rng, palette = made.rng, made.palette
    body, wings, fin = _skins(made)
    craft = Craft(uniform(rng, 0.038, 0.05), 0.25, uniform(rng, 0.55, 0.65), 0.3, 1.15)
    made.add(body, _fuselage(craft))
    made.add(
        palette.glass(),
        ellipsoid(0.72 * craft.radius, 0.12, 0.8 * craft.radius, 16, 8).moved(0, -0.3, 0.55 * craft.radius),
    )
    span = uniform(rng, 0.75, 0.95)
    made.add(
        wings,
        wing((0, -0.13, 0.7 * craft.radius), span, 0.11, 0.045, 0.04, uniform(rng, 0.02, 0.08), bent=0.03).both_sides(),
    )
    _fins(made, wings, fin, craft, 0.15, 0.17, chance(rng, 0.7), 0.06)
    made.say("glider plane", body, ["very long thin wings", _stripe(body), "no engine"], colour_only=True)


def _propeller(made: Assembly, kind: str) -> None:
    rng, palette = made.rng, made.palette
    body, wings, fin = _skins(made)
    dark, metal = palette.rubber(), palette.metal(pick(rng, ("silver", "black", "golden")))
    craft = Craft(
        uniform(rng, 0.065, 0.085), uniform(rng, 0.14, 0.2), uniform(rng, 0.5, 0.62), 0.4, uniform(rng, 1.05, 1.2)
    )
    made.add(body, _fuselage(craft))
    top = craft.radius * craft.tall
    biplane = kind == "biplane"
    twin = kind == "propeller" and chance(rng, 0.3)
    high = kind == "seaplane" or (kind == "propeller" and chance(rng, 0.45))
    span, chord, front = uniform(rng, 0.46, 0.58), uniform(rng, 0.15, 0.19), -0.24
    tip = chord * uniform(rng, 0.6, 1.0)
    z = 0.95 * top if high else -0.6 * top
    facts = []
    if biplane:
        gap = uniform(rng, 0.15, 0.19)
        lower, upper = -0.6 * top, -0.6 * top + gap + 0.03
        for level, shift in ((lower, 0.03), (upper, 0.0)):
            made.add(
                wings,
                wing(
                    (0, front + shift, level), span * (1.0 if shift == 0 else 0.92), chord, 0.9 * chord, 0.0, 0.01
                ).both_sides(),
            )
        for side in (-1, 1):
            for x in (0.62 * span, 0.13):
                for y in (0.02, 0.1):
                    start = lower if x > 0.2 else 0.3 * top
                    made.add(
                        metal,
                        bar(
                            (side * x * (0.6 if x < 0.2 else 1), front + 0.03 + y, start),
                            (side * x, front + y, upper + 0.008),
                            0.011,
                            round_=True,
                            n=8,
                        ),
                    )
        facts.append("two pairs of wings joined by struts")
    else:
        made.add(
            wings, wing((0, front, z), span, chord, tip, 0.5 * (chord - tip), -0.005 if high else 0.05).both_sides()
        )
        facts.append("high wings" if high else "low wings")
        if high:
            for side in (-1, 1):
                made.add(
                    metal,
                    bar(
                        (side * 0.8 * craft.radius, front + 0.07, -0.5 * top),
                        (side * 0.5 * span, front + 0.08, z),
                        0.014,
                        round_=True,
                        n=8,
                    ),
                )
    _fins(made, wings, fin, craft, uniform(rng, 0.13, 0.17), uniform(rng, 0.16, 0.2), False, 0.05)
    glass = palette.glass()
    if biplane:
        made.add(dark, ellipsoid(0.6 * craft.radius, 0.06, 0.02, 16, 6).moved(0, 0.0, 0.97 * top))
        made.add(glass, box(0.07, 0.01, 0.045, 0.004).moved(0, -0.055, 0.9 * top))
    else:
        made.add(
            glass,
            ellipsoid(0.75 * craft.radius, 0.14, 0.62 * top, 16, 8).moved(0, -0.17 if not high else -0.19, 0.55 * top),
        )
    blades = int(pick(rng, (2, 3, 4)))
    if twin:
        for side in (-1, 1):
            nacelle = ellipsoid(0.034, 0.13, 0.034, 16, 8).moved(side * 0.36 * span, front + 0.06, z + 0.015)
            made.add(wings, nacelle)
            _airscrew(made, metal, blades, side * 0.36 * span, front - 0.065, z + 0.015, 0.095)
    else:
        _airscrew(made, metal, blades, 0.0, -0.5, -0.1 * craft.radius, uniform(rng, 0.12, 0.15))
    facts.append(f"{'two propellers' if twin else 'a propeller'} of {('two', 'three', 'four')[blades - 2]} blades")
    facts.append(_stripe(body))
    if kind == "seaplane":
        facts.insert(0, _floats(made, wings, metal, craft, top))
    else:
        _gear(made, metal, dark, craft, top)
    made.say(
        {"propeller": "propeller plane"}.get(kind, "biplane" if biplane else "seaplane"), body, facts, colour_only=True
    )


def _airscrew(made: Assembly, metal: Material, blades: int, x: float, y: float, z: float, radius: float) -> None:
    made.add(
        metal,
        lathe([(0, 0), (0.026, 0), (0.022, 0.025), (0.012, 0.045), (0, 0.052)], 14)
        .turned(0, 90)
        .moved(x, y + 0.012, z),
    )
    for k in range(blades):
        blade = bar((0, -0.012, 0.0), (0, -0.012, radius), 0.03, 0.008, taper=0.6).turned(1, 360.0 * k / blades + 20)
        made.add(metal, blade.moved(x, y, z))


def _gear(made: Assembly, metal: Material, dark: Material, craft: Craft, top: float) -> None:
    """Two wheels on struts in front, a small one at the tail."""
    for side in (-1, 1):
        foot = (side * 0.11, -0.22, -top - 0.075)
        made.add(metal, bar((side * 0.4 * craft.radius, -0.18, -0.7 * top), foot, 0.014, round_=True, n=8))
        made.add(dark, cylinder(0.036, 0.024, 16, bevel=0.007).turned(1, 90).moved(foot[0] - 0.012, foot[1], foot[2]))
    z = craft.lift * craft.radius
    made.add(metal, bar((0, 0.4, z), (0, 0.43, z - 0.07), 0.01, rows=1))
    made.add(dark, cylinder(0.018, 0.014, 12, bevel=0.004).turned(1, 90).moved(-0.007, 0.43, z - 0.075))


def _floats(made: Assembly, skin: Material, metal: Material, craft: Craft, top: float) -> str:
    for side in (-1, 1):
        x, z = side * 0.12, -top - 0.11
        line = bezier([(x, -0.46, z + 0.03), (x, -0.3, z - 0.015), (x, 0.0, z), (x, 0.2, z + 0.015)], 10)
        radii = np.interp(np.linspace(0, 1, 10), [0, 0.15, 0.4, 0.8, 1], [0.006, 0.03, 0.037, 0.025, 0.006])
        from latent3d.worlds.object_parts import tube

        made.add(skin, tube(line, radii, 12))
        for y in (-0.25, -0.05):
            made.add(metal, bar((side * 0.5 * craft.radius, y, -0.6 * top), (x, y, z + 0.02), 0.014, round_=True, n=8))
    made.add(metal, bar((-0.12, -0.25, -top - 0.1), (0.12, -0.25, -top - 0.1), 0.012, round_=True, n=8))
    return "two floats"


__all__ = ["plane", "rectangle", "wing"]
