"""Things on tables, shelves, walls and floors, built at the origin of the current frame; axes as in `furniture`."""

from __future__ import annotations

import math

import numpy as np

from latent3d.worlds import patterns as tx
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
        half = (s * uniform(rng, 0.2, 0.5), s * uniform(rng, 0.2, 0.5), s * uniform(rng, 0.2, 0.5))
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
        half = (s * uniform(rng, 0.25, 0.45), s * uniform(rng, 0.25, 0.45), s * uniform(rng, 0.25, 0.45))
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
