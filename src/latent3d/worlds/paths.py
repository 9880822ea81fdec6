"""Smooth, collision-free camera paths through a stage, and the checks that a path is worth filming."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from latent3d.worlds.palette import Rng, log_uniform, pick, uniform
from latent3d.worlds.tables import Scene

CLEARANCE = 0.25
MOST_TURN = math.radians(50)
DENSE_TIMES = np.linspace(0.0, 1.0, 25)


@dataclass(frozen=True)
class Stage:
    """A scene and where cameras may go in it. Metres, z up.

    Attributes:
        scene: packed tables.
        low, high: (3,) box in which camera centres may stand.
        subject_low, subject_high: (3,) box of points that cameras look towards.
        motions: names of motions to draw from (with repetition as weight).
        lengths: shortest and longest way between the first and the last camera.
        distances: nearest and farthest distance from the first camera to its subject.
    """

    scene: Scene
    low: np.ndarray
    high: np.ndarray
    subject_low: np.ndarray
    subject_high: np.ndarray
    motions: tuple[str, ...]
    lengths: tuple[float, float]
    distances: tuple[float, float]


@dataclass(frozen=True)
class Path:
    """Camera path over time in [0, 1]; see `pose`.

    Attributes:
        points: (3, 3) control points of a quadratic Bezier curve, or for arcs (centre, start, axis heights).
        arc: total angle of an arc about the centre in radians, or None for a curve.
        subject: (3,) point looked at.
        follow: 0 keeps the first direction, 1 keeps the subject in place.
        turn, nod, roll: drift of yaw and pitch over the path and constant roll, radians.
        aim: (2,) constant offset of yaw and pitch from the subject, radians.
    """

    points: np.ndarray
    arc: float | None
    subject: np.ndarray
    follow: float
    turn: float
    nod: float
    roll: float
    aim: np.ndarray
    sway: float = 0.0

    def position(self, t: float) -> np.ndarray:
        """Camera centre at time t."""
        if self.arc is None:
            p0, p1, p2 = self.points
            point = (1 - t) ** 2 * p0 + 2 * t * (1 - t) * p1 + t * t * p2
        else:
            centre, start, rise = self.points
            angle = self.arc * t
            c, s = math.cos(angle), math.sin(angle)
            d = start - centre
            grow = 1.0 + rise[0] * t
            point = centre + np.array([(c * d[0] - s * d[1]) * grow, (s * d[0] + c * d[1]) * grow, d[2] + rise[2] * t])
        if self.sway:
            point = point + np.array([0.0, 0.0, self.sway * math.sin(2 * math.pi * t)])
        return point

    def angles(self, t: float) -> tuple[float, float]:
        """Yaw (about z from x) and pitch (up positive) in radians at time t."""
        ease = 0.5 * t + 0.5 * t * t * (3 - 2 * t)
        first, now = (direction_angles(self.subject - self.position(s)) for s in (0.0, t))
        yaw_change = (now[0] - first[0] + math.pi) % (2 * math.pi) - math.pi
        yaw = first[0] + self.follow * yaw_change + self.turn * ease + self.aim[0]
        pitch = first[1] + self.follow * (now[1] - first[1]) + self.nod * ease + self.aim[1]
        return yaw, pitch

    def pose(self, t: float) -> np.ndarray:
        """Camera-to-world (4, 4), OpenCV axes, at time t in [0, 1]."""
        yaw, pitch = self.angles(t)
        forward = np.array([math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), math.sin(pitch)])
        right = np.array([math.sin(yaw), -math.cos(yaw), 0.0])
        down = np.cross(forward, right)
        c, s = math.cos(self.roll), math.sin(self.roll)
        out = np.eye(4)
        out[:3, 0], out[:3, 1], out[:3, 2] = c * right + s * down, c * down - s * right, forward
        out[:3, 3] = self.position(t)
        return out


def direction_angles(direction: np.ndarray) -> tuple[float, float]:
    """Yaw and pitch in radians of a direction."""
    flat = math.hypot(direction[0], direction[1])
    return math.atan2(direction[1], direction[0]), math.atan2(direction[2], max(flat, 1e-9))


def draw_path(rng: Rng, stage: Stage) -> Path | None:
    """One proposal; None where it leaves the stage, meets an obstacle or turns too far."""
    start = stage.low + (stage.high - stage.low) * rng.random(3)
    subject = stage.subject_low + (stage.subject_high - stage.subject_low) * rng.random(3)
    away = subject - start
    reach = float(np.linalg.norm(away))
    flat = math.hypot(away[0], away[1])
    if not stage.distances[0] <= reach <= stage.distances[1] or flat < 0.5 * reach:
        return None
    length = log_uniform(rng, *stage.lengths)
    ahead = np.array([away[0] / flat, away[1] / flat, 0.0])
    side = np.array([-ahead[1], ahead[0], 0.0]) * pick(rng, (-1.0, 1.0))
    motion = pick(rng, stage.motions)
    follow, turn, arc, sway = 1.0, rng.normal() * 0.12, None, 0.0
    lift = np.array([0.0, 0.0, rng.normal() * 0.08 * length])
    if motion == "forward":
        direction = ahead * pick(rng, (1.0, 1.0, 1.0, -1.0)) + side * rng.normal() * 0.2
        follow = uniform(rng, 0.0, 0.6)
    elif motion == "sideways":
        direction = side + ahead * rng.normal() * 0.2
        follow = uniform(rng, 0.0, 1.0)
    elif motion in ("orbit", "helix"):
        direction = side
        arc = pick(rng, (-1.0, 1.0)) * length / flat
    elif motion == "turn":
        length = min(length, stage.lengths[0] * uniform(rng, 1.0, 2.0))
        direction = rng.normal(size=3) * np.array([1.0, 1.0, 0.1])
        follow, turn = 0.0, pick(rng, (-1.0, 1.0)) * uniform(rng, 0.25, 0.85)
    elif motion == "crane":
        direction = np.array([0.0, 0.0, pick(rng, (-1.0, 1.0))]) + 0.3 * side
        lift = np.zeros(3)
    else:
        direction = rng.normal(size=3) * np.array([1.0, 1.0, 0.1])
        follow = uniform(rng, 0.0, 1.0)
        turn = rng.normal() * 0.25
    if motion == "helix":
        sway = uniform(rng, 0.1, 0.25)
    direction = direction / np.linalg.norm(direction)
    end = start + direction * length + lift
    middle = 0.5 * (start + end) + rng.normal(size=3) * np.array([0.12, 0.12, 0.03]) * length
    points = np.stack([start, middle, end])
    if arc is not None:
        rise = np.array(
            [uniform(rng, -0.15, 0.1), 0.0, lift[2] + (uniform(rng, -0.5, 0.5) if motion == "helix" else 0.0)]
        )
        points = np.stack([np.array([subject[0], subject[1], start[2]]), start, rise])
        points[0, 2] = 0.0
    aim = np.array([rng.normal() * 0.12, rng.normal() * 0.06 - 0.03])
    path = Path(points, arc, subject, follow, turn, rng.normal() * 0.06, rng.normal() * 0.02, aim, sway)
    return path if clear_of_obstacles(path, stage) and turns_gently(path) else None


def clear_of_obstacles(path: Path, stage: Stage) -> bool:
    """Whether the whole path stays on the stage and `CLEARANCE` metres away from every bounding box."""
    points = np.stack([path.position(float(t)) for t in DENSE_TIMES])
    if (points < stage.low - 1e-6).any() or (points > stage.high + 1e-6).any():
        return False
    low, high = stage.scene.bounds_min[None], stage.scene.bounds_max[None]
    gap = np.maximum(np.maximum(low - points[:, None], points[:, None] - high), 0.0)
    return bool((gap**2).sum(-1).min() > CLEARANCE**2)


def turns_gently(path: Path) -> bool:
    """Whether no two cameras of the path look more than about 50 degrees apart, and none too steeply."""
    angles = np.array([path.angles(float(t)) for t in DENSE_TIMES[::3]])
    yaw = np.unwrap(angles[:, 0])
    return bool(np.ptp(yaw) < MOST_TURN and np.ptp(angles[:, 1]) < 0.6 and np.abs(angles[:, 1]).max() < 0.75)
