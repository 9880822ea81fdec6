"""Compiled ray tracer of packed scenes: textures, area lights with shadows, ambient occlusion, highlights, haze, sky.

Up to four rays a pixel in a fixed 2 x 2 pattern. Ray j of every pixel uses point j of every light and direction j of
the ambient occlusion, so soft shadows are the mean of few hard ones: the same in every view, without noise.
The two rays on a diagonal are traced first. Where they see one surface of nearly one albedo under the same lights, the
other two are skipped; where those are traced and hit the same primitive, they inherit each light's visibility on which
the first two agree, and the mean of their occlusion. World axes: metres, z up; cameras: OpenCV axes.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from latent3d.worlds.compiled import compiled
from latent3d.worlds.shading import sample_ray, tone
from latent3d.worlds.shapes import MISS
from latent3d.worlds.tables import Scene
from latent3d.worlds.tree import build_tree

SAME_COLOUR = 0.04
SAME_DEPTH = 0.02
EDGE_DEPTH = 0.1


@compiled
def resolve_depth(samples, taken):
    """Depth and normal of a pixel from its rays (columns: z-depth, primitive, normal, ...).

    One surface: the harmonic mean, exact for planes at the pixel centre. Across an edge: the surface that holds the
    second nearest ray, hence the front one where it covers half of the pixel.
    """
    nearest = MISS
    second = MISS
    farthest = 0.0
    inverse = 0.0
    for s in range(taken):
        z = samples[s, 0]
        inverse += 1.0 / z
        farthest = max(farthest, z)
        if z < nearest:
            second = nearest
            nearest = z
        elif z < second:
            second = z
    chosen = second if taken > 1 else nearest
    if farthest - nearest < EDGE_DEPTH * nearest:
        chosen = taken / inverse
    nx = 0.0
    ny = 0.0
    nz = 0.0
    for s in range(taken):
        if abs(samples[s, 0] - chosen) <= EDGE_DEPTH * chosen:
            nx += samples[s, 2]
            ny += samples[s, 3]
            nz += samples[s, 4]
    length = math.sqrt(nx * nx + ny * ny + nz * nz)
    return chosen, nx / length, ny / length, nz / length


@compiled
def differ(samples, records, lights):
    """Whether the first two rays saw different surfaces, albedos or lights, so that two more are worth their cost."""
    if samples[0, 1] != samples[1, 1]:
        return True
    if abs(samples[0, 0] - samples[1, 0]) > SAME_DEPTH * (samples[0, 0] + samples[1, 0]):
        return True
    if samples[0, 2] * samples[1, 2] + samples[0, 3] * samples[1, 3] + samples[0, 4] * samples[1, 4] < 0.97:
        return True
    for q in range(1, lights + 1):
        if records[0, q] != records[1, q]:
            return True
    for c in range(lights + 1, lights + 4):
        if abs(records[0, c] - records[1, c]) > SAME_COLOUR * (records[0, c] + records[1, c]) + 0.002:
            return True
    return False


@compiled
def inherit(samples, records, known, lights):
    """Fill ``known`` with what the first two rays agree on; returns the primitive for which it holds (-2: none)."""
    if samples[0, 1] != samples[1, 1] or samples[0, 1] < 0:
        return -2
    known[0] = 0.5 * (records[0, 0] + records[1, 0])
    for q in range(1, lights + 1):
        known[q] = records[0, q] if records[0, q] == records[1, q] else -1.0
    return int(samples[0, 1])


@compiled
def render_view(P, M, L, E, nodes, order, c2w, fx, fy, cx, cy, exposure, supersample, colour, depth, normal):
    """Fill ``colour`` (H, W, 3) linear in [0, 1], ``depth`` (H, W) z-depth, ``normal`` (H, W, 3) in world axes."""
    height, width = depth.shape
    lights = L.shape[0]
    stack = np.zeros(96, dtype=np.int64)
    memory = np.full(1 + lights, -1, dtype=np.int64)
    samples = np.zeros((4, 8))
    records = np.zeros((4, lights + 4))
    known = np.zeros(1 + lights)
    spread = 1.0 / max(fx, fy) / (supersample if supersample > 1 else 1)
    most = 4 if supersample > 1 else 1
    for row in range(height):
        for column in range(width):
            taken = 0
            same = -2
            while taken < most:
                if taken == 2 and not differ(samples, records, lights):
                    break
                # order of rays: the diagonal first
                j = 0 if taken == 0 else (3 if taken == 1 else taken - 1)
                jx = 0.25 + 0.5 * (j & 1) if supersample > 1 else 0.5
                jy = 0.25 + 0.5 * (j >> 1) if supersample > 1 else 0.5
                a = (column + jx - cx) / fx
                b = (row + jy - cy) / fy
                n = 1.0 / math.sqrt(a * a + b * b + 1.0)
                dx = (c2w[0, 0] * a + c2w[0, 1] * b + c2w[0, 2]) * n
                dy = (c2w[1, 0] * a + c2w[1, 1] * b + c2w[1, 2]) * n
                dz = (c2w[2, 0] * a + c2w[2, 1] * b + c2w[2, 2]) * n
                for c in range(lights + 1):
                    known[c] = -1.0
                if taken >= 2:
                    same = inherit(samples, records, known, lights)
                t, i, nx, ny, nz, r, g, bl = sample_ray(
                    P, M, L, E, nodes, order, stack, memory, known, same, records, taken,
                    c2w[0, 3], c2w[1, 3], c2w[2, 3], dx, dy, dz, spread, j,
                )  # fmt: skip
                samples[taken, 0] = t * n
                samples[taken, 1] = i
                samples[taken, 2] = nx
                samples[taken, 3] = ny
                samples[taken, 4] = nz
                samples[taken, 5] = tone(r, exposure)
                samples[taken, 6] = tone(g, exposure)
                samples[taken, 7] = tone(bl, exposure)
                taken += 1
            z, nx, ny, nz = resolve_depth(samples, taken)
            depth[row, column] = z
            normal[row, column, 0] = nx
            normal[row, column, 1] = ny
            normal[row, column, 2] = nz
            for c in range(3):
                total = 0.0
                for s in range(taken):
                    total += samples[s, 5 + c]
                colour[row, column, c] = total / taken


@dataclass(frozen=True)
class Pictures:
    """What the tracer returns for V views.

    Attributes:
        colours: (V, H, W, 3) float32, linear light in [0, 1] after exposure and tone curve.
        depths: (V, H, W) float32 z-depth in metres.
        normals: (V, H, W, 3) float32 unit normals in world axes, facing the camera.
    """

    colours: np.ndarray
    depths: np.ndarray
    normals: np.ndarray


class Tracer:
    """A scene prepared for tracing. Calls are pure; the compiled loops release the GIL, so threads scale."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._tables = tuple(
            np.ascontiguousarray(table, dtype=np.float64)
            for table in (scene.primitives, scene.materials, scene.lights, scene.environment)
        )
        self._tree = build_tree(scene.bounds_min.astype(np.float64), scene.bounds_max.astype(np.float64))

    def render(
        self,
        c2w: np.ndarray,
        k: np.ndarray,
        height: int,
        width: int,
        *,
        exposure: float = 1.0,
        supersample: int = 2,
        threads: int = 1,
    ) -> Pictures:
        """Trace V views.

        Args:
            c2w: (V, 4, 4) camera-to-world in the scene's axes (metres, z up; cameras OpenCV).
            k: (3, 3) pixel intrinsics.
            exposure: factor on linear radiance before the tone curve.
            supersample: 1 (one ray a pixel) or 2 (two to four rays a pixel).

        Raises:
            ValueError: for another ``supersample``.
        """
        if supersample not in (1, 2):
            raise ValueError(f"supersample must be 1 or 2, not {supersample}; render larger and shrink for more")
        views = len(c2w)
        colours = np.empty((views, height, width, 3), dtype=np.float32)
        depths = np.empty((views, height, width), dtype=np.float32)
        normals = np.empty((views, height, width, 3), dtype=np.float32)
        poses = np.ascontiguousarray(c2w, dtype=np.float64)
        lens = float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2])

        def one(view: int) -> None:
            out = colours[view], depths[view], normals[view]
            render_view(*self._tables, *self._tree, poses[view], *lens, float(exposure), supersample, *out)

        if threads > 1 and views > 1:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(one, range(views)))
        else:
            for view in range(views):
                one(view)
        return Pictures(colours, depths, normals)
