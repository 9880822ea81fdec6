"""Compiled loops of the numba back end: projection, ordering, binning, blending and their gradients.

Every loop nest is a function of one share of the work (``share`` of ``shares``) at module level, so that numba's
on-disk cache keeps it; float32 and float64 are two compilations of one source. `splats_numba` starts the shares in
parallel. Sums that several shares contribute to go to private buffers and are added in a fixed order: the result
depends on the number of shares only, never on timing.

Letters: V views, N splats, C channels, K entries (splat, tile) in tile order. ``splats`` is (V, N, 8): mean x, mean y,
conic a, b, c, depth, opacity, half height of the region that counts. ``rects`` is (V, N, 4): first column, first row,
past-last column, past-last row of tiles.
"""

from __future__ import annotations

import math
import warnings

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

FAST = {"nsz", "arcp", "contract", "afn", "reassoc"}
LANES = 16
"""Tile side. One row of a tile is one group of lanes that the compiler turns into vector instructions."""
FEW_CHANNELS = 8
"""Up to this many channels are blended lane by lane (pixels in a vector); more are blended channels in a vector."""
RADIX_BITS = 11
RADIX = 1 << RADIX_BITS
# Slots of the workspace of a tile; channels follow from FREE on.
REMAINING, ALIVE, LAST, DEPTH, SUFFIX, D_ALPHA, D_DEPTH, SCRATCH, FREE = range(9)
# Rows of the SCRATCH slot.
CENTRE, WEIGHT, RESPONSE, INVERSE, GRADIENT = range(5)


def jit(**options):
    """`numba.njit` without the interpreter lock, with the on-disk cache (a warning where no folder can be written)."""

    def decorate(function):
        try:
            return numba.njit(cache=True, nogil=True, **options)(function)
        except RuntimeError as error:
            warnings.warn(f"compiled rasteriser loops cannot be kept on disk: {error}", stacklevel=2)
            return numba.njit(nogil=True, **options)(function)

    return decorate


@intrinsic
def _float_from_bits(typing_context, bits):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


def _exp(x):
    return math.exp(x)


@overload(_exp)
def _exp_by_type(x):
    """exp for x <= 10. float32: 2^n times a degree-7 polynomial, relative error about 6e-8, no branch."""
    if x != types.float32:
        return lambda x: math.exp(x)

    def exp32(x):
        x = max(x, np.float32(-87.0))
        n = np.floor(x * np.float32(1.4426950408889634) + np.float32(0.5))
        r = (x - n * np.float32(0.693359375)) - n * np.float32(-2.12194440e-4)
        p = np.float32(1.0 / 5040)
        p = p * r + np.float32(1.0 / 720)
        p = p * r + np.float32(1.0 / 120)
        p = p * r + np.float32(1.0 / 24)
        p = p * r + np.float32(1.0 / 6)
        p = p * r + np.float32(0.5)
        p = p * r + np.float32(1.0)
        p = p * r + np.float32(1.0)
        return p * _float_from_bits((np.int32(n) + np.int32(127)) << np.int32(23))

    return exp32


@jit()
def response(a, b, c, opacity, dx, dy, half):
    """opacity exp(-sigma). Compiled without fast-math, so that forward and backward take equal decisions on it."""
    return opacity * _exp(-(half * (a * dx * dx + c * dy * dy) + b * dx * dy))


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


@jit(fastmath=FAST)
def blend_share(share, shares, splats, channels, starts, entries, limits, images, depths, alphas, remaining, last):
    """Front-to-back compositing of every ``shares``-th tile.

    limits: (ALPHA_MIN, ALPHA_MAX, TRANSMITTANCE_MIN, 1e-6) in the working type. Writes images (V, C, H, W),
    depths = sum(w z) / max(alpha, 1e-6), alphas, remaining (final transmittance), last (entry blended last, or -1),
    each (V, H, W). A pixel that ended or lies outside has ALIVE = 0, which makes all further weights 0.
    """
    number = splats.dtype.type
    zero, half, one = number(0), number(0.5), number(1)
    alpha_min, alpha_max, stop, least_alpha = limits
    height, width, C = images.shape[2], images.shape[3], images.shape[1]
    columns, rows = (width + LANES - 1) // LANES, (height + LANES - 1) // LANES
    few = C <= FEW_CHANNELS
    work = np.empty((FREE + FEW_CHANNELS, LANES, LANES), splats.dtype)
    wide = np.empty((LANES, LANES, 1 if few else C), splats.dtype)
    row_alive = np.empty(LANES, np.int64)
    for tile in range(share, splats.shape[0] * rows * columns, shares):
        view, place = tile // (rows * columns), tile % (rows * columns)
        x0, y0 = (place % columns) * LANES, (place // columns) * LANES
        x1, y1 = min(width - x0, LANES), min(height - y0, LANES)
        shared = view if channels.shape[0] > 1 else 0
        begin, end = starts[tile], starts[tile + 1]
        work[:] = zero
        wide[:] = zero
        work[REMAINING] = one
        work[LAST] = -one
        work[ALIVE, :y1, :x1] = one
        row_alive[:] = 1
        for i in range(LANES):
            work[SCRATCH, CENTRE, i] = number(x0 + i) + half
        for entry in range(begin, end):
            if (entry - begin) % 32 == 31:
                alive_rows = 0
                for y in range(y1):
                    alive = zero
                    for i in range(LANES):
                        alive += work[ALIVE, y, i]
                    row_alive[y] = 1 if alive > zero else 0
                    alive_rows += row_alive[y]
                if alive_rows == 0:
                    break
            n = entries[entry]
            mean_x, mean_y = splats[view, n, 0], splats[view, n, 1]
            a, b, c = splats[view, n, 2], splats[view, n, 3], splats[view, n, 4]
            z, opacity = splats[view, n, 5], splats[view, n, 6]
            reach = splats[view, n, 7]
            low = max(0, int(math.ceil(mean_y - reach - half)) - y0)
            high = min(y1, int(math.floor(mean_y + reach - half)) + 1 - y0)
            index = number(entry - begin)
            for y in range(low, high):
                if row_alive[y] == 0:
                    continue
                dy = mean_y - (number(y0 + y) + half)
                for i in range(LANES):
                    alpha = response(a, b, c, opacity, mean_x - work[SCRATCH, CENTRE, i], dy, half)
                    alpha = min(alpha, alpha_max) * work[ALIVE, y, i] if alpha >= alpha_min else zero
                    transmittance = work[REMAINING, y, i]
                    after = transmittance * (one - alpha)
                    ended = after <= stop
                    weight = zero if ended else alpha * transmittance
                    work[REMAINING, y, i] = transmittance if ended else after
                    work[ALIVE, y, i] = zero if ended else work[ALIVE, y, i]
                    work[LAST, y, i] = index if weight > zero else work[LAST, y, i]
                    work[DEPTH, y, i] += weight * z
                    work[SCRATCH, WEIGHT, i] = weight
                if few:
                    for channel in range(C):
                        value = channels[shared, n, channel]
                        for i in range(LANES):
                            work[FREE + channel, y, i] += work[SCRATCH, WEIGHT, i] * value
                else:
                    for i in range(LANES):
                        weight = work[SCRATCH, WEIGHT, i]
                        if weight > zero:
                            for channel in range(C):
                                wide[y, i, channel] += weight * channels[shared, n, channel]
        for y in range(y1):
            for i in range(x1):
                alpha = one - work[REMAINING, y, i]
                depths[view, y0 + y, x0 + i] = work[DEPTH, y, i] / max(alpha, least_alpha)
                alphas[view, y0 + y, x0 + i] = alpha
                remaining[view, y0 + y, x0 + i] = work[REMAINING, y, i]
                last[view, y0 + y, x0 + i] = np.int32(work[LAST, y, i])
        for channel in range(C):
            for y in range(y1):
                for i in range(x1):
                    value = work[FREE + channel, y, i] if few else wide[y, i, channel]
                    images[view, channel, y0 + y, x0 + i] = value


@jit(fastmath=FAST)
def blend_backward_share(
    share, shares, first, views, splats, channels, starts, entries, limits, depths, remaining, last,
    d_images, d_depths, d_alphas, d_splats, d_channels,
):  # fmt: skip
    """Gradients of `blend_share` for ``views`` views from ``first`` on, back to front, one scalar suffix per pixel.

    With G_i = F_i . dO + z_i dZ + dA and S_i = sum_{j > i} w_j G_j:  dL/dalpha_i = T_i G_i - S_i / (1 - alpha_i),
    dL/dF_i = sum w_i dO, dL/dsigma_i = -alpha_i dL/dalpha_i, nothing through a clamped alpha. Adds to this share's
    part of d_splats (shares, views, N, 7), for mean x, mean y, a, b, c, depth, opacity, and of d_channels
    (shares, V or 1, N, C).
    """
    number = splats.dtype.type
    zero, half, one = number(0), number(0.5), number(1)
    alpha_min, alpha_max, _, least_alpha = limits
    height, width, C = d_images.shape[2], d_images.shape[3], d_images.shape[1]
    columns, rows = (width + LANES - 1) // LANES, (height + LANES - 1) // LANES
    few = C <= FEW_CHANNELS
    work = np.empty((FREE + FEW_CHANNELS, LANES, LANES), splats.dtype)
    wide = np.empty((LANES, LANES, 1 if few else C), splats.dtype)
    row_last = np.empty(LANES, np.int64)
    for tile in range(first * rows * columns + share, (first + views) * rows * columns, shares):
        view, place = tile // (rows * columns), tile % (rows * columns)
        x0, y0 = (place % columns) * LANES, (place // columns) * LANES
        x1, y1 = min(width - x0, LANES), min(height - y0, LANES)
        shared = view if channels.shape[0] > 1 else 0
        begin = starts[tile]
        work[:] = zero
        work[REMAINING] = one
        work[LAST] = -one
        row_last[:] = -1
        for i in range(LANES):
            work[SCRATCH, CENTRE, i] = number(x0 + i) + half
        for y in range(y1):
            for i in range(x1):
                transmittance = remaining[view, y0 + y, x0 + i]
                mass = max(one - transmittance, least_alpha)
                d_depth = d_depths[view, y0 + y, x0 + i] / mass
                inside = one if one - transmittance > least_alpha else zero
                work[REMAINING, y, i] = transmittance
                work[LAST, y, i] = number(last[view, y0 + y, x0 + i])
                work[D_DEPTH, y, i] = d_depth
                work[D_ALPHA, y, i] = d_alphas[view, y0 + y, x0 + i] - d_depth * depths[view, y0 + y, x0 + i] * inside
                row_last[y] = max(row_last[y], last[view, y0 + y, x0 + i])
        for channel in range(C):
            for y in range(y1):
                for i in range(x1):
                    if few:
                        work[FREE + channel, y, i] = d_images[view, channel, y0 + y, x0 + i]
                    else:
                        wide[y, i, channel] = d_images[view, channel, y0 + y, x0 + i]
        for entry in range(begin + row_last[:y1].max(), begin - 1, -1):
            n = entries[entry]
            mean_x, mean_y = splats[view, n, 0], splats[view, n, 1]
            a, b, c = splats[view, n, 2], splats[view, n, 3], splats[view, n, 4]
            z, opacity = splats[view, n, 5], splats[view, n, 6]
            reach = splats[view, n, 7]
            low = max(0, int(math.ceil(mean_y - reach - half)) - y0)
            high = min(y1, int(math.floor(mean_y + reach - half)) + 1 - y0)
            index = number(entry - begin)
            d_mean_x, d_mean_y, d_a, d_b, d_c, d_z, d_opacity = zero, zero, zero, zero, zero, zero, zero
            for y in range(low, high):
                if entry - begin > row_last[y]:
                    continue
                dy = mean_y - (number(y0 + y) + half)
                for i in range(LANES):
                    raw = response(a, b, c, opacity, mean_x - work[SCRATCH, CENTRE, i], dy, half)
                    raw = raw if raw >= alpha_min and index <= work[LAST, y, i] else zero
                    alpha = min(raw, alpha_max)
                    inverse = one / (one - alpha)
                    transmittance = work[REMAINING, y, i] * inverse
                    work[REMAINING, y, i] = transmittance
                    work[SCRATCH, WEIGHT, i] = alpha * transmittance
                    work[SCRATCH, RESPONSE, i] = raw if raw <= alpha_max else zero
                    work[SCRATCH, INVERSE, i] = inverse
                    work[SCRATCH, GRADIENT, i] = work[D_ALPHA, y, i] + z * work[D_DEPTH, y, i]
                    d_z += alpha * transmittance * work[D_DEPTH, y, i]
                if few:
                    for channel in range(C):
                        value, total = channels[shared, n, channel], zero
                        for i in range(LANES):
                            work[SCRATCH, GRADIENT, i] += value * work[FREE + channel, y, i]
                            total += work[SCRATCH, WEIGHT, i] * work[FREE + channel, y, i]
                        d_channels[share, shared, n, channel] += total
                else:
                    for i in range(LANES):
                        weight = work[SCRATCH, WEIGHT, i]
                        if weight > zero:
                            total = zero
                            for channel in range(C):
                                total += channels[shared, n, channel] * wide[y, i, channel]
                            for channel in range(C):
                                d_channels[share, shared, n, channel] += weight * wide[y, i, channel]
                            work[SCRATCH, GRADIENT, i] += total
                sum_0, sum_1, sum_2 = zero, zero, zero
                for i in range(LANES):
                    dx = mean_x - work[SCRATCH, CENTRE, i]
                    gradient, inverse = work[SCRATCH, GRADIENT, i], work[SCRATCH, INVERSE, i]
                    d_alpha = work[REMAINING, y, i] * gradient - work[SUFFIX, y, i] * inverse
                    work[SUFFIX, y, i] += work[SCRATCH, WEIGHT, i] * gradient
                    d_log = d_alpha * work[SCRATCH, RESPONSE, i]
                    sum_0 += d_log
                    sum_1 += d_log * dx
                    sum_2 += d_log * dx * dx
                d_mean_x -= a * sum_1 + b * dy * sum_0
                d_mean_y -= b * sum_1 + c * dy * sum_0
                d_a -= half * sum_2
                d_b -= dy * sum_1
                d_c -= half * dy * dy * sum_0
                d_opacity += sum_0
            target = d_splats[share, view - first, n]
            target[0] += d_mean_x
            target[1] += d_mean_y
            target[2] += d_a
            target[3] += d_b
            target[4] += d_c
            target[5] += d_z
            target[6] += d_opacity / opacity
