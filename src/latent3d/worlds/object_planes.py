"""Planes: airliners, business jets, fighters, propeller planes, biplanes, gliders and seaplanes.

Lengths are in units of the fuselage (about 1 long); the nose is at -y.
"""

from __future__ import annotations

from latent3d.worlds.object_assembly import Assembly
from latent3d.worlds.object_captions import with_article
from latent3d.worlds.object_materials import Material
from latent3d.worlds.object_parts import bar, box, cylinder, ellipsoid, lathe
from latent3d.worlds.object_plane_parts import (
    Craft,
    add_airscrew,
    add_cockpit,
    add_floats,
    add_gear,
    add_jet,
    add_tail,
    add_windows,
    fuselage,
    plane_skins,
    wing,
)
from latent3d.worlds.palette import chance, pick, uniform


def plane(made: Assembly) -> None:
    """Any plane."""
    kinds = (_airliner, _airliner, _business_jet, _fighter, _glider, _single, _single, _twin, _biplane, _seaplane)
    pick(made.rng, kinds)(made)


def _airliner(made: Assembly) -> None:
    rng, palette = made.rng, made.palette
    body, wings, fin = plane_skins(made)
    dark, engine = palette.glass(), palette.metal(pick(rng, ("silver", "white", "grey")))
    craft = Craft(uniform(rng, 0.05, 0.066), uniform(rng, 0.12, 0.18), uniform(rng, 0.3, 0.42), 0.55)
    made.add(body, fuselage(craft))
    add_cockpit(made, dark, craft)
    add_windows(made, dark, craft, -0.3, 0.18, int(rng.integers(10, 16)))
    high = chance(rng, 0.15)
    span, sweep = uniform(rng, 0.42, 0.52), uniform(rng, 0.16, 0.3)
    z = 0.75 * craft.radius if high else -0.55 * craft.radius
    winglet = 0.05 if chance(rng, 0.4) else 0.0
    rise = -0.01 if high else 0.05
    made.add(wings, wing((0, -0.14, z), span, 0.21, 0.065, sweep, rise, bent=winglet).both_sides())
    t_tail = high or chance(rng, 0.15)
    add_tail(made, wings, fin, craft, uniform(rng, 0.15, 0.2), uniform(rng, 0.16, 0.2), t_tail, 0.12)
    count = int(pick(rng, (2, 2, 4)))
    spots = (0.34,) if count == 2 else (0.3, 0.58)
    size = uniform(rng, 0.024, 0.032) * (1.0 if count == 2 else 0.85)
    for t in spots:
        y, level = -0.14 + sweep * t - 0.055, z + rise * t - 1.15 * size
        for side in (-1, 1):
            add_jet(made, engine, dark, side * span * t, y, level, size, 0.14)
            made.add(wings, box(0.008, 0.1, 1.3 * size).moved(side * span * t, y + 0.09, level))
    engines = f"{'two' if count == 2 else 'four'} jet engines under its wings"
    facts = [engines, _stripe(body), "winglets" if winglet else "", "swept wings"]
    made.say("passenger plane", body, facts, look=body.colour, aliases=("airliner",))


def _stripe(body: Material) -> str:
    return with_article(f"{body.colours[1]} stripe along its side") if body.pattern == "livery" else ""


def _business_jet(made: Assembly) -> None:
    rng, palette = made.rng, made.palette
    body, wings, fin = plane_skins(made)
    dark, engine = palette.glass(), palette.metal(pick(rng, ("silver", "white", "black")))
    craft = Craft(uniform(rng, 0.056, 0.068), uniform(rng, 0.2, 0.28), uniform(rng, 0.35, 0.45), 0.5)
    made.add(body, fuselage(craft))
    add_cockpit(made, dark, craft)
    add_windows(made, dark, craft, -0.2, 0.05, int(rng.integers(5, 8)))
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
    add_tail(made, wings, fin, craft, uniform(rng, 0.16, 0.2), 0.16, True, 0.14)
    for side in (-1, 1):
        add_jet(made, engine, dark, side * (craft.radius + 0.032), 0.13, 0.45 * craft.radius, 0.028, 0.15)
        made.add(
            body if body.pattern != "livery" else wings,
            box(0.05, 0.08, 0.012).moved(side * (craft.radius + 0.01), 0.21, 0.4 * craft.radius),
        )
    facts = ["two jet engines at its tail", _stripe(body), "a T-shaped tail", "winglets" if winglet else ""]
    made.say("business jet plane", body, facts, look=body.colour, aliases=("business jet",))


def _fighter(made: Assembly) -> None:
    rng, palette = made.rng, made.palette
    colour = pick(rng, ("grey", "grey", "green", "silver", "black", palette.main, "beige"))
    skin, second = (
        palette.paint(colour),
        palette.paint(pick(rng, [c for c in ("red", "yellow", "blue") if c != colour])),
    )
    dark = palette.plastic("black")
    craft = Craft(uniform(rng, 0.05, 0.06), uniform(rng, 0.35, 0.45), 0.22, 0.1)
    made.add(skin, fuselage(craft))
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
        made.add(fin_skin, fin.turned(1, 14).moved(0.055, 0.22, 0.0).both_sides())
    else:
        made.add(fin_skin, fin.moved(0, 0.24, 0.02))
    pipe = cylinder(0.026, 0.1, 18, top=0.02) if twin else cylinder(0.036, 0.1, 18, top=0.03)
    made.add(dark, (pipe.turned(0, -90).moved(x, 0.45, 0.005) for x in ((-0.03, 0.03) if twin else (0.0,))))
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
    made.say("fighter plane", skin, facts, look=skin.colour, aliases=("fighter jet",))


def _glider(made: Assembly) -> None:
    rng, palette = made.rng, made.palette
    body, wings, fin = plane_skins(made)
    craft = Craft(uniform(rng, 0.038, 0.05), 0.25, uniform(rng, 0.55, 0.65), 0.3, 1.15)
    made.add(body, fuselage(craft))
    canopy = ellipsoid(0.72 * craft.radius, 0.12, 0.8 * craft.radius, 16, 8)
    made.add(palette.glass(), canopy.moved(0, -0.3, 0.55 * craft.radius))
    span, rise = uniform(rng, 0.75, 0.95), uniform(rng, 0.02, 0.08)
    made.add(wings, wing((0, -0.13, 0.7 * craft.radius), span, 0.11, 0.045, 0.04, rise, bent=0.03).both_sides())
    add_tail(made, wings, fin, craft, 0.15, 0.17, chance(rng, 0.7), 0.06)
    made.say("glider plane", body, ["very long thin wings", _stripe(body), "no engine"], look=body.colour)


def _single(made: Assembly) -> None:
    _propeller(made, "propeller plane")


def _twin(made: Assembly) -> None:
    _propeller(made, "twin-engined propeller plane", engines=2)


def _biplane(made: Assembly) -> None:
    _propeller(made, "biplane")


def _seaplane(made: Assembly) -> None:
    _propeller(made, "seaplane")


def _propeller(made: Assembly, noun: str, engines: int = 1) -> None:
    """Planes with propellers."""
    rng, palette = made.rng, made.palette
    body, wings, fin = plane_skins(made)
    dark, metal, glass = palette.rubber(), palette.metal(pick(rng, ("silver", "black", "golden"))), palette.glass()
    radius, tall = uniform(rng, 0.065, 0.085), uniform(rng, 1.05, 1.2)
    craft = Craft(radius, uniform(rng, 0.14, 0.2), uniform(rng, 0.5, 0.62), 0.4, tall)
    top = radius * tall
    made.add(body, fuselage(craft))
    high = noun == "seaplane" or (noun != "biplane" and chance(rng, 0.45))
    span, z, front = uniform(rng, 0.46, 0.58), 0.95 * top if high else -0.6 * top, -0.24
    facts = []
    if noun == "biplane":
        facts.append(_double_wings(made, wings, metal, span, front, top))
        made.add(dark, ellipsoid(0.6 * radius, 0.06, 0.02, 16, 6).moved(0, 0.0, 0.97 * top))
        made.add(glass, box(0.07, 0.01, 0.045, 0.004).moved(0, -0.055, 0.9 * top))
    else:
        chord = uniform(rng, 0.15, 0.19)
        tip = chord * uniform(rng, 0.6, 1.0)
        rise = -0.005 if high else 0.05
        made.add(wings, wing((0, front, z), span, chord, tip, 0.5 * (chord - tip), rise).both_sides())
        facts.append("high wings" if high else "low wings")
        if high:
            strut = bar(
                (0.8 * radius, front + 0.07, -0.5 * top), (0.5 * span, front + 0.08, z), 0.014, round_=True, n=8
            )
            made.add(metal, strut.both_sides())
        canopy = ellipsoid(0.75 * radius, 0.14, 0.62 * top, 16, 8)
        made.add(glass, canopy.moved(0, -0.19 if high else -0.17, 0.55 * top))
    add_tail(made, wings, fin, craft, uniform(rng, 0.13, 0.17), uniform(rng, 0.16, 0.2), False, 0.05)
    blades = int(pick(rng, (2, 3, 4)))
    if engines == 2:
        for x in (-0.36 * span, 0.36 * span):
            made.add(wings, ellipsoid(0.034, 0.13, 0.034, 16, 8).moved(x, front + 0.06, z + 0.015))
            add_airscrew(made, metal, blades, x, front - 0.065, z + 0.015, 0.095)
    else:
        add_airscrew(made, metal, blades, 0.0, -0.5, -0.1 * radius, uniform(rng, 0.12, 0.15))
    screws = "two propellers" if engines == 2 else "a propeller"
    facts += [f"{screws} of {('two', 'three', 'four')[blades - 2]} blades", _stripe(body)]
    if noun == "seaplane":
        facts.insert(0, add_floats(made, wings, metal, craft))
    else:
        add_gear(made, metal, dark, craft)
    made.say(noun, body, facts, look=body.colour)


def _double_wings(made: Assembly, wings: Material, metal: Material, span: float, front: float, top: float) -> str:
    """Two wings above one another and the struts between them."""
    rng = made.rng
    chord, low = uniform(rng, 0.15, 0.19), -0.6 * top
    high = low + uniform(rng, 0.18, 0.22)
    made.add(wings, wing((0, front + 0.03, low), 0.92 * span, chord, 0.9 * chord, 0.0, 0.01).both_sides())
    made.add(wings, wing((0, front, high), span, chord, 0.9 * chord, 0.0, 0.01).both_sides())
    for y in (front + 0.02, front + 0.1):
        outer = bar((0.62 * span, y + 0.03, low), (0.62 * span, y, high + 0.008), 0.011, round_=True, n=8)
        inner = bar((0.08, y + 0.03, 0.3 * top), (0.13, y, high + 0.008), 0.011, round_=True, n=8)
        made.add(metal, outer.both_sides(), inner.both_sides())
    return "two pairs of wings joined by struts"
