"""Furniture, built at the origin of the current frame: x across, y from the back (0) forwards, z up.

Every function returns its footprint half sizes (x, y) in metres where the caller needs them to plan the floor.
"""

from __future__ import annotations

import numpy as np

from latent3d.worlds import patterns as tx
from latent3d.worlds.palette import (
    Rng,
    chance,
    colour,
    fabric,
    glossy,
    make,
    object_skin,
    pick,
    plain,
    poster,
    seed_of,
    uniform,
    wood,
)
from latent3d.worlds.small_things import clutter, legs, pot_plant, small_thing
from latent3d.worlds.tables import NO_SHADOW, ROUND_BOX, SceneBuilder, tilt_matrix, yaw_matrix


def table(b: SceneBuilder, rng: Rng, items: int) -> tuple[float, float]:
    """Rectangular or round table with things on it."""
    hx, hy, height = uniform(rng, 0.35, 0.95), uniform(rng, 0.3, 0.5), pick(rng, (0.42, 0.72, 0.75, 0.78, 0.9))
    top, leg = (wood(b, rng), wood(b, rng)) if chance(rng, 0.6) else (object_skin(b, rng, 1.0), plain(b, rng, "metal"))
    thick = uniform(rng, 0.012, 0.03)
    if chance(rng, 0.3):
        hx = hy = uniform(rng, 0.3, 0.6)
        b.cylinder((0, hy, height - thick), hx, thick, top)
        b.cylinder((0, hy, height / 2 - thick), 0.04, height / 2 - thick, leg, top=0.8)
        b.cylinder((0, hy, 0.015), hx * 0.55, 0.015, leg, top=0.8)
    else:
        b.box((0, hy, height - thick), (hx, hy, thick), top)
        with b.frame(0, hy):
            legs(b, rng, hx, hy, height - 2 * thick, leg)
    with b.frame(0, hy, height):
        clutter(b, rng, hx * 0.85, hy * 0.85, items)
    return hx, hy


def chair(b: SceneBuilder, rng: Rng) -> tuple[float, float]:
    """Seat, back (slats or plate) and legs."""
    skin, frame = fabric(b, rng) if chance(rng, 0.4) else wood(b, rng), wood(b, rng)
    hx, hy, height = uniform(rng, 0.19, 0.24), uniform(rng, 0.19, 0.24), uniform(rng, 0.42, 0.48)
    b.add(ROUND_BOX, (0, hy, height), (hx, hy, 0.03), skin, parameters=(0.02, 0, 0))
    with b.frame(0, hy):
        legs(b, rng, hx, hy, height - 0.03, frame)
    back = uniform(rng, 0.18, 0.3)
    if chance(rng, 0.5):
        b.box((0, 0.015, height + back), (hx, 0.012, back), skin)
    else:
        for x in np.linspace(-hx + 0.02, hx - 0.02, int(uniform(rng, 3, 6))):
            b.box((x, 0.015, height + back), (0.012, 0.012, back), frame)
        b.box((0, 0.015, height + 2 * back), (hx, 0.015, 0.03), frame)
    return hx, hy


def sofa(b: SceneBuilder, rng: Rng) -> tuple[float, float]:
    """Cushions, arms, back and pillows with round edges."""
    cloth = fabric(b, rng)
    hx, depth, seat = uniform(rng, 0.45, 1.05), uniform(rng, 0.38, 0.46), uniform(rng, 0.36, 0.44)
    b.add(ROUND_BOX, (0, depth, seat * 0.45), (hx, depth, seat * 0.4), cloth, parameters=(0.03, 0, 0))
    count = max(1, round(hx / 0.4))
    for i in range(count):
        x = -hx + (i + 0.5) * 2 * hx / count
        b.add(
            ROUND_BOX, (x, depth + 0.05, seat), (hx / count - 0.01, depth - 0.08, 0.07), cloth, parameters=(0.05, 0, 0)
        )
        tilt = tilt_matrix(0, -0.15)
        b.add(
            ROUND_BOX,
            (x, 0.15, seat + 0.25),
            (hx / count - 0.01, 0.09, 0.24),
            cloth,
            rotation=tilt,
            parameters=(0.06, 0, 0),
        )
    for side in (-1, 1):
        b.add(ROUND_BOX, (side * (hx + 0.08), depth, 0.3), (0.09, depth, 0.3), cloth, parameters=(0.05, 0, 0))
    for _ in range(int(rng.random() * 4)):
        tilt = yaw_matrix(rng.normal() * 0.4) @ tilt_matrix(0, uniform(rng, -0.7, -0.2))
        place = (uniform(rng, -1, 1) * (hx - 0.2), depth * uniform(rng, 0.7, 1.0), seat + 0.22)
        b.add(ROUND_BOX, place, (0.2, 0.06, 0.2), fabric(b, rng), rotation=tilt, parameters=(0.05, 0, 0))
    return hx + 0.17, depth


def bed(b: SceneBuilder, rng: Rng) -> tuple[float, float]:
    """Frame, mattress, cover, pillows, headboard."""
    hx, hy = pick(rng, (0.45, 0.7, 0.8)), uniform(rng, 0.95, 1.05)
    timber = wood(b, rng)
    b.box((0, hy, 0.18), (hx, hy, 0.1), timber)
    b.add(
        ROUND_BOX, (0, hy + 0.02, 0.38), (hx - 0.02, hy - 0.03, 0.12), plain(b, rng, "white"), parameters=(0.06, 0, 0)
    )
    b.add(ROUND_BOX, (0, hy + 0.25, 0.42), (hx + 0.01, hy - 0.27, 0.12), fabric(b, rng), parameters=(0.07, 0, 0))
    b.box((0, 0.02, 0.5), (hx, 0.025, uniform(rng, 0.3, 0.5)), timber)
    for x in (-0.5, 0.5) if hx > 0.6 else (0.0,):
        tilt = tilt_matrix(0, uniform(rng, 0.1, 0.5))
        b.add(
            ROUND_BOX, (x * hx, 0.26, 0.56), (0.3, 0.17, 0.07), fabric(b, rng), rotation=tilt, parameters=(0.06, 0, 0)
        )
    return hx, hy


def shelf(b: SceneBuilder, rng: Rng, items: int) -> tuple[float, float]:
    """Boards, sides, and rows of books or things between them."""
    hx, hy, height = uniform(rng, 0.3, 0.8), uniform(rng, 0.12, 0.18), uniform(rng, 0.8, 2.1)
    board = wood(b, rng) if chance(rng, 0.7) else plain(b, rng, pick(rng, ("white", "dark", "metal")))
    levels = max(2, round(height / uniform(rng, 0.28, 0.42)))
    step = height / levels
    for side in (-1, 1):
        b.box((side * hx, hy, height / 2), (0.011, hy, height / 2), board)
    if chance(rng, 0.7):
        b.box((0, 0.005, height / 2), (hx - 0.012, 0.005, height / 2 - 0.01), board)
    for level in range(levels + 1):
        z = min(max(level * step, 0.05), height - 0.011)
        b.box((0, hy, z), (hx - 0.0112, hy - 0.002, 0.011), board)
        if level == levels or items <= 0:
            continue
        if chance(rng, 0.55):
            wide = hx * uniform(rng, 0.3, 0.95)
            x = uniform(rng, -1, 1) * (hx - wide) * 0.9
            tall = step * uniform(rng, 0.3, 0.42)
            white = np.ones(3)
            row = b.material(
                tx.BOOKS, (white,), period=uniform(rng, 0.025, 0.06), seed=seed_of(rng), parameters=(0.5, 2 * tall)
            )
            # v starts at the row's foot
            b.box((x, hy + 0.01, z + 0.012 + tall), (wide, hy * 0.75, tall), row, uv=(0.0, tall))
        else:
            with b.frame(0, hy + 0.02, z + 0.0115):
                clutter(b, rng, hx * 0.8, hy * 0.5, max(1, items // levels), size=min(0.24, 0.8 * step))
    return hx, hy


def cabinet(b: SceneBuilder, rng: Rng, items: int) -> tuple[float, float]:
    """Closed body with door panels or drawers and knobs; things on top."""
    hx, hy, height = uniform(rng, 0.25, 0.8), uniform(rng, 0.2, 0.32), pick(rng, (0.5, 0.75, 0.85, 0.9, 1.2, 1.9))
    body = (
        wood(b, rng)
        if chance(rng, 0.5)
        else plain(b, rng, pick(rng, ("white", "neutral", "muted", "dark")), **glossy(rng, 0.3))
    )
    front = body if chance(rng, 0.6) else wood(b, rng)
    knob = plain(b, rng, pick(rng, ("metal", "dark")), **glossy(rng, 1.0))
    b.box((0, hy, height / 2 + 0.03), (hx, hy, height / 2 - 0.03), body)
    b.box((0, hy, 0.03), (hx - 0.03, hy - 0.03, 0.03), knob)
    columns, rows = max(1, round(hx / uniform(rng, 0.2, 0.35))), pick(rng, (1, 1, 2, 3, 4))
    dx, dz = 2 * hx / columns, (height - 0.08) / rows
    for i in range(columns):
        for j in range(rows):
            x, z = -hx + (i + 0.5) * dx, 0.07 + (j + 0.5) * dz
            b.box((x, 2 * hy + 0.008, z), (dx / 2 - 0.008, 0.009, dz / 2 - 0.008), front, uv=(x, z))
            b.ball((x + (0.35 * dx if rows == 1 else 0), 2 * hy + 0.03, z + 0.2 * dz), 0.014, knob)
    if height < 1.3:
        with b.frame(0, hy, height):
            clutter(b, rng, hx * 0.85, hy * 0.8, items)
    return hx, hy + 0.01


def desk(b: SceneBuilder, rng: Rng, items: int) -> tuple[float, float]:
    """Table with a screen, a keyboard and things."""
    hx, hy = uniform(rng, 0.5, 0.8), uniform(rng, 0.3, 0.4)
    top = wood(b, rng)
    b.box((0, hy, 0.73), (hx, hy, 0.015), top)
    with b.frame(0, hy):
        legs(b, rng, hx, hy, 0.71, plain(b, rng, pick(rng, ("metal", "dark", "white"))))
    black = plain(b, rng, "dark", **glossy(rng))
    x, wide = uniform(rng, -0.2, 0.2), uniform(rng, 0.22, 0.34)
    b.box((x, 0.16, 0.76), (0.1, 0.07, 0.008), black)
    b.box((x, 0.13, 0.85), (0.02, 0.012, 0.1), black)
    b.box((x, 0.16, 1.0), (wide, 0.012, wide * 0.58), black)
    screen = poster(b, rng, wide)
    b.box((x, 0.1735, 1.0), (wide * 0.96, 0.002, wide * 0.54), screen)
    b.box((x, 2 * hy - 0.15, 0.755), (0.2, 0.06, 0.008), make(b, rng, tx.TILES, colour(rng, "dark"), 0.02))
    with b.frame(0, hy, 0.746):
        clutter(b, rng, hx * 0.9, hy * 0.9, items, size=0.16)
    return hx, hy


def floor_lamp(b: SceneBuilder, rng: Rng, lit: bool) -> tuple[float, float]:
    """Thin pole with a shade at 1.3 to 1.7 m."""
    metal = plain(b, rng, pick(rng, ("metal", "dark", "white")), **glossy(rng, 1.0))
    height = uniform(rng, 1.3, 1.7)
    b.cylinder((0, 0.15, 0.012), 0.13, 0.012, metal)
    b.cylinder((0, 0.15, height / 2), 0.011, height / 2, metal)
    warm = np.array([1.0, 0.8, 0.55])
    shade = b.material(tx.PLAIN, (warm,), emission=uniform(rng, 0.7, 1.8)) if lit else fabric(b, rng)
    b.cylinder((0, 0.15, height), uniform(rng, 0.14, 0.22), 0.13, shade, top=uniform(rng, 0.5, 1.0), flags=NO_SHADOW)
    if lit:
        b.lamp((0, 0.15, height + 0.2), 0.12, warm * uniform(rng, 0.5, 1.5))
    return 0.2, 0.15


def box_pile(b: SceneBuilder, rng: Rng) -> tuple[float, float]:
    """Stacked cartons, chests, cubes."""
    z, r = 0.0, uniform(rng, 0.18, 0.35)
    for i in range(int(uniform(rng, 1, 4))):
        half = (r * uniform(rng, 0.7, 1.0), r * uniform(rng, 0.7, 1.0), uniform(rng, 0.1, 0.25))
        turn = yaw_matrix(rng.normal() * 0.3 * (i > 0))
        b.box((0, r, z + half[2]), half, object_skin(b, rng, 0.5), rotation=turn)
        z += 2 * half[2] + 0.001
        r *= 0.9
    return 0.35, 0.35


def standing_thing(b: SceneBuilder, rng: Rng) -> tuple[float, float]:
    """A big plant, a sculpture of stacked forms, a barrel, a stool, a ball."""
    kind, size = rng.random(), uniform(rng, 0.35, 0.75)
    with b.frame(0, 0.35):
        if kind < 0.4:
            pot_plant(b, rng, uniform(rng, 0.8, 1.6))
        elif kind < 0.6:
            z = 0.0
            for _ in range(3):
                with b.frame(0, 0, z):
                    small_thing(b, rng, size)
                z += 0.45 * size
        elif kind < 0.75:
            b.cylinder((0, 0, size / 2), 0.2, 0.02, wood(b, rng))
            legs(b, rng, 0.16, 0.16, size / 2, wood(b, rng))
        else:
            small_thing(b, rng, 1.4 * size)
    return 0.35, 0.35


def stairs(b: SceneBuilder, rng: Rng) -> tuple[float, float]:
    """A short flight of steps."""
    tread, rise, hx = uniform(rng, 0.22, 0.3), uniform(rng, 0.14, 0.2), uniform(rng, 0.35, 0.6)
    count = int(uniform(rng, 3, 7))
    skin = pick(rng, (wood, object_skin))
    material = skin(b, rng) if skin is wood else object_skin(b, rng, 0.8)
    for i in range(count):
        height = rise * (count - i)
        b.box((0, (i + 0.5) * tread, height / 2), (hx, tread / 2, height / 2), material, uv=(0.0, height / 2))
    return hx, count * tread / 2
