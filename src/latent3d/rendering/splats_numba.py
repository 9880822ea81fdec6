"""The CPU back end: numba kernels behind two autograd functions, gradients by hand.

`render` projects inside the kernels (gradients to the splats); `blend` takes splats that torch projected, and is the
way to gradients for cameras. The number of threads is torch's (`torch.set_num_threads`); results are bitwise
reproducible for a fixed number. Letters: V views, N splats, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from latent3d.rendering.base import ALPHA_MAX, ALPHA_MIN, TRANSMITTANCE_MIN
from latent3d.rendering.projection import (
    ANTIALIAS_FLOOR,
    EXTENT_SLACK,
    JACOBIAN_MARGIN,
    LEAST_ALPHA,
    ProjectedSplats,
    tile_rectangles,
)
from latent3d.rendering.splats_numba_backward import blend_backward_share
from latent3d.rendering.splats_numba_kernels import FEW_CHANNELS, blend_share
from latent3d.rendering.splats_numba_lanes import LANES
from latent3d.rendering.splats_numba_order import fill_share, order_share
from latent3d.rendering.splats_numba_projection import (
    add_share,
    bounds_of,
    project_backward_share,
    project_share,
)
from latent3d.rendering.threads import run_shares, thread_count, warn_if_forked

BUFFER_BYTES = 256 * 2**20
"""Most memory for the private gradient buffers of all threads together (one buffer is always allowed)."""
GROUP_BYTES = 16 * 2**20
"""Views are taken back in groups whose private screen-space gradients stay near the caches."""
TILE_COST = 16
"""What a tile costs besides its splats, in splats."""
PAGE_BYTES = 4096
FEW_NUMBERS = 1 << 16
"""Fewer are added sooner than a thread is woken."""
CACHE_LINE = 8
"""Counts of 64 bits."""
MOST_SPLATS = 2**24
"""float32 counts the splats of a tile exactly up to here."""


@dataclass(frozen=True)
class _Settings:
    height: int
    width: int
    low_pass: float = 0.3
    near: float = 0.01
    antialiased: bool = False

    @property
    def grid(self) -> tuple[int, int, int]:
        return LANES, -(-self.width // LANES), -(-self.height // LANES)


@dataclass
class _Blended:
    """What a backward pass needs besides its inputs."""

    splats: np.ndarray
    rects: np.ndarray
    starts: np.ndarray
    entries: np.ndarray
    remaining: np.ndarray
    last: np.ndarray
    walked: np.ndarray
    depths: np.ndarray
    alphas: np.ndarray


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _padded(channels: Tensor) -> np.ndarray:
    """Channels as the kernels want them: a few as they are, more filled up with zeros to whole groups of lanes."""
    values = _array(channels)
    count = values.shape[-1]
    if count <= FEW_CHANNELS or count % LANES == 0:
        return values
    padded = np.zeros((*values.shape[:-1], -(-count // LANES) * LANES), values.dtype)
    padded[..., :count] = values
    return padded


def _limits(number: type) -> tuple:
    return tuple(number(value) for value in (ALPHA_MIN, ALPHA_MAX, TRANSMITTANCE_MIN, LEAST_ALPHA))


def _options(settings: _Settings, number: type) -> tuple:
    floor = ANTIALIAS_FLOOR if settings.antialiased else 0.0
    return tuple(number(value) for value in (settings.low_pass, settings.near, ALPHA_MIN, EXTENT_SLACK, floor))


def _blend_forward(
    splats: np.ndarray, depths: np.ndarray, rects: np.ndarray, channels: Tensor, settings: _Settings
) -> tuple[Tensor, Tensor, Tensor, _Blended]:
    """Order, bin and blend projected splats: images (V, C, H, W), depths and alphas (V, 1, H, W)."""
    views, total = rects.shape[:2]
    if total > MOST_SPLATS:
        raise ValueError(f"the numba back end takes at most {MOST_SPLATS} splats, got {total}; split the scene")
    shares, dtype = thread_count(), splats.dtype
    _, columns, rows = settings.grid
    bands = min(-(-shares // views), rows)
    order = np.empty((views, bands, total), np.int32)
    counts = np.empty((views, columns * rows), np.int64)
    visible = np.empty((views, bands), np.int64)
    bits = depths.view(np.int32 if dtype == np.float32 else np.int64)
    by_band = min(shares, views * bands)
    run_shares(order_share, by_band, bits, rects, columns, rows, order, counts, visible)
    starts = np.zeros(counts.size + 1, np.int64)
    np.cumsum(counts.reshape(-1), out=starts[1:])
    entries = np.empty(starts[-1], np.int32)
    run_shares(fill_share, by_band, rects, columns, rows, order, visible, starts, entries)
    shape = (views, settings.height, settings.width)
    images = np.empty((views, channels.shape[-1], *shape[1:]), dtype)
    depth, alpha, remaining = (np.empty(shape, dtype) for _ in range(3))
    last = np.empty(shape, np.int32)
    walked = np.empty_like(counts)
    blending = min(shares, counts.size)
    run_shares(
        blend_share, blending, splats, _padded(channels), starts, entries, *_tiles_by_share(counts, 0, blending),
        np.zeros((blending, CACHE_LINE), np.int64), _limits(dtype.type), images, depth, alpha, remaining, last,
        walked.reshape(-1),
    )  # fmt: skip
    blended = _Blended(splats, rects, starts, entries, remaining, last, walked, depth.copy(), alpha.copy())
    out = torch.from_numpy(images), torch.from_numpy(depth)[:, None], torch.from_numpy(alpha)[:, None]
    return *out, blended


def _rows_apart(rows: int, row_bytes: int) -> int:
    """At least so many rows that two buffers of them differ in where they lie in a page.

    Processors tell what their first caches hold by the last bits of addresses: same places of buffers that are a power
    of two apart push each other out, which made the way back through 65,536 projections 2.3 times slower.
    """
    while not PAGE_BYTES // 4 <= rows * row_bytes % PAGE_BYTES <= 3 * PAGE_BYTES // 4:
        rows += 1
    return rows


def _tiles_by_share(costs: np.ndarray, first: int, shares: int) -> tuple[np.ndarray, np.ndarray]:
    """The tiles of the views from ``first`` on, a share's together, and where each share's begin (shares + 1).

    A share has neighbouring tiles of every view, whose splats its caches keep, of about equal costs (V, tiles).
    """
    until = np.cumsum(costs + TILE_COST, axis=1)
    middles = until - 0.5 * (costs + TILE_COST)
    owners = (middles * (shares / until[:, -1:])).astype(np.int64).reshape(-1)
    bounds = np.zeros(shares + 1, np.int64)
    np.cumsum(np.bincount(owners, minlength=shares), out=bounds[1:])
    return first * costs.shape[1] + np.argsort(owners, kind="stable"), bounds


def backward_shares(channels_shape: tuple[int, ...], itemsize: int) -> int:
    """Threads whose private gradients, of channels (V or 1, N, C) and of one view's splats, fit in `BUFFER_BYTES`."""
    one = (int(np.prod(channels_shape)) + 7 * channels_shape[1]) * itemsize
    return max(1, min(thread_count(), BUFFER_BYTES // max(one, 1)))


def _blend_backward(
    blended: _Blended, channels: Tensor, gradients: tuple[Tensor, Tensor, Tensor], take: Callable
) -> Tensor:
    """Back through blending, group of views by group; ``take(first, views, private)`` consumes and zeroes each.

    private is (shares, views or more, N or more, 7). Returns the gradient of the channels.
    """
    dtype, (views, total) = blended.splats.dtype, blended.rects.shape[:2]
    values = _padded(channels)
    shares = backward_shares(values.shape, dtype.itemsize)
    group = max(1, min(views, GROUP_BYTES // max(1, shares * total * 7 * dtype.itemsize)))
    private = np.zeros((shares, group, _rows_apart(total, 7 * dtype.itemsize), 7), dtype)
    d_channels = np.zeros((shares, *values.shape), dtype)
    d_images, d_depths, d_alphas = (_array(g) for g in gradients)
    for first in range(0, views, group):
        count = min(group, views - first)
        run_shares(
            blend_backward_share, shares, first, blended.splats, values, blended.starts, blended.entries,
            *_tiles_by_share(blended.walked[first : first + count], first, shares), _limits(dtype.type),
            blended.depths, blended.alphas, blended.remaining, blended.last,
            d_images, d_depths[:, 0], d_alphas[:, 0], private, d_channels,
        )  # fmt: skip
        take(first, count, private)
    summed = d_channels[0]
    if shares > 1:
        adding = thread_count() if summed.size >= FEW_NUMBERS else 1
        run_shares(add_share, adding, d_channels.reshape(shares, -1), summed.reshape(-1))
    return torch.from_numpy(summed)[..., : channels.shape[-1]]


class _Blend(torch.autograd.Function):
    """Blending of splats that torch projected; gradients to all that `ProjectedSplats` holds and to the channels."""

    @staticmethod
    def forward(ctx, means, conics, depths, opacities, channels, extents, rects, settings):
        parts = [means, conics, depths[..., None], opacities[..., None], extents[..., 1:]]
        splats = _array(torch.cat([part.detach() for part in parts], -1))
        *out, ctx.blended = _blend_forward(splats, _array(depths), _array(rects), channels, settings)
        ctx.save_for_backward(channels)
        return tuple(out)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):
        total = np.empty((*ctx.blended.rects.shape[:2], 7), ctx.blended.splats.dtype)

        def take(first: int, count: int, private: np.ndarray) -> None:
            total[first : first + count] = private[:, :count, : total.shape[1]].sum(0)
            private[:] = 0

        d_channels = _blend_backward(ctx.blended, *ctx.saved_tensors, gradients, take)
        means, conics, depths, opacities = torch.from_numpy(total).split([2, 3, 1, 1], -1)
        return means, conics, depths[..., 0], opacities[..., 0], d_channels, None, None, None


class _Render(torch.autograd.Function):
    """Projection and blending; gradients to the splats and the channels, none to the cameras."""

    @staticmethod
    def forward(ctx, means, quaternions, scales, opacities, channels, w2c, k, settings):
        inputs = [_array(t) for t in (means, quaternions, scales, opacities)]
        w2c, k = _array(w2c), _array(k)
        dtype, views, total = inputs[0].dtype, w2c.shape[0], inputs[0].shape[0]
        bounds = bounds_of(k, settings.height, settings.width, JACOBIAN_MARGIN).astype(dtype)
        splats = np.empty((views, total, 8), dtype)
        depth = np.empty((views, total), dtype)
        rects = np.empty((views, total, 4), np.int32)
        options = _options(settings, dtype.type)
        run_shares(project_share, thread_count(), *inputs, w2c, k, bounds, options, settings.grid, splats, depth, rects)
        *out, ctx.blended = _blend_forward(splats, depth, rects, channels, settings)
        ctx.save_for_backward(means, quaternions, scales, opacities, channels)
        ctx.view = (w2c, k, bounds, options)
        return tuple(out)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):
        *geometry, channels = ctx.saved_tensors
        inputs = [_array(t) for t in geometry]
        sums = np.zeros((len(inputs[0]), 13), inputs[0].dtype)
        out = [np.empty_like(array) for array in inputs]
        shares = thread_count()

        def take(first: int, count: int, private: np.ndarray) -> None:
            run_shares(
                project_backward_share, shares, first, count, *inputs, *ctx.view, ctx.blended.rects, private, sums, *out
            )

        d_channels = _blend_backward(ctx.blended, channels, gradients, take)
        return *(torch.from_numpy(a) for a in out), d_channels, None, None, None


def render(
    means: Float[Tensor, "n 3"],
    quaternions: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    channels: Float[Tensor, "v_or_1 n c"],
    w2c: Float[Tensor, "v 4 4"],
    k: Float[Tensor, "v 3 3"],
    height: int,
    width: int,
    low_pass: float,
    near: float,
    antialiased: bool,
) -> tuple[Float[Tensor, "v c h w"], Float[Tensor, "v 1 h w"], Float[Tensor, "v 1 h w"]]:
    """Project and blend on the CPU, with gradients to everything but the cameras.

    Returns:
        sum(w F), sum(w z) / max(alpha, 1e-6) and alpha.
    """
    warn_if_forked()
    settings = _Settings(height, width, low_pass, near, antialiased)
    return _Render.apply(means, quaternions, scales, opacities, channels, w2c, k, settings)


def blend(
    projected: ProjectedSplats, channels: Float[Tensor, "v_or_1 n c"], height: int, width: int
) -> tuple[Float[Tensor, "v c h w"], Float[Tensor, "v 1 h w"], Float[Tensor, "v 1 h w"]]:
    """Blend splats that torch projected, with gradients to all of them. Returns as `render`."""
    warn_if_forked()
    rects = tile_rectangles(projected, height, width, LANES)
    return _Blend.apply(
        projected.means, projected.conics, projected.depths, projected.opacities, channels, projected.extents, rects,
        _Settings(height, width),
    )  # fmt: skip
