"""Plan of a room: walls with openings, floor claims, and the shell built from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from latent3d.worlds.palette import Rng, chance, floor_cover, pick, plain, uniform, wall_paint
from latent3d.worlds.tables import SceneBuilder

WALL = 0.06  # half thickness of walls, metres
MIRROR = (-1.0, 1.0, 1.0, -1.0)  # whether x in a wall's frame runs against its coordinate


@dataclass
class Hole:
    """Opening in a wall: along it from ``left`` to ``right``, from ``low`` to ``high`` above the floor, metres."""

    left: float
    right: float
    low: float
    high: float
    window: bool


@dataclass
class Room:
    """Plan of a room: [0, wide] x [0, deep] x [0, high] metres, and what occupies the floor.

    Walls: 0 at x = 0, 1 at x = wide, 2 at y = 0, 3 at y = deep. ``holes`` by wall.
    """

    wide: float
    deep: float
    high: float
    holes: dict[int, list[Hole]] = field(default_factory=lambda: {0: [], 1: [], 2: [], 3: []})
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)

    def length(self, wall: int) -> float:
        """Length of a wall, metres."""
        return self.deep if wall < 2 else self.wide

    def claim(self, x0: float, y0: float, x1: float, y1: float) -> bool:
        """Reserve a floor rectangle; False where it leaves the room or overlaps another."""
        if x0 < -0.01 or y0 < -0.01 or x1 > self.wide + 0.01 or y1 > self.deep + 0.01:
            return False
        if any(x0 < b[2] and x1 > b[0] and y0 < b[3] and y1 > b[1] for b in self.taken):
            return False
        self.taken.append((x0, y0, x1, y1))
        return True


def wall_frame(b: SceneBuilder, room: Room, wall: int, along: float, z: float = 0.0, gap: float = 0.0):
    """Frame at a place on a wall: x along the wall, y into the room (``gap`` metres off the wall)."""
    if wall == 0:
        return b.frame(gap, along, z, yaw=-math.pi / 2)
    if wall == 1:
        return b.frame(room.wide - gap, along, z, yaw=math.pi / 2)
    if wall == 2:
        return b.frame(along, gap, z)
    return b.frame(along, room.deep - gap, z, yaw=math.pi)


def claim_at_wall(room: Room, wall: int, along: float, hx: float, hy: float, gap: float = 0.0) -> bool:
    """Reserve the floor of a thing of half sizes (hx, hy) whose back stands at a wall."""
    near, far = gap, gap + 2 * hy
    if any(h.left - 0.1 < along + hx and h.right + 0.1 > along - hx and not h.window for h in room.holes[wall]):
        return False
    if wall == 0:
        return room.claim(near, along - hx, far, along + hx)
    if wall == 1:
        return room.claim(room.wide - far, along - hx, room.wide - near, along + hx)
    if wall == 2:
        return room.claim(along - hx, near, along + hx, far)
    return room.claim(along - hx, room.deep - far, along + hx, room.deep - near)


def wall_with_holes(
    b: SceneBuilder, room: Room, wall: int, material: int, low: float = 0.0, inset: float = 0.0
) -> None:
    """A wall as boxes around its holes; ``low`` > 0 and ``inset`` > 0 draw a thinner panel of that height instead."""
    length, high = room.length(wall), (low or room.high)
    ends = WALL * 2 if not low else 0.0
    with wall_frame(b, room, wall, length / 2, gap=inset):
        # along runs mirrored in frames that look back: mirror the holes with it
        flip = MIRROR[wall]

        def piece(l0: float, l1: float, z0: float, z1: float) -> None:
            if l1 - l0 > 1e-3 and z1 - z0 > 1e-3:
                x = flip * ((l0 + l1) / 2 - length / 2)
                thick = WALL if not low else 0.006
                y = -WALL if not low else 0.0
                b.box((x, y, (z0 + z1) / 2), ((l1 - l0) / 2, thick, (z1 - z0) / 2), material, uv=(x, (z0 + z1) / 2))

        at = -ends
        for hole in sorted(room.holes[wall], key=lambda item: item.left):
            piece(at, hole.left, 0.0, high)
            piece(hole.left, hole.right, 0.0, min(hole.low, high))
            piece(hole.left, hole.right, hole.high, high)
            at = hole.right
        piece(at, length + ends, 0.0, high)


def shell(b: SceneBuilder, rng: Rng, room: Room, *, skirting: bool = True) -> None:
    """Floor, ceiling, four walls, skirting boards, perhaps panels and a cornice."""
    main = wall_paint(b, rng)
    accent = wall_paint(b, rng) if chance(rng, 0.35) else main
    odd = int(rng.random() * 4)
    floor = floor_cover(b, rng)
    ceiling = plain(b, rng, pick(rng, ("white", "white", "white", "warm", "neutral")))
    hx, hy = room.wide / 2, room.deep / 2
    margin = 2 * WALL
    b.box((hx, hy, -0.05), (hx + margin, hy + margin, 0.05), floor)
    b.box((hx, hy, room.high + 0.05), (hx + margin, hy + margin, 0.05), ceiling)
    board = plain(b, rng, pick(rng, ("white", "white", "dark", "wood")))
    panel = wall_paint(b, rng) if chance(rng, 0.18) else -1
    cornice = chance(rng, 0.3)
    for wall in range(4):
        wall_with_holes(b, room, wall, accent if wall == odd else main)
        if panel >= 0:
            wall_with_holes(b, room, wall, panel, low=0.95, inset=0.004)
        if skirting:
            wall_with_holes(b, room, wall, board, low=uniform(rng, 0.07, 0.14), inset=0.008)
        if cornice:
            with wall_frame(b, room, wall, room.length(wall) / 2):
                b.box((0, 0.03, room.high - 0.035), (room.length(wall) / 2, 0.03, 0.035), board)


def plan_holes(rng: Rng, room: Room) -> int:
    """Draw windows and perhaps one door opening; returns the door's wall or -1."""
    door = int(rng.random() * 4) if chance(rng, 0.6) else -1
    for wall in range(4):
        length = room.length(wall)
        if wall == door:
            width = uniform(rng, 0.8, min(1.8, 0.5 * length))
            left = uniform(rng, 0.3, length - width - 0.3)
            room.holes[wall].append(Hole(left, left + width, 0.0, uniform(rng, 2.0, min(2.25, room.high - 0.1)), False))
        elif chance(rng, 0.4):
            for middle in (0.5,) if chance(rng, 0.6) else (0.27, 0.73):
                width = min(uniform(rng, 0.6, 1.8), 0.38 * length)
                low = pick(rng, (0.15, 0.5, 0.85, 0.95))
                high = min(low + uniform(rng, 0.9, 1.7), room.high - 0.15)
                room.holes[wall].append(Hole(middle * length - width / 2, middle * length + width / 2, low, high, True))
    return door
