"""Compiled gradient of blending, tile by tile and back to front: the way back through `splats_numba_kernels`."""

from __future__ import annotations

import numpy as np

from latent3d.rendering.splats_numba_kernels import FEW_CHANNELS, exponents, note_pixels, response, rows_reached
from latent3d.rendering.splats_numba_lanes import LANES, jit
from latent3d.rendering.splats_numba_vectors import (
    AHEAD,
    copy_transposed,
    everywhere,
    fetch,
    load,
    steps,
    store,
    total,
    where,
)

# A tile's workspace has one line per row of pixels; these are the places of its groups of lanes.
REMAINING, LAST, DEPTH, D_DEPTH, D_ALPHA, SUFFIX, WEIGHT, RESPONSE, INVERSE = range(0, 9 * LANES, LANES)
CHANNELS = 9 * LANES
LINE = CHANNELS + FEW_CHANNELS * LANES


@jit()
def _load_tile(
    view, x0, y0, x1, y1, least_alpha, depths, alphas, remaining, last, d_images, d_depths, d_alphas,
    few, work, wide, row_last,
):  # fmt: skip
    """Fill a tile's workspace: what the forward pass left, and the incoming gradients.

    A weight w_i moves the depth sum(w z) / sum(w) by (z_i - depth) / alpha: D_DEPTH holds the gradient over alpha.
    """
    work[:] = 0
    wide[:] = 0
    row_last[:] = -1
    for y in range(LANES):
        store(work, y * LINE + REMAINING, work.dtype.type(1))
        store(work, y * LINE + LAST, work.dtype.type(-1))
    for y in range(y1):
        for i in range(x1):
            alpha = max(alphas[view, y0 + y, x0 + i], least_alpha)
            work[y, REMAINING + i] = remaining[view, y0 + y, x0 + i]
            work[y, LAST + i] = work.dtype.type(last[view, y0 + y, x0 + i])
            work[y, DEPTH + i] = depths[view, y0 + y, x0 + i]
            work[y, D_DEPTH + i] = d_depths[view, y0 + y, x0 + i] / alpha
            work[y, D_ALPHA + i] = d_alphas[view, y0 + y, x0 + i]
            row_last[y] = max(row_last[y], last[view, y0 + y, x0 + i])
    _, C, height, width = d_images.shape
    for y in range(y1):
        done = 0
        if not few and x1 == LANES:
            done = C // LANES * LANES
            for first in range(0, done, LANES):
                at = ((view * C + first) * height + y0 + y) * width + x0
                copy_transposed(wide, y * LANES * wide.shape[2] + first, wide.shape[2], d_images, at, height * width)
        for channel in range(done, C):
            for i in range(x1):
                value = d_images[view, channel, y0 + y, x0 + i]
                if few:
                    work[y, CHANNELS + channel * LANES + i] = value
                else:
                    wide[y, i, channel] = value


@jit()
def _channels_backward(wide, channels, channel_at, d_channels, d_channel_at, pixels, weights, inner, count):
    """The gradient of a splat's channels, and F . dO of every pixel of the list; 64 channels at a time, then 16."""
    C = wide.shape[2]
    block = 0
    zero = everywhere(weights.dtype.type(0))
    while block + 4 * LANES <= C:
        at, d_at = channel_at + block, d_channel_at + block
        f0, f1 = load(channels, at), load(channels, at + LANES)
        f2, f3 = load(channels, at + 2 * LANES), load(channels, at + 3 * LANES)
        g0, g1, g2, g3 = zero, zero, zero, zero
        for j in range(count):
            source, weight = np.int64(pixels[j]) * C + block, weights[j]
            d0, d1 = load(wide, source), load(wide, source + LANES)
            d2, d3 = load(wide, source + 2 * LANES), load(wide, source + 3 * LANES)
            inner[np.int64(pixels[j])] += total((d0 * f0 + d1 * f1) + (d2 * f2 + d3 * f3))
            g0, g1, g2, g3 = g0 + d0 * weight, g1 + d1 * weight, g2 + d2 * weight, g3 + d3 * weight
        store(d_channels, d_at, load(d_channels, d_at) + g0)
        store(d_channels, d_at + LANES, load(d_channels, d_at + LANES) + g1)
        store(d_channels, d_at + 2 * LANES, load(d_channels, d_at + 2 * LANES) + g2)
        store(d_channels, d_at + 3 * LANES, load(d_channels, d_at + 3 * LANES) + g3)
        block += 4 * LANES
    while block < C:
        values, gradient = load(channels, channel_at + block), zero
        for j in range(count):
            incoming = load(wide, np.int64(pixels[j]) * C + block)
            inner[np.int64(pixels[j])] += total(incoming * values)
            gradient = gradient + incoming * weights[j]
        store(d_channels, d_channel_at + block, load(d_channels, d_channel_at + block) + gradient)
        block += LANES


@jit()
def _moment(work, line, z, inner, weight, transmittance, inverse, answer):
    """dL/dlog(alpha) of a row, from F . dO; moves SUFFIX in front of the splat."""
    gradient = inner + load(work, line + D_ALPHA) + (z - load(work, line + DEPTH)) * load(work, line + D_DEPTH)
    suffix = load(work, line + SUFFIX)
    store(work, line + SUFFIX, suffix + weight * gradient)
    return (transmittance * gradient - suffix * inverse) * answer


@jit()
def blend_backward_share(
    share, shares, first, splats, channels, starts, entries, tiles, bounds, limits, depths, alphas, remaining, last,
    d_images, d_depths, d_alphas, d_splats, d_channels,
):  # fmt: skip
    """Gradients of `blend_share` for the tiles ``tiles[bounds[share] : bounds[share + 1]]``, which are of views from
    ``first`` on; back to front, one scalar suffix per pixel.

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
    pixels, weights = np.empty((2, (LANES + 1) * LANES), splats.dtype)
    inner = np.zeros(LANES * LANES, splats.dtype)
    sums = np.empty(FEW_CHANNELS * LANES, splats.dtype)
    row_last = np.empty(LANES, np.int64)
    for tile in tiles[bounds[share] : bounds[share + 1]]:
        view, place = tile // (rows * columns), tile % (rows * columns)
        x0, y0 = (place % columns) * LANES, (place // columns) * LANES
        x1, y1 = min(width - x0, LANES), min(height - y0, LANES)
        channels_view = view if channels.shape[0] > 1 else 0
        begin = starts[tile]
        _load_tile(
            view, x0, y0, x1, y1, least_alpha, depths, alphas, remaining, last, d_images, d_depths, d_alphas,
            few, work, wide, row_last,
        )  # fmt: skip
        for entry in range(begin + row_last.max(), begin - 1, -1):
            n = entries[entry]
            if entry - AHEAD >= begin:
                coming = entries[entry - AHEAD]
                fetch(splats, (view * splats.shape[1] + coming) * splats.shape[2])
                fetch(channels, (channels_view * channels.shape[1] + coming) * C)
                fetch(d_splats, ((share * d_splats.shape[1] + view - first) * d_splats.shape[2] + coming) * 7)
                fetch(d_channels, share * channels.size + (channels_view * channels.shape[1] + coming) * C)
            mean_y, z, opacity = splats[view, n, 1], splats[view, n, 5], splats[view, n, 6]
            a, b, c = splats[view, n, 2], splats[view, n, 3], splats[view, n, 4]
            dx = (splats[view, n, 0] - number(x0) - half) - steps(zero)
            coefficients = exponents(a, b, c)
            low, high = rows_reached(mean_y, splats[view, n, 7], half, y0, y1)
            index, count = number(entry - begin), 0
            # by column: sums over the rows of dL/dlog(alpha) times 1, dy and dy^2, and of the weight times D_DEPTH
            sum_0, sum_y, sum_yy, sum_z = everywhere(zero), everywhere(zero), everywhere(zero), everywhere(zero)
            if few:
                for channel in range(C):
                    store(sums, channel * LANES, zero)
            for y in range(low, high):
                if entry - begin > row_last[y]:
                    continue
                line = y * LINE
                dy = mean_y - (number(y0 + y) + half)
                raw = response(coefficients, opacity, dx, dy)
                raw = where(raw >= alpha_min, raw, zero)
                raw = where(load(work, line + LAST) >= index, raw, zero)
                clamped = raw > alpha_max
                alpha = where(clamped, alpha_max, raw)
                answer = where(clamped, zero, raw)
                inverse = one / (one - alpha)
                transmittance = load(work, line + REMAINING) * inverse
                weight = alpha * transmittance
                store(work, line + REMAINING, transmittance)
                sum_z = sum_z + weight * load(work, line + D_DEPTH)
                if few:
                    product = everywhere(zero)
                    for channel in range(C):
                        incoming = load(work, line + CHANNELS + channel * LANES)
                        product = product + incoming * channels[channels_view, n, channel]
                        store(sums, channel * LANES, load(sums, channel * LANES) + incoming * weight)
                    moment = _moment(work, line, z, product, weight, transmittance, inverse, answer)
                    sum_0, sum_y, sum_yy = sum_0 + moment, sum_y + moment * dy, sum_yy + moment * (dy * dy)
                else:
                    store(work, line + WEIGHT, weight)
                    store(work, line + RESPONSE, answer)
                    store(work, line + INVERSE, inverse)
                    count = note_pixels(weight > zero, y, weight, pixels, weights, count)
            if few:
                for channel in range(C):
                    d_channels[share, channels_view, n, channel] += total(load(sums, channel * LANES))
            else:
                channel_at = (channels_view * channels.shape[1] + n) * C
                d_at = share * channels.size + channel_at
                _channels_backward(wide, channels, channel_at, d_channels, d_at, pixels, weights, inner, count)
                for y in range(low, high):
                    if entry - begin > row_last[y]:
                        continue
                    line = y * LINE
                    dy = mean_y - (number(y0 + y) + half)
                    moment = _moment(
                        work, line, z, load(inner, y * LANES), load(work, line + WEIGHT), load(work, line + REMAINING),
                        load(work, line + INVERSE), load(work, line + RESPONSE),
                    )  # fmt: skip
                    store(inner, y * LANES, zero)
                    sum_0, sum_y, sum_yy = sum_0 + moment, sum_y + moment * dy, sum_yy + moment * (dy * dy)
            along, all_y = sum_0 * dx, total(sum_y)
            all_x = total(along)
            target = d_splats[share, view - first, n]
            target[0] -= a * all_x + b * all_y
            target[1] -= b * all_x + c * all_y
            target[2] -= half * total(along * dx)
            target[3] -= total(sum_y * dx)
            target[4] -= half * total(sum_yy)
            target[5] += total(sum_z)
            target[6] += total(sum_0) / opacity
