"""Furniture and small things, each built at the origin of the current frame: x across, y from the back (0) forwards, z up.

Every function returns its footprint half sizes (x, y) in metres where the caller needs them to plan the floor.
"""

from __future__ import annotations

import math

import numpy as np

from latent3d.worlds import textures as tx
from latent3d.worlds.palette import (
    Rng,
    any_colour,
    chance,
    colour,
    fabric,
    glossy,
    log_uniform,
    make,
    object_skin,
    pick,
    plain,
    poster,
    seed_of,
    uniform,
    wood,
)
from latent3d.worlds.tables import BLOB, BOWL, NO_SHADOW, ROUND_BOX, TUBE, VASE, SceneBuilder, tilt_matrix, yaw_matrix


def legs(b: SceneBuilder, rng: Rng, hx: float, hy: float, height: float, material: int, y0: float = 0.0) -> None:
    """Four legs under a plate of half sizes (hx, hy): square, round or conical, or a pedestal."""
    style = rng.random()
    thick = uniform(rng, 0.012, 0.04)
    for sx in (-1, 1):
        for sy in (-1, 1):
            x, y = sx * (hx - 1.5 * thick), y0 + sy * (hy - 1.5 * thick)
            if style < 0.5:
                b.box((x, y, height / 2), (thick, thick, height / 2), material)
            else:
                b.cylinder((x, y, height / 2), thick * 0.7, height / 2, material, top=1.0 if style < 0.75 else 1.6)


def small_thing(b: SceneBuilder, rng: Rng, size: float) -> None:
    """One thing of about ``size`` metres standing on z = 0 around the origin."""
    kind = rng.random()
    turn = yaw_matrix(rng.random() * 6.28)
    s = size * uniform(rng, 0.5, 1.0)
    skin = object_skin(b, rng, s)
    if kind < 0.26:
        half = (s * uniform(rng, 0.2, 0.5), s * uniform(rng, 0.2, 0.5), s * uniform(rng, 0.1, 0.6))
        b.box((0, 0, half[2]), half, skin, rotation=turn)
    elif kind < 0.36:
        r = s * uniform(rng, 0.25, 0.5)
        b.ball((0, 0, r), r, skin)
    elif kind < 0.42:
        half = tuple(s * uniform(rng, 0.2, 0.5) for _ in range(3))
        b.ball((0, 0, half[2]), half, skin, rotation=turn)
    elif kind < 0.58:
        h = s * uniform(rng, 0.2, 0.7)
        b.cylinder((0, 0, h), s * uniform(rng, 0.12, 0.4), h, skin, top=pick(rng, (1.0, 1.0, 0.7, 1.4, 0.4)))
    elif kind < 0.64:
        h = s * uniform(rng, 0.3, 0.7)
        b.cylinder((0, 0, h), s * uniform(rng, 0.2, 0.4), h, skin, top=0.02)
    elif kind < 0.72:
        r, h = s * uniform(rng, 0.2, 0.4), s * uniform(rng, 0.15, 0.5)
        b.add(TUBE, (0, 0, h), (r, r, h), skin, parameters=(0.12 * r, 0, 0))
    elif kind < 0.79:
        r = s * uniform(rng, 0.3, 0.6)
        b.add(BOWL, (0, 0, 0.5 * r), (r, r, 0.5 * r), skin, parameters=(0.1 * r, 0, 0))
    elif kind < 0.88:
        r, h = s * uniform(rng, 0.15, 0.35), s * uniform(rng, 0.4, 0.8)
        b.add(
            VASE,
            (0, 0, h),
            (r, r, h),
            skin,
            parameters=(uniform(rng, 0.25, 0.6), uniform(rng, 1.5, 4.0), rng.random() * 6),
        )
    elif kind < 0.94:
        half = (s * uniform(rng, 0.2, 0.45), s * uniform(rng, 0.2, 0.45), s * uniform(rng, 0.1, 0.3))
        b.add(ROUND_BOX, (0, 0, half[2]), half, skin, rotation=turn, parameters=(0.7 * min(half), 0, 0))
    else:
        half = tuple(s * uniform(rng, 0.25, 0.45) for _ in range(3))
        lumps = (uniform(rng, 0.05, 0.2), uniform(rng, 2, 6), rng.random() * 6)
        b.add(BLOB, (0, 0, half[2] * 0.9), half, skin, rotation=turn, parameters=lumps)


def book_pile(b: SceneBuilder, rng: Rng) -> None:
    """Lying books, each turned a little."""
    z = 0.0
    for _ in range(int(uniform(rng, 2, 6))):
        h = uniform(rng, 0.008, 0.025)
        half = (uniform(rng, 0.08, 0.14), uniform(rng, 0.06, 0.1), h)
        b.box((0, 0, z + h), half, object_skin(b, rng, 0.15), rotation=yaw_matrix(rng.normal() * 0.25))
        z += 2 * h


def table_lamp(b: SceneBuilder, rng: Rng, lit: bool = False) -> None:
    """Foot, stem and glowing shade, 0.3 to 0.6 m."""
    height = uniform(rng, 0.3, 0.6)
    metal = plain(b, rng, pick(rng, ("metal", "dark", "white", "wood")), **glossy(rng))
    b.cylinder((0, 0, 0.012), uniform(rng, 0.05, 0.09), 0.012, metal)
    b.cylinder((0, 0, height * 0.4), 0.01, height * 0.4, metal)
    warm = np.array([1.0, 0.82, 0.6])
    shade = b.material(tx.PLAIN, (warm,), emission=uniform(rng, 0.6, 1.6)) if lit else fabric(b, rng)
    r = uniform(rng, 0.09, 0.16)
    b.cylinder((0, 0, height * 0.85), r, height * 0.2, shade, top=uniform(rng, 0.5, 1.0), flags=NO_SHADOW)
    if lit:
        b.lamp((0, 0, height * 1.1), 0.06, warm * uniform(rng, 0.15, 0.5))


def pot_plant(b: SceneBuilder, rng: Rng, size: float) -> None:
    """Pot, soil and either a lumpy crown, several leaf blades or a stem with balls."""
    r, h = size * uniform(rng, 0.16, 0.26), size * uniform(rng, 0.14, 0.22)
    b.cylinder((0, 0, h), r * 0.75, h, object_skin(b, rng, 2 * r), top=1.33)
    leaf = make(
        b, rng, tx.LEAVES, colour(rng, "green"), log_uniform(rng, 0.02, 0.08), spread=0.7, contrast=1.0, bump=0.6
    )
    style = rng.random()
    if style < 0.35:
        crown = size * uniform(rng, 0.25, 0.4)
        lumps = (uniform(rng, 0.12, 0.22), uniform(rng, 4, 8), rng.random() * 6)
        b.add(BLOB, (0, 0, 2 * h + 0.8 * crown), (crown, crown, crown * uniform(rng, 0.8, 1.4)), leaf, parameters=lumps)
        return
    for i in range(int(uniform(rng, 6, 14))):
        angle = i * 2.4 + rng.normal() * 0.3
        lean, length = uniform(rng, 0.15, 1.0), size * uniform(rng, 0.25, 0.5)
        tilt = yaw_matrix(angle) @ tilt_matrix(1, lean)
        middle = tilt @ np.array([0, 0, length]) + np.array([0, 0, 2 * h * 0.95])
        width = size * uniform(rng, 0.02, 0.07)
        b.ball(tuple(middle), (width * 0.25, width, length), leaf, rotation=tilt)


def clutter(b: SceneBuilder, rng: Rng, hx: float, hy: float, count: int, size: float = 0.22, y0: float = 0.0) -> None:
    """``count`` small things scattered over a plate of half sizes (hx, hy) around (0, y0), kept apart."""
    placed: list[tuple[float, float]] = []
    for _ in range(count):
        for _ in range(6):
            x, y = uniform(rng, -1, 1) * max(hx - 0.06, 0.01), y0 + uniform(rng, -1, 1) * max(hy - 0.06, 0.01)
            if all(math.hypot(x - px, y - py) > 0.75 * size for px, py in placed):
                placed.append((x, y))
                with b.frame(x, y, 0.001):
                    kind = rng.random()
                    if kind < 0.1:
                        book_pile(b, rng)
                    elif kind < 0.17 and size > 0.15:
                        pot_plant(b, rng, 1.6 * size)
                    elif kind < 0.22 and size > 0.15:
                        table_lamp(b, rng)
                    else:
                        small_thing(b, rng, size)
                break


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


def framed_picture(b: SceneBuilder, rng: Rng) -> None:
    """Picture on a wall: the frame's back is at y = 0, its middle at the origin."""
    hx = uniform(rng, 0.15, 0.75)
    hz = hx * pick(rng, (0.6, 0.7, 0.75, 1.0, 1.33, 1.5)) if hx < 0.45 else hx * pick(rng, (0.5, 0.6, 0.75))
    rim = uniform(rng, 0.0, 0.06)
    if rim > 0.012:
        frame = (
            wood(b, rng) if chance(rng, 0.6) else plain(b, rng, pick(rng, ("dark", "metal", "white")), **glossy(rng))
        )
        b.box((0, 0.012, 0), (hx + rim, 0.012, hz + rim), frame)
        if chance(rng, 0.5):
            b.box((0, 0.0145, 0), (hx, 0.0115, hz), plain(b, rng, "white"))
            hx, hz = 0.78 * hx, 0.78 * hz
    b.box((0, 0.016, 0), (hx, 0.0125, hz), poster(b, rng, hx))


def wall_shelf(b: SceneBuilder, rng: Rng, items: int) -> None:
    """A board on the wall with things on it."""
    hx = uniform(rng, 0.25, 0.6)
    b.box((0, 0.1, 0), (hx, 0.1, 0.012), wood(b, rng))
    with b.frame(0, 0.11, 0.0125):
        clutter(b, rng, hx * 0.9, 0.06, items, size=0.18)


def carpet(b: SceneBuilder, rng: Rng, hx: float, hy: float) -> None:
    """Thin carpet on the floor around the origin."""
    if chance(rng, 0.65):
        colours = (any_colour(rng), any_colour(rng), any_colour(rng))
        skin = b.material(
            tx.RUG,
            colours,
            period=hx,
            seed=seed_of(rng),
            parameters=(hy / hx, 0.5),
            grain=0.4,
            contrast=uniform(rng, 0.6, 1.0),
        )
    else:
        skin = fabric(b, rng)
    b.box((0, 0, 0.006), (hx, hy, 0.006), skin)


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
