"""Shades, bases and feet of lamps. Lengths are metres."""

from __future__ import annotations

import math

import numpy as np

from latent3d.worlds.object_assembly import Assembly
from latent3d.worlds.object_materials import Material
from latent3d.worlds.object_outlines import bezier, rectangle
from latent3d.worlds.object_parts import Part, bar, ellipsoid, lathe, loft, runs, slab
from latent3d.worlds.palette import chance, pick, uniform


def add_shade(made: Assembly, material: Material, radius: float, height: float, z: float) -> str:
    """A cloth shade around the axis from ``z`` up, with rims and a bulb inside; says its form."""
    form = pick(made.rng, ("drum", "cone", "cone", "bell", "pleated", "square"))
    top = {"drum": 0.97, "cone": uniform(made.rng, 0.45, 0.7), "bell": 0.5, "pleated": 0.62, "square": 0.7}[form]
    t = np.linspace(0, 1, 5)
    outer = np.stack([radius * (1 + (top - 1) * (np.sqrt(t) if form == "bell" else t)), z + t * height], 1)
    if form == "square":
        part = _square_shell(radius, top, height).moved(z=z)
    else:
        thick, n = (0.014, 64) if form == "pleated" else (0.006, 32)
        wall = np.concatenate([outer, outer[::-1] - [thick, 0.0]])
        part = lathe(wall, n, loop=True, crest=len(outer) - 1)
    made.add(material, part.mapped(_pleats) if form == "pleated" else part)
    size = min(0.032, 0.3 * radius)
    made.add(made.palette.glow(), ellipsoid(size, size, 1.3 * size, 14, 8).moved(z=z + 0.4 * height))
    return f"{form} shade"


def _pleats(points: np.ndarray) -> np.ndarray:
    """Points (N, 3) moved in and out, 32 times around the axis."""
    angle = np.arctan2(points[:, 1], points[:, 0])
    return points * (1 + 0.025 * np.cos(32 * angle))[:, None] ** np.array([1, 1, 0])


def _square_shell(radius: float, top: float, height: float) -> Part:
    """Four slanted walls of some thickness."""
    levels = [(1.0, 0.0), ((1 + top) / 2, 0.5), (top, 1.0)]
    outer = [(radius * s, z * height) for s, z in levels]
    profile = [*outer, *((r - 0.006, z) for r, z in reversed(outer))]
    square = rectangle(1.7, 1.7, 0.06, 2)
    rings = np.stack([np.column_stack([square * r, np.full(len(square), z)]) for r, z in profile])
    return loft(rings, loop=True, rows=runs(np.array(profile), True), columns=runs(square, True)).boxed()


def turned_base(made: Assembly, height: float, radius: float) -> tuple[Part, str]:
    """A vase from the lathe, and what it looks like."""
    form = pick(made.rng, ("round", "gourd", "bottle", "column", "stacked"))
    r, h = radius, height
    if form == "stacked":
        count = int(made.rng.integers(2, 5))
        step = h / count
        beads = []
        for k in range(count):
            size = r * (1 - 0.18 * k)
            angle = np.linspace(-0.45 * math.pi, 0.45 * math.pi, 7)
            beads += [(size * math.cos(a), (k + 0.5 + 0.5 * math.sin(a)) * step) for a in angle]
        return lathe([(0, 0), *beads, (0, h)], 24), "a base of stacked balls"
    control = {
        "round": [(0.5, 0), (1.25, 0.05), (1.35, 0.65), (0.5, 0.75), (0.14, 0.85), (0.16, 1.0)],
        "gourd": [(0.6, 0), (1.7, 0.2), (0.1, 0.5), (0.95, 0.7), (0.2, 0.9), (0.16, 1.0)],
        "bottle": [(0.75, 0), (0.85, 0.3), (0.9, 0.6), (0.2, 0.6), (0.15, 0.85), (0.15, 1.0)],
        "column": [(0.55, 0.0), (0.4, 0.3), (0.36, 0.6), (0.34, 0.8), (0.36, 0.9), (0.4, 1.0)],
    }[form]
    curve = bezier([(a * r, b * h) for a, b in control], 16)
    words = "a column base" if form == "column" else "a round base" if form == "round" else f"a {form}-shaped base"
    return lathe([(0, 0), *curve, (0, h)], 28), words


def add_foot(made: Assembly, material: Material, radius: float, thick: float = 0.02) -> str:
    """A plate to stand on; says its form."""
    if chance(made.rng, 0.3):
        made.add(material, slab(rectangle(1.8 * radius, 1.8 * radius, 0.2 * radius, 4), 0, thick, 0.3 * thick))
        return "square foot"
    profile = [(0, 0), (1, 0), (1, 0.5), (0.9, 1), (0.15, 1.5), (0, 1.5)]
    made.add(material, lathe(np.array(profile) * [radius, thick], 32))
    return "round foot"


def add_spokes(made: Assembly, metal: Material, radius: float, z: float) -> None:
    """Spokes that hold a shade."""
    for turn in (0, 60, 120):
        made.add(metal, bar((-radius, 0, z), (radius, 0, z), 0.006, round_=True, n=6, rows=1).turned(2, turn))
