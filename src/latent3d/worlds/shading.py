"""What one ray sees: textures under area lights with shadows, ambient occlusion, highlights, haze and sky; compiled."""

from __future__ import annotations

import math

from latent3d.worlds.compiled import compiled
from latent3d.worlds.noise import octaves
from latent3d.worlds.shapes import MISS, hit_primitive, surface
from latent3d.worlds.tables import SUN
from latent3d.worlds.textures import dome_colour, surface_colour
from latent3d.worlds.tree import trace

SURFACE_OFFSET = 1.5e-3
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
    """Exposure and soft shoulder: y = x (1 + x / s^2) / (1 + x), at most 1 (Reinhard et al. 2002, eq. 4)."""
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
def highlight(M, k, lx, ly, lz, bx, by, bz, dx, dy, dz):
    """Blinn-Phong lobe of material row ``k`` for light direction l, normal b and viewing direction d, all unit."""
    if M[k, 19] <= 0.0:
        return 0.0
    hx = lx - dx
    hy = ly - dy
    hz = lz - dz
    cosine = (hx * bx + hy * by + hz * bz) / math.sqrt(hx * hx + hy * hy + hz * hz + 1e-12)
    if cosine <= 0.0:
        return 0.0
    return M[k, 19] * math.exp(M[k, 20] * math.log(cosine)) * (0.3 + 0.08 * M[k, 20])


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
        shine = highlight(M, k, lx, ly, lz, bx, by, bz, dx, dy, dz)
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

    ``known`` holds for primitive ``same`` only. ``memory``: primitive of the last ray, then each light's last blocker.
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
