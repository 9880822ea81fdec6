"""Triton kernels that blend splats into tiles, and their gradient.

One program blends one tile of `TILE` x `TILE` pixels, a block of splats at a time: alphas and transmittances of the
block in the working precision, then its channels as a matrix product, weights (pixels, splats) times features (splats,
channels), which is what tensor cores do. Nothing per pair of pixel and splat is kept: the backward pass computes it
again, from the last splat of a tile to the first, with one scalar per pixel for everything behind.

The kernels take float32 and float64; only the products of channels are ever rounded to fewer bits. Sums over tiles are
atomic additions, so that gradients on a GPU differ in their last bits from run to run.

Letters: V views, N splats, C channels, P = TILE TILE pixels, K splats of a block. ``splats`` is (V, N, 7): mean x,
mean y, conic a, b, c, depth, opacity. ``starts`` (V tiles + 1) says where in ``entries`` a tile's splats begin.
"""

import triton
import triton.language as tl

from latent3d.rendering import base, projection

TILE = tl.constexpr(8)
SPLAT = tl.constexpr(7)
"""Numbers per splat on the screen."""
ALPHA_MIN = tl.constexpr(base.ALPHA_MIN)
ALPHA_MAX = tl.constexpr(base.ALPHA_MAX)
TRANSMITTANCE_MIN = tl.constexpr(base.TRANSMITTANCE_MIN)
LEAST_ALPHA = tl.constexpr(projection.LEAST_ALPHA)


@triton.jit
def _product(a, b, total, PRECISION: tl.constexpr):
    """total + a @ b, the factors rounded as asked for."""
    if PRECISION == "bf16":
        return tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16), total)
    elif PRECISION == "bf16 as float32":  # the same numbers where bfloat16 has no products: in the interpreter
        return tl.dot(a.to(tl.bfloat16).to(tl.float32), b.to(tl.bfloat16).to(tl.float32), total)
    else:
        return tl.dot(a, b, total, input_precision=PRECISION, out_dtype=total.dtype)


@triton.jit
def _pixels(place, columns, height, width):
    """Column and row of the pixels of a tile, whether they are in the image, and their place in it."""
    p = tl.arange(0, TILE * TILE)
    x, y = (place % columns) * TILE + p % TILE, (place // columns) * TILE + p // TILE
    inside = (x < width) & (y < height)
    return x, y, inside, y * width + x


@triton.jit
def _load_splats(splats, row, valid):
    """The seven numbers of K splats; those that are not valid have no opacity."""
    at = splats + row * SPLAT
    x, y = tl.load(at, mask=valid, other=0.0), tl.load(at + 1, mask=valid, other=0.0)
    a, b = tl.load(at + 2, mask=valid, other=0.0), tl.load(at + 3, mask=valid, other=0.0)
    c, z = tl.load(at + 4, mask=valid, other=0.0), tl.load(at + 5, mask=valid, other=0.0)
    return x, y, a, b, c, z, tl.load(at + 6, mask=valid, other=0.0)


@triton.jit
def _responses(x, y, a, b, c, opacity, columns, rows):
    """Offsets dx, dy (P, K) and opacity exp(-sigma), 0 where it does not count.

    Fused multiply-adds are spelt out: both passes then round alike, and agree about what counts.
    """
    dx = x[None, :] - (columns.to(x.dtype) + 0.5)[:, None]
    dy = y[None, :] - (rows.to(x.dtype) + 0.5)[:, None]
    sigma = tl.fma((0.5 * a)[None, :] * dx, dx, (0.5 * c)[None, :] * dy * dy)
    sigma = tl.fma(b[None, :] * dx, dy, sigma)
    raw = opacity[None, :] * tl.exp(-sigma)
    return dx, dy, tl.where(raw >= ALPHA_MIN, raw, 0.0)


@triton.jit
def _add_channels(total, weight, features, valid, channel, channel_count, PRECISION: tl.constexpr):
    """total (P, block of channels) + weight (P, K) @ features (K, block of channels), given where they begin (K,)."""
    mask = valid[:, None] & (channel < channel_count)[None, :]
    features = tl.load(features[:, None] + channel[None, :], mask=mask, other=0.0)
    return _product(weight, features, total, PRECISION)


@triton.jit
def _channel_offsets(pixel, area, WIDTH: tl.constexpr):
    """Where pixels are in WIDTH consecutive channels, (P, WIDTH); 32 bits, because these fill many registers."""
    return tl.arange(0, WIDTH)[None, :] * area + pixel[:, None]


@triton.jit
def _store_channels(values, image, pixel, inside, start, channel_count, area, WIDTH: tl.constexpr):
    """Write channels from ``start`` on of a tile's pixels; image is where channel 0 begins."""
    there = inside[:, None] & (start + tl.arange(0, WIDTH) < channel_count)[None, :]
    tl.store(image + start.to(tl.int64) * area + _channel_offsets(pixel, area, WIDTH), values, mask=there)


@triton.jit
def blend_kernel(
    splats, channels, entries, starts, found, images, depths, alphas, remaining, last,
    splat_count, channel_count, channel_stride, channels_per_view, height, width, columns, tiles, capacity,
    BLOCK: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Front-to-back compositing of one tile (axis 0 of the grid) and one group of FIRST + SECOND channels (axis 1).

    A group is as wide as two powers of two, so that alphas are computed once for most numbers of channels and few
    columns of a product are padding. Writes images (V, C, H, W), depths = sum(w z) / max(alpha, 1e-6), alphas =
    sum(w), remaining (final transmittance) and last (place among the tile's splats of the one blended last, or -1),
    each (V, H, W). If more entries were ``found`` than there was room for, everything is NaN: nobody looks at the
    number before, and a picture with holes would go unnoticed.
    """
    tile, group = tl.program_id(0), tl.program_id(1)
    image = (tile // tiles).to(tl.int64)
    x, y, inside, pixel = _pixels(tile % tiles, columns, height, width)
    dtype = splats.dtype.element_ty
    begin, end = tl.load(starts + tile), tl.load(starts + tile + 1)
    channel = group * (FIRST + SECOND)
    first = channel + tl.arange(0, FIRST)
    values = tl.zeros([TILE * TILE, FIRST], dtype)
    if SECOND > 0:
        second = channel + FIRST + tl.arange(0, SECOND)
        more = tl.zeros([TILE * TILE, SECOND], dtype)
    transmittance = tl.full([TILE * TILE], 1.0, dtype)
    depth, mass = tl.zeros([TILE * TILE], dtype), tl.zeros([TILE * TILE], dtype)
    latest = tl.full([TILE * TILE], -1, tl.int32)
    alive = inside.to(tl.int32)
    start = begin
    while (start < end) & (tl.max(alive, 0) > 0):
        place = start + tl.arange(0, BLOCK)
        valid = place < end
        n = tl.load(entries + place, mask=valid, other=0).to(tl.int64)
        mean_x, mean_y, a, b, c, z, opacity = _load_splats(splats, image * splat_count + n, valid)
        _, _, raw = _responses(mean_x, mean_y, a, b, c, opacity, x, y)
        alpha = tl.where(raw <= ALPHA_MAX, raw, ALPHA_MAX)
        after = transmittance[:, None] * tl.cumprod(1 - alpha, 1)
        blended = (after > TRANSMITTANCE_MIN) & (alive > 0)[:, None]
        weight = tl.where(blended, alpha * after / (1 - alpha), 0.0)
        features = channels + (image * channels_per_view * splat_count + n) * channel_stride
        values = _add_channels(values, weight, features, valid, first, channel_count, PRECISION)
        if SECOND > 0:
            more = _add_channels(more, weight, features, valid, second, channel_count, PRECISION)
        depth += tl.sum(weight * z[None, :], 1)
        mass += tl.sum(weight, 1)
        latest = tl.maximum(latest, tl.max(tl.where(weight > 0, (place - begin)[None, :], -1), 1))
        # transmittances fall along the block: the least one decides, and the last blended one is the least of those
        alive = tl.where(tl.min(after, 1) > TRANSMITTANCE_MIN, alive, 0)
        transmittance = tl.min(tl.where(blended, after, transmittance[:, None]), 1)
        start += BLOCK
    lost = tl.where(tl.load(found) > capacity, float("nan"), 0.0).to(dtype)
    area = height * width
    picture = images + image * channel_count * area
    _store_channels(values + lost, picture, pixel, inside, channel, channel_count, area, FIRST)
    if SECOND > 0:
        _store_channels(more + lost, picture, pixel, inside, channel + FIRST, channel_count, area, SECOND)
    if group == 0:
        at = image * area + pixel
        tl.store(depths + at, depth / tl.where(mass > LEAST_ALPHA, mass, LEAST_ALPHA) + lost, mask=inside)
        tl.store(alphas + at, mass + lost, mask=inside)
        tl.store(remaining + at, transmittance, mask=inside)
        tl.store(last + at, latest, mask=inside)


@triton.jit
def _channel_gradients(
    inner, weight, features, d_features, used, d_picture, pixel, inside, channel_count, area,
    WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """inner (P, K) + dO @ F^T, and dF += weight^T @ dO for the splats that are used, block of channels by block.

    features, d_features: where the channels of each splat begin (K,). d_picture: where channel 0 of dO begins.
    """
    offsets = _channel_offsets(pixel, area, WIDTH)
    for start in range(0, channel_count, WIDTH):
        channel = start + tl.arange(0, WIDTH)
        there = (channel < channel_count)[None, :]
        values = tl.load(features[:, None] + channel[None, :], mask=used[:, None] & there, other=0.0)
        incoming = tl.load(d_picture + offsets, mask=inside[:, None] & there, other=0.0)
        inner = _product(incoming, tl.trans(values), inner, PRECISION)
        to_values = _product(tl.trans(weight), incoming, tl.zeros_like(values), PRECISION)
        tl.atomic_add(d_features[:, None] + channel[None, :], to_values, mask=used[:, None] & there, sem="relaxed")
        d_picture += area.to(tl.int64) * WIDTH
    return inner


@triton.jit
def _store_splat_gradients(at, used, d_log, d_z, dx, dy, a, b, c, opacity):
    """From dL/dlog(alpha) (P, K) to the seven numbers of each splat; sigma is a quadratic in dx and dy."""
    by_x, by_y = tl.sum(d_log * dx, 0), tl.sum(d_log * dy, 0)
    tl.atomic_add(at, -(a * by_x + b * by_y), mask=used, sem="relaxed")
    tl.atomic_add(at + 1, -(b * by_x + c * by_y), mask=used, sem="relaxed")
    tl.atomic_add(at + 2, -0.5 * tl.sum(d_log * dx * dx, 0), mask=used, sem="relaxed")
    tl.atomic_add(at + 3, -tl.sum(d_log * dx * dy, 0), mask=used, sem="relaxed")
    tl.atomic_add(at + 4, -0.5 * tl.sum(d_log * dy * dy, 0), mask=used, sem="relaxed")
    tl.atomic_add(at + 5, d_z, mask=used, sem="relaxed")
    tl.atomic_add(at + 6, tl.sum(d_log, 0) / tl.where(used, opacity, 1.0), mask=used, sem="relaxed")


@triton.jit
def blend_backward_kernel(
    splats, channels, entries, starts, depths, alphas, remaining, last, d_images, d_depths, d_alphas,
    d_splats, d_channels, splat_count, channel_count, channel_stride, channels_per_view, height, width, columns, tiles,
    BLOCK: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of `blend_kernel` for one tile, back to front.

    With G_i = F_i . dO + (z_i - depth) dD / alpha + dA and S_i = sum_{j > i} w_j G_j, one number per pixel:
    dL/dalpha_i = T_i G_i - S_i / (1 - alpha_i), dL/dF_i = sum w_i dO, dL/dlog(alpha_i) = alpha_i dL/dalpha_i, nothing
    through a clamped alpha. Adds to d_splats (V, N, 7) and d_channels (V or 1, N, C).
    """
    tile = tl.program_id(0)
    image = (tile // tiles).to(tl.int64)
    x, y, inside, pixel = _pixels(tile % tiles, columns, height, width)
    area = height * width
    at = image * area + pixel
    latest = tl.load(last + at, mask=inside, other=-1)
    transmittance = tl.load(remaining + at, mask=inside, other=1.0)
    depth, mass = tl.load(depths + at, mask=inside, other=0.0), tl.load(alphas + at, mask=inside, other=1.0)
    d_depth = tl.load(d_depths + at, mask=inside, other=0.0) / tl.where(mass > LEAST_ALPHA, mass, LEAST_ALPHA)
    d_alpha = tl.load(d_alphas + at, mask=inside, other=0.0)
    suffix = tl.zeros_like(depth)
    begin, top = tl.load(starts + tile), tl.max(latest, 0)
    start = (top + BLOCK) // BLOCK * BLOCK - BLOCK  # negative if nothing was blended
    while start >= 0:
        place = start + tl.arange(0, BLOCK)
        valid = place <= top
        n = tl.load(entries + begin + place, mask=valid, other=0).to(tl.int64)
        splat = image * splat_count + n
        mean_x, mean_y, a, b, c, z, opacity = _load_splats(splats, splat, valid)
        dx, dy, raw = _responses(mean_x, mean_y, a, b, c, opacity, x, y)
        raw = tl.where(place[None, :] <= latest[:, None], raw, 0.0)
        alpha = tl.where(raw <= ALPHA_MAX, raw, ALPHA_MAX)
        passed = tl.cumprod(1 - alpha, 1)
        transmittance = transmittance / tl.min(passed, 1)  # in front of the block
        before = transmittance[:, None] * passed / (1 - alpha)
        weight = alpha * before
        used = tl.max(weight, 0) > 0
        inner = d_alpha[:, None] + (z[None, :] - depth[:, None]) * d_depth[:, None]
        row = (image * channels_per_view * splat_count + n) * channel_stride
        inner = _channel_gradients(
            inner, weight, channels + row, d_channels + row, used, d_images + image * channel_count * area, pixel,
            inside, channel_count, area, WIDTH, PRECISION,
        )  # fmt: skip
        behind = weight * inner
        following = tl.cumsum(behind, 1, reverse=True) - behind + suffix[:, None]
        d_log = tl.where(raw <= ALPHA_MAX, raw * (before * inner - following / (1 - alpha)), 0.0)
        d_z = tl.sum(weight * d_depth[:, None], 0)
        _store_splat_gradients(d_splats + splat * SPLAT, used, d_log, d_z, dx, dy, a, b, c, opacity)
        suffix += tl.sum(behind, 1)
        start -= BLOCK
