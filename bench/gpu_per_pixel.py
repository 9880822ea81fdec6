"""gsplat's way of blending many channels, in Triton: for the benchmark only, where gsplat itself cannot be built.

What gsplat (Ye et al. 2025) does, read in its sources: tiles of 16 x 16 pixels, one thread per pixel, every splat of
the tile in turn; at most 32 channels at a time, so that the whole blending, alphas included, is launched once per 32
channels; one feature is read per multiply-add, in float32. The backward pass goes back to front, holds as many partial
sums per pixel as there are channels, sums every gradient over the 32 threads of a warp and adds it with one atomic. A
warp skips what none of its pixels sees, and ends when all its pixels are done.

Here a program is one warp, with a strip of 16 x 2 pixels of a tile: Triton's way to have what CUDA's warps do. It reads
splats through the cache, one ahead, where gsplat's warps share them by hand; registers and multiply-adds are the same.

Letters: V views, N splats, C channels.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from latent3d.rendering.base import ALPHA_MAX, ALPHA_MIN, TRANSMITTANCE_MIN
from latent3d.rendering.projection import LEAST_ALPHA, ProjectedSplats, tile_rectangles
from latent3d.rendering.splats_triton_order import order_entries

CHUNK = 32
"""Channels of one launch."""
TILE = tl.constexpr(16)
WARP = tl.constexpr(32)
STRIPS = tl.constexpr(8)
"""Warps of a tile."""
LOW, HIGH, STOP = tl.constexpr(ALPHA_MIN), tl.constexpr(ALPHA_MAX), tl.constexpr(TRANSMITTANCE_MIN)


def blend(projected: ProjectedSplats, channels: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """As `splats_reference.blend`: images (V, C, H, W), expected depth and alpha (V, 1, H, W), float32 only."""
    views, count = projected.depths.shape
    grid = (-(-width // TILE.value), -(-height // TILE.value))
    # lists as in the Triton back end, tiles of twice the side: sorting is no part of the comparison
    rects = tile_rectangles(projected, height, width, TILE.value)
    entries, starts, _, _ = order_entries(rects, projected.depths.detach(), grid, None)
    # one more channel, the depth, which differs from view to view: gsplat, too, then copies all channels for each
    values = torch.cat([channels.expand(views, count, -1), projected.depths[..., None]], -1)
    images, alphas = [], []
    for part in values.split(CHUNK, -1):
        image, alpha = _PerPixel.apply(
            projected.means, projected.conics, projected.opacities, part, starts, entries, height, width
        )
        images.append(image)
        alphas.append(alpha)
    image, alpha = torch.cat(images, -1).permute(0, 3, 1, 2), alphas[0][:, None]
    return image[:, :-1], image[:, -1:] / alpha.clamp_min(LEAST_ALPHA), alpha


class _PerPixel(torch.autograd.Function):
    """Images (V, H, W, C) of at most `CHUNK` channels, and alpha (V, H, W)."""

    @staticmethod
    def forward(ctx, means, conics, opacities, values, starts, entries, height, width):
        means, conics, opacities, values = (t.contiguous() for t in (means, conics, opacities, values))
        views, _, channels = values.shape
        columns, rows = -(-width // TILE.value), -(-height // TILE.value)
        image = values.new_empty(views, height, width, channels)
        alpha = values.new_empty(views, height, width)
        last = torch.empty(views, height, width, dtype=torch.int32, device=values.device)
        grid = (views * rows * columns * STRIPS.value,)
        sizes = (means.shape[1], height, width, columns, rows * columns, channels)
        forward_strip[grid](means, conics, opacities, values, starts, entries, image, alpha, last, *sizes, num_warps=1)
        ctx.save_for_backward(means, conics, opacities, values, starts, entries, alpha, last)
        ctx.grid, ctx.sizes = grid, sizes
        return image, alpha

    @staticmethod
    @once_differentiable
    def backward(ctx, d_image, d_alpha):
        means, conics, opacities, values, starts, entries, alpha, last = ctx.saved_tensors
        gradients = [torch.zeros_like(t) for t in (means, conics, opacities, values)]
        backward_strip[ctx.grid](
            means, conics, opacities, values, starts, entries, alpha, last, d_image.contiguous(), d_alpha.contiguous(),
            *gradients, *ctx.sizes, num_warps=1,
        )  # fmt: skip
        return *gradients, None, None, None, None


@triton.jit
def pixels(strip, columns, tiles, height, width):
    """Tile, view, and coordinates, place in (V, H, W) and presence of the strip's pixels."""
    tile = strip // STRIPS
    view, place, lane = tile // tiles, tile % tiles, tl.arange(0, WARP)
    x = (place % columns) * TILE + lane % TILE
    y = (place // columns) * TILE + (strip % STRIPS) * (WARP // TILE) + lane // TILE
    inside = (x < width) & (y < height)
    return tile, view, x.to(tl.float32) + 0.5, y.to(tl.float32) + 0.5, (view * height + y) * width + x, inside


@triton.jit
def row_of(entries, entry, first, end, base):
    """Row in (V N) of an entry; the view's first row outside the tile's list, which is only ever fetched."""
    return base + tl.load(entries + entry, mask=(entry >= first) & (entry < end), other=0)


@triton.jit
def fetch(means, conics, opacities, row):
    """A splat: row, mean (2), conic (3), opacity."""
    mean, conic = means + row * 2, conics + row * 3
    return (
        row, tl.load(mean), tl.load(mean + 1), tl.load(conic), tl.load(conic + 1), tl.load(conic + 2),
        tl.load(opacities + row),
    )  # fmt: skip


@triton.jit
def response(splat, x, y):
    """exp(-sigma) at the strip's pixels, and offsets from them."""
    dx, dy = splat[1] - x, splat[2] - y
    return tl.exp(-(0.5 * (splat[3] * dx * dx + splat[5] * dy * dy) + splat[4] * dx * dy)), dx, dy


@triton.jit
def forward_strip(
    means, conics, opacities, values, starts, entries, image, alphas, lasts,
    count, height, width, columns, tiles, C: tl.constexpr,
):  # fmt: skip
    """Front to back until every pixel is opaque or the tile's splats are used up."""
    tile, view, x, y, pixel, inside = pixels(tl.program_id(0), columns, tiles, height, width)
    total = ()
    for _c in tl.static_range(C):
        total = total + (tl.zeros([WARP], tl.float32),)  # noqa: RUF005
    transmittance = tl.full([WARP], 1.0, tl.float32)
    last = tl.full([WARP], -1, tl.int32)
    live = inside.to(tl.int32)
    any_live = tl.max(live, 0)
    entry, end, base = tl.load(starts + tile), tl.load(starts + tile + 1), view * count
    splat = fetch(means, conics, opacities, row_of(entries, entry, entry, end, base))
    ahead = row_of(entries, entry + 1, entry, end, base)
    while (entry < end) & (any_live > 0):
        coming = fetch(means, conics, opacities, ahead)
        ahead = row_of(entries, entry + 2, entry, end, base)
        raw = splat[6] * response(splat, x, y)[0]
        counts = (raw >= LOW) & (live > 0)
        if tl.max(counts.to(tl.int32), 0) > 0:
            alpha = tl.minimum(raw, HIGH)
            after = transmittance * (1 - alpha)
            blended = counts & (after > STOP)
            weight = tl.where(blended, alpha * transmittance, 0.0)
            more = ()
            for c in tl.static_range(C):
                more = more + (total[c] + weight * tl.load(values + splat[0] * C + c),)  # noqa: RUF005
            total = more
            transmittance = tl.where(blended, after, transmittance)
            last = tl.where(blended, entry, last)
            live = tl.where(counts & (after <= STOP), 0, live)
            any_live = tl.max(live, 0)
        splat = coming
        entry += 1
    for c in tl.static_range(C):
        tl.store(image + pixel * C + c, total[c], mask=inside)
    tl.store(alphas + pixel, 1 - transmittance, mask=inside)
    tl.store(lasts + pixel, last, mask=inside)


@triton.jit
def backward_strip(
    means, conics, opacities, values, starts, entries, alphas, lasts, d_image, d_alphas,
    d_means, d_conics, d_opacities, d_values,
    count, height, width, columns, tiles, C: tl.constexpr,
):  # fmt: skip
    """Back to front from the last blended splat; the transmittance is recovered from alpha, as in gsplat."""
    tile, view, x, y, pixel, inside = pixels(tl.program_id(0), columns, tiles, height, width)
    incoming = ()
    behind = ()
    for c in tl.static_range(C):
        incoming = incoming + (tl.load(d_image + pixel * C + c, mask=inside, other=0.0),)  # noqa: RUF005
        behind = behind + (tl.zeros([WARP], tl.float32),)  # noqa: RUF005
    final = 1 - tl.load(alphas + pixel, mask=inside, other=0.0)
    from_alpha = final * tl.load(d_alphas + pixel, mask=inside, other=0.0)
    transmittance = final
    last = tl.load(lasts + pixel, mask=inside, other=-1)
    entry, start, base = tl.max(last, 0), tl.load(starts + tile), view * count
    end = entry + 1
    splat = fetch(means, conics, opacities, row_of(entries, entry, start, end, base))
    ahead = row_of(entries, entry - 1, start, end, base)
    while entry >= start:
        coming = fetch(means, conics, opacities, ahead)
        ahead = row_of(entries, entry - 2, start, end, base)
        row, a, b, conic_c, opacity = splat[0], splat[3], splat[4], splat[5], splat[6]
        falloff, dx, dy = response(splat, x, y)
        raw = opacity * falloff
        blended = (raw >= LOW) & (entry <= last)
        if tl.max(blended.to(tl.int32), 0) > 0:
            alpha = tl.where(blended, tl.minimum(raw, HIGH), 0.0)
            rest = 1 / (1 - alpha)
            transmittance = transmittance * rest
            weight = alpha * transmittance
            d_alpha = from_alpha * rest
            more = ()
            for c in tl.static_range(C):
                value = tl.load(values + row * C + c)
                d_alpha += (value * transmittance - behind[c] * rest) * incoming[c]
                tl.atomic_add(d_values + row * C + c, tl.sum(weight * incoming[c], 0))
                more = more + (behind[c] + weight * value,)  # noqa: RUF005
            behind = more
            d_falloff = tl.where(blended & (raw <= HIGH), d_alpha, 0.0) * falloff
            d_sigma = -opacity * d_falloff
            tl.atomic_add(d_opacities + row, tl.sum(d_falloff, 0))
            tl.atomic_add(d_means + row * 2, tl.sum(d_sigma * (a * dx + b * dy), 0))
            tl.atomic_add(d_means + row * 2 + 1, tl.sum(d_sigma * (b * dx + conic_c * dy), 0))
            tl.atomic_add(d_conics + row * 3, tl.sum(d_sigma * 0.5 * dx * dx, 0))
            tl.atomic_add(d_conics + row * 3 + 1, tl.sum(d_sigma * dx * dy, 0))
            tl.atomic_add(d_conics + row * 3 + 2, tl.sum(d_sigma * 0.5 * dy * dy, 0))
        splat = coming
        entry -= 1
