"""Procedural textures as compiled scalar functions of surface coordinates in metres.

Every pattern is band-limited by the pixel's footprint ``w``: edges are ramps one footprint wide and noise octaves
shorter than two footprints are left out, so that neighbouring views agree and little is left for supersampling.
Octaves of equal variance give the 1/f amplitude spectrum of photographs (Field 1987).
Patterns: `patterns`. Tensor twin: `textures_torch`.
"""

from __future__ import annotations

import math

from latent3d.worlds.compiled import compiled
from latent3d.worlds.noise import clamp01, octaves, ramp_edge
from latent3d.worlds.patterns import (
    BOOKS,
    DOTS,
    HEXAGONS,
    LANDSCAPE,
    NOISE,
    PICTURE,
    PLAIN,
    RUG,
    WEAVE,
    books,
    landscape,
    pattern_irregular,
    pattern_other,
    pattern_regular,
    picture,
    rug,
)


@compiled
def surface_colour(M, k, u, v, w):
    """Linear RGB albedo of material row ``k`` at surface point (u, v) metres seen with footprint ``w`` metres."""
    kind = int(M[k, 0])
    inverse = 1.0 / M[k, 10]
    x = (M[k, 11] * u + M[k, 12] * v) * inverse
    y = (M[k, 11] * v - M[k, 12] * u) * inverse
    fw = max(w * inverse, 1e-5)
    seed = int(M[k, 13])
    p0 = M[k, 15]
    p1 = M[k, 16]
    kb = 0.0
    kc = 0.0
    tint = 0.0
    if kind == PLAIN:
        pass
    elif kind == BOOKS:
        r, g, b, gap = books(x, v / p1, fw, seed)
        keep = 1.0 - gap
        return (r * keep * M[k, 1] + gap * 0.01, g * keep * M[k, 2] + gap * 0.01, b * keep * M[k, 3] + gap * 0.01)
    elif kind == PICTURE:
        kb, kc, tint = picture(x, y, fw, seed, p1)
    elif kind == LANDSCAPE:
        kb, kc, tint = landscape(x, y, fw, seed)
    elif kind == RUG:
        kb, kc, tint = rug(x, y, fw, seed, p0)
    elif kind >= HEXAGONS:
        kb, kc, tint = pattern_other(kind, x, y, fw, seed, p0, p1)
    elif kind < NOISE or kind in (DOTS, WEAVE):
        kb, kc, tint = pattern_regular(kind, x, y, fw, seed, p0, p1)
    else:
        kb, kc, tint = pattern_irregular(kind, x, y, fw, seed, p0, p1)
    contrast = M[k, 14]
    kb = clamp01(kb) * contrast
    kc = clamp01(kc) * contrast
    gain = 1.0 + tint * contrast
    if M[k, 17] > 0.0:
        gain += M[k, 17] * octaves(23.0 * u, 23.0 * v, seed + 71, 23.0 * w, 3, 0.95)
    if M[k, 18] > 0.0:
        gain += M[k, 18] * octaves(1.3 * u, 1.3 * v, seed + 83, 1.3 * w, 5, 0.9)
    gain = max(gain, 0.05)
    ka = 1.0 - kb
    kd = 1.0 - kc
    r = ((M[k, 1] * ka + M[k, 4] * kb) * kd + M[k, 7] * kc) * gain
    g = ((M[k, 2] * ka + M[k, 5] * kb) * kd + M[k, 8] * kc) * gain
    b = ((M[k, 3] * ka + M[k, 6] * kb) * kd + M[k, 9] * kc) * gain
    return clamp01(r), clamp01(g), clamp01(b)


@compiled
def dome_colour(E, dx, dy, dz, w):
    """Linear RGB radiance of the dome in unit direction (dx, dy, dz): sky, clouds, sun glow, hills, ground."""
    seed = int(E[16])
    flat = 1.0 / math.sqrt(dx * dx + dy * dy + 1e-9)
    cx = dx * flat
    cy = dy * flat
    hill = E[31] * (0.6 + 1.2 * octaves(3.0 * cx, 3.0 * cy, seed + 3, 3.0 * w, 5, 0.6))
    height = math.asin(min(1.0, max(-1.0, dz)))
    up = math.sqrt(max(0.0, dz))
    r = E[3] + (E[0] - E[3]) * up
    g = E[4] + (E[1] - E[4]) * up
    b = E[5] + (E[2] - E[5]) * up
    glow = max(0.0, dx * E[9] + dy * E[10] + dz * E[11])
    glow = glow * glow
    glow = glow * glow
    r += E[12] * glow * glow
    g += E[13] * glow * glow
    b += E[14] * glow * glow
    if E[15] > 0.0 and dz > 0.0:
        s = 1.0 / (E[30] * (dz + 0.12))
        cloud = clamp01(E[15] + 1.6 * octaves(dx * s, dy * s, seed + 9, w * s / (dz + 0.12), 5, 0.65))
        white = 1.1 * max(E[3], max(E[4], E[5]))
        r += cloud * (white - r)
        g += cloud * (white - g)
        b += cloud * (white - b)
    land = ramp_edge(hill - height, max(2.0 * w, 1e-4))
    if land > 0.0:
        speck = max(0.2, 1.0 + 0.9 * octaves(12.0 * cx, 12.0 * cy + 25.0 * height, seed + 21, 25.0 * w, 4, 0.8))
        far = 0.3 if height > 0.0 else 0.3 * math.exp(6.0 * height)
        r += land * ((E[6] * (1.0 - far) + E[3] * far) * speck - r)
        g += land * ((E[7] * (1.0 - far) + E[4] * far) * speck - g)
        b += land * ((E[8] * (1.0 - far) + E[5] * far) * speck - b)
    return r, g, b
