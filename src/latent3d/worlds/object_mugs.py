"""Mugs: walls of true thickness, handles of many kinds, decoration, drinks and saucers.

Lengths are metres; the handle points towards +x.
"""

from __future__ import annotations

import math

import numpy as np

from latent3d.worlds.object_assembly import Assembly
from latent3d.worlds.object_captions import with_article
from latent3d.worlds.object_materials import Material
from latent3d.worlds.object_outlines import bezier, circle, rectangle
from latent3d.worlds.object_parts import Part, bar, cylinder, ellipsoid, lathe, torus, tube
from latent3d.worlds.palette import chance, pick, uniform

FORMS = {  # radius over height, as fractions of the largest radius
    "straight": [(1.0, 0.0), (1.0, 0.35), (1.0, 0.7), (1.0, 1.0)],
    "tapered": [(0.72, 0.0), (0.8, 0.3), (0.92, 0.7), (1.0, 1.0)],
    "barrel-shaped": [(0.8, 0.0), (1.08, 0.3), (1.08, 0.7), (0.8, 1.0)],
    "flared": [(0.7, 0.0), (0.68, 0.4), (0.75, 0.75), (1.0, 1.0)],
    "bowl-shaped": [(0.4, 0.0), (0.95, 0.05), (1.0, 0.5), (1.0, 1.0)],
    "tulip-shaped": [(0.62, 0.0), (1.15, 0.15), (0.6, 0.75), (0.95, 1.0)],
}


def mug(made: Assembly) -> None:
    """Any mug."""
    rng, palette = made.rng, made.palette
    form = pick(rng, tuple(FORMS))
    height = uniform(rng, 0.075, 0.13)
    radius = uniform(rng, 0.036, 0.05) * (1.15 if form == "bowl-shaped" else 1.0)
    wall = uniform(rng, 0.0028, 0.0055)
    skin = pick(
        rng, (palette.ceramic, palette.ceramic, palette.ceramic, palette.ceramic, palette.metal, palette.plastic)
    )()
    outer = bezier([(r * radius, z * height) for r, z in FORMS[form]], 14)
    made.add(skin, _vessel(outer, wall))
    facts = [_handle(made, skin, outer, height)]
    lined = chance(rng, 0.3)
    if lined:
        lining = palette.ceramic_plain(pick(rng, [c for c in ("white", palette.accent, "yellow") if c != skin.colour]))
        made.add(lining, _lining(outer, wall))
        facts.append(f"{with_article(lining.colour)} inside")
    facts += _decoration(made, skin, outer, height)
    facts.append(_content(made, outer, wall))
    if chance(rng, 0.18):
        saucer = skin if chance(rng, 0.5) else palette.ceramic_plain(palette.accent)
        r = 1.75 * radius
        profile = [
            (0.0, -0.006),
            (0.5 * r, -0.006),
            (0.62 * r, -0.004),
            (r, 0.010),
            (r, 0.013),
            (0.6 * r, 0.0005),
            (0.0, 0.0005),
        ]
        made.add(saucer, lathe(profile, 36))
        facts.insert(1, "a saucer" if saucer is skin else f"{with_article(saucer.colour)} saucer")
    slim = height / (2 * radius)
    size = "tall " if slim > 1.35 else "low " if slim < 0.9 else ""
    noun, alias = ("mug", "cup") if form == "straight" else (f"{form} mug", f"{form} cup")
    made.say(noun, skin, facts, look=f"{size}{skin.look}", aliases=(alias,))


def _inner(outer: np.ndarray, wall: float) -> np.ndarray:
    """The profile inside the wall from the rim down to above the bottom."""
    line = outer - np.array([wall, 0.0])
    return line[line[:, 1] > 1.6 * wall][::-1]


def _vessel(outer: np.ndarray, wall: float) -> Part:
    inside = _inner(outer, wall)
    rim = outer[-1] + np.array([-0.5 * wall, 0.45 * wall])
    floor = float(inside[-1, 1])
    foot = outer[0] - np.array([0.06 * outer[0, 0], 0.0])
    shell = [
        (0, 0.0006),
        (0.85 * foot[0], 0.0006),
        (0.9 * foot[0], 0.0),
        tuple(foot),
        (outer[0, 0], 0.001),
        *outer[1:],
        rim,
        *inside,
        (0, floor),
    ]
    return lathe(shell, 40, crest=4 + len(outer))


def _lining(outer: np.ndarray, wall: float) -> Part:
    """A thin coat over the inner wall and the bottom."""
    inside = _inner(outer, wall)
    coat = inside - np.array([0.0006, 0.0])
    top = np.array([[inside[0, 0] + 0.1 * wall, inside[0, 1]]])
    line = np.concatenate([top, coat[:, :]])
    line[-1, 1] += 0.0004
    back = inside[::-1] + np.array([0.25 * wall, 0.0])
    back[0, 1] -= 0.0006
    profile = np.concatenate([[(0.0, line[-1, 1])], line[::-1], back[::-1][1:], [(0.0, back[0, 1])]])
    return lathe(profile, 36)


def _handle(made: Assembly, skin: Material, outer: np.ndarray, height: float) -> str:
    """Adds a handle in the mug's own skin or another; says what."""
    rng = made.rng
    kind = pick(rng, ("round", "round", "ear-shaped", "square", "D-shaped", "pointed"))
    material = skin
    other = chance(rng, 0.22)
    if other:
        choices = [made.palette.wood, made.palette.metal] if skin.stuff != "wood" else [made.palette.metal]
        material = pick(rng, choices)()
    low, high = uniform(rng, 0.14, 0.26) * height, uniform(rng, 0.72, 0.86) * height
    reach = uniform(rng, 0.28, 0.42) * height
    x0, x1 = (float(np.interp(z, outer[:, 1], outer[:, 0])) - 0.0015 for z in (low, high))
    far = max(x0, x1) + reach
    middle = (low + high) / 2
    if kind == "round":
        path = bezier(
            [
                (x1, 0, high),
                (far + 0.3 * reach, 0, high + 0.08 * height),
                (far + 0.3 * reach, 0, low - 0.08 * height),
                (x0, 0, low),
            ],
            16,
        )
    elif kind == "ear-shaped":
        path = bezier(
            [
                (x1, 0, high),
                (far + 0.5 * reach, 0, high + 0.2 * height),
                (far, 0, middle - 0.05 * height),
                (x0, 0, low),
            ],
            16,
        )
    elif kind == "pointed":
        path = bezier(
            [(x1, 0, high), (far + 0.2 * reach, 0, high + 0.02 * height), (far - 0.3 * reach, 0, middle), (x0, 0, low)],
            14,
        )
    else:
        r = 0.012 if kind == "square" else 0.45 * (high - low)
        r = min(r, reach * 0.9)
        upper = bezier([(far - r, 0, high), (far, 0, high), (far, 0, high - r)], 7)
        lower = bezier([(far, 0, low + r), (far, 0, low), (far - r, 0, low)], 7)
        path = np.concatenate([[(x1, 0, high)], upper, lower, [(x0, 0, low)]])
    thick = uniform(rng, 0.0045, 0.0075)
    flat = chance(rng, 0.4)
    section = rectangle(2.6, 1.3, 0.4, 3) if flat else circle(12) * np.array([uniform(rng, 1.0, 1.5), 1.0])
    made.add(material, tube(path, thick, section=section))
    colour = "" if not other else f"{material.colour} {material.stuff_word} "
    return with_article(f"{colour}{kind} handle") if kind != "D-shaped" or other else f"a {kind} handle"


def _decoration(made: Assembly, skin: Material, outer: np.ndarray, height: float) -> list[str]:
    """Rings around the wall, a coloured rim, or a row of studs."""
    rng, palette = made.rng, made.palette
    kind = pick(rng, ("none", "none", "rim", "rings", "studs", "base"))
    if kind == "none":
        return []
    colour = pick(
        rng, [c for c in (palette.accent, "golden", "white", "black", "red", "blue") if c not in skin.colours]
    )
    trim = palette.metal("golden") if colour == "golden" else palette.paint(colour)

    def at(t: float) -> float:
        return float(np.interp(t * height, outer[:, 1], outer[:, 0]))

    if kind == "rim":
        made.add(trim, torus(at(1.0) - 0.0018, 0.0032, 40, 10).moved(z=height))
        return [f"{with_article(colour)} rim"]
    if kind == "base":
        made.add(trim, cylinder(at(0.0) + 0.001, 0.1 * height, 36, top=at(0.08) + 0.0012).moved(z=-0.0005))
        return [f"{with_article(colour)} foot"]
    if kind == "rings":
        count = int(rng.integers(1, 4))
        for t in np.linspace(0.35, 0.65, count) if count > 1 else (0.5,):
            made.add(trim, torus(at(float(t)), 0.0024, 40, 8).scaled(1, 1, 1.6).moved(z=float(t) * height))
        return [
            f"{with_article(colour)} ring around it"
            if count == 1
            else f"{('two', 'three')[count - 2]} {colour} rings around it"
        ]
    for k in range(11):
        angle = math.radians(30 + 30 * k)
        r = at(0.5)
        stud = ellipsoid(0.0055, 0.0055, 0.0055, 10, 6).moved(r * math.cos(angle), r * math.sin(angle), 0.5 * height)
        made.add(trim, stud)
    return [f"a row of {colour} studs"]


def _content(made: Assembly, outer: np.ndarray, wall: float) -> str:
    """Coffee, tea, milk, a spoon or nothing."""
    kind = pick(made.rng, ("", "", "coffee", "coffee", "tea", "milk", "spoon"))
    if not kind:
        return ""
    inside = _inner(outer, wall)
    if kind == "spoon":
        metal = made.palette.metal("silver")
        rim = inside[0]
        foot, top = (-0.3 * inside[-1, 0], 0.0, inside[-1, 1] + 0.004), (-0.98 * rim[0], 0.0, rim[1] + 0.001)
        end = np.array(top) + 0.35 * (np.array(top) - np.array(foot))
        made.add(metal, bar(foot, tuple(end), 0.006, 0.004, round_=True))
        made.add(metal, ellipsoid(0.009, 0.0035, 0.013, 14, 8).turned(1, -20).moved(*end))
        return "a spoon in it"
    level = float(outer[-1, 1]) * uniform(made.rng, 0.74, 0.88)
    deep = 0.12 * float(outer[-1, 1])
    heights, radii = inside[::-1, 1], inside[::-1, 0]
    low, high = (float(np.interp(z, heights, radii)) + 0.3 * wall for z in (level - deep, level))
    colour = {"coffee": "dark brown", "tea": "orange", "milk": "white"}[kind]
    drink = made.palette.of("paint", "plain", colour)
    made.add(drink, lathe([(0, level - deep), (low, level - deep), (high, level), (0, level)], 32))
    return f"{kind} in it"
