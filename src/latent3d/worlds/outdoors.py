"""Family `open`: ground, houses, trees, walls and street things under a sky dome of 48 m radius."""

from __future__ import annotations

import math

import numpy as np

from latent3d.worlds import furniture as fu
from latent3d.worlds import patterns as tx
from latent3d.worlds import small_things as st
from latent3d.worlds.palette import (
    Rng,
    any_colour,
    chance,
    colour,
    glossy,
    log_uniform,
    make,
    object_skin,
    pick,
    plain,
    poster,
    related,
    seed_of,
    uniform,
    wall_paint,
    wood,
)
from latent3d.worlds.paths import Stage
from latent3d.worlds.tables import BLOB, ROUND_BOX, SceneBuilder, tilt_matrix, yaw_matrix

DOME_RADIUS = 48.0


def sky_and_sun(b: SceneBuilder, rng: Rng, radius: float = DOME_RADIUS) -> None:
    """Clear, cloudy or evening sky, a sun with sharp or soft shadows, sky light from above, haze."""
    e = b.environment
    height = pick(rng, (uniform(rng, 0.12, 0.4), uniform(rng, 0.4, 1.2)))
    azimuth = rng.random() * 6.283
    towards = np.array([math.cos(azimuth) * math.cos(height), math.sin(azimuth) * math.cos(height), math.sin(height)])
    overcast = rng.random() ** 1.5
    low_sun = max(0.0, 1.0 - height / 0.5)
    blue, grey = colour(rng, "sky") * 1.2, np.full(3, uniform(rng, 0.5, 0.9))
    e[0:3] = blue + (grey - blue) * overcast
    pale = np.array([0.9, 0.95, 1.0]) * uniform(rng, 0.7, 1.1)
    e[3:6] = pale * np.array([1.0, 1.0 - 0.25 * low_sun, 1.0 - 0.5 * low_sun])
    e[6:9] = related(rng, colour(rng, pick(rng, ("green", "green", "earth", "wood"))), 0.3) * 0.5
    e[9:12] = towards
    e[12:15] = np.array([1.0, 0.8, 0.5]) * (1 - overcast) * uniform(rng, 0.5, 2.0)
    e[15], e[16], e[17] = uniform(rng, -0.5, 0.6), seed_of(rng), radius
    e[18:21] = 0.0, 0.0, 1.2
    e[30], e[31] = log_uniform(rng, 0.4, 2.0), uniform(rng, 0.01, 0.16)
    sun = uniform(rng, 1.2, 3.0) * (1 - 0.85 * overcast)
    b.sun(towards, 0.006 + 0.15 * overcast, np.array([1.0, 0.95 - 0.25 * low_sun, 0.88 - 0.5 * low_sun]) * sun)
    sky_light = (0.5 * e[0:3] + 0.5 * e[3:6]) * uniform(rng, 0.25, 0.45) * (1 + 0.6 * overcast)
    e[21:24], e[24:27] = sky_light, sky_light * 0.3 + e[6:9] * 0.15
    e[27], e[28] = uniform(rng, 0.5, 0.9), uniform(rng, 0.4, 1.2)
    e[29] = log_uniform(rng, 0.0003, 0.006)


def ground_cover(b: SceneBuilder, rng: Rng) -> int:
    """Grass, soil, gravel, paving, asphalt, sand."""
    choice = rng.random()
    if choice < 0.4:
        return make(
            b, rng, tx.LEAVES, colour(rng, "green"), log_uniform(rng, 0.03, 0.15), contrast=uniform(rng, 0.6, 1.0),
            bump=0.5, stain=0.6, grain=0.5,
        )  # fmt: skip
    if choice < 0.6:
        return make(
            b, rng, tx.NOISE, colour(rng, pick(rng, ("earth", "neutral", "warm"))), log_uniform(rng, 0.2, 2.0),
            grain=0.8, bump=0.5, stain=0.5,
        )  # fmt: skip
    if choice < 0.85:
        texture = pick(rng, (tx.COBBLE, tx.TILES, tx.BRICK))
        base = colour(rng, pick(rng, ("neutral", "earth", "warm")))
        return make(b, rng, texture, base, log_uniform(rng, 0.12, 0.6), grain=0.5, bump=0.4, angle=rng.random() * 3)
    return make(
        b,
        rng,
        tx.TERRAZZO,
        colour(rng, pick(rng, ("neutral", "dark"))),
        log_uniform(rng, 0.03, 0.1),
        grain=0.6,
        stain=0.5,
    )


def foliage(b: SceneBuilder, rng: Rng) -> int:
    """Leaves of a crown or hedge."""
    base = colour(rng, pick(rng, ("green", "green", "green", "earth", "vivid")))
    return make(b, rng, tx.LEAVES, base, log_uniform(rng, 0.05, 0.22), contrast=1.0, bump=0.9, grain=0.5, spread=0.8)


def tree(b: SceneBuilder, rng: Rng) -> None:
    """Trunk with branches and a crown of lumps, or a stack of cones."""
    bark = make(b, rng, tx.WAVES, colour(rng, "wood") * 0.6, 0.08, angle=0.1, grain=0.6, bump=0.6)
    leaf, height = foliage(b, rng), uniform(rng, 2.2, 6.5)
    r = 0.03 * height * uniform(rng, 0.7, 1.3)
    if chance(rng, 0.25):
        b.cylinder((0, 0, 0.15 * height), r, 0.15 * height, bark, top=0.8)
        layers = int(uniform(rng, 2, 5))
        for i in range(layers):
            z, wide = height * (0.3 + 0.6 * i / layers), height * 0.24 * (1.05 - i / layers)
            b.cylinder((0, 0, z + 0.12 * height), wide, 0.16 * height, leaf, top=0.05)
        return
    b.cylinder((0, 0, 0.3 * height), r, 0.3 * height, bark, top=0.6)
    for _ in range(int(uniform(rng, 2, 7))):
        side = rng.normal(size=3) * np.array([0.13, 0.13, 0.09]) * height
        crown = height * uniform(rng, 0.1, 0.24)
        lumps = (uniform(rng, 0.12, 0.22), uniform(rng, 4, 8), rng.random() * 6)
        middle = np.array([0.0, 0.0, 0.68 * height]) + side
        b.cylinder(tuple(0.5 * (middle + np.array([0, 0, 0.5 * height]))), r * 0.4, 0.01 + 0.08 * height, bark)
        b.add(BLOB, tuple(middle), (crown, crown, crown * uniform(rng, 0.7, 1.1)), leaf, parameters=lumps)


def house(b: SceneBuilder, rng: Rng) -> None:
    """Body, windows, door, gabled or flat roof; front at y = 0 looking to +y."""
    hx, hy = uniform(rng, 1.8, 5.0), uniform(rng, 1.8, 4.0)
    storeys = pick(rng, (1, 1, 2, 2, 3))
    high = storeys * uniform(rng, 2.4, 3.0)
    skin, trim = wall_paint(b, rng), plain(b, rng, pick(rng, ("white", "dark", "wood")))
    roof = make(
        b,
        rng,
        pick(rng, (tx.TILES, tx.BRICK, tx.STRIPES)),
        colour(rng, pick(rng, ("earth", "dark", "wood"))),
        0.3,
        grain=0.4,
    )
    b.box((0, -hy, high / 2), (hx, hy, high / 2), skin, uv=(0, high / 2))
    glass = b.material(
        tx.LANDSCAPE, (colour(rng, "sky") * 0.4, colour(rng, "dark"), colour(rng, "dark")), period=0.8,
        seed=seed_of(rng),
        **glossy(rng, 1.0),
    )  # fmt: skip
    count = max(1, int(hx / uniform(rng, 0.8, 1.3)))
    wide, tall = min(uniform(rng, 0.35, 0.7), 0.7 * hx / count), uniform(rng, 0.45, 0.8)
    for storey in range(storeys):
        for i in range(count):
            x, z = -hx + (i + 0.5) * 2 * hx / count, (storey + 0.55) * high / storeys
            if storey == 0 and i == count // 2:
                b.box((x, 0.02, 1.02), (0.5, 0.03, 1.02), trim)
                b.box((x, 0.03, 1.0), (0.42, 0.03, 0.98), object_skin(b, rng, 0.8))
                continue
            b.box((x, 0.01, z), (wide + 0.08, 0.03, tall + 0.08), trim)
            b.box((x, 0.02, z), (wide, 0.026, tall), glass)
            b.box((x, 0.025, z), (0.02, 0.03, tall), trim)
            b.box((x, 0.06, z - tall - 0.1), (wide + 0.12, 0.08, 0.03), trim)
    if chance(rng, 0.7):
        rise = uniform(rng, 0.4, 0.9)
        slope = math.atan2(rise * hy, hy)
        reach = hy / math.cos(slope) * 0.57
        for side in (-1, 1):
            middle = (0, -hy + side * hy * 0.53, high + rise * hy * 0.47)
            b.box(middle, (hx + 0.3, reach, 0.06), roof, rotation=tilt_matrix(0, -side * slope))
        if chance(rng, 0.5):
            b.box((hx * 0.5, -hy * 0.6, high + 0.8 * rise * hy), (0.25, 0.25, 0.6), skin)
    else:
        b.box((0, -hy, high + 0.1), (hx + 0.2, hy + 0.2, 0.1), trim)


def fence(b: SceneBuilder, rng: Rng, length: float) -> None:
    """Pickets, rails or a low wall along x."""
    skin, high = (wood(b, rng), uniform(rng, 0.7, 1.3))
    if chance(rng, 0.4):
        stone = make(b, rng, pick(rng, (tx.BRICK, tx.COBBLE)), colour(rng, "earth"), 0.3, grain=0.5, bump=0.5)
        b.box((0, 0, high / 2), (length, 0.12, high / 2), stone)
        b.box((0, 0, high + 0.03), (length + 0.03, 0.16, 0.03), plain(b, rng, "neutral"))
        return
    step = uniform(rng, 0.12, 0.5)
    for x in np.arange(-length, length, step):
        b.box((x, 0, high / 2), (min(0.04, 0.3 * step), 0.012, high / 2), skin)
    for z in (0.3 * high, 0.8 * high):
        b.box((0, -0.03, z), (length, 0.015, 0.035), skin)


def bench(b: SceneBuilder, rng: Rng) -> None:
    """Slatted bench."""
    slat, foot = wood(b, rng), plain(b, rng, "dark")
    for i in range(4):
        b.box((0, 0.06 + 0.11 * i, 0.45), (0.8, 0.045, 0.015), slat)
    for i in range(3):
        b.box((0, 0.0, 0.58 + 0.12 * i), (0.8, 0.015, 0.045), slat)
    for x in (-0.65, 0.65):
        b.box((x, 0.2, 0.22), (0.03, 0.2, 0.21), foot)
        b.box((x, 0.0, 0.6), (0.03, 0.025, 0.35), foot)


def car(b: SceneBuilder, rng: Rng) -> None:
    """Round-edged body and cabin on four wheels."""
    paint = plain(b, rng, pick(rng, ("vivid", "white", "dark", "metal", "muted")), **glossy(rng, 1.0))
    glass, tyre = plain(b, rng, "dark", **glossy(rng, 1.0)), plain(b, rng, "dark")
    b.add(ROUND_BOX, (0, 0, 0.62), (2.0, 0.82, 0.36), paint, parameters=(0.2, 0, 0))
    b.add(ROUND_BOX, (-0.2, 0, 1.15), (1.05, 0.7, 0.33), glass, parameters=(0.25, 0, 0))
    b.add(ROUND_BOX, (-0.2, 0, 1.42), (0.9, 0.66, 0.07), paint, parameters=(0.06, 0, 0))
    for x in (-1.25, 1.25):
        for y in (-0.72, 0.72):
            b.cylinder((x, y, 0.32), 0.32, 0.11, tyre, rotation=tilt_matrix(0, math.pi / 2))
            b.cylinder((x, y, 0.32), 0.18, 0.12, plain(b, rng, "metal"), rotation=tilt_matrix(0, math.pi / 2))


def street_thing(b: SceneBuilder, rng: Rng) -> None:
    """Lamp post, sign, rock, bush, crates, pots, ball."""
    kind = rng.random()
    metal = plain(b, rng, pick(rng, ("metal", "dark")), **glossy(rng))
    if kind < 0.15:
        high = uniform(rng, 2.5, 4.0)
        b.cylinder((0, 0, high / 2), 0.05, high / 2, metal, top=0.7)
        b.ball((0, 0, high + 0.12), 0.16, b.material(tx.PLAIN, (np.array([1.0, 0.95, 0.85]),), emission=1.2))
    elif kind < 0.3:
        b.cylinder((0, 0, 1.1), 0.03, 1.1, metal)
        half = uniform(rng, 0.25, 0.5)
        b.box((0, 0.03, 1.9), (half, 0.01, half * 0.7), poster(b, rng, half))
    elif kind < 0.5:
        stone = make(b, rng, tx.NOISE, colour(rng, "neutral"), 0.4, grain=0.6, bump=0.8, stain=0.5)
        for _ in range(int(uniform(rng, 1, 4))):
            size = tuple(log_uniform(rng, 0.12, 0.6) for _ in range(3))
            lumps = (uniform(rng, 0.08, 0.2), uniform(rng, 2, 4), rng.random() * 6)
            place = (rng.normal() * 0.4, rng.normal() * 0.4, size[2] * 0.5)
            b.add(BLOB, place, size, stone, rotation=yaw_matrix(rng.random() * 6), parameters=lumps)
    elif kind < 0.7:
        leaf = foliage(b, rng)
        for _ in range(int(uniform(rng, 1, 4))):
            r = uniform(rng, 0.25, 0.6)
            lumps = (uniform(rng, 0.12, 0.22), uniform(rng, 4, 8), rng.random() * 6)
            b.add(BLOB, (rng.normal() * 0.4, rng.normal() * 0.4, 0.7 * r), (r, r, r * 0.9), leaf, parameters=lumps)
    elif kind < 0.85:
        fu.box_pile(b, rng)
    else:
        st.pot_plant(b, rng, uniform(rng, 0.6, 1.4))


def open_stage(rng: Rng) -> Stage:
    """Draw an outdoor place: a street or a garden around the camera."""
    b = SceneBuilder()
    sky_and_sun(b, rng)
    b.box((0, 0, -0.1), (70, 70, 0.1), ground_cover(b, rng))
    if chance(rng, 0.55):  # a path or a road
        with b.frame(uniform(rng, -3, 3), uniform(rng, -3, 3), 0, rng.random() * 3.14):
            b.box((0, 0, 0.0), (60, uniform(rng, 0.5, 2.5), 0.02), ground_cover(b, rng))
    spots: list[tuple[float, float, float]] = [(0.0, 0.0, 2.2)]

    def place(near: float, far: float, radius: float) -> tuple[float, float] | None:
        for _ in range(8):
            angle, reach = rng.random() * 6.283, near + (far - near) * math.sqrt(rng.random())
            x, y = reach * math.cos(angle), reach * math.sin(angle)
            if all(math.hypot(x - sx, y - sy) > radius + sr for sx, sy, sr in spots):
                spots.append((x, y, radius))
                return x, y
        return None

    def scatter(count: float, near: float, far: float, radius: float, maker, facing: bool = False) -> None:
        for _ in range(int(count)):
            spot = place(near, far, radius)
            if spot is not None:
                yaw = (
                    math.atan2(-spot[1], -spot[0]) - math.pi / 2 + rng.normal() * 0.3 if facing else rng.random() * 6.28
                )
                with b.frame(spot[0], spot[1], 0.0, yaw):
                    maker(b, rng)

    scatter(uniform(rng, 1, 8), 6.5, 16.0, 3.2, house, facing=True)
    scatter(uniform(rng, 0, 4), 4.2, 9.0, 1.7, car)
    scatter(uniform(rng, 5, 22), 3.5, 20.0, 1.0, tree)
    scatter(uniform(rng, 0, 5), 3.0, 8.0, 1.2, lambda builder, r: fence(builder, r, uniform(r, 1.2, 3.5)), facing=True)
    scatter(uniform(rng, 0, 4), 2.5, 6.0, 0.8, bench, facing=True)
    scatter(uniform(rng, 10, 30), 2.2, 8.0, 0.45, street_thing)
    if chance(rng, 0.4):
        skin = make(b, rng, tx.LEAVES, any_colour(rng) * 0.4 + colour(rng, "green"), 0.5, contrast=0.8, stain=0.5)
        for _ in range(3):
            angle, reach = rng.random() * 6.28, uniform(rng, 26, 36)
            size = (uniform(rng, 6, 12), uniform(rng, 6, 12), uniform(rng, 1.5, 5))
            b.ball((reach * math.cos(angle), reach * math.sin(angle), 0.0), size, skin)
    return Stage(
        scene=b.build(),
        low=np.array([-2.2, -2.2, 1.0]),
        high=np.array([2.2, 2.2, 1.85]),
        subject_low=np.array([-7.0, -7.0, 0.3]),
        subject_high=np.array([7.0, 7.0, 1.9]),
        motions=("forward", "forward", "sideways", "sideways", "orbit", "turn", "wander"),
        lengths=(0.5, 2.5),
        distances=(2.5, 9.0),
    )
