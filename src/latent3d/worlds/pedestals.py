"""Family `objects`: cameras circle a group of things on a pedestal, a table or the floor, in a simple place."""

from __future__ import annotations

import math

import numpy as np

from latent3d.worlds import furniture as fu
from latent3d.worlds import small_things as st
from latent3d.worlds.outdoors import ground_cover, sky_and_sun
from latent3d.worlds.palette import (
    Rng,
    chance,
    colour,
    floor_cover,
    object_skin,
    pick,
    plain,
    related,
    seed_of,
    uniform,
    wall_paint,
    wood,
)
from latent3d.worlds.paths import Stage
from latent3d.worlds.tables import SceneBuilder, tilt_matrix, yaw_matrix

DOME_RADIUS = 12.0


def studio(b: SceneBuilder, rng: Rng) -> None:
    """Floor, one to four flat backgrounds, one or two lamps, an even surrounding."""
    e = b.environment
    b.box((0, 0, -0.05), (9, 9, 0.05), floor_cover(b, rng))
    yaw = rng.random() * 6.28
    skin = wall_paint(b, rng)
    for i in range(pick(rng, (0, 2, 4, 4, 4))):
        with b.frame(0, 0, 0, yaw + i * math.pi / 2):
            reach = uniform(rng, 3.2, 5.0)
            b.box((0, reach, 1.6), (5.5, 0.05, 1.6), skin, uv=(0, 1.6))
            for at in (-2.2, -0.7, 0.8, 2.3):
                with b.frame(at + uniform(rng, -0.3, 0.3), reach - 0.051, uniform(rng, 1.0, 1.7), math.pi):
                    if chance(rng, 0.35):
                        st.framed_picture(b, rng)
                with b.frame(at + uniform(rng, -0.3, 0.3), reach - 0.06, 0, math.pi):
                    kind = rng.random()
                    if kind < 0.2:
                        fu.cabinet(b, rng, 2)
                    elif kind < 0.4:
                        fu.shelf(b, rng, 4)
                    elif kind < 0.55:
                        fu.standing_thing(b, rng)
    shade = colour(rng, pick(rng, ("neutral", "white", "warm", "muted")))
    e[0:3], e[3:6], e[6:9] = shade, related(rng, shade, 0.2), related(rng, shade, 0.3)
    e[9:12] = 0.0, 0.0, 1.0
    e[15], e[16], e[17], e[30], e[31] = -1.0, seed_of(rng), DOME_RADIUS, 1.0, -0.05
    e[18:21] = 0.0, 0.0, 1.0
    cast = np.exp(rng.normal(size=3) * np.array([0.1, 0.04, 0.12])) * uniform(rng, 0.1, 0.35)
    e[21:24], e[24:27] = cast, cast * 0.6
    e[27], e[28] = uniform(rng, 0.5, 0.9), uniform(rng, 0.15, 0.4)
    for _ in range(pick(rng, (1, 2, 2))):
        angle = rng.random() * 6.28
        place = (2.0 * math.cos(angle), 2.0 * math.sin(angle), uniform(rng, 2.0, 3.0))
        warm = np.array([1.0, uniform(rng, 0.8, 1.0), uniform(rng, 0.6, 1.0)])
        b.lamp(place, uniform(rng, 0.1, 0.6), warm * uniform(rng, 2.0, 6.0))


def wire_frame(b: SceneBuilder, rng: Rng, half: np.ndarray) -> None:
    """The twelve edges of a box as thin rods."""
    skin, r = object_skin(b, rng, 0.3), uniform(rng, 0.006, 0.015)
    for axis in range(3):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = {0: tilt_matrix(1, math.pi / 2), 1: tilt_matrix(0, math.pi / 2), 2: None}[axis]
        for si in (-1, 1):
            for sj in (-1, 1):
                centre = np.zeros(3)
                centre[i], centre[j] = si * half[i], sj * half[j]
                centre[2] += half[2] + r
                b.cylinder(tuple(centre), r, half[axis] + r, skin, rotation=turn)


def composition(b: SceneBuilder, rng: Rng, size: float) -> None:
    """Three to nine primitives that intersect one another, after Zeroverse (Xie et al. 2024)."""
    for _ in range(int(uniform(rng, 3, 10))):
        x, y, z = rng.normal(size=3) * np.array([0.22, 0.22, 0.2]) * size
        tilt = tilt_matrix(0, rng.normal() * 0.7) @ tilt_matrix(1, rng.normal() * 0.7)
        with b.frame(x, y, 0.3 * size + abs(z), rng.random() * 6.28, tilt), b.frame(0, 0, -0.25 * size):
            st.small_thing(b, rng, size * uniform(rng, 0.4, 1.0))
    if chance(rng, 0.3):
        with b.frame(0, 0, 0.05 * size, rng.random() * 6.28):
            wire_frame(b, rng, np.array([uniform(rng, 0.15, 0.5) * size for _ in range(3)]))


def stand(b: SceneBuilder, rng: Rng) -> tuple[float, float]:
    """Pedestal, round table or nothing; returns its height and radius."""
    kind = rng.random()
    if kind < 0.35:
        r, high = uniform(rng, 0.25, 0.45), uniform(rng, 0.4, 0.9)
        b.box((0, 0, high / 2), (r, r, high / 2), object_skin(b, rng, 0.6), rotation=yaw_matrix(rng.random() * 3))
    elif kind < 0.55:
        r, high = uniform(rng, 0.25, 0.5), uniform(rng, 0.3, 0.9)
        b.cylinder((0, 0, high / 2), r, high / 2, object_skin(b, rng, 0.6), top=uniform(rng, 0.8, 1.0))
        r *= 0.8
    elif kind < 0.85:
        r, high = uniform(rng, 0.4, 0.7), uniform(rng, 0.55, 0.8)
        b.cylinder((0, 0, high - 0.02), r, 0.02, wood(b, rng))
        b.cylinder((0, 0, high / 2), 0.04, high / 2 - 0.02, plain(b, rng, "metal"))
        b.cylinder((0, 0, 0.015), 0.3, 0.015, plain(b, rng, "metal"))
    else:
        r, high = 0.5, 0.0
    return high, r


def objects_stage(rng: Rng) -> Stage:
    """Draw a group of things and its surroundings."""
    b = SceneBuilder()
    if chance(rng, 0.75):
        studio(b, rng)
    else:
        sky_and_sun(b, rng, DOME_RADIUS)
        b.box((0, 0, -0.1), (14, 14, 0.1), ground_cover(b, rng))
    high, radius = stand(b, rng)
    with b.frame(0, 0, high + 0.0005, rng.random() * 6.28):
        kind = rng.random()
        if kind < 0.45:
            st.clutter(b, rng, radius, radius, int(uniform(rng, 4, 12)), size=uniform(rng, 0.25, 0.5))
        elif kind < 0.9 or high > 0:
            composition(b, rng, uniform(rng, 0.5, 0.9) * (1.3 if high == 0 else 1.0))
        else:
            pick(rng, (fu.chair, fu.standing_thing, fu.box_pile))(b, rng)
    for _ in range(int(rng.random() * 5)):
        angle, reach = rng.random() * 6.28, uniform(rng, 2.6, 3.2)
        with b.frame(reach * math.cos(angle), reach * math.sin(angle), 0, rng.random() * 6.28):
            pick(rng, (fu.standing_thing, fu.box_pile, fu.chair))(b, rng)
    middle = high + 0.25
    return Stage(
        scene=b.build(),
        low=np.array([-2.3, -2.3, max(0.6, middle - 0.1)]),
        high=np.array([2.3, 2.3, max(1.5, middle + 0.7)]),
        subject_low=np.array([-0.1, -0.1, middle - 0.15]),
        subject_high=np.array([0.1, 0.1, middle + 0.1]),
        motions=("orbit", "orbit", "orbit", "sideways", "forward"),
        lengths=(0.5, 1.8),
        distances=(0.95, 2.4),
    )
