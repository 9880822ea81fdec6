"""Armchairs, office chairs and chairs whose seat is one bent shell. Lengths are metres; the sitter looks towards -y."""

from __future__ import annotations

import numpy as np

from latent3d.worlds.object_assembly import Assembly
from latent3d.worlds.object_outlines import bezier, rectangle
from latent3d.worlds.object_parts import Part, bar, box, cylinder, loft, slab, tube, upright
from latent3d.worlds.palette import chance, pick, uniform


def armchair(made: Assembly) -> None:
    """Upholstered all over, on short feet."""
    rng, palette = made.rng, made.palette
    cover = palette.fabric() if chance(rng, 0.65) else palette.leather()
    cushion = palette.fabric(palette.accent) if chance(rng, 0.35) else cover
    feet = palette.wood() if chance(rng, 0.7) else palette.metal()
    x, y = uniform(rng, 0.26, 0.34), uniform(rng, 0.27, 0.34)
    foot, base, arm = uniform(rng, 0.06, 0.16), uniform(rng, 0.16, 0.22), uniform(rng, 0.1, 0.16)
    top, soft = uniform(rng, 0.75, 1.0), uniform(rng, 0.03, 0.06)
    high = foot + base
    for sx in (-1, 1):
        for sy in (-1, 1):
            place = (sx * (x + 0.02), sy * (y - 0.04))
            made.add(feet, bar((*place, foot + 0.01), (*place, 0.0), 0.05, taper=0.6, round_=True))
    made.add(cover, box(2 * x, 2 * y, base, 0.02).moved(z=foot))
    made.add(cushion, box(2 * x - 0.01, 2 * y - 0.06, 0.14, 0.05).moved(0, -0.04, high - 0.01))
    wing = chance(rng, 0.3)
    rolled = chance(rng, 0.4)
    level = high + uniform(rng, 0.2, 0.28)
    for side in (-1, 1):
        centre = side * (x + arm / 2)
        made.add(cover, box(arm, 2 * y, level - foot - (arm / 2 if rolled else 0), soft).moved(centre, 0, foot))
        if rolled:
            roll = cylinder(0.62 * arm, 2 * y + 0.02, 20, bevel=0.02).turned(0, 90)
            made.add(cover, roll.moved(centre, y + 0.01, level - 0.3 * arm))
        if wing:
            made.add(cover, box(0.07, 0.24, top - level - 0.03, 0.03).moved(side * (x + 0.03), y - 0.08, level))
    back = box(2 * x + (0.1 if wing else 0.0), 0.16, top - foot, soft).moved(0, y, foot)
    made.add(cover, back.leaning(high, y=uniform(rng, 0.05, 0.2)))
    pillow = ""
    if chance(rng, 0.35):
        throw = palette.fabric(pick(rng, (palette.accent, "white", "yellow", "red")))
        part = box(0.34, 0.09, 0.34, 0.045).turned(0, -22)
        made.add(throw, part.moved(uniform(rng, -0.08, 0.08), y - 0.2, high + 0.11))
        pillow = f"a pillow in {throw.colours[0]}"
    seat_fact = f"a cushion in {cushion.colour}" if cushion is not cover else "a thick cushion"
    arms = "rolled arms" if rolled else "wide arms"
    made.say(
        "armchair", cover, [arms, "a winged back" if wing else "", pillow, seat_fact, f"short {feet.stuff_word} feet"]
    )


def office_chair(made: Assembly) -> None:
    """A padded seat that swivels on casters."""
    rng, palette = made.rng, made.palette
    cover = pick(rng, (palette.fabric, palette.leather, palette.plastic))()
    frame = palette.plastic("black") if chance(rng, 0.6) else palette.metal("silver")
    x, y, high = uniform(rng, 0.22, 0.27), uniform(rng, 0.21, 0.25), uniform(rng, 0.42, 0.52)
    spokes = int(pick(rng, (4, 5, 5, 5)))
    for k in range(spokes):
        spoke = bar((0, 0.0, 0.12), (0, -0.28, 0.075), 0.05, 0.035, taper=0.6)
        caster = cylinder(0.032, 0.04, 14, bevel=0.006).turned(1, 90).moved(-0.02, -0.28, 0.032)
        made.add(frame, spoke.turned(2, 360.0 * k / spokes), caster.turned(2, 360.0 * k / spokes))
    made.add(frame, cylinder(0.045, 0.09, 16).moved(z=0.08), cylinder(0.025, high - 0.1, 14).moved(z=0.1))
    made.add(frame, box(0.2, 0.22, 0.04, 0.01).moved(z=high - 0.04))
    outline = rectangle(2 * x, 2 * y, 0.1, 5)
    made.add(cover, slab(outline, high, high + 0.075, 0.03))
    tall = uniform(rng, 0.38, 0.62)
    low = high + uniform(rng, 0.08, 0.16)
    back = upright(rectangle(2 * x - 0.02, tall, uniform(rng, 0.05, 0.16), 6), -0.03, 0.03, 0.022)
    curved = back.mapped(lambda p: p - np.stack([0 * p[:, 0], 0.9 * p[:, 0] ** 2, 0 * p[:, 0]], 1))
    lean = uniform(rng, 0.08, 0.2)
    made.add(cover, curved.moved(0, y + 0.03, low + tall / 2).leaning(high, y=lean))
    path = bezier([(0, 0.1, high - 0.02), (0, y + 0.12, high - 0.03), (0, y + 0.08 + 0.1 * lean, low + 0.25 * tall)], 8)
    made.add(frame, tube(path, 1.0, section=rectangle(0.06, 0.02)))
    arms = chance(rng, 0.6)
    for side in (-1, 1) if arms else ():
        points = [(0, 0.02, high - 0.02), (side * (x + 0.07), 0.02, high - 0.03), (side * (x + 0.06), 0.02, high + 0.2)]
        made.add(frame, tube(bezier(points, 8), 0.016))
        made.add(frame, box(0.06, 0.26, 0.03, 0.012).moved(side * (x + 0.06), 0.0, high + 0.195))
    star = f"a {'five' if spokes == 5 else 'four'}-armed swivel base on casters"
    made.say("office chair", cover, [star, "armrests" if arms else "", "a tall back" if tall > 0.5 else "a low back"])


def shell_chair(made: Assembly) -> None:
    """A bent seat of one piece on thin legs."""
    rng, palette = made.rng, made.palette
    shell = palette.plastic() if chance(rng, 0.7) else palette.wood()
    wood = chance(rng, 0.5)
    under = palette.wood("light brown") if wood else palette.metal(pick(rng, ("silver", "black")))
    x, high, tall = uniform(rng, 0.21, 0.26), uniform(rng, 0.42, 0.47), uniform(rng, 0.32, 0.45)
    made.add(shell, _bent_seat(made, x, high, tall))
    thick = 0.034 if wood else 0.018
    for sx in (-1, 1):
        for y, reach in ((-0.13, -0.23), (0.13, 0.24)):
            foot = (sx * (x - 0.01), reach, 0.0)
            made.add(under, bar((sx * 0.11, y, high - 0.035), foot, thick, taper=0.65, round_=True))
        if not wood:
            made.add(under, bar((sx * 0.11, -0.14, high - 0.04), (sx * 0.11, 0.14, high - 0.04), thick, round_=True))
    made.add(under, (bar((-0.12, y, high - 0.04), (0.12, y, high - 0.04), 0.018, round_=True) for y in (-0.13, 0.13)))
    arms = ""
    if chance(rng, 0.25):
        for s in (-1, 1):
            points = [(s * x, -0.12, high), (s * (x + 0.06), -0.1, high + 0.26), (s * (x + 0.02), 0.24, high + 0.2)]
            made.add(under, tube(bezier(points, 12), 0.012))
        arms = "slim armrests"
    made.say("shell chair", shell, [f"four thin {under.look} legs", arms, "a curved one-piece seat"])


def _bent_seat(made: Assembly, x: float, high: float, tall: float) -> Part:
    """A sheet that follows a curve from the front of the seat to the top of the back and is dished across."""
    rng = made.rng
    lean, dish, wrap = uniform(rng, 0.08, 0.18), uniform(rng, 0.02, 0.05), uniform(rng, 0.05, 0.14)
    line = bezier(
        [(-0.25, high - 0.03), (-0.2, high + 0.01), (0.0, high - 0.02), (0.25, high - 0.05), (0.22, high + 0.2),
         (0.22 + lean, high + tall)], 18,
    )  # fmt: skip
    across, run = np.linspace(-1, 1, 9), np.linspace(0, 1, len(line))
    top, front = np.clip((run - 0.65) / 0.35, 0, 1), np.clip((0.12 - run) / 0.12, 0, 1)
    half = x * (0.92 - 0.45 * top**3 - 0.25 * front**2)
    tangent = np.gradient(line, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], 1) / np.linalg.norm(tangent, axis=1, keepdims=True)
    lift = ((dish + (wrap - dish) * np.clip((run - 0.35) / 0.3, 0, 1)) * (1 - 0.75 * top))[:, None] * across**2
    sheets = []
    for offset in (lift + 0.011, lift - 0.011):
        y, z = (line[:, k, None] + offset * normal[:, k, None] for k in (0, 1))
        sheets.append(np.stack([half[:, None] * across, y, z], -1))
    n = len(across)
    columns = np.repeat([0, 1, 2, 3], [n - 1, 1, n - 1, 1])  # above, one edge, below, the other edge
    return loft(np.concatenate([sheets[0], sheets[1][:, ::-1]], 1), columns=columns)
