"""Ray hits with the packed primitives: closed forms and marched distance functions; normals and texture coordinates.

Rays are o + t d with unit d; a hit is the smallest t above `MIN_T`. Distances in metres. Tensor twin: `shapes_torch`.
"""

from __future__ import annotations

import math

from latent3d.worlds.compiled import compiled
from latent3d.worlds.tables import (
    BLOB,
    BOWL,
    BOX,
    CAPSULE,
    ELLIPSOID,
    FIRST_MARCHED,
    FRUSTUM,
    ROUND_BOX,
    TAPER,
    TORUS,
    TUBE,
    VASE,
)

MISS = 1e9
MIN_T = 1e-4
MARCH_STEPS = 48
MARCH_TOLERANCE = 2e-4


@compiled
def distance(kind, x, y, z, a, b, h, p0, p1, p2):
    """Lower bound of the signed distance (metres) from a local point to a marched shape of half sizes (a, b, h)."""
    ring = math.sqrt(x * x + y * y)
    if kind == ROUND_BOX:  # p0: edge radius
        qx = abs(x) - a + p0
        qy = abs(y) - b + p0
        qz = abs(z) - h + p0
        mx = max(qx, 0.0)
        my = max(qy, 0.0)
        mz = max(qz, 0.0)
        return math.sqrt(mx * mx + my * my + mz * mz) + min(max(qx, max(qy, qz)), 0.0) - p0
    if kind == TUBE:  # p0: wall thickness; closed below
        outer = max(ring - a, abs(z) - h)
        inner = max(ring - a + p0, p0 - (z + h))
        return max(outer, -inner)
    if kind == BOWL:  # lower half of a spherical shell of radius 2h = a, p0: thickness
        reach = math.sqrt(ring * ring + (z - h) * (z - h))
        return max(abs(reach - a + 0.5 * p0) - 0.5 * p0, z - h)
    if kind == VASE:  # radius a (p0 .. 1) along the height, p1: waves, p2: phase
        slope = 0.5 * a * (1.0 - p0) * p1 / h
        radius = a * (p0 + (1.0 - p0) * (0.5 + 0.5 * math.sin(p1 * z / h + p2)))
        return max((ring - radius) / math.sqrt(1.0 + slope * slope), abs(z) - h)
    if kind == BLOB:  # lumpy ellipsoid, p0: height of the lumps, p1: lumps, p2: phase
        small = min(a, min(b, h))
        sx = x / a
        sy = y / b
        sz = z / h
        lumps = math.sin(p1 * sx + p2) * math.sin(p1 * sy + 2.0 * p2) * math.sin(p1 * sz + 3.0 * p2)
        lumps += 0.4 * math.sin(2.7 * p1 * sx - p2) * math.sin(2.7 * p1 * sy) * math.sin(2.7 * p1 * sz + p2)
        reach = math.sqrt(sx * sx + sy * sy + sz * sz)
        return small * (reach - 1.0 + 1.4 * p0 - p0 * lumps) * 0.55
    if kind == TORUS:  # in the x-y plane, tube radius h
        ring -= a - h
        return math.sqrt(ring * ring + z * z) - h
    if kind == CAPSULE:  # along z, radius a
        rest = max(abs(z) - (h - a), 0.0)
        return math.sqrt(ring * ring + rest * rest) - a
    # ARCH: a block with a vaulted passage along y, p0: radius of the vault, springing at height p1
    block = max(abs(x) - a, max(abs(y) - b, abs(z) - h))
    hole = math.sqrt(x * x + (z - p1) * (z - p1)) - p0 if z > p1 else abs(x) - p0
    return max(block, -hole)


@compiled
def slab(o, d, half, near, far):
    """Clip [near, far] to |o + t d| <= half."""
    inverse = 1.0 / (d if abs(d) > 1e-12 else 1e-12)
    t1 = (-half - o) * inverse
    t2 = (half - o) * inverse
    return max(near, min(t1, t2)), min(far, max(t1, t2))


@compiled
def hit_frustum(x, y, z, dx, dy, dz, a, b, h, r0, r1):
    """Elliptic frustum: radius r0 (of a, b) at z = -h, r1 at z = +h, with caps."""
    x /= a
    y /= b
    dx /= a
    dy /= b
    k = (r1 - r0) / (2.0 * h)
    rm = 0.5 * (r0 + r1)
    rad = rm + k * z
    best = MISS
    A = dx * dx + dy * dy - k * k * dz * dz
    B = x * dx + y * dy - k * dz * rad
    C = x * x + y * y - rad * rad
    q = B * B - A * C
    if q > 0.0 and abs(A) > 1e-12:
        root = math.sqrt(q)
        for side in range(2):
            t = (-B - root) / A if side == 0 else (-B + root) / A
            pz = z + t * dz
            if MIN_T < t < best and abs(pz) <= h and rm + k * pz >= 0.0:
                best = t
    if abs(dz) > 1e-12:
        for side in range(2):
            t = ((h if side == 0 else -h) - z) / dz
            px = x + t * dx
            py = y + t * dy
            radius = r1 if side == 0 else r0
            if MIN_T < t < best and px * px + py * py <= radius * radius:
                best = t
    return best


@compiled
def taper_planes(i, a, b, h, p0, p1, p2):
    """Plane ``i`` of a box whose top is p0 a by p1 b and shifted by p2 along x: normal (unscaled) and offset."""
    ka = (p0 - 1.0) * a / (2.0 * h)
    kb = (p1 - 1.0) * b / (2.0 * h)
    shift = p2 / (2.0 * h)
    ma = 0.5 * (1.0 + p0) * a
    mb = 0.5 * (1.0 + p1) * b
    if i == 0:
        return 1.0, 0.0, -ka - shift, ma + 0.5 * p2
    if i == 1:
        return -1.0, 0.0, -ka + shift, ma - 0.5 * p2
    if i == 2:
        return 0.0, 1.0, -kb, mb
    if i == 3:
        return 0.0, -1.0, -kb, mb
    if i == 4:
        return 0.0, 0.0, 1.0, h
    return 0.0, 0.0, -1.0, h


@compiled
def hit_taper(x, y, z, dx, dy, dz, a, b, h, p0, p1, p2):
    """Convex block between six planes."""
    near = MIN_T
    far = MISS
    for i in range(6):
        nx, ny, nz, offset = taper_planes(i, a, b, h, p0, p1, p2)
        rate = nx * dx + ny * dy + nz * dz
        gap = offset - (nx * x + ny * y + nz * z)
        if abs(rate) < 1e-12:
            if gap < 0.0:
                return MISS
        elif rate < 0.0:
            near = max(near, gap / rate)
        else:
            far = min(far, gap / rate)
    return near if MIN_T < near < far else MISS


@compiled
def hit_primitive(P, i, ox, oy, oz, dx, dy, dz, limit):
    """Distance along the ray to primitive ``i``, or MISS beyond ``limit``."""
    wx = ox - P[i, 1]
    wy = oy - P[i, 2]
    wz = oz - P[i, 3]
    x = P[i, 4] * wx + P[i, 5] * wy + P[i, 6] * wz
    y = P[i, 7] * wx + P[i, 8] * wy + P[i, 9] * wz
    z = P[i, 10] * wx + P[i, 11] * wy + P[i, 12] * wz
    ex = P[i, 4] * dx + P[i, 5] * dy + P[i, 6] * dz
    ey = P[i, 7] * dx + P[i, 8] * dy + P[i, 9] * dz
    ez = P[i, 10] * dx + P[i, 11] * dy + P[i, 12] * dz
    a = P[i, 13]
    b = P[i, 14]
    h = P[i, 15]
    kind = int(P[i, 0])
    t = MISS
    if kind == BOX:
        near, far = slab(x, ex, a, -MISS, MISS)
        near, far = slab(y, ey, b, near, far)
        near, far = slab(z, ez, h, near, far)
        if near < far and near > MIN_T:
            t = near
    elif kind == ELLIPSOID:
        sx = x / a
        sy = y / b
        sz = z / h
        fx = ex / a
        fy = ey / b
        fz = ez / h
        A = fx * fx + fy * fy + fz * fz
        B = sx * fx + sy * fy + sz * fz
        q = B * B - A * (sx * sx + sy * sy + sz * sz - 1.0)
        if q > 0.0:
            near = (-B - math.sqrt(q)) / A
            if near > MIN_T:
                t = near
    elif kind == FRUSTUM:
        t = hit_frustum(x, y, z, ex, ey, ez, a, b, h, P[i, 16], P[i, 17])
    elif kind == TAPER:
        t = hit_taper(x, y, z, ex, ey, ez, a, b, h, P[i, 16], P[i, 17], P[i, 18])
    else:
        near, far = slab(x, ex, a, MIN_T, limit)
        near, far = slab(y, ey, b, near, far)
        near, far = slab(z, ez, h, near, far)
        for _ in range(MARCH_STEPS):
            if near >= far:
                break
            gap = distance(kind, x + near * ex, y + near * ey, z + near * ez, a, b, h, P[i, 16], P[i, 17], P[i, 18])
            if gap < MARCH_TOLERANCE:
                if near > 5.0 * MARCH_TOLERANCE:
                    t = near
                break
            near += gap
    return t if t < limit else MISS


@compiled
def texture_plane(kind, x, y, z, nx, ny, nz, a, b):
    """Texture coordinates (metres) of a local point: around the axis of round shapes, else along its face."""
    if kind in (ELLIPSOID, FRUSTUM, VASE) and abs(nz) < 0.95:
        return math.atan2(y, x) * 0.5 * (a + b), z
    if abs(nz) >= abs(nx) and abs(nz) >= abs(ny):
        return x, y
    if abs(nx) >= abs(ny):
        return y, z
    return x, z


@compiled
def surface(P, i, px, py, pz, dx, dy, dz):
    """At a hit point: world unit normal facing the ray, and texture coordinates (u, v) in metres."""
    wx = px - P[i, 1]
    wy = py - P[i, 2]
    wz = pz - P[i, 3]
    x = P[i, 4] * wx + P[i, 5] * wy + P[i, 6] * wz
    y = P[i, 7] * wx + P[i, 8] * wy + P[i, 9] * wz
    z = P[i, 10] * wx + P[i, 11] * wy + P[i, 12] * wz
    a = P[i, 13]
    b = P[i, 14]
    h = P[i, 15]
    kind = int(P[i, 0])
    nx = 0.0
    ny = 0.0
    nz = 0.0
    if kind == BOX:
        gx = abs(x) - a
        gy = abs(y) - b
        gz = abs(z) - h
        if gx >= gy and gx >= gz:
            nx = 1.0 if x > 0.0 else -1.0
        elif gy >= gz:
            ny = 1.0 if y > 0.0 else -1.0
        else:
            nz = 1.0 if z > 0.0 else -1.0
    elif kind == ELLIPSOID:
        nx = x / (a * a)
        ny = y / (b * b)
        nz = z / (h * h)
    elif kind == FRUSTUM:
        r0 = P[i, 16]
        r1 = P[i, 17]
        k = (r1 - r0) / (2.0 * h)
        radius = 0.5 * (r0 + r1) + k * z
        ring = math.sqrt(x * x / (a * a) + y * y / (b * b))
        if abs(ring - radius) * min(a, b) <= h - abs(z):
            nx = x / (a * a)
            ny = y / (b * b)
            nz = -k * max(ring, 1e-6)
        else:
            nz = 1.0 if z > 0.0 else -1.0
    elif kind == TAPER:
        worst = -1e9
        for j in range(6):
            qx, qy, qz, offset = taper_planes(j, a, b, h, P[i, 16], P[i, 17], P[i, 18])
            gap = (qx * x + qy * y + qz * z - offset) / math.sqrt(qx * qx + qy * qy + qz * qz)
            if gap > worst:
                worst = gap
                nx = qx
                ny = qy
                nz = qz
    else:
        e = 5e-4
        p0 = P[i, 16]
        p1 = P[i, 17]
        p2 = P[i, 18]
        nx = distance(kind, x + e, y, z, a, b, h, p0, p1, p2) - distance(kind, x - e, y, z, a, b, h, p0, p1, p2)
        ny = distance(kind, x, y + e, z, a, b, h, p0, p1, p2) - distance(kind, x, y - e, z, a, b, h, p0, p1, p2)
        nz = distance(kind, x, y, z + e, a, b, h, p0, p1, p2) - distance(kind, x, y, z - e, a, b, h, p0, p1, p2)
    length = 1.0 / math.sqrt(nx * nx + ny * ny + nz * nz + 1e-30)
    nx *= length
    ny *= length
    nz *= length
    u, v = texture_plane(kind, x, y, z, nx, ny, nz, a, b)
    gx = P[i, 4] * nx + P[i, 7] * ny + P[i, 10] * nz
    gy = P[i, 5] * nx + P[i, 8] * ny + P[i, 11] * nz
    gz = P[i, 6] * nx + P[i, 9] * ny + P[i, 12] * nz
    if kind >= FIRST_MARCHED and gx * gx + gy * gy + gz * gz < 0.5:
        gx, gy, gz = -dx, -dy, -dz
    if gx * dx + gy * dy + gz * dz > 0.0:
        gx, gy, gz = -gx, -gy, -gz
    return gx, gy, gz, u + P[i, 21], v + P[i, 22]
