"""Compiled ordering of splats by depth and their lists by tile; one share of the views each.

Letters: V views, N splats, K entries (splat, tile) in tile order. ``rects`` is (V, N, 4): first column, first row,
past-last column, past-last row of tiles.
"""

from __future__ import annotations

import numpy as np

from latent3d.rendering.splats_numba_lanes import jit

RADIX_BITS = 11
RADIX = 1 << RADIX_BITS


@jit()
def order_share(share, shares, depths, rects, columns, orders, counts, visible):
    """`_order_view` for every ``shares``-th view. depths (V, N) as integers, counts (V, tiles), visible (V,)."""
    for view in range(share, rects.shape[0], shares):
        visible[view] = _order_view(depths[view], rects[view], columns, orders[view], counts[view])


@jit()
def _order_view(depth_bits, rects, columns, order, counts):
    """Stable radix sort of one view's splats that touch a tile, by depth; counts splats per tile.

    depth_bits (N,): positive floats seen as integers, which sort alike. Returns how many splats ``order`` holds.
    """
    total, visible = depth_bits.shape[0], 0
    keys = np.empty(total, np.int64)
    counts[:] = 0
    for n in range(total):
        if rects[n, 2] > rects[n, 0] and rects[n, 3] > rects[n, 1]:
            keys[visible] = depth_bits[n]
            order[visible] = n
            visible += 1
            for row in range(rects[n, 1], rects[n, 3]):
                for column in range(rects[n, 0], rects[n, 2]):
                    counts[row * columns + column] += 1
    other_keys, other_order = np.empty(visible, np.int64), np.empty(visible, np.int32)
    place = np.empty(RADIX, np.int64)
    passes = 3 if depth_bits.itemsize == 4 else 6
    for step in range(passes):
        shift = step * RADIX_BITS
        place[:] = 0
        for i in range(visible):
            place[(keys[i] >> shift) & (RADIX - 1)] += 1
        start = 0
        for digit in range(RADIX):
            start, place[digit] = start + place[digit], start
        for i in range(visible):
            digit = (keys[i] >> shift) & (RADIX - 1)
            target = place[digit]
            place[digit] = target + 1
            other_keys[target] = keys[i]
            other_order[target] = order[i]
        for i in range(visible):
            keys[i] = other_keys[i]
            order[i] = other_order[i]
    return visible


@jit()
def fill_share(share, shares, rects, columns, orders, visible, starts, entries):
    """Write the splats of every ``shares``-th view into their tiles' lists, in order of depth.

    starts (V tiles + 1): first entry of each tile.
    """
    views = rects.shape[0]
    tiles = (starts.shape[0] - 1) // views
    for view in range(share, views, shares):
        position = starts[view * tiles : (view + 1) * tiles].copy()
        for i in range(visible[view]):
            n = orders[view, i]
            for row in range(rects[view, n, 1], rects[view, n, 3]):
                for column in range(rects[view, n, 0], rects[view, n, 2]):
                    tile = row * columns + column
                    entries[position[tile]] = n
                    position[tile] += 1
