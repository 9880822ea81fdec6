"""Compiled ray tracer of packed scenes: textures, area lights with shadows, ambient occlusion, highlights, haze, sky.

Up to four rays a pixel in a fixed 2 x 2 pattern. Ray j of every pixel uses point j of every light and direction j of the
ambient occlusion, so soft shadows are the mean of few hard ones: the same in every view, without noise.
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
from latent3d.worlds.shapes import MISS, build_tree, hit_primitive, surface, trace
from latent3d.worlds.tables import SUN, Scene
from latent3d.worlds.textures import dome_colour, octaves, surface_colour

SURFACE_OFFSET = 1.5e-3
SAME_COLOUR = 0.04
SAME_DEPTH = 0.02
EDGE_DEPTH = 0.1
SHOULDER = 1.6
FAINT = 0.03  # lights below this share of the ambient light cast no shadow


@compiled
def light_point(j):
    """Place of sample ``j`` on an area light, in half axes: corners of a turned square, opposite on the diagonal."""
    if j == 0:
        return -0.65, -0.25
    if j == 1:
        return 0.25, -0.65
    if j == 2:
        return -0.25, 0.65
    return 0.65, 0.25


@compiled
def tone(value, exposure):
    """Exposure and a soft shoulder that reaches 1: y = x (1 + x / s^2) / (1 + x), clipped (Reinhard et al. 2002, eq. 4)."""
    x = value * exposure
    return min(1.0, x * (1.0 + x / (SHOULDER * SHOULDER)) / (1.0 + x))


@compiled
def occlusion(P, nodes, order, stack, px, py, pz, nx, ny, nz, j, reach):
    """Nearness in [0, 1] of the first obstacle within ``reach`` along direction ``j`` of four about the normal."""
    # frame of Duff et al. 2017, "Building an orthonormal basis, revisited"
    s = 1.0 if nz >= 0.0 else -1.0
    a = -1.0 / (s + nz)
    b = nx * ny * a
    angle = 0.7 + 1.5707963 * (j if j < 2 else 5 - j)  # rays 0 and 3 look to opposite sides
    c = 0.75 * math.cos(angle)
    d = 0.75 * math.sin(angle)
    dx = (1.0 + s * nx * nx * a) * c + b * d + 0.6614378 * nx
    dy = s * b * c + (s + ny * ny * a) * d + 0.6614378 * ny
    dz = -s * nx * c - ny * d + 0.6614378 * nz
    t, i = trace(P, nodes, order, stack, px, py, pz, dx, dy, dz, reach, False)
    return 0.0 if i < 0 else 1.0 - t / reach


@compiled
def bumped(M, k, u, v, w, nx, ny, nz):
    """Normal tilted by noise where the material has bumps; only shading sees it."""
    if M[k, 22] <= 0.0:
        return nx, ny, nz
    seed = int(M[k, 13])
    s = 6.0 / M[k, 10]
    bump = 1.6 * M[k, 22]
    bx = nx + bump * octaves(s * u, s * v, seed + 101, s * w, 2, 0.8)
    by = ny + bump * octaves(s * u, s * v, seed + 111, s * w, 2, 0.8)
    bz = nz + bump * octaves(s * u, s * v, seed + 121, s * w, 2, 0.8)
    length = 1.0 / math.sqrt(bx * bx + by * by + bz * bz + 1e-12)
    return bx * length, by * length, bz * length


@compiled
def shade(
    P, M, L, E, nodes, order, stack, memory, known, records, slot, i, px, py, pz, nx, ny, nz, u, v, w, dx, dy, dz, j
):
    """Linear RGB leaving surface point (px, py, pz) against the viewing direction (dx, dy, dz).

    ``known[0]`` is the occlusion to reuse, ``known[1 + q]`` the visibility of light q; negative: trace it. Row
    ``slot`` of ``records`` takes what was found in the same places, then albedo plus highlight in its last three.
    """
    k = int(P[i, 19])
    lights = L.shape[0]
    ar, ag, ab = surface_colour(M, k, u, v, w)
    records[slot, lights + 1] = ar
    records[slot, lights + 2] = ag
    records[slot, lights + 3] = ab
    emission = M[k, 21]
    if emission > 0.0:
        return ar * emission, ag * emission, ab * emission
    bx, by, bz = bumped(M, k, u, v, w, nx, ny, nz)
    px += SURFACE_OFFSET * nx
    py += SURFACE_OFFSET * ny
    pz += SURFACE_OFFSET * nz
    up = 0.5 + 0.5 * bz
    hidden = known[0]
    if hidden < 0.0:
        hidden = occlusion(P, nodes, order, stack, px, py, pz, nx, ny, nz, j, E[28]) if E[27] > 0.0 else 0.0
    records[slot, 0] = hidden
    fill = 1.0 - E[27] * hidden
    r = ar * (E[24] + (E[21] - E[24]) * up) * fill
    g = ag * (E[25] + (E[22] - E[25]) * up) * fill
    b = ab * (E[26] + (E[23] - E[26]) * up) * fill
    faint = FAINT * (E[21] + E[22] + E[23])
    ca, cb = light_point(j)
    for q in range(lights):
        records[slot, 1 + q] = 0.0
        lx = L[q, 1] + ca * L[q, 4] + cb * L[q, 7]
        ly = L[q, 2] + ca * L[q, 5] + cb * L[q, 8]
        lz = L[q, 3] + ca * L[q, 6] + cb * L[q, 9]
        limit = MISS
        power = 1.0
        if L[q, 0] != SUN:
            lx -= px
            ly -= py
            lz -= pz
            square = lx * lx + ly * ly + lz * lz
            limit = math.sqrt(square)
            power = 1.0 / (0.3 + square)
        length = 1.0 / math.sqrt(lx * lx + ly * ly + lz * lz + 1e-12)
        lx *= length
        ly *= length
        lz *= length
        facing = lx * bx + ly * by + lz * bz
        if facing <= 0.0 or lx * nx + ly * ny + lz * nz <= 0.0:
            continue
        power *= facing
        visible = known[1 + q]
        if visible < 0.0:
            visible = 1.0
            if L[q, 13] > 0.0 and power * (L[q, 10] + L[q, 11] + L[q, 12]) > faint:
                limit -= 2.0 * SURFACE_OFFSET
                last = memory[1 + q]
                if last >= 0 and hit_primitive(P, last, px, py, pz, lx, ly, lz, limit) < limit:
                    visible = 0.0
                else:
                    _, blocker = trace(P, nodes, order, stack, px, py, pz, lx, ly, lz, limit, True)
                    if blocker >= 0:
                        memory[1 + q] = blocker
                        visible = 0.0
        records[slot, 1 + q] = visible
        if visible == 0.0:
            continue
        shine = 0.0
        if M[k, 19] > 0.0:  # Blinn-Phong highlight
            hx = lx - dx
            hy = ly - dy
            hz = lz - dz
            cosine = (hx * bx + hy * by + hz * bz) / math.sqrt(hx * hx + hy * hy + hz * hz + 1e-12)
            if cosine > 0.0:
                shine = M[k, 19] * math.exp(M[k, 20] * math.log(cosine)) * (0.3 + 0.08 * M[k, 20])
                for c in range(3):
                    records[slot, lights + 1 + c] += shine
        r += (ar + shine) * L[q, 10] * power
        g += (ag + shine) * L[q, 11] * power
        b += (ab + shine) * L[q, 12] * power
    return r, g, b


@compiled
def dome_distance(E, ox, oy, oz, dx, dy, dz):
    """Distance from inside to the dome."""
    x = ox - E[18]
    y = oy - E[19]
    z = oz - E[20]
    b = x * dx + y * dy + z * dz
    c = x * x + y * y + z * z - E[17] * E[17]
    return -b + math.sqrt(max(0.0, b * b - c))


@compiled
def sample_ray(P, M, L, E, nodes, order, stack, memory, known, same, records, slot, ox, oy, oz, dx, dy, dz, spread, j):
    """One ray: distance, primitive (-1: dome), normal facing the ray, linear RGB. ``spread``: footprint per metre.

    ``known`` holds for primitive ``same`` only. ``memory``: primitive of the last ray, then the last blocker of each light.
    """
    hint = memory[0]
    t = MISS
    i = -1
    if hint >= 0:
        t = hit_primitive(P, hint, ox, oy, oz, dx, dy, dz, MISS)
        i = hint if t < MISS else -1
    nearer, other = trace(P, nodes, order, stack, ox, oy, oz, dx, dy, dz, t, False)
    if other >= 0:
        t = nearer
        i = other
    memory[0] = i
    far = dome_distance(E, ox, oy, oz, dx, dy, dz)
    if i < 0 or t > far:
        inverse = 1.0 / E[17]
        nx = (E[18] - ox - far * dx) * inverse
        ny = (E[19] - oy - far * dy) * inverse
        nz = (E[20] - oz - far * dz) * inverse
        r, g, b = dome_colour(E, -nx, -ny, -nz, spread)
        for c in range(L.shape[0] + 1):
            records[slot, c] = 0.0
        records[slot, L.shape[0] + 1] = r
        records[slot, L.shape[0] + 2] = g
        records[slot, L.shape[0] + 3] = b
        return far, -1, nx, ny, nz, r, g, b
    px = ox + t * dx
    py = oy + t * dy
    pz = oz + t * dz
    nx, ny, nz, u, v = surface(P, i, px, py, pz, dx, dy, dz)
    slant = max(0.15, -(nx * dx + ny * dy + nz * dz))
    w = t * spread / math.sqrt(slant)
    if i != same:
        for c in range(L.shape[0] + 1):
            known[c] = -1.0
    r, g, b = shade(
        P, M, L, E, nodes, order, stack, memory, known, records, slot, i, px, py, pz, nx, ny, nz, u, v, w, dx, dy, dz, j
    )
    if E[29] > 0.0:
        haze = 1.0 - math.exp(-E[29] * t)
        r += haze * (E[3] - r)
        g += haze * (E[4] - g)
        b += haze * (E[5] - b)
    return t, i, nx, ny, nz, r, g, b


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
