"""Compiled ordering of splats by depth and their lists by tile; one share of the views, or of bands of them, each.

Letters: V views, N splats, K entries (splat, tile) in tile order. ``rects`` is (V, N, 4): first column, first row,
past-last column, past-last row of tiles.
"""

from __future__ import annotations

import numpy as np

from latent3d.rendering.splats_numba_lanes import jit
from latent3d.rendering.splats_numba_vectors import AHEAD, fetch

RADIX_BITS = 12
RADIX = 1 << RADIX_BITS


@jit()
def order_share(share, shares, depths, rects, columns, rows, orders, counts, visible):
    """`_order_band` for every ``shares``-th band.

    A view's rows of tiles are cut into bands, so that few views keep many shares busy as well. depths (V, N) as
    integers, orders (V, bands, N), counts (V, tiles), visible (V, bands).
    """
    views, bands = visible.shape
    for job in range(share, views * bands, shares):
        view, band = job // bands, job % bands
        visible[view, band] = _order_band(
            depths[view], rects[view], columns, rows * band // bands, rows * (band + 1) // bands,
            orders[view, band], counts[view],
        )  # fmt: skip


@jit()
def _order_band(depth_bits, rects, columns, top, bottom, order, counts):
    """Stable radix sort by depth of the splats that touch a band, rows ``top`` to ``bottom`` of tiles, of one view;
    counts splats per tile of the band.

    depth_bits (N,): positive floats seen as integers, which sort alike. Returns how many splats ``order`` holds.
    """
    total, visible = depth_bits.shape[0], 0
    keys = np.empty(total, depth_bits.dtype)
    counts[top * columns : bottom * columns] = 0
    for n in range(total):
        first, past = max(rects[n, 1], top), min(rects[n, 3], bottom)
        if rects[n, 2] > rects[n, 0] and past > first:
            keys[visible] = depth_bits[n]
            order[visible] = n
            visible += 1
            for row in range(first, past):
                for column in range(rects[n, 0], rects[n, 2]):
                    counts[row * columns + column] += 1
    _sort(visible, keys, order)
    return visible


@jit()
def _sort(count, keys, order):
    """Stable radix sort of the first entries of ``order`` by keys, which get lost; digits that all share are not
    looked at. Depths of one scene differ in their lower 24 bits or so: two passes.

    Plain loops, because whole-array operations would double the time that this takes to compile.
    """
    if count < 2:
        return
    least = greatest = keys[0]
    for i in range(1, count):
        least, greatest = min(least, keys[i]), max(greatest, keys[i])
    passes = 0
    place = np.empty(RADIX, np.int64)
    given, other_keys, other_order = order, np.empty_like(keys), np.empty_like(order)
    while (greatest - least) >> (passes * RADIX_BITS) > 0:
        shift = passes * RADIX_BITS
        for digit in range(RADIX):
            place[digit] = 0
        for i in range(count):
            place[((keys[i] - least) >> shift) & (RADIX - 1)] += 1
        start = 0
        for digit in range(RADIX):
            start, place[digit] = start + place[digit], start
        for i in range(count):
            digit = ((keys[i] - least) >> shift) & (RADIX - 1)
            target = place[digit]
            place[digit] = target + 1
            other_keys[target] = keys[i]
            other_order[target] = order[i]
        keys, other_keys, order, other_order = other_keys, keys, other_order, order
        passes += 1
    if passes % 2:
        for i in range(count):
            given[i] = order[i]


@jit()
def fill_share(share, shares, rects, columns, rows, orders, visible, starts, entries):
    """Write the splats of every ``shares``-th band into their tiles' lists, in order of depth.

    starts (V tiles + 1): first entry of each tile.
    """
    views, bands = visible.shape
    tiles = rows * columns
    for job in range(share, views * bands, shares):
        view, band = job // bands, job % bands
        top, bottom = rows * band // bands, rows * (band + 1) // bands
        position = starts[view * tiles : (view + 1) * tiles].copy()
        for i in range(visible[view, band]):
            n = orders[view, band, i]
            if i + AHEAD < visible[view, band]:
                fetch(rects, (view * rects.shape[1] + orders[view, band, i + AHEAD]) * 4)
            for row in range(max(rects[view, n, 1], top), min(rects[view, n, 3], bottom)):
                for column in range(rects[view, n, 0], rects[view, n, 2]):
                    tile = row * columns + column
                    entries[position[tile]] = n
                    position[tile] += 1
