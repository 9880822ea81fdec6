"""Tensor twin of `patterns`: the same patterns for whole sets of surface points on any device.

Letters: x, y, w, u, v: (n,) floats; seed: (n,) int64; p0, p1: (n,) floats. Pattern functions return the weights of the
second and third colour and the brightness variation, each (n,).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from latent3d.worlds import patterns as tx
from latent3d.worlds.noise_torch import clamp01, frac, lattice, line_mask, nearest_cells, octaves, ramp_edge, whole

Pattern = tuple[Tensor, Tensor, Tensor]


def plain(x, y, w, seed, p0, p1) -> Pattern:
    """Paint without a pattern."""
    zero = torch.zeros_like(x)
    return zero, zero, zero


def check(x, y, w, seed, p0, p1) -> Pattern:
    """Chess board."""
    a = ramp_edge((frac(x) - 0.5).abs() - 0.25, w)
    b = ramp_edge((frac(y) - 0.5).abs() - 0.25, w)
    zero = torch.zeros_like(x)
    return a + b - 2.0 * a * b, zero, zero


def stripes(x, y, w, seed, p0, p1) -> Pattern:
    """Broad and narrow stripes."""
    fx = frac(x)
    kb = ramp_edge(0.5 * p0 - (fx - 0.5).abs(), w)
    return kb, ramp_edge(0.08 * p1 - (fx - 0.9 + 0.8 * p1 * 0.5).abs(), w), torch.zeros_like(x)


def brick(x, y, w, seed, p0, p1) -> Pattern:
    """Bricks in mortar."""
    row = whole(2.0 * y)
    xx = x + 0.5 * (row & 1)
    column = whole(xx)
    kb = torch.maximum(line_mask(frac(xx), 0.06, w), line_mask(2.0 * y - row, 0.14, 2.0 * w))
    tint = (lattice(column, row, seed) - 0.5) * 0.6 * (1.0 - kb)
    kc = torch.where(lattice(column, row, seed + 3) < 0.12 * p1, 1.0 - kb, torch.zeros_like(x))
    return kb, kc, tint


def tiles(x, y, w, seed, p0, p1) -> Pattern:
    """Tiles, some with quarter arcs."""
    fx, fy, ix, iy = frac(x), frac(y), whole(x), whole(y)
    kb = torch.maximum(line_mask(fx, 0.05, w), line_mask(fy, 0.05, w))
    tint = (lattice(ix, iy, seed) - 0.5) * 0.35 * (1.0 - kb)
    gx = torch.where(lattice(ix, iy, seed + 1) < 0.5, fx, 1.0 - fx)
    d = torch.sqrt(gx * gx + fy * fy)
    e = torch.sqrt((1.0 - gx) * (1.0 - gx) + (1.0 - fy) * (1.0 - fy))
    arcs = torch.maximum(ramp_edge(0.12 - (d - 0.5).abs(), w), ramp_edge(0.12 - (e - 0.5).abs(), w)) * (1.0 - kb)
    some = torch.where((p1 > 0.6) & (lattice(ix, iy, seed + 2) < 0.3), 1.0 - kb, torch.zeros_like(x))
    return kb, torch.where(p0 > 0.55, arcs, some), tint


def planks(x, y, w, seed, p0, p1) -> Pattern:
    """Boards with grain."""
    row = whole(2.5 * y)
    shift = 7.3 * lattice(row, 3, seed)
    board = whole(0.3 * x + shift)
    kb = 0.9 * line_mask(2.5 * y - row, 0.05, 2.5 * w)
    kb = torch.maximum(kb, 0.8 * line_mask((0.3 * x + shift - board).to(x.dtype), 0.008, 0.3 * w))
    tint = (lattice(row, board, seed) - 0.5) * 0.5
    grain = octaves(0.7 * x + 13.0 * row + 5.0 * board, 6.0 * y, seed + 1, 3.0 * w, 3, 0.8)
    kc = clamp01(0.5 + 0.5 * torch.sin(9.0 * grain + 2.0 * x + 3.0 * y)) * clamp01(1.5 - 6.0 * w) * (1.0 - kb)
    return kb, kc, tint + 0.25 * grain


def dots(x, y, w, seed, p0, p1) -> Pattern:
    """Dots on a lattice."""
    fx, fy = frac(x) - 0.5, frac(y) - 0.5
    kb = ramp_edge(0.15 + 0.22 * p0 - torch.sqrt(fx * fx + fy * fy), w)
    second = (p1 > 0.5) & (lattice(whole(x), whole(y), seed) < 0.4)
    return kb, torch.where(second, kb, torch.zeros_like(x)), torch.zeros_like(x)


def weave(x, y, w, seed, p0, p1) -> Pattern:
    """Threads over and under."""
    over = (whole(x) + whole(y)) & 1
    along = torch.where(over == 1, frac(y), frac(x))
    keep = clamp01(2.0 - 3.0 * w)
    tint = (0.7 * (1.0 - 4.0 * (along - 0.5) * (along - 0.5)) - 0.45) * keep
    return over * keep + 0.5 * (1.0 - keep), torch.zeros_like(x), tint


def noise(x, y, w, seed, p0, p1) -> Pattern:
    """1/f clouds."""
    a = octaves(x, y, seed, w, 5, 0.55 + 0.35 * p0)
    kc = clamp01(1.6 * octaves(0.6 * x + 9.1, 0.6 * y, seed + 31, w, 2, 0.7) - 0.25)
    return clamp01(0.5 + 1.1 * a), kc, 0.25 * a


def voronoi(x, y, w, seed, p0, p1) -> Pattern:
    """Cells."""
    first, second, label = nearest_cells(x, y, seed)
    gap = torch.sqrt(second) - torch.sqrt(first)
    keep = clamp01(2.0 - 2.0 * w)
    kb = label * keep + 0.5 * (1.0 - keep)
    tint = 0.4 * (lattice((label * 8191.0).long(), 1, seed) - 0.5) * keep
    return kb, torch.where(p0 > 0.6, ramp_edge(0.05 - gap, w) * keep, torch.zeros_like(x)), tint


def cobble(x, y, w, seed, p0, p1) -> Pattern:
    """Stones in mortar."""
    first, second, label = nearest_cells(x, y, seed)
    kb = ramp_edge(0.12 - (torch.sqrt(second) - torch.sqrt(first)), w)
    tint = (0.6 * (label - 0.5) - 0.5 * first) * (1.0 - kb) * clamp01(2.0 - 2.0 * w)
    return kb, torch.zeros_like(x), tint


def terrazzo(x, y, w, seed, p0, p1) -> Pattern:
    """Chips in a ground."""
    first, _, label = nearest_cells(x, y, seed)
    size = 0.08 + 0.35 * lattice((label * 8191.0).long(), 2, seed)
    chip = (ramp_edge(size - torch.sqrt(first), w) * clamp01(2.0 - 2.0 * w)).to(x.dtype)
    zero = torch.zeros_like(x)
    return torch.where(label < 0.55, chip, zero), torch.where(label >= 0.55, chip, zero), zero


def leaves(x, y, w, seed, p0, p1) -> Pattern:
    """Foliage or grass."""
    first, _, label = nearest_cells(x, y, seed)
    keep = clamp01(2.0 - 2.0 * w)
    kb = clamp01(label * 1.2 - 0.1) * keep + 0.5 * (1.0 - keep)
    tint = (0.7 * (0.35 - torch.sqrt(first)) + 0.6 * (label - 0.5)) * keep
    tint = tint + 0.8 * octaves(0.23 * x, 0.23 * y, seed + 17, 0.23 * w, 3, 0.8)
    return kb, clamp01(2.0 * octaves(0.11 * x, 0.11 * y, seed + 23, 0.11 * w, 2, 0.7) - 0.2), tint


def text(x, y, w, seed, p0, p1) -> Pattern:
    """Lines of glyph-like marks."""
    row = whole(y)
    fy = y - row
    start = 4.0 * lattice(row, 1, seed) * p1
    length = 8.0 + 22.0 * lattice(row, 2, seed)
    cell = whole(x * 1.6)
    gx, gy = whole((x * 1.6 - cell) * 4.0), whole(fy * 8.0)
    ink = ((x + 8.0 - start - 0.5 * length).abs() < 0.5 * length) & (lattice(row, 3, seed) > 0.18)
    ink = ink & (lattice(cell, row, seed + 4) > 0.17) & (gx < 3) & (gy >= 1) & (gy < 6)
    ink = ink & (lattice(cell * 4 + gx, row * 8 + gy, seed + 5) < 0.58)
    keep = clamp01(1.6 - 6.0 * w)
    kb = ink.to(x.dtype) * keep + 0.25 * (1.0 - keep)
    marked = (lattice(row, 6, seed) < 0.1) & (x.abs() < 9.0)
    return kb, 0.8 * marked.to(x.dtype), torch.zeros_like(x)


def ramp(x, y, w, seed, p0, p1) -> Pattern:
    """Gradient."""
    kc = clamp01(0.4 * octaves(0.7 * x, 0.7 * y, seed, 0.7 * w, 2, 0.6))
    return clamp01(0.5 + 0.5 * y), kc, torch.zeros_like(x)


def waves(x, y, w, seed, p0, p1) -> Pattern:
    """Bent stripes, wood grain."""
    bend = 1.5 * octaves(0.5 * x, 0.5 * y, seed, 0.5 * w, 2, 0.6)
    s = 0.5 + 0.5 * torch.sin(6.2831853 * (x + bend))
    keep = clamp01(2.0 - 4.0 * w)
    return s * keep + 0.5 * (1.0 - keep), clamp01(4.0 * (s - 0.85)) * p0 * keep, torch.zeros_like(x)


def picture(x, y, w, seed, p0, p1) -> Pattern:
    """A poster of overlapping figures."""
    kb = clamp01(0.5 + 0.35 * y + 0.5 * octaves(x, y, seed + 50, w, 3, 0.7))
    kc = torch.zeros_like(x)
    tint = 0.3 * octaves(2.0 * x, 2.0 * y, seed + 60, 2.0 * w, 3, 0.8)
    for i in range(9):
        draw = [lattice(i, j, seed) for j in range(10)]
        dx, dy = x - (2.2 * draw[1] - 1.1), y - (2.2 * draw[2] - 1.1)
        size, form = 0.1 + 0.55 * draw[3] * draw[9], draw[4]
        disc = size - torch.sqrt(dx * dx + dy * dy)
        block = torch.minimum(size * (0.4 + draw[5]) - dx.abs(), size - dy.abs())
        bar = torch.minimum(0.12 * size + 0.03 - (dy - (draw[5] - 0.5) * dx).abs(), 1.4 * size - dx.abs())
        cover = ramp_edge(torch.where(form < 0.35, disc, torch.where(form < 0.7, block, bar)), w)
        kb = kb + cover * (draw[6] - kb)
        kc = kc + cover * ((draw[7] < 0.4).to(x.dtype) - kc)
        tint = tint + cover * (1.2 * (draw[8] - 0.5) - tint)
    return kb, kc, tint


def landscape(x, y, w, seed, p0, p1) -> Pattern:
    """Sky, ranges, meadow."""
    kb = clamp01(0.25 - 0.3 * y) * 0.4
    kc = torch.zeros_like(x)
    tint = 0.35 * octaves(1.3 * x, 3.0 * y, seed, 3.0 * w, 4, 0.7)
    half = torch.full_like(x, 0.5)
    for i in range(3):
        ridge = 0.35 - 0.35 * i + 0.5 * octaves(1.5 * x + 3.0 * i, half, seed + 7 * i + 1, 1.5 * w, 4, 0.55)
        cover = ramp_edge(ridge - y, 2.0 * w)
        kb = kb + cover * (0.55 + 0.45 * i * 0.5 - kb)
        kc = kc + cover * ((0.9 if i == 2 else 0.25 * i) - kc)
        speck = octaves(5.0 * x, 7.0 * y, seed + 11 * i + 2, 7.0 * w, 3, 0.8)
        tint = tint + cover * (speck - 0.2 * i - tint)
    return kb, kc, tint


def rug(x, y, w, seed, p0, p1) -> Pattern:
    """Carpet with borders and a medallion."""
    rim = torch.minimum(1.0 - x.abs(), p0 - y.abs())
    u, v = x.abs() * 9.0, y.abs() * 9.0
    figure = torch.sin(2.0 * u + 3.0 * lattice(1, 1, seed)) * torch.sin(2.0 * v) + 0.5 * torch.sin(u + v)
    keep = clamp01(1.5 - 12.0 * w)
    band = whole(rim * 18.0)
    border_b = torch.where(band % 2 == 0, 1.0, 0.15).to(x.dtype)
    border_c = torch.where(band == 2, ramp_edge(torch.sin(4.0 * (u + v)), 18.0 * w) * keep, torch.zeros_like(x))
    r = torch.sqrt(x * x + y * y / (p0 * p0))
    petals = 0.38 + 0.06 * torch.cos(8.0 * torch.atan2(y, x))
    inner_b = ramp_edge(figure - 0.15, 18.0 * w) * keep + 0.45 * (1.0 - keep)
    inner_c = ramp_edge(petals - r, w) * (0.5 + 0.5 * ramp_edge(0.07 - (r - 0.26).abs(), w))
    edge = rim < 0.22
    tint = 0.5 * octaves(20.0 * x, 20.0 * y, seed, 20.0 * w, 3, 0.8)
    return torch.where(edge, border_b, inner_b), torch.where(edge, border_c, inner_c), tint


def hexagons(x, y, w, seed, p0, p1) -> Pattern:
    """Hexagonal cells."""
    keep = clamp01(2.0 - 3.0 * w)
    ax, ay = frac(x) - 0.5, (frac(y / 1.7320508) - 0.5) * 1.7320508
    bx, by = frac(x + 0.5) - 0.5, (frac(y / 1.7320508 + 0.5) - 0.5) * 1.7320508
    near = ax * ax + ay * ay < bx * bx + by * by
    hx, hy = torch.where(near, ax, bx), torch.where(near, ay, by)
    cell = lattice(whole((x - hx) * 2.0 + 0.5), whole((y - hy) * 2.0 + 0.5), seed)
    rim = 0.5 - torch.maximum(hx.abs(), 0.5 * hx.abs() + 0.8660254 * hy.abs())
    kb = ramp_edge(0.05 - rim, w)
    kc = torch.where(p0 > 0.5, cell, torch.zeros_like(cell)) * (1.0 - kb) * keep
    return kb, kc, 0.5 * (cell - 0.5) * (1.0 - kb) * keep


def spiral(x, y, w, seed, p0, p1) -> Pattern:
    """Spirals in discs."""
    keep = clamp01(2.0 - 3.0 * w)
    cx, cy = frac(x) - 0.5, frac(y) - 0.5
    r = torch.sqrt(cx * cx + cy * cy) + 1e-6
    phase = frac(7.0 * r + torch.atan2(cy, cx) / 6.2831853 * (1.0 + torch.floor(3.0 * p0)))
    kb = ramp_edge(0.25 - (phase - 0.5).abs(), 7.0 * w) * keep + 0.5 * (1.0 - keep)
    return kb, ramp_edge(r - 0.47, w), torch.zeros_like(x)


def marble(x, y, w, seed, p0, p1) -> Pattern:
    """Veins."""
    bend = octaves(x, y, seed, w, 5, 0.65)
    vein = torch.sin(3.1415927 * (x + 0.6 * y + 2.2 * bend)).abs()
    return clamp01(1.0 - 4.0 * vein) * clamp01(2.0 - 3.0 * w), clamp01(0.5 + 1.2 * bend) * 0.7, torch.zeros_like(x)


def camouflage(x, y, w, seed, p0, p1) -> Pattern:
    """Blotches."""
    soft = w.clamp(min=0.04)
    kb = ramp_edge(octaves(x, y, seed, w, 3, 0.6) - 0.03, soft)
    kc = ramp_edge(octaves(x + 5.3, y - 2.7, seed + 41, w, 3, 0.6) - 0.12, soft)
    return kb, kc, torch.zeros_like(x)


def halftone(x, y, w, seed, p0, p1) -> Pattern:
    """Dots sized by a grey picture."""
    keep = clamp01(2.0 - 3.0 * w)
    ix, iy = whole(x), whole(y)
    cx, cy = x - ix - 0.5, y - iy - 0.5
    zero = torch.zeros_like(x)
    shade = clamp01(0.5 + 0.8 * octaves(0.06 * ix.to(x.dtype), 0.06 * iy.to(x.dtype), seed, zero, 3, 0.6))
    dot = ramp_edge(0.62 * torch.sqrt(shade) - torch.sqrt(cx * cx + cy * cy), w)
    return dot * keep + shade * (1.0 - keep), zero, zero


def zigzag(x, y, w, seed, p0, p1) -> Pattern:
    """Chevrons."""
    keep = clamp01(2.0 - 3.0 * w)
    band = frac(y + (frac(x) - 0.5).abs())
    kb = ramp_edge(0.25 - (band - 0.5).abs(), 1.4 * w) * keep + 0.5 * (1.0 - keep)
    return kb, ramp_edge(0.06 * p1 - (band - 0.5).abs(), 1.4 * w) * keep, torch.zeros_like(x)


def books(x: Tensor, y: Tensor, w: Tensor, seed: Tensor, paint: Tensor) -> Tensor:
    """Colours (n, 3) of a row of book spines; ``paint``: (n, 3) factor."""
    cell = whole(x)
    left = cell + 0.35 * (lattice(cell, 1, seed) - 0.5)
    right = cell + 1 + 0.35 * (lattice(cell + 1, 1, seed) - 0.5)
    cell = torch.where(x < left, cell - 1, torch.where(x > right, cell + 1, cell))
    left = cell + 0.35 * (lattice(cell, 1, seed) - 0.5)
    right = cell + 1 + 0.35 * (lattice(cell + 1, 1, seed) - 0.5)
    value = 0.12 + 0.95 * lattice(cell, 2, seed) * lattice(cell, 7, seed)
    vivid = 0.9 * lattice(cell, 3, seed)
    rgb = torch.stack([value * (1.0 - vivid * lattice(cell, c, seed)) for c in (4, 5, 6)], -1)
    label = 0.25 + 0.5 * lattice(cell, 8, seed)
    band = (y - label).abs() < 0.10 * lattice(cell, 9, seed)
    rgb = torch.where(band[:, None], rgb.new_tensor([0.75, 0.7, 0.65]) - 0.5 * rgb, rgb)
    gap = ramp_edge(0.035 - torch.minimum(x - left, right - x), w)
    gap = torch.maximum(gap, ramp_edge(y - (0.78 + 0.22 * lattice(cell, 10, seed)), w))
    return (rgb * (1.0 - gap[:, None]) * paint + 0.01 * gap[:, None]).to(x.dtype)


PATTERNS: dict[int, Callable[..., Pattern]] = {
    tx.PLAIN: plain, tx.CHECK: check, tx.STRIPES: stripes, tx.BRICK: brick, tx.TILES: tiles, tx.PLANKS: planks,
    tx.NOISE: noise, tx.DOTS: dots, tx.VORONOI: voronoi, tx.WEAVE: weave, tx.PICTURE: picture, tx.TEXT: text,
    tx.RAMP: ramp, tx.TERRAZZO: terrazzo, tx.LANDSCAPE: landscape, tx.RUG: rug, tx.LEAVES: leaves, tx.COBBLE: cobble,
    tx.WAVES: waves, tx.HEXAGONS: hexagons, tx.SPIRAL: spiral, tx.MARBLE: marble, tx.CAMOUFLAGE: camouflage,
    tx.HALFTONE: halftone, tx.ZIGZAG: zigzag,
}  # fmt: skip
