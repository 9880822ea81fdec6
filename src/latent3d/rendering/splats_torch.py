"""Tiled splatting in plain torch for any device: batches of tiles, blending as W @ F, gradients by hand.

Letters: V views, N splats, C channels, T tiles of S x S = P pixels, K entries of the longest tile in a batch of B.
Nothing per pair of pixel and splat outlives its batch: the backward pass computes it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from latent3d.rendering.base import ALPHA_MAX, ALPHA_MIN, TRANSMITTANCE_MIN
from latent3d.rendering.projection import LEAST_ALPHA, ProjectedSplats, tile_rectangles

TILE = 8
"""Side of a tile in pixels; 8 is about twice as fast as 16 here, where tiles are blended densely."""
PAIRS = {"cpu": 1 << 19, "other": 1 << 25}
"""Pairs of pixel and splat per batch: small enough for the caches of a CPU, large enough to fill a GPU."""


def blend(
    projected: ProjectedSplats, channels: Float[Tensor, "v_or_1 n c"], height: int, width: int
) -> tuple[Float[Tensor, "v c h w"], Float[Tensor, "v 1 h w"], Float[Tensor, "v 1 h w"]]:
    """Front-to-back compositing as in `splats_reference.blend`, of the pairs that tiles cannot exclude."""
    bins = _bin(projected, height, width)
    images, depth_sums, alphas = _Blend.apply(
        projected.means, projected.conics, projected.depths, projected.opacities, channels, bins
    )
    return images, depth_sums / alphas.clamp_min(LEAST_ALPHA), alphas


@dataclass(frozen=True)
class _Bins:
    """Which splats (as view * N + n, in order of depth) each of the V * rows * columns tiles blends."""

    entries: Int[Tensor, " entries"]
    counts: Int[Tensor, " tiles"]
    height: int
    width: int

    @property
    def grid(self) -> tuple[int, int]:
        return -(-self.height // TILE), -(-self.width // TILE)

    def batches(self) -> Iterator[tuple[Int[Tensor, " b"], int]]:
        """Tiles of similar length together, longest first; the longest one's length."""
        ordered, tiles = torch.sort(self.counts, descending=True)
        lengths = ordered.tolist()
        pairs = PAIRS["cpu" if tiles.device.type == "cpu" else "other"]
        start, stop = 0, sum(length > 0 for length in lengths)
        while start < stop:
            size = max(1, min(stop - start, pairs // (TILE * TILE * lengths[start])))
            yield tiles[start : start + size], lengths[start]
            start += size


@torch.no_grad()
def _bin(projected: ProjectedSplats, height: int, width: int) -> _Bins:
    rects = tile_rectangles(projected, height, width, TILE)
    views, total, _ = rects.shape
    device = rects.device
    rows, columns = -(-height // TILE), -(-width // TILE)
    order = torch.argsort(projected.depths, dim=1, stable=True)
    rects = torch.gather(rects, 1, order[..., None].expand(-1, -1, 4)).reshape(-1, 4).long()
    splats = (order + torch.arange(views, device=device)[:, None] * total).reshape(-1)
    across = rects[:, 2] - rects[:, 0]
    touched = across * (rects[:, 3] - rects[:, 1])
    keep = (touched > 0).nonzero().squeeze(1)
    rects, splats, across, touched = rects[keep], splats[keep], across[keep], touched[keep]
    source = torch.repeat_interleave(torch.arange(len(touched), device=device), touched)
    local = torch.arange(len(source), device=device) - (touched.cumsum(0) - touched)[source]
    row = local // across[source]
    column = local - row * across[source]
    tile = (rects[source, 1] + row) * columns + rects[source, 0] + column
    tile = tile + splats[source] // max(total, 1) * (rows * columns)
    tile, permutation = torch.sort(tile, stable=True)
    counts = torch.bincount(tile, minlength=views * rows * columns)
    return _Bins(splats[source[permutation]], counts, height, width)


@contextmanager
def _full_precision() -> Iterator[None]:
    """float32 products without tf32: the exponent of a sub-pixel splat does not survive 10 bits of mantissa."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@dataclass
class _Batch:
    """Gathered splats of B tiles and their alphas; coordinates from the tile's centre."""

    splats: Tensor  # (B, K) index into V * N
    valid: Tensor  # (B, K)
    x: Tensor  # (B, K)
    y: Tensor
    a: Tensor
    b: Tensor
    c: Tensor
    raw: Tensor  # (B, P, K) opacity exp(-sigma)
    alpha: Tensor  # (B, P, K) clamped, 0 where it does not count
    before: Tensor  # (B, P, K) transmittance in front of the splat
    blended: Tensor  # (B, P, K)


class _Tiles:
    """Shared by the forward and the backward pass: gathers a batch of tiles and evaluates its pairs."""

    def __init__(self, means: Tensor, conics: Tensor, opacities: Tensor, bins: _Bins):
        self.means, self.conics = means.reshape(-1, 2), conics.reshape(-1, 3)
        self.log_opacities = opacities.reshape(-1).clamp_min(ALPHA_MIN / 2).log()
        self.bins = bins
        self.offsets = bins.counts.cumsum(0) - bins.counts
        axis = torch.arange(TILE, dtype=means.dtype, device=means.device) + 0.5 - TILE / 2
        y, x = (t.reshape(-1) for t in torch.meshgrid(axis, axis, indexing="ij"))
        self.basis = torch.stack([x * x, x * y, y * y, x, y, torch.ones_like(x)], -1)  # (P, 6)

    def load(self, tiles: Tensor, length: int) -> _Batch:
        """log(opacity) - sigma is a quadratic in the pixel: six numbers per splat times six monomials per pixel."""
        rows, columns = self.bins.grid
        slot = torch.arange(length, device=tiles.device)
        valid = slot < self.bins.counts[tiles, None]
        splats = self.bins.entries[(self.offsets[tiles, None] + slot).clamp_max(len(self.bins.entries) - 1)]
        place = tiles % (rows * columns)
        x = self.means[splats, 0] - ((place % columns) * TILE + TILE / 2)[:, None]
        y = self.means[splats, 1] - ((place // columns) * TILE + TILE / 2)[:, None]
        a, b, c = self.conics[splats].unbind(-1)
        log_opacity = self.log_opacities[splats].masked_fill(~valid, -1e4)
        constant = log_opacity - (0.5 * a * x * x + b * x * y + 0.5 * c * y * y)
        coefficients = torch.stack([-0.5 * a, -b, -0.5 * c, a * x + b * y, b * x + c * y, constant], 1)
        raw = torch.matmul(self.basis, coefficients).exp_()
        alpha = raw.clamp_max(ALPHA_MAX)
        alpha.mul_(raw >= ALPHA_MIN)
        after = torch.cumprod(1 - alpha, -1)
        blended = after > TRANSMITTANCE_MIN
        before = after.div_(1 - alpha)  # 1 - alpha >= 0.01 by the clamp
        return _Batch(splats, valid, x, y, a, b, c, raw, alpha, before, blended)


class _Blend(torch.autograd.Function):
    """sum(w F), sum(w z) and alpha; the gradients are those of `splats_numba_backward.blend_backward_share`."""

    @staticmethod
    def forward(ctx, means, conics, depths, opacities, channels, bins):
        views, total = depths.shape
        rows, columns = bins.grid
        tiles = _Tiles(means, conics, opacities, bins)
        z, flat = depths.reshape(-1, 1), channels.flatten(0, 1)
        # channels, weighted depth, alpha
        out = means.new_zeros(views * rows * columns, TILE * TILE, flat.shape[1] + 2)
        with _full_precision():
            for chosen, length in bins.batches():
                batch = tiles.load(chosen, length)
                weight = batch.alpha * batch.before * batch.blended
                values = torch.cat([flat[_rows(batch.splats, channels, total)], z[batch.splats]], -1)
                out[chosen, :, :-1] = torch.bmm(weight, values)
                out[chosen, :, -1] = weight.sum(-1)
        ctx.save_for_backward(means, conics, depths, opacities, channels)
        ctx.bins = bins
        image = rearrange(out, "(v r k) (y x) c -> v c (r y) (k x)", v=views, r=rows, y=TILE)
        image = image[..., : bins.height, : bins.width]
        return image[:, :-2].contiguous(), image[:, -2:-1].contiguous(), image[:, -1:].contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx, d_images, d_depth_sums, d_alphas):
        means, _, depths, opacities, channels = ctx.saved_tensors
        with torch.autocast(device_type=means.device.type, enabled=False), _full_precision():
            d_splats, d_channels = _backward(ctx, torch.cat([d_images, d_depth_sums, d_alphas], 1))
        d_splats = d_splats.view(*depths.shape, 7)
        d_means, d_conics, d_depths, d_log = d_splats.split([2, 3, 1, 1], -1)
        # an opacity that reached a pixel is at least ALPHA_MIN, all others have no gradient
        d_opacities = d_log[..., 0] / opacities.clamp_min(ALPHA_MIN)
        return d_means, d_conics, d_depths[..., 0], d_opacities, d_channels.view_as(channels), None


def _rows(splats: Tensor, channels: Tensor, total: int) -> Tensor:
    """Where a splat's channels are: shared by all views, or per view."""
    return splats if channels.shape[0] > 1 else splats % total


def _backward(ctx, gradient: Float[Tensor, "v channels h w"]) -> tuple[Tensor, Tensor]:
    """Gradients (V N, 7) to mean x, y, conic a, b, c, depth, log opacity, and to the channels, row by row."""
    means, conics, depths, opacities, channels = ctx.saved_tensors
    bins: _Bins = ctx.bins
    views, total = depths.shape
    rows, columns = bins.grid
    padded = gradient.new_zeros(*gradient.shape[:2], rows * TILE, columns * TILE)
    padded[..., : bins.height, : bins.width] = gradient
    by_tile = rearrange(padded, "v c (r y) (k x) -> (v r k) (y x) c", y=TILE, x=TILE)
    tiles = _Tiles(means, conics, opacities, bins)
    z, flat = depths.reshape(-1, 1), channels.flatten(0, 1)
    d_channels = torch.zeros_like(flat)
    d_splats = means.new_zeros(views * total, 7)
    for chosen, length in bins.batches():
        batch = tiles.load(chosen, length)
        incoming = by_tile[chosen]
        d_values, d_alpha = incoming[..., :-1], incoming[..., -1:]
        index = _rows(batch.splats, channels, total)
        values = torch.cat([flat[index], z[batch.splats]], -1)
        weight = batch.alpha * batch.before * batch.blended
        to_values = torch.bmm(weight.transpose(1, 2), d_values)  # (B, K, C + 1)
        d_channels.index_add_(0, index.reshape(-1), to_values[..., :-1].flatten(0, 1))
        inner = torch.baddbmm(d_alpha, d_values, values.transpose(1, 2))  # G, (B, P, K)
        behind = weight.mul_(inner)
        running = behind.cumsum(-1)
        suffix = running[..., -1:] - running
        d_log = inner.mul_(batch.before).sub_(suffix.div_(1 - batch.alpha))
        counts = batch.blended & (batch.alpha > 0) & (batch.raw <= ALPHA_MAX)
        d_log = d_log.mul_(counts).mul_(batch.raw)
        moments = torch.matmul(tiles.basis.T, d_log)  # sums of d_log times monomials
        geometry = _from_moments(batch, moments)
        both = torch.cat([geometry[..., :5], to_values[..., -1:], geometry[..., 5:]], -1) * batch.valid[..., None]
        d_splats.index_add_(0, batch.splats.reshape(-1), both.flatten(0, 1))
    return d_splats, d_channels


def _from_moments(batch: _Batch, moments: Float[Tensor, "b 6 k"]) -> Float[Tensor, "b k 6"]:
    """Gradients to mean x, y, conic a, b, c and log opacity from sums over pixels of dL/dlog(alpha) times monomials."""
    xx, xy, yy, sx, sy, s = moments.unbind(1)
    x, y, a, b, c = batch.x, batch.y, batch.a, batch.b, batch.c
    dx, dy = x * s - sx, y * s - sy
    dx_dx = x * x * s - 2 * x * sx + xx
    dx_dy = x * y * s - x * sy - y * sx + xy
    dy_dy = y * y * s - 2 * y * sy + yy
    return torch.stack([-(a * dx + b * dy), -(b * dx + c * dy), -0.5 * dx_dx, -dx_dy, -0.5 * dy_dy, s], -1)
