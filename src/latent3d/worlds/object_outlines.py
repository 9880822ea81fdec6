"""Plane outlines, curves and turns for the parts of objects."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def circle(n: int, phase: float = 0.5) -> np.ndarray:
    """Unit circle (n, 2), counter-clockwise; ``phase`` in steps keeps an edge, not a corner, on the axes."""
    angle = (np.arange(n) + phase) * (2 * math.pi / n)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def rectangle(width: float, depth: float, radius: float = 0.0, steps: int = 3) -> np.ndarray:
    """Outline of a rectangle about the origin with rounded corners, counter-clockwise: (4, 2) or (4 steps + 4, 2)."""
    signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    radius = min(radius, 0.49 * min(width, depth))
    if radius <= 0:
        return signs * np.array([width, depth]) / 2
    corners = signs * (np.array([width, depth]) / 2 - radius)
    angle = np.arange(4)[:, None] * (math.pi / 2) + np.linspace(0, math.pi / 2, steps + 1)
    return (corners[:, None] + radius * np.stack([np.cos(angle), np.sin(angle)], -1)).reshape(-1, 2)


def inset(outline: np.ndarray, distance: float) -> np.ndarray:
    """A counter-clockwise outline (n, 2) moved inwards along the mean normals of its corners."""
    edges = np.roll(outline, -1, 0) - outline
    normals = np.stack([-edges[:, 1], edges[:, 0]], 1) / np.linalg.norm(edges, axis=1, keepdims=True)
    mean = normals + np.roll(normals, 1, 0)
    return outline + distance * 2 * mean / np.maximum((mean * mean).sum(1, keepdims=True), 0.8)


def arc(radius: float, start: float, end: float, count: int = 10) -> np.ndarray:
    """Points (count, 2) on a circle from one angle to another, in degrees."""
    angle = np.radians(np.linspace(start, end, count))
    return radius * np.stack([np.cos(angle), np.sin(angle)], 1)


def bezier(control: Sequence[Sequence[float]] | np.ndarray, count: int = 10) -> np.ndarray:
    """``count`` points on the Bézier curve of any number of control points."""
    points = np.asarray(control, float)
    degree = len(points) - 1
    t = np.linspace(0.0, 1.0, count)[:, None]
    weights = [math.comb(degree, i) * t**i * (1 - t) ** (degree - i) for i in range(degree + 1)]
    return np.hstack(weights) @ points


def rotation(axis: int, degrees: float) -> np.ndarray:
    """Matrix (3, 3) of a right-handed turn about a coordinate axis."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    out = np.eye(3)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    out[a, a] = out[b, b] = c
    out[a, b], out[b, a] = -s, s
    return out
