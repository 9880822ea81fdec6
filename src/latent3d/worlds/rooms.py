"""Family `rooms`: furnished interiors, 2.3 to 3.2 m high, with windows on a landscape and doors on a further room."""

from __future__ import annotations

import math

import numpy as np

from latent3d.worlds import furniture as fu
from latent3d.worlds import patterns as tx
from latent3d.worlds import small_things as st
from latent3d.worlds.floor_plan import WALL, Hole, Room, claim_at_wall, plan_holes, shell, wall_frame
from latent3d.worlds.palette import (
    Rng,
    chance,
    colour,
    fabric,
    glossy,
    object_skin,
    pick,
    plain,
    related,
    seed_of,
    uniform,
    wall_paint,
)
from latent3d.worlds.paths import Stage
from latent3d.worlds.tables import NO_SHADOW, SceneBuilder, tilt_matrix

DOME_RADIUS = 14.0


def dress_hole(b: SceneBuilder, rng: Rng, room: Room, wall: int, hole: Hole, trim: int) -> None:
    """Frame, bars and sill of a window, casing of a door; sometimes curtains or blinds."""
    hx, hz = (hole.right - hole.left) / 2, (hole.high - hole.low) / 2
    with wall_frame(b, room, wall, (hole.left + hole.right) / 2, z=(hole.low + hole.high) / 2):
        t = 0.03
        for side in (-1, 1):
            b.box((side * (hx + 0.01), -0.05, 0), (t, 0.072, hz + 2 * t), trim)
        b.box((0, -0.05, hz + 0.01), (hx, 0.072, t), trim)
        if not hole.window:
            return
        b.box((0, -0.03, -hz - 0.01), (hx + 0.08, 0.11, 0.02), trim)
        for i in range(1, pick(rng, (1, 2, 2, 3, 4))):
            x = -hx + 2 * hx * i / 4 if chance(rng, 0.3) else -hx + hx * i
            if abs(x) < hx - 0.02:
                b.box((x, -0.06, 0), (0.016, 0.02, hz), trim)
        if chance(rng, 0.5):
            b.box((0, -0.06, uniform(rng, -0.2, 0.4) * hz), (hx, 0.02, 0.016), trim)
        if chance(rng, 0.4):
            cloth = fabric(b, rng)
            bottom = -hz - (hole.low - 0.05 if chance(rng, 0.5) and hole.low > 0.1 else 0.1)
            height = (hz + 0.12 - bottom) / 2
            for side in (-1, 1):
                wide = hx * uniform(rng, 0.2, 0.45)
                folds = max(2, int(wide / 0.06))
                for i in range(folds):
                    x = side * (hx + 0.1 - (i + 0.5) * 2 * wide / folds)
                    radius = wide / folds * 1.15
                    b.cylinder((x, 0.08, bottom + height), radius, height, cloth)
            b.cylinder((0, 0.08, hz + 0.14), 0.015, hx + 0.25, trim, rotation=tilt_matrix(1, math.pi / 2))
        elif chance(rng, 0.2):
            drop = uniform(rng, 0.2, 1.4) * hz
            for i in range(int(drop / 0.05)):
                b.box((0, 0.03, hz - 0.025 - 0.05 * i), (hx, 0.02, 0.002), trim, rotation=tilt_matrix(0, 0.6))


def neighbour_room(b: SceneBuilder, rng: Rng, room: Room, wall: int) -> None:
    """The room or corridor behind a door opening, with little furniture and its own light."""
    hole = room.holes[wall][0]
    along = (hole.left + hole.right) / 2
    wide, deep = uniform(rng, 2.0, 4.5), uniform(rng, 1.3, 3.5)
    other = Room(wide, deep, min(room.high, uniform(rng, 2.3, 2.9)))
    half = (hole.right - hole.left) / 2
    place = uniform(rng, half + 0.1, wide - half - 0.1)
    other.holes[3].append(Hole(place - half, place + half, 0.0, hole.high, False))
    if chance(rng, 0.4):
        other.holes[2].append(Hole(0.3 * wide, 0.7 * wide, 0.8, 2.0, True))
    # local frame: x along the wall, y away from the room; the neighbour's wall 3 meets the opening
    with wall_frame(b, room, wall, along, gap=-4 * WALL), b.frame(-place, -deep):
        shell(b, rng, other, skirting=False)
        for _ in range(int(uniform(rng, 1, 4))):
            at, back = int(rng.random() * 3), rng.random()
            with wall_frame(b, other, at, uniform(rng, 0.3, 0.7) * other.length(at)):
                if back < 0.4:
                    fu.cabinet(b, rng, 1)
                elif back < 0.7:
                    fu.standing_thing(b, rng)
            with wall_frame(b, other, at, uniform(rng, 0.2, 0.8) * other.length(at), z=1.5):
                st.framed_picture(b, rng)
        b.lamp((wide / 2, deep / 2, other.high - 0.2), 0.15, np.array([1.0, 0.9, 0.75]) * uniform(rng, 0.5, 3.0))


def furnish(b: SceneBuilder, rng: Rng, room: Room) -> None:
    """Furniture along the walls and free in the room, pictures, carpet."""
    area = room.wide * room.deep
    items = int(uniform(rng, 3, 9))
    makers = (fu.cabinet, fu.cabinet, fu.shelf, fu.shelf, fu.table, fu.desk, fu.sofa, fu.sofa, fu.bed, fu.stairs)
    beds = 0
    for _ in range(int(uniform(rng, 5, 8 + 0.4 * area))):
        wall = int(rng.random() * 4)
        maker = pick(rng, makers)
        beds += maker in (fu.bed, fu.stairs)
        if maker in (fu.bed, fu.stairs) and beds > 1:
            maker = fu.standing_thing
        place_at_wall(b, rng, room, wall, maker, items)
    for _ in range(int(uniform(rng, 2, 4 + 0.25 * area))):
        x, y, yaw = uniform(rng, 0.5, room.wide - 0.5), uniform(rng, 0.5, room.deep - 0.5), rng.random() * 6.28
        maker = pick(rng, (fu.table, fu.chair, fu.chair, fu.box_pile, fu.standing_thing, fu.standing_thing, fu.sofa))
        size = {fu.table: 0.7, fu.sofa: 0.95}.get(maker, 0.35)
        if room.claim(x - size, y - size, x + size, y + size):
            # turned pieces stay inside the square they reserved
            with b.frame(x, y, 0.0, yaw), b.frame(0, -0.42 if maker is fu.sofa else -0.35):
                build(b, rng, maker, items)
    if chance(rng, 0.45):
        hx, hy = uniform(rng, 0.5, 0.35 * room.wide), uniform(rng, 0.4, 0.35 * room.deep)
        with b.frame(
            room.wide * uniform(rng, 0.4, 0.6), room.deep * uniform(rng, 0.4, 0.6), 0.001, yaw=rng.normal() * 0.1
        ):
            st.carpet(b, rng, hx, hy)


def build(b: SceneBuilder, rng: Rng, maker, items: int) -> tuple[float, float]:
    """Call a furniture maker; those that carry things get their number."""
    if maker in (fu.chair, fu.sofa, fu.bed, fu.box_pile, fu.standing_thing, fu.stairs):
        return maker(b, rng)
    return maker(b, rng, items)


def place_at_wall(b: SceneBuilder, rng: Rng, room: Room, wall: int, maker, items: int) -> None:
    """Build a piece in a scratch builder to learn its size, then place it where the floor is free."""
    length = room.length(wall)
    hx = {fu.bed: 0.85, fu.sofa: 1.2, fu.table: 0.95, fu.desk: 0.8, fu.stairs: 0.6}.get(maker, 0.8)
    hy = {fu.bed: 1.05, fu.sofa: 0.47, fu.table: 0.6, fu.desk: 0.4, fu.stairs: 1.05, fu.shelf: 0.18}.get(maker, 0.36)
    if length < 2 * hx:
        return
    along = uniform(rng, hx, length - hx)
    if claim_at_wall(room, wall, along, hx, hy):
        with wall_frame(b, room, wall, along, gap=0.02):
            build(b, rng, maker, items)


def hang_pictures(b: SceneBuilder, rng: Rng, room: Room) -> None:
    """Pictures, shelves and clocks on free wall."""
    for wall in range(4):
        length = room.length(wall)
        at = uniform(rng, 0.3, 0.9)
        while at < length - 0.4:
            clear = all(h.right + 0.35 < at or h.left - 0.35 > at for h in room.holes[wall])
            if clear and chance(rng, 0.6):
                with wall_frame(b, room, wall, at, z=uniform(rng, 1.3, 1.75)):
                    kind = rng.random()
                    if kind < 0.8:
                        st.framed_picture(b, rng)
                    elif kind < 0.93:
                        st.wall_shelf(b, rng, int(uniform(rng, 1, 4)))
                    else:
                        turn = tilt_matrix(0, math.pi / 2)
                        b.cylinder((0, 0.02, 0.2), 0.15, 0.02, object_skin(b, rng, 0.3), rotation=turn)
            at += uniform(rng, 0.9, 2.0)


def light_room(b: SceneBuilder, rng: Rng, room: Room) -> None:
    """Daylight through the windows, a ceiling lamp, perhaps floor lamps; ambient light with a colour cast."""
    e = b.environment
    has_window = any(h.window for holes in room.holes.values() for h in holes)
    night = not has_window and chance(rng, 0.5)
    day = uniform(rng, 1.0, 3.0)
    e[0:3] = colour(rng, "sky") * day
    e[3:6] = related(rng, np.array([0.75, 0.8, 0.85]), 0.15) * day
    e[6:9] = colour(rng, pick(rng, ("green", "earth", "neutral"))) * day
    azimuth, height = rng.random() * 6.283, uniform(rng, 0.25, 0.9)
    towards = np.array([math.cos(azimuth) * math.cos(height), math.sin(azimuth) * math.cos(height), math.sin(height)])
    e[9:12] = towards
    e[12:15] = np.array([1.0, 0.9, 0.7]) * day
    e[15], e[16], e[17], e[30], e[31] = (
        uniform(rng, -0.3, 0.5),
        seed_of(rng),
        DOME_RADIUS,
        uniform(rng, 0.5, 2.0),
        0.12,
    )
    e[18:21] = room.wide / 2, room.deep / 2, 1.5
    cast = np.exp(rng.normal(size=3) * np.array([0.12, 0.05, 0.16]))
    level = uniform(rng, 0.07, 0.35)
    e[21:24], e[24:27] = cast * level, cast * level * related(rng, np.array([0.7, 0.6, 0.5]), 0.2)
    e[27], e[28] = uniform(rng, 0.5, 0.9), uniform(rng, 0.3, 0.8)
    if has_window and chance(rng, 0.6):
        b.sun(towards, uniform(rng, 0.005, 0.04), np.array([1.0, 0.93, 0.8]) * uniform(rng, 0.8, 3.0))
    if has_window:  # sky light: a wide area lamp in front of each window
        for wall, holes in room.holes.items():
            for hole in holes:
                if hole.window:
                    with wall_frame(
                        b, room, wall, (hole.left + hole.right) / 2, z=(hole.low + hole.high) / 2, gap=0.35
                    ):
                        area = (hole.right - hole.left) * (hole.high - hole.low)
                        b.lamp((0, 0, 0), 0.35, e[3:6] * area * uniform(rng, 0.15, 0.45))
                    break
    warm = np.array([1.0, uniform(rng, 0.72, 0.98), uniform(rng, 0.45, 0.95)])
    if night or chance(rng, 0.55) or not has_window:
        x, y = room.wide * uniform(rng, 0.3, 0.7), room.deep * uniform(rng, 0.3, 0.7)
        drop = uniform(rng, 0.05, 0.6)
        glow = b.material(tx.PLAIN, (warm,), emission=uniform(rng, 1.0, 2.5))
        if drop < 0.2:
            b.cylinder((x, y, room.high - 0.04), uniform(rng, 0.1, 0.25), 0.04, glow, flags=NO_SHADOW)
        else:
            b.cylinder((x, y, room.high - drop / 2), 0.006, drop / 2, plain(b, rng, "dark"), flags=NO_SHADOW)
            b.ball((x, y, room.high - drop), uniform(rng, 0.08, 0.2), glow, flags=NO_SHADOW)
        b.lamp((x, y, room.high - drop - 0.05), 0.2, warm * uniform(rng, 1.0, 3.5))
    for _ in range(int(rng.random() * 2.2)):
        x, y = uniform(rng, 0.3, room.wide - 0.3), uniform(rng, 0.3, room.deep - 0.3)
        if len(b._lights) < 4 and room.claim(x - 0.2, y - 0.2, x + 0.2, y + 0.2):
            with b.frame(x, y, 0, rng.random() * 6.28), b.frame(0, -0.15):
                fu.floor_lamp(b, rng, lit=chance(rng, 0.7))


def structure(b: SceneBuilder, rng: Rng, room: Room) -> None:
    """Columns, beams, a slanted attic ceiling, a half-high partition."""
    kind = rng.random()
    skin = wall_paint(b, rng)
    if kind < 0.16:
        along, rise = (room.deep / 2, uniform(rng, 0.5, 0.9))
        run = uniform(rng, 0.8, 1.5)
        tilt = tilt_matrix(1, math.atan2(rise * 1.6, run))
        b.box(
            (room.wide - run / 2 + 0.05, along, room.high - rise * 0.8 + 0.07),
            (1.2 * run, along + 0.1, 0.05),
            skin,
            rotation=tilt,
        )
    elif kind < 0.32:
        for y in np.arange(uniform(rng, 0.3, 0.8), room.deep, uniform(rng, 0.6, 1.2)):
            b.box((room.wide / 2, y, room.high - 0.08), (room.wide / 2, 0.06, 0.08), skin)
    elif kind < 0.5:
        x, y, r = uniform(rng, 0.8, room.wide - 0.8), uniform(rng, 0.8, room.deep - 0.8), uniform(rng, 0.08, 0.2)
        if room.claim(x - r, y - r, x + r, y + r):
            if chance(rng, 0.5):
                b.cylinder((x, y, room.high / 2), r, room.high / 2, skin)
            else:
                b.box((x, y, room.high / 2), (r, r, room.high / 2), skin)
    elif kind < 0.62:
        x, length, high = (
            uniform(rng, 0.3, 0.7) * room.wide,
            uniform(rng, 0.25, 0.45) * room.deep,
            pick(rng, (0.9, 1.1, room.high)),
        )
        if room.claim(x - 0.08, 0, x + 0.08, length):
            b.box((x, length / 2, high / 2), (0.06, length / 2, high / 2 - 0.001), skin)


def rooms_stage(rng: Rng) -> Stage:
    """Draw a furnished interior."""
    b = SceneBuilder()
    room = Room(uniform(rng, 2.6, 6.5), uniform(rng, 2.6, 6.5), uniform(rng, 2.3, 3.2))
    door = plan_holes(rng, room)
    shell(b, rng, room)
    trim = plain(b, rng, pick(rng, ("white", "white", "dark", "wood")), **glossy(rng, 0.3))
    for wall, holes in room.holes.items():
        for hole in holes:
            dress_hole(b, rng, room, wall, hole, trim)
    light_room(b, rng, room)
    if door >= 0:
        neighbour_room(b, rng, room, door)
    if chance(rng, 0.6):
        structure(b, rng, room)
    furnish(b, rng, room)
    hang_pictures(b, rng, room)
    return Stage(
        scene=b.build(),
        low=np.array([0.35, 0.35, 1.0]),
        high=np.array([room.wide - 0.35, room.deep - 0.35, 1.8]),
        subject_low=np.array([0.1 * room.wide, 0.1 * room.deep, 0.5]),
        subject_high=np.array([0.9 * room.wide, 0.9 * room.deep, 1.5]),
        motions=("forward", "forward", "sideways", "orbit", "turn", "wander"),
        lengths=(0.4, 2.5),
        distances=(1.3, 6.0),
    )
