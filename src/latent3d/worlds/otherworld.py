"""Family `other`, for tests only: textures, shapes and motions that no training family draws.

A court or a roofed hall of arches with pyramids, wedges, rings, capsules; patterns of hexagons, spirals, marble,
camouflage, halftone, zigzag; cameras that rise like a crane or climb along a helix.
"""

from __future__ import annotations

import math

import numpy as np

from latent3d.worlds import patterns as tx
from latent3d.worlds.outdoors import sky_and_sun
from latent3d.worlds.palette import Rng, chance, colour, glossy, log_uniform, pick, seed_of, uniform
from latent3d.worlds.paths import Stage
from latent3d.worlds.tables import ARCH, CAPSULE, TAPER, TORUS, SceneBuilder, tilt_matrix, yaw_matrix

DOME_RADIUS = 18.0


def skin(b: SceneBuilder, rng: Rng, size: float) -> int:
    """One of the patterns reserved for this family, for a thing of ``size`` metres."""
    kinds = ("neutral", "warm", "muted", "muted", "vivid", "dark", "earth", "green", "white")
    colours = [colour(rng, pick(rng, kinds)) for _ in range(3)]
    texture = pick(rng, tx.OTHER_WORLD_TEXTURES)
    period = size * log_uniform(rng, 0.15, 0.6) * (0.15 if texture == tx.HALFTONE else 1.0)
    return b.material(
        texture, colours, period=period, angle=rng.random() * 3.14, seed=seed_of(rng), contrast=uniform(rng, 0.6, 1.0),
        parameters=(rng.random(), rng.random()), grain=uniform(rng, 0.0, 0.5), stain=uniform(rng, 0.0, 0.5),
        bump=uniform(rng, 0.0, 0.3), **(glossy(rng, 0.6) if chance(rng, 0.4) else {}),
    )  # fmt: skip


def thing(b: SceneBuilder, rng: Rng, size: float) -> None:
    """Ring, capsule, pyramid, wedge, leaning block or a stack of rings, standing on z = 0."""
    kind, paint, turn = rng.random(), skin(b, rng, size), yaw_matrix(rng.random() * 6.28)
    s = size * uniform(rng, 0.6, 1.0)
    if kind < 0.2:
        r, tube = 0.5 * s, s * uniform(rng, 0.06, 0.16)
        upright = chance(rng, 0.5)
        tilt = turn @ tilt_matrix(0, math.pi / 2) if upright else None
        b.add(TORUS, (0, 0, r if upright else tube), (r, r, tube), paint, rotation=tilt)
    elif kind < 0.4:
        r, h = s * uniform(rng, 0.12, 0.25), s * uniform(rng, 0.4, 0.7)
        lying = turn @ tilt_matrix(1, math.pi / 2) if chance(rng, 0.4) else None
        b.add(CAPSULE, (0, 0, h if lying is None else r), (r, r, h), paint, rotation=lying)
    elif kind < 0.6:
        h = s * uniform(rng, 0.3, 0.6)
        half = (s * uniform(rng, 0.25, 0.5), s * uniform(rng, 0.25, 0.5), h)
        b.add(
            TAPER,
            (0, 0, h),
            half,
            paint,
            rotation=turn,
            parameters=(uniform(rng, 0.02, 0.3), uniform(rng, 0.02, 0.3), 0),
        )
    elif kind < 0.8:
        h = s * uniform(rng, 0.2, 0.5)
        half = (s * uniform(rng, 0.3, 0.5), s * uniform(rng, 0.2, 0.5), h)
        b.add(TAPER, (0, 0, h), half, paint, rotation=turn, parameters=(0.05, 1.0, uniform(rng, -0.4, 0.4) * half[0]))
    elif kind < 0.9:
        h = s * uniform(rng, 0.4, 0.7)
        r = s * uniform(rng, 0.15, 0.25)
        b.add(TAPER, (0, 0, h), (r, r, h), paint, rotation=turn, parameters=(0.9, 0.9, uniform(rng, -0.8, 0.8) * r))
    else:
        z = 0.0
        for i in range(int(uniform(rng, 2, 5))):
            tube = 0.1 * s
            b.add(TORUS, (0, 0, z + tube), (s * (0.5 - 0.07 * i), s * (0.5 - 0.07 * i), tube), skin(b, rng, s))
            z += 1.9 * tube


def arcade(b: SceneBuilder, rng: Rng, length: float) -> None:
    """A row of vaulted passages along x, each 1.6 to 2.4 m wide."""
    wide, high = uniform(rng, 0.8, 1.2), uniform(rng, 2.4, 3.4)
    paint = skin(b, rng, 1.2)
    count = max(1, int(length / wide))
    for i in range(count):
        x = (i - 0.5 * (count - 1)) * 2 * wide
        vault = wide * uniform(rng, 0.6, 0.8)
        b.add(
            ARCH,
            (x, 0, high / 2),
            (wide - 1e-3, 0.2, high / 2),
            paint,
            parameters=(vault, high / 2 - vault - 0.3, 0),
            uv=(x, 0),
        )


def other_stage(rng: Rng) -> Stage:
    """Draw a court or hall of the other world."""
    b = SceneBuilder()
    sky_and_sun(b, rng, DOME_RADIUS)
    b.box((0, 0, -0.1), (22, 22, 0.1), skin(b, rng, 2.0))
    reach = uniform(rng, 3.0, 4.5)
    yaw = rng.random() * 6.28
    for i in range(4):
        with b.frame(0, 0, 0, yaw + i * math.pi / 2), b.frame(0, reach):
            if chance(rng, 0.65):
                arcade(b, rng, reach)
            else:
                b.box((0, 0, 1.4), (reach, 0.1, 1.4), skin(b, rng, 2.0), uv=(0, 1.4))
    if chance(rng, 0.4):
        b.box((0, 0, 3.6), (reach, reach, 0.08), skin(b, rng, 2.0), rotation=yaw_matrix(yaw))
        b.lamp((uniform(rng, -1, 1), uniform(rng, -1, 1), 3.2), 0.3, np.array([1.0, 0.9, 0.8]) * uniform(rng, 3, 7))
    spots: list[tuple[float, float]] = []
    for _ in range(int(uniform(rng, 10, 26))):
        x, y = (uniform(rng, -1, 1) * (reach - 0.5) for _ in range(2))
        if all(math.hypot(x - a, y - c) > 0.7 for a, c in spots):
            spots.append((x, y))
            with b.frame(x, y, 0.0, rng.random() * 6.28):
                thing(b, rng, uniform(rng, 0.4, 1.3))
    for _ in range(3):
        angle = rng.random() * 6.28
        with b.frame(8 * math.cos(angle), 8 * math.sin(angle)):
            thing(b, rng, uniform(rng, 2.0, 5.0))
    return Stage(
        scene=b.build(),
        low=np.array([-0.6 * reach, -0.6 * reach, 0.8]),
        high=np.array([0.6 * reach, 0.6 * reach, 2.6]),
        subject_low=np.array([-reach, -reach, 0.3]),
        subject_high=np.array([reach, reach, 1.6]),
        motions=("helix", "helix", "crane", "crane", "wander"),
        lengths=(0.5, 2.0),
        distances=(1.6, 5.0),
    )
