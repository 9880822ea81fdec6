"""Compiled loops of the numba back end: blending. `splats_numba_backward` has its gradient.

Every loop nest is a function of one share of the work (``share`` of ``shares``) at module level, so that numba's
on-disk cache keeps it; float32 and float64 are two compilations of one source. `splats_numba` starts the shares in
parallel. Sums that several shares contribute to go to private buffers and are added in a fixed order: the result
depends on the number of shares only, never on timing.

A row of a tile is one value of 16 lanes. Few channels are blended that way too; of more, 16 channels are the lanes,
and those of a splat stay in registers while the pixels go by to which it contributes.

Letters: V views, N splats, C channels (padded to a multiple of 16 when there are more than `FEW_CHANNELS`), K entries
(splat, tile) in tile order. ``splats`` is (V, N, 8): mean x, mean y, conic a, b, c, depth, opacity, half height of the
region that counts. ``rects`` is (V, N, 4): first column, first row, past-last column, past-last row of tiles.
"""

from __future__ import annotations

import math

import numpy as np

from latent3d.rendering.splats_numba_lanes import LANES, jit
from latent3d.rendering.splats_numba_vectors import (
    AHEAD,
    claim,
    copy_transposed,
    fetch,
    fused,
    load,
    pack,
    power_of_two,
    steps,
    store,
    total,
    where,
)

FEW_CHANNELS = 8
"""Up to this many channels are blended with the pixels of a row as lanes; more, with channels as lanes."""
CHECK_EVERY = 32
"""Splats between two looks at whether all pixels of a tile have ended."""
LOG2_E = 1.4426950408889634
# A tile's workspace has one line per row of pixels; these are the places of its groups of lanes.
REMAINING, ACTIVE, LAST, DEPTH, MASS, WEIGHT = range(0, 6 * LANES, LANES)
CHANNELS = 6 * LANES
LINE = CHANNELS + FEW_CHANNELS * LANES


@jit()
def exponents(a, b, c):
    """Coefficients of dx^2, dx dy and dy^2 in log2 of exp(-sigma)."""
    log2_e, half = type(a)(LOG2_E), type(a)(0.5)
    return -half * log2_e * a, -log2_e * b, -half * log2_e * c


@jit()
def response(coefficients, opacity, dx, dy):
    """opacity exp(-sigma) of a row of pixels. It rounds alike forward and backward, where it is compared."""
    a, b, c = coefficients
    return power_of_two(fused(dx, fused(dx, a, b * dy), c * dy * dy)) * opacity


@jit()
def rows_reached(mean_y, reach, half, y0, rows):
    """Rows of the tile that a splat can touch, as a range of offsets from y0."""
    low = max(0, math.ceil(mean_y - reach - half) - y0)
    return low, min(rows, math.floor(mean_y + reach - half) + 1 - y0)


@jit()
def note_pixels(mask, row, weight, pixels, weights, count):
    """Append the pixels of a row that a mask chooses, and their weights, to the lists; their new length.

    Pixels are numbers of the working type (exact up to 255), because lanes are packed in that type only.
    """
    pack(pixels, count, mask, steps(weights.dtype.type(0)) + weights.dtype.type(row * LANES))
    return pack(weights, count, mask, weight)


@jit()
def _note_ended(work, rows, row_alive):
    """Mark rows all of whose pixels have ended; the number of rows that are left."""
    left = 0
    for y in range(rows):
        row_alive[y] = 1 if total(load(work, y * LINE + ACTIVE)) > 0 else 0
        left += row_alive[y]
    return left


@jit()
def _clear(work, wide, width, height):
    """A tile's workspace before any splat: full transmittance where there is a pixel, no last splat, else zeros."""
    number = work.dtype.type
    work[:] = 0
    wide[:] = 0
    for y in range(LANES):
        store(work, y * LINE + REMAINING, number(1))
        store(work, y * LINE + LAST, number(-1))
        if y < height:
            for i in range(width):
                work[y, ACTIVE + i] = number(1)


@jit()
def _store_tile(work, wide, few, view, x0, y0, x1, y1, least_alpha, images, depths, alphas, remaining, last):
    """From a tile's workspace to the images; how many splats it took until its last pixel ended."""
    newest = np.int32(-1)
    for y in range(y1):
        for i in range(x1):
            newest = max(newest, np.int32(work[y, LAST + i]))
            alpha = work[y, MASS + i]
            depths[view, y0 + y, x0 + i] = work[y, DEPTH + i] / max(alpha, least_alpha)
            alphas[view, y0 + y, x0 + i] = alpha
            remaining[view, y0 + y, x0 + i] = work[y, REMAINING + i]
            last[view, y0 + y, x0 + i] = np.int32(work[y, LAST + i])
    _, C, height, width = images.shape
    for y in range(y1):
        done = 0
        if not few and x1 == LANES:
            done = C // LANES * LANES
            for first in range(0, done, LANES):
                at = ((view * C + first) * height + y0 + y) * width + x0
                copy_transposed(images, at, height * width, wide, y * LANES * wide.shape[2] + first, wide.shape[2])
        for channel in range(done, C):
            for i in range(x1):
                value = work[y, CHANNELS + channel * LANES + i] if few else wide[y, i, channel]
                images[view, channel, y0 + y, x0 + i] = value
    return newest + 1


@jit()
def _add_channels(wide, channels, channel_at, pixels, weights, count):
    """wide[pixel] += weight * the channels of a splat, for all pixels of the list; 64 channels at a time, then 16."""
    C = wide.shape[2]
    block = 0
    while block + 4 * LANES <= C:
        f0, f1 = load(channels, channel_at + block), load(channels, channel_at + block + LANES)
        f2 = load(channels, channel_at + block + 2 * LANES)
        f3 = load(channels, channel_at + block + 3 * LANES)
        for j in range(count):
            at, weight = np.int64(pixels[j]) * C + block, weights[j]
            store(wide, at, load(wide, at) + f0 * weight)
            store(wide, at + LANES, load(wide, at + LANES) + f1 * weight)
            store(wide, at + 2 * LANES, load(wide, at + 2 * LANES) + f2 * weight)
            store(wide, at + 3 * LANES, load(wide, at + 3 * LANES) + f3 * weight)
        block += 4 * LANES
    while block < C:
        values = load(channels, channel_at + block)
        for j in range(count):
            at = np.int64(pixels[j]) * C + block
            store(wide, at, load(wide, at) + values * weights[j])
        block += LANES


@jit()
def _next_tile(share, tiles, bounds, taken):
    """A tile that nobody has: the next of this share's, or of another's whose list is not yet through; -1 if none."""
    shares = bounds.shape[0] - 1
    for other in range(shares):
        owner = (share + other) % shares
        place = bounds[owner] + claim(taken, owner * taken.shape[1])
        if place < bounds[owner + 1]:
            return tiles[place]
    return -1


@jit()
def blend_share(
    share, shares, splats, channels, starts, entries, tiles, bounds, taken, limits,
    images, depths, alphas, remaining, last, walked,
):  # fmt: skip
    """Front-to-back compositing of the tiles ``tiles[bounds[share] : bounds[share + 1]]`` and of those that other
    shares have not come to.

    taken (shares, 8), zeros: how many of each list are taken, each count in a cache line of its own. limits:
    (ALPHA_MIN, ALPHA_MAX, TRANSMITTANCE_MIN, 1e-6) in the working type. Writes images (V, C, H, W) unpadded, depths =
    sum(w z) / max(alpha, 1e-6), alphas = sum(w), remaining (final transmittance), last (entry blended last, counted
    from the tile's first, or -1), each (V, H, W), and walked (V tiles): the splats of a tile until its last pixel
    ended. ACTIVE is the transmittance of a pixel that goes on and 0 of one that ended or lies outside, which makes all
    further weights 0.
    """
    number = splats.dtype.type
    zero, half, one = number(0), number(0.5), number(1)
    alpha_min, alpha_max, stop, least_alpha = limits
    height, width, C = images.shape[2], images.shape[3], channels.shape[2]
    columns, rows = (width + LANES - 1) // LANES, (height + LANES - 1) // LANES
    few = C <= FEW_CHANNELS
    work = np.empty((LANES, LINE), splats.dtype)
    wide = np.empty((LANES, LANES, 1 if few else C), splats.dtype)
    pixels, weights = np.empty((2, (LANES + 1) * LANES), splats.dtype)
    row_alive = np.empty(LANES, np.int64)
    while True:
        tile = _next_tile(share, tiles, bounds, taken)
        if tile < 0:
            break
        view, place = tile // (rows * columns), tile % (rows * columns)
        x0, y0 = (place % columns) * LANES, (place // columns) * LANES
        x1, y1 = min(width - x0, LANES), min(height - y0, LANES)
        channels_view = view if channels.shape[0] > 1 else 0
        begin, end = starts[tile], starts[tile + 1]
        _clear(work, wide, x1, y1)
        row_alive[:] = 1
        for entry in range(begin, end):
            if (entry - begin) % CHECK_EVERY == CHECK_EVERY - 1 and _note_ended(work, y1, row_alive) == 0:
                break
            n = entries[entry]
            if entry + AHEAD < end:
                coming = entries[entry + AHEAD]
                fetch(splats, (view * splats.shape[1] + coming) * splats.shape[2])
                fetch(channels, (channels_view * channels.shape[1] + coming) * C)
            mean_y, z, opacity = splats[view, n, 1], splats[view, n, 5], splats[view, n, 6]
            dx = (splats[view, n, 0] - number(x0) - half) - steps(zero)
            coefficients = exponents(splats[view, n, 2], splats[view, n, 3], splats[view, n, 4])
            low, high = rows_reached(mean_y, splats[view, n, 7], half, y0, y1)
            index, count = number(entry - begin), 0
            channel_at = (channels_view * channels.shape[1] + n) * C
            for y in range(low, high):
                if row_alive[y] == 0:
                    continue
                line = y * LINE
                alpha = response(coefficients, opacity, dx, mean_y - (number(y0 + y) + half))
                alpha = where(alpha >= alpha_min, alpha, zero)
                alpha = where(alpha > alpha_max, alpha_max, alpha)
                before = load(work, line + ACTIVE)
                after = before * (one - alpha)
                goes_on = after > stop
                weight = where(goes_on, alpha * before, zero)
                store(work, line + ACTIVE, where(goes_on, after, zero))
                store(work, line + REMAINING, where(goes_on, after, load(work, line + REMAINING)))
                store(work, line + LAST, where(weight > zero, index, load(work, line + LAST)))
                store(work, line + DEPTH, load(work, line + DEPTH) + weight * z)
                store(work, line + MASS, load(work, line + MASS) + weight)
                if few:
                    for channel in range(C):
                        at = line + CHANNELS + channel * LANES
                        store(work, at, load(work, at) + weight * channels[channels_view, n, channel])
                else:
                    count = note_pixels(weight > zero, y, weight, pixels, weights, count)
            if not few:
                _add_channels(wide, channels, channel_at, pixels, weights, count)
        walked[tile] = _store_tile(
            work, wide, few, view, x0, y0, x1, y1, least_alpha, images, depths, alphas, remaining, last
        )
