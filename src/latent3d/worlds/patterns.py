"""The patterns of `textures`: scalar functions of texture coordinates in periods, compiled.

Each returns (weight of colour B, weight of colour C, variation of brightness), unless it says otherwise. ``w`` is the
pixel's footprint in periods, ``seed`` an integer, ``p0`` and ``p1`` the material's parameters in [0, 1].
"""

from __future__ import annotations

import math

from latent3d.worlds.compiled import compiled
from latent3d.worlds.noise import clamp01, lattice, line_mask, nearest_cells, octaves, ramp_edge

PLAIN, CHECK, STRIPES, BRICK, TILES, PLANKS, NOISE, DOTS, VORONOI, WEAVE = range(10)
PICTURE, TEXT, RAMP, TERRAZZO, BOOKS, LANDSCAPE, RUG, LEAVES, COBBLE, WAVES = range(10, 20)
HEXAGONS, SPIRAL, MARBLE, CAMOUFLAGE, HALFTONE, ZIGZAG = range(20, 26)
TEXTURE_COUNT = 26
OTHER_WORLD_TEXTURES = (HEXAGONS, SPIRAL, MARBLE, CAMOUFLAGE, HALFTONE, ZIGZAG)  # test-only family


@compiled
def pattern_regular(kind, x, y, w, seed, p0, p1):
    """Woven, laid and printed regular patterns: (weight of B, weight of C, brightness variation)."""
    kb = 0.0
    kc = 0.0
    tint = 0.0
    fx = x - math.floor(x)
    fy = y - math.floor(y)
    ix = math.floor(x)
    iy = math.floor(y)
    if kind == CHECK:
        a = ramp_edge(abs(fx - 0.5) - 0.25, w)
        b = ramp_edge(abs(fy - 0.5) - 0.25, w)
        kb = a + b - 2.0 * a * b
    elif kind == STRIPES:
        kb = ramp_edge(0.5 * p0 - abs(fx - 0.5), w)
        kc = ramp_edge(0.08 * p1 - abs(fx - 0.9 + 0.8 * p1 * 0.5), w)
    elif kind == BRICK:
        row = math.floor(2.0 * y)
        xx = x + 0.5 * (row & 1)
        kb = max(line_mask(xx - math.floor(xx), 0.06, w), line_mask(2.0 * y - row, 0.14, 2.0 * w))
        tint = (lattice(math.floor(xx), row, seed) - 0.5) * 0.6 * (1.0 - kb)
        if lattice(math.floor(xx), row, seed + 3) < 0.12 * p1:
            kc = 1.0 - kb
    elif kind == TILES:
        kb = max(line_mask(fx, 0.05, w), line_mask(fy, 0.05, w))
        tint = (lattice(ix, iy, seed) - 0.5) * 0.35 * (1.0 - kb)
        if p0 > 0.55:  # quarter arcs in random orientation
            gx = fx if lattice(ix, iy, seed + 1) < 0.5 else 1.0 - fx
            d = math.sqrt(gx * gx + fy * fy)
            e = math.sqrt((1.0 - gx) * (1.0 - gx) + (1.0 - fy) * (1.0 - fy))
            kc = max(ramp_edge(0.12 - abs(d - 0.5), w), ramp_edge(0.12 - abs(e - 0.5), w)) * (1.0 - kb)
        elif p1 > 0.6 and lattice(ix, iy, seed + 2) < 0.3:
            kc = 1.0 - kb
    elif kind == PLANKS:
        row = math.floor(2.5 * y)
        shift = 7.3 * lattice(row, 3, seed)
        board = math.floor(0.3 * x + shift)
        kb = 0.9 * line_mask(2.5 * y - row, 0.05, 2.5 * w)
        kb = max(kb, 0.8 * line_mask(0.3 * x + shift - board, 0.008, 0.3 * w))
        tint = (lattice(row, board, seed) - 0.5) * 0.5
        grain = octaves(0.7 * x + 13.0 * row + 5.0 * board, 6.0 * y, seed + 1, 3.0 * w, 3, 0.8)
        kc = clamp01(0.5 + 0.5 * math.sin(9.0 * grain + 2.0 * x + 3.0 * y)) * clamp01(1.5 - 6.0 * w) * (1.0 - kb)
        tint += 0.25 * grain
    elif kind == DOTS:
        r = math.sqrt((fx - 0.5) * (fx - 0.5) + (fy - 0.5) * (fy - 0.5))
        kb = ramp_edge(0.15 + 0.22 * p0 - r, w)
        if p1 > 0.5 and lattice(ix, iy, seed) < 0.4:
            kc = kb
    elif kind == WEAVE:
        over = (ix + iy) & 1
        along = fy if over == 1 else fx
        keep = clamp01(2.0 - 3.0 * w)
        kb = over * keep + 0.5 * (1.0 - keep)
        tint = (0.7 * (1.0 - 4.0 * (along - 0.5) * (along - 0.5)) - 0.45) * keep
    return kb, kc, tint


@compiled
def pattern_irregular(kind, x, y, w, seed, p0, p1):
    """Noise, stone, plants, print: (weight of B, weight of C, brightness variation)."""
    kb = 0.0
    kc = 0.0
    tint = 0.0
    if kind == NOISE:
        a = octaves(x, y, seed, w, 5, 0.55 + 0.35 * p0)
        kb = clamp01(0.5 + 1.1 * a)
        kc = clamp01(1.6 * octaves(0.6 * x + 9.1, 0.6 * y, seed + 31, w, 2, 0.7) - 0.25)
        tint = 0.25 * a
    elif kind in (VORONOI, COBBLE, TERRAZZO, LEAVES):
        first, second, label = nearest_cells(x, y, seed)
        gap = math.sqrt(second) - math.sqrt(first)
        keep = clamp01(2.0 - 2.0 * w)
        if kind == VORONOI:
            kb = label * keep + 0.5 * (1.0 - keep)
            tint = 0.4 * (lattice(int(label * 8191.0), 1, seed) - 0.5) * keep
            if p0 > 0.6:
                kc = ramp_edge(0.05 - gap, w) * keep
        elif kind == COBBLE:
            kb = ramp_edge(0.12 - gap, w)
            tint = (0.6 * (label - 0.5) - 0.5 * first) * (1.0 - kb) * keep
        elif kind == TERRAZZO:
            size = 0.08 + 0.35 * lattice(int(label * 8191.0), 2, seed)
            chip = ramp_edge(size - math.sqrt(first), w) * keep
            kb = chip if label < 0.55 else 0.0
            kc = chip if label >= 0.55 else 0.0
        else:
            kb = clamp01(label * 1.2 - 0.1) * keep + 0.5 * (1.0 - keep)
            tint = (0.7 * (0.35 - math.sqrt(first)) + 0.6 * (label - 0.5)) * keep
            tint += 0.8 * octaves(0.23 * x, 0.23 * y, seed + 17, 0.23 * w, 3, 0.8)
            kc = clamp01(2.0 * octaves(0.11 * x, 0.11 * y, seed + 23, 0.11 * w, 2, 0.7) - 0.2)
    elif kind == TEXT:
        row = math.floor(y)
        fy = y - row
        start = 4.0 * lattice(row, 1, seed) * p1
        length = 8.0 + 22.0 * lattice(row, 2, seed)
        if abs(x + 8.0 - start - 0.5 * length) < 0.5 * length and lattice(row, 3, seed) > 0.18:
            cell = math.floor(x * 1.6)
            if lattice(cell, row, seed + 4) > 0.17:  # otherwise a space between words
                gx = math.floor((x * 1.6 - cell) * 4.0)
                gy = math.floor(fy * 8.0)
                if gx < 3 and 1 <= gy < 6 and lattice(cell * 4 + gx, row * 8 + gy, seed + 5) < 0.58:
                    kb = 1.0
        keep = clamp01(1.6 - 6.0 * w)
        kb = kb * keep + 0.25 * (1.0 - keep)
        if lattice(row, 6, seed) < 0.1 and abs(x) < 9.0:
            kc = 0.8
    elif kind == RAMP:
        kb = clamp01(0.5 + 0.5 * y)
        kc = clamp01(0.4 * octaves(0.7 * x, 0.7 * y, seed, 0.7 * w, 2, 0.6))
    elif kind == WAVES:
        bend = 1.5 * octaves(0.5 * x, 0.5 * y, seed, 0.5 * w, 2, 0.6)
        s = 0.5 + 0.5 * math.sin(6.2831853 * (x + bend))
        keep = clamp01(2.0 - 4.0 * w)
        kb = s * keep + 0.5 * (1.0 - keep)
        kc = clamp01(4.0 * (s - 0.85)) * p0 * keep
    return kb, kc, tint


@compiled
def pattern_other(kind, x, y, w, seed, p0, p1):
    """Patterns that only the test family uses: (weight of B, weight of C, brightness variation)."""
    kb = 0.0
    kc = 0.0
    tint = 0.0
    keep = clamp01(2.0 - 3.0 * w)
    if kind == HEXAGONS:
        # hexagonal cells: the nearer of two interleaved rectangular lattices (1 by sqrt 3)
        ax = x - math.floor(x) - 0.5
        ay = y / 1.7320508 - math.floor(y / 1.7320508) - 0.5
        bx = x + 0.5 - math.floor(x + 0.5) - 0.5
        by = y / 1.7320508 + 0.5 - math.floor(y / 1.7320508 + 0.5) - 0.5
        ay *= 1.7320508
        by *= 1.7320508
        da = ax * ax + ay * ay
        db = bx * bx + by * by
        hx = ax if da < db else bx
        hy = ay if da < db else by
        cell = lattice(math.floor((x - hx) * 2.0 + 0.5), math.floor((y - hy) * 2.0 + 0.5), seed)
        rim = 0.5 - max(abs(hx), 0.5 * abs(hx) + 0.8660254 * abs(hy))
        kb = ramp_edge(0.05 - rim, w)
        kc = (cell if p0 > 0.5 else 0.0) * (1.0 - kb) * keep
        tint = 0.5 * (cell - 0.5) * (1.0 - kb) * keep
    elif kind == SPIRAL:
        cx = x - math.floor(x) - 0.5
        cy = y - math.floor(y) - 0.5
        r = math.sqrt(cx * cx + cy * cy) + 1e-6
        turn = math.atan2(cy, cx) / 6.2831853
        phase = 7.0 * r + turn * (1.0 + math.floor(3.0 * p0))
        phase -= math.floor(phase)
        kb = ramp_edge(0.25 - abs(phase - 0.5), 7.0 * w) * keep + 0.5 * (1.0 - keep)
        kc = ramp_edge(r - 0.47, w)
    elif kind == MARBLE:
        bend = octaves(x, y, seed, w, 5, 0.65)
        vein = abs(math.sin(3.1415927 * (x + 0.6 * y + 2.2 * bend)))
        kb = clamp01(1.0 - 4.0 * vein) * keep
        kc = clamp01(0.5 + 1.2 * bend) * 0.7
    elif kind == CAMOUFLAGE:
        a = octaves(x, y, seed, w, 3, 0.6)
        b = octaves(x + 5.3, y - 2.7, seed + 41, w, 3, 0.6)
        kb = ramp_edge(a - 0.03, max(0.04, w))
        kc = ramp_edge(b - 0.12, max(0.04, w))
    elif kind == HALFTONE:
        ix = math.floor(x)
        iy = math.floor(y)
        cx = x - ix - 0.5
        cy = y - iy - 0.5
        shade = clamp01(0.5 + 0.8 * octaves(0.06 * ix, 0.06 * iy, seed, 0.0, 3, 0.6))
        kb = ramp_edge(0.62 * math.sqrt(shade) - math.sqrt(cx * cx + cy * cy), w) * keep + shade * (1.0 - keep)
    elif kind == ZIGZAG:
        z = abs(x - math.floor(x) - 0.5)
        band = y + z
        band -= math.floor(band)
        kb = ramp_edge(0.25 - abs(band - 0.5), 1.4 * w) * keep + 0.5 * (1.0 - keep)
        kc = ramp_edge(0.06 * p1 - abs(band - 0.5), 1.4 * w) * keep
    return kb, kc, tint


@compiled
def books(x, y, w, seed):
    """Row of book spines, y in [0, 1] over the row's height: factors of red, green, blue and weight of the dark gap."""
    cell = math.floor(x)
    left = cell + 0.35 * (lattice(cell, 1, seed) - 0.5)
    right = cell + 1 + 0.35 * (lattice(cell + 1, 1, seed) - 0.5)
    if x < left:
        cell -= 1
        right = left
        left = cell + 0.35 * (lattice(cell, 1, seed) - 0.5)
    elif x > right:
        cell += 1
        left = right
        right = cell + 1 + 0.35 * (lattice(cell + 1, 1, seed) - 0.5)
    value = 0.12 + 0.95 * lattice(cell, 2, seed) * lattice(cell, 7, seed)
    vivid = 0.9 * lattice(cell, 3, seed)
    r = value * (1.0 - vivid * lattice(cell, 4, seed))
    g = value * (1.0 - vivid * lattice(cell, 5, seed))
    b = value * (1.0 - vivid * lattice(cell, 6, seed))
    label = 0.25 + 0.5 * lattice(cell, 8, seed)
    if abs(y - label) < 0.10 * lattice(cell, 9, seed):
        r, g, b = 0.75 - 0.5 * r, 0.7 - 0.5 * g, 0.65 - 0.5 * b
    gap = ramp_edge(0.035 - min(x - left, right - x), w)
    gap = max(gap, ramp_edge(y - (0.78 + 0.22 * lattice(cell, 10, seed)), w))
    return r, g, b, gap


@compiled
def picture(x, y, w, seed, p1):
    """A poster on [-1, 1]^2: a graded ground with nine overlapping figures; returns two blend weights and a tint."""
    kb = clamp01(0.5 + 0.35 * y + 0.5 * octaves(x, y, seed + 50, w, 3, 0.7))
    kc = 0.0
    tint = 0.3 * octaves(2.0 * x, 2.0 * y, seed + 60, 2.0 * w, 3, 0.8)
    for i in range(9):
        cx = 2.2 * lattice(i, 1, seed) - 1.1
        cy = 2.2 * lattice(i, 2, seed) - 1.1
        size = 0.1 + 0.55 * lattice(i, 3, seed) * lattice(i, 9, seed)
        form = lattice(i, 4, seed)
        dx = x - cx
        dy = y - cy
        if form < 0.35:
            inside = size - math.sqrt(dx * dx + dy * dy)
        elif form < 0.7:
            inside = min(size * (0.4 + lattice(i, 5, seed)) - abs(dx), size - abs(dy))
        else:
            slant = lattice(i, 5, seed) - 0.5
            inside = min(0.12 * size + 0.03 - abs(dy - slant * dx), 1.4 * size - abs(dx))
        cover = ramp_edge(inside, w)
        kb += cover * (lattice(i, 6, seed) - kb)
        kc += cover * ((1.0 if lattice(i, 7, seed) < 0.4 else 0.0) - kc)
        tint += cover * (1.2 * (lattice(i, 8, seed) - 0.5) - tint)
    return kb, kc, tint


@compiled
def landscape(x, y, w, seed):
    """A landscape on [-1, 1]^2, v up: sky (A), three ranges (towards B), meadow (C); two weights and a tint."""
    kb = clamp01(0.25 - 0.3 * y) * 0.4
    kc = 0.0
    tint = 0.35 * octaves(1.3 * x, 3.0 * y, seed, 3.0 * w, 4, 0.7)
    for i in range(3):
        ridge = 0.35 - 0.35 * i + 0.5 * octaves(1.5 * x + 3.0 * i, 0.5, seed + 7 * i + 1, 1.5 * w, 4, 0.55)
        cover = ramp_edge(ridge - y, 2.0 * w)
        kb += cover * (0.55 + 0.45 * i * 0.5 - kb)
        kc += cover * ((0.9 if i == 2 else 0.25 * i) - kc)
        tint += cover * (octaves(5.0 * x, 7.0 * y, seed + 11 * i + 2, 7.0 * w, 3, 0.8) - 0.2 * i - tint)
    return kb, kc, tint


@compiled
def rug(x, y, w, seed, p0):
    """A carpet on [-1, 1] by [-p0, p0]: borders, a medallion and a repeated figure."""
    rim = min(1.0 - abs(x), p0 - abs(y))
    kb = 0.0
    kc = 0.0
    u = abs(x) * 9.0
    v = abs(y) * 9.0
    figure = math.sin(2.0 * u + 3.0 * lattice(1, 1, seed)) * math.sin(2.0 * v) + 0.5 * math.sin(u + v)
    keep = clamp01(1.5 - 12.0 * w)
    if rim < 0.22:
        band = math.floor(rim * 18.0)
        kb = 1.0 if band % 2 == 0 else 0.15
        if band == 2:
            kc = ramp_edge(math.sin(4.0 * (u + v)), 18.0 * w) * keep
    else:
        kb = ramp_edge(figure - 0.15, 18.0 * w) * keep + 0.45 * (1.0 - keep)
        r = math.sqrt(x * x + y * y / (p0 * p0))
        petals = 0.38 + 0.06 * math.cos(8.0 * math.atan2(y, x))
        kc = ramp_edge(petals - r, w) * (0.5 + 0.5 * ramp_edge(0.07 - abs(r - 0.26), w))
    tint = 0.5 * octaves(20.0 * x, 20.0 * y, seed, 20.0 * w, 3, 0.8)
    return kb, kc, tint
