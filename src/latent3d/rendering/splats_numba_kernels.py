"""Compiled loops of the numba back end: blending and its gradient.

Every loop nest is a function of one share of the work (``share`` of ``shares``) at module level, so that numba's
on-disk cache keeps it; float32 and float64 are two compilations of one source. `splats_numba` starts the shares in
parallel. Sums that several shares contribute to go to private buffers and are added in a fixed order: the result
depends on the number of shares only, never on timing.

Letters: V views, N splats, C channels (padded to a multiple of 16 when there are more than `FEW_CHANNELS`), K entries
(splat, tile) in tile order. ``splats`` is (V, N, 8): mean x, mean y, conic a, b, c, depth, opacity, half height of the
region that counts. ``rects`` is (V, N, 4): first column, first row, past-last column, past-last row of tiles.
"""

from __future__ import annotations

import math

import numpy as np

from latent3d.rendering.splats_numba_lanes import LANES, add_scaled, exponential, jit, lane_dot

FAST = {"nsz", "arcp", "contract", "afn", "reassoc"}
FEW_CHANNELS = 8
"""Up to this many channels are blended with the pixels of a row as lanes; more, with channels as lanes."""
CHECK_EVERY = 32
"""Splats between two looks at whether all pixels of a tile have ended."""
# A tile's workspace has one line per row of pixels; these are the places of its groups of lanes.
REMAINING, ALIVE, LAST, DEPTH, MASS, WEIGHT = range(0, 6 * LANES, LANES)
SUFFIX, D_ALPHA, D_DEPTH, RESPONSE, INVERSE, GRADIENT, CHANNELS = range(6 * LANES, 13 * LANES, LANES)
LINE = CHANNELS + FEW_CHANNELS * LANES


@jit()
def response(a, b, c, opacity, dx, dy, half):
    """opacity exp(-sigma). Without fast-math, so that it rounds alike forward and backward, where it is compared."""
    return opacity * exponential(-(half * (a * dx * dx + c * dy * dy) + b * dx * dy))


@jit()
def _rows_reached(mean_y, reach, half, y0, rows):
    """Rows of the tile that a splat can touch, as a range of offsets from y0."""
    low = max(0, math.ceil(mean_y - reach - half) - y0)
    return low, min(rows, math.floor(mean_y + reach - half) + 1 - y0)


@jit(fastmath=FAST)
def _note_ended(work, rows, row_alive):
    """Mark rows all of whose pixels have ended; the number of rows that are left."""
    left = 0
    for y in range(rows):
        alive = work.dtype.type(0)
        for i in range(LANES):
            alive += work[y, ALIVE + i]
        row_alive[y] = 1 if alive > 0 else 0
        left += row_alive[y]
    return left


@jit(fastmath=FAST)
def _clear(work, wide):
    """A tile's workspace before any splat: zeros, but full transmittance and no last splat."""
    one = work.dtype.type(1)
    work[:] = 0
    wide[:] = 0
    for y in range(LANES):
        for i in range(LANES):
            work[y, REMAINING + i] = one
            work[y, LAST + i] = -one


@jit(fastmath=FAST)
def _store_tile(work, wide, few, view, x0, y0, x1, y1, least_alpha, images, depths, alphas, remaining, last):
    """From a tile's workspace to the images."""
    for y in range(y1):
        for i in range(x1):
            alpha = work[y, MASS + i]
            depths[view, y0 + y, x0 + i] = work[y, DEPTH + i] / max(alpha, least_alpha)
            alphas[view, y0 + y, x0 + i] = alpha
            remaining[view, y0 + y, x0 + i] = work[y, REMAINING + i]
            last[view, y0 + y, x0 + i] = np.int32(work[y, LAST + i])
    for channel in range(images.shape[1]):
        for y in range(y1):
            for i in range(x1):
                value = work[y, CHANNELS + channel * LANES + i] if few else wide[y, i, channel]
                images[view, channel, y0 + y, x0 + i] = value


@jit(fastmath=FAST)
def blend_share(share, shares, splats, channels, starts, entries, limits, images, depths, alphas, remaining, last):
    """Front-to-back compositing of every ``shares``-th tile.

    limits: (ALPHA_MIN, ALPHA_MAX, TRANSMITTANCE_MIN, 1e-6) in the working type. Writes images (V, C, H, W) unpadded,
    depths = sum(w z) / max(alpha, 1e-6), alphas = sum(w), remaining (final transmittance), last (entry blended last,
    counted from the tile's first, or -1), each (V, H, W). A pixel that ended or lies outside has ALIVE = 0, which
    makes all further weights 0.
    """
    number = splats.dtype.type
    zero, half, one = number(0), number(0.5), number(1)
    alpha_min, alpha_max, stop, least_alpha = limits
    height, width, C = images.shape[2], images.shape[3], channels.shape[2]
    columns, rows = (width + LANES - 1) // LANES, (height + LANES - 1) // LANES
    few = C <= FEW_CHANNELS
    work = np.empty((LANES, LINE), splats.dtype)
    wide = np.empty((LANES, LANES, 1 if few else C), splats.dtype)
    row_alive = np.empty(LANES, np.int64)
    for tile in range(share, splats.shape[0] * rows * columns, shares):
        view, place = tile // (rows * columns), tile % (rows * columns)
        x0, y0 = (place % columns) * LANES, (place // columns) * LANES
        x1, y1 = min(width - x0, LANES), min(height - y0, LANES)
        channels_view = view if channels.shape[0] > 1 else 0
        begin, end = starts[tile], starts[tile + 1]
        _clear(work, wide)
        for y in range(y1):
            work[y, ALIVE : ALIVE + x1] = one
        row_alive[:] = 1
        for entry in range(begin, end):
            if (entry - begin) % CHECK_EVERY == CHECK_EVERY - 1 and _note_ended(work, y1, row_alive) == 0:
                break
            n = entries[entry]
            mean_y = splats[view, n, 1]
            offset = splats[view, n, 0] - number(x0) - half
            a, b, c = splats[view, n, 2], splats[view, n, 3], splats[view, n, 4]
            z, opacity = splats[view, n, 5], splats[view, n, 6]
            low, high = _rows_reached(mean_y, splats[view, n, 7], half, y0, y1)
            index = number(entry - begin)
            channel_at = (channels_view * channels.shape[1] + n) * C
            for y in range(low, high):
                if row_alive[y] == 0:
                    continue
                dy = mean_y - (number(y0 + y) + half)
                for i in range(LANES):
                    transmittance, alive = work[y, REMAINING + i], work[y, ALIVE + i]
                    latest = work[y, LAST + i]
                    alpha = response(a, b, c, opacity, offset - number(i), dy, half)
                    alpha = min(alpha, alpha_max) * (alive if alpha >= alpha_min else zero)
                    after = transmittance * (one - alpha)
                    ended = after <= stop
                    weight = zero if ended else alpha * transmittance
                    work[y, REMAINING + i] = transmittance if ended else after
                    work[y, ALIVE + i] = zero if ended else alive
                    work[y, LAST + i] = index if weight > zero else latest
                    work[y, DEPTH + i] += weight * z
                    work[y, MASS + i] += weight
                    work[y, WEIGHT + i] = weight
                if few:
                    line = y * LINE
                    for channel in range(C):
                        target = line + CHANNELS + channel * LANES
                        add_scaled(work, target, work, line + WEIGHT, channels[channels_view, n, channel])
                else:
                    for i in range(LANES):
                        weight = work[y, WEIGHT + i]
                        if weight > zero:
                            pixel = (y * LANES + i) * C
                            for block in range(0, C, LANES):
                                add_scaled(wide, pixel + block, channels, channel_at + block, weight)
        _store_tile(work, wide, few, view, x0, y0, x1, y1, least_alpha, images, depths, alphas, remaining, last)


@jit(fastmath=FAST)
def _load_gradients(
    view, x0, y0, x1, y1, least_alpha, depths, alphas, remaining, last, d_images, d_depths, d_alphas,
    few, work, wide, row_last,
):  # fmt: skip
    """Fill a tile's workspace for the way back: what the forward pass left, and the incoming gradients.

    A weight w_i moves the depth sum(w z) / sum(w) by (z_i - depth) / alpha: D_DEPTH holds the gradient over alpha.
    """
    _clear(work, wide)
    row_last[:] = -1
    for y in range(y1):
        for i in range(x1):
            alpha = max(alphas[view, y0 + y, x0 + i], least_alpha)
            work[y, REMAINING + i] = remaining[view, y0 + y, x0 + i]
            work[y, LAST + i] = work.dtype.type(last[view, y0 + y, x0 + i])
            work[y, DEPTH + i] = depths[view, y0 + y, x0 + i]
            work[y, D_DEPTH + i] = d_depths[view, y0 + y, x0 + i] / alpha
            work[y, D_ALPHA + i] = d_alphas[view, y0 + y, x0 + i]
            row_last[y] = max(row_last[y], last[view, y0 + y, x0 + i])
    for channel in range(d_images.shape[1]):
        for y in range(y1):
            for i in range(x1):
                value = d_images[view, channel, y0 + y, x0 + i]
                if few:
                    work[y, CHANNELS + channel * LANES + i] = value
                else:
                    wide[y, i, channel] = value


@jit(fastmath=FAST)
def _few_channels_backward(work, y, values, d_values):
    """One splat, one row, few channels (C,): their gradient, and their part of GRADIENT, all pixels at once."""
    line = y * LINE
    for channel in range(values.shape[0]):
        at = line + CHANNELS + channel * LANES
        add_scaled(work, line + GRADIENT, work, at, values[channel])
        d_values[channel] += lane_dot(work, line + WEIGHT, work, at)


@jit(fastmath=FAST)
def _wide_channels_backward(work, wide, y, channels, channel_at, d_channels, d_channel_at):
    """One splat, one row, many channels: their gradient, and their part of GRADIENT, pixel by pixel."""
    C = channels.shape[2]
    zero = work.dtype.type(0)
    for i in range(LANES):
        weight = work[y, WEIGHT + i]
        if weight > zero:
            pixel, total = (y * LANES + i) * C, zero
            for block in range(0, C, LANES):
                total += lane_dot(channels, channel_at + block, wide, pixel + block)
                add_scaled(d_channels, d_channel_at + block, wide, pixel + block, weight)
            work[y, GRADIENT + i] += total


@jit(fastmath=FAST)
def _moments(work, y, offset):
    """Sums over a row of dL/dlog(alpha) times 1, dx and dx^2; moves SUFFIX in front of the splat."""
    number = work.dtype.type
    sum_0, sum_1, sum_2 = number(0), number(0), number(0)
    for i in range(LANES):
        dx = offset - number(i)
        gradient = work[y, GRADIENT + i]
        d_alpha = work[y, REMAINING + i] * gradient - work[y, SUFFIX + i] * work[y, INVERSE + i]
        work[y, SUFFIX + i] += work[y, WEIGHT + i] * gradient
        moment = d_alpha * work[y, RESPONSE + i]
        sum_0 += moment
        sum_1 += moment * dx
        sum_2 += moment * dx * dx
    return sum_0, sum_1, sum_2


@jit(fastmath=FAST)
def blend_backward_share(
    share, shares, first, views, splats, channels, starts, entries, limits, depths, alphas, remaining, last,
    d_images, d_depths, d_alphas, d_splats, d_channels,
):  # fmt: skip
    """Gradients of `blend_share` for ``views`` views from ``first`` on, back to front, one scalar suffix per pixel.

    With G_i = F_i . dO + (z_i - depth) dD / alpha + dA and S_i = sum_{j > i} w_j G_j:
    dL/dalpha_i = T_i G_i - S_i / (1 - alpha_i), dL/dF_i = sum w_i dO, dL/dsigma_i = -alpha_i dL/dalpha_i, nothing
    through a clamped alpha. Adds to this share's part of d_splats (shares, views, N, 7), for mean x, mean y, a, b, c,
    depth, opacity, and of d_channels (shares, V or 1, N, C).
    """
    number = splats.dtype.type
    zero, half, one = number(0), number(0.5), number(1)
    alpha_min, alpha_max, _, least_alpha = limits
    height, width, C = d_images.shape[2], d_images.shape[3], channels.shape[2]
    columns, rows = (width + LANES - 1) // LANES, (height + LANES - 1) // LANES
    few = C <= FEW_CHANNELS
    work = np.empty((LANES, LINE), splats.dtype)
    wide = np.empty((LANES, LANES, 1 if few else C), splats.dtype)
    row_last = np.empty(LANES, np.int64)
    for tile in range(first * rows * columns + share, (first + views) * rows * columns, shares):
        view, place = tile // (rows * columns), tile % (rows * columns)
        x0, y0 = (place % columns) * LANES, (place // columns) * LANES
        x1, y1 = min(width - x0, LANES), min(height - y0, LANES)
        channels_view = view if channels.shape[0] > 1 else 0
        begin = starts[tile]
        _load_gradients(
            view, x0, y0, x1, y1, least_alpha, depths, alphas, remaining, last, d_images, d_depths, d_alphas,
            few, work, wide, row_last,
        )  # fmt: skip
        for entry in range(begin + row_last.max(), begin - 1, -1):
            n = entries[entry]
            mean_y = splats[view, n, 1]
            offset = splats[view, n, 0] - number(x0) - half
            a, b, c = splats[view, n, 2], splats[view, n, 3], splats[view, n, 4]
            z, opacity = splats[view, n, 5], splats[view, n, 6]
            low, high = _rows_reached(mean_y, splats[view, n, 7], half, y0, y1)
            index = number(entry - begin)
            channel_at = (channels_view * channels.shape[1] + n) * C
            d_channel_at = share * channels.size + channel_at
            d_mean_x, d_mean_y, d_a, d_b, d_c, d_z, d_log = zero, zero, zero, zero, zero, zero, zero
            for y in range(low, high):
                if entry - begin > row_last[y]:
                    continue
                dy = mean_y - (number(y0 + y) + half)
                for i in range(LANES):
                    latest, transmittance = work[y, LAST + i], work[y, REMAINING + i]
                    raw = response(a, b, c, opacity, offset - number(i), dy, half)
                    raw = raw if raw >= alpha_min else zero
                    raw = raw if index <= latest else zero
                    alpha = min(raw, alpha_max)
                    inverse = one / (one - alpha)
                    transmittance *= inverse
                    work[y, REMAINING + i] = transmittance
                    work[y, WEIGHT + i] = alpha * transmittance
                    work[y, RESPONSE + i] = raw if raw <= alpha_max else zero
                    work[y, INVERSE + i] = inverse
                    work[y, GRADIENT + i] = work[y, D_ALPHA + i] + (z - work[y, DEPTH + i]) * work[y, D_DEPTH + i]
                    d_z += alpha * transmittance * work[y, D_DEPTH + i]
                if few:
                    _few_channels_backward(work, y, channels[channels_view, n], d_channels[share, channels_view, n])
                else:
                    _wide_channels_backward(work, wide, y, channels, channel_at, d_channels, d_channel_at)
                sum_0, sum_1, sum_2 = _moments(work, y, offset)
                d_mean_x -= a * sum_1 + b * dy * sum_0
                d_mean_y -= b * sum_1 + c * dy * sum_0
                d_a -= half * sum_2
                d_b -= dy * sum_1
                d_c -= half * dy * dy * sum_0
                d_log += sum_0
            target = d_splats[share, view - first, n]
            target[0] += d_mean_x
            target[1] += d_mean_y
            target[2] += d_a
            target[3] += d_b
            target[4] += d_c
            target[5] += d_z
            target[6] += d_log / opacity
