"""The numba back end of tri-plane sampling: compiled loops over points, gradients by hand.

Forward, every share takes points; backward, every share takes whole planes, so that no two write to one place and the
result does not depend on the number of threads. Letters: B objects, N points, C channels, H/W rows and columns.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from latent3d.rendering.splats_numba_lanes import LANES, blend_lanes, jit, lane_dot, scatter_lanes
from latent3d.rendering.threads import run_shares, thread_count
from latent3d.representations.triplane import PLANE_AXES

AXES = np.array(PLANE_AXES)


def sample(table: Tensor, normalized: Tensor, reduce: str) -> Tensor:
    """`sample_triplane` of a channels-last table (B, 3, H, W, C) at positions (B, N, 3) in [-1, 1]."""
    return _Sample.apply(table, normalized, reduce)


class _Sample(torch.autograd.Function):
    """Gradients to the table and to the positions."""

    @staticmethod
    def forward(ctx, table, normalized, reduce):
        table, normalized = table.detach().contiguous(), normalized.detach().contiguous()
        batch, count, channels = normalized.shape[0], normalized.shape[1], table.shape[-1]
        planes = 3 if reduce == "concat" else 1
        out = torch.zeros(batch, count, planes * channels, dtype=table.dtype)
        factor = table.numpy().dtype.type(1 / 3 if reduce == "mean" else 1)
        ctx.settings = (factor, planes)
        ctx.save_for_backward(table, normalized)
        shares = min(thread_count(), max(1, batch * count))
        run_shares(sample_share, shares, table.numpy(), normalized.numpy(), AXES, factor, out.numpy(), planes)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out):
        table, normalized = ctx.saved_tensors
        factor, planes = ctx.settings
        to_table, to_points = ctx.needs_input_grad[:2]
        batch, count = normalized.shape[:2]
        d_table = torch.zeros_like(table) if to_table else table.new_zeros(batch, 3, 1, 1, table.shape[-1])
        # each plane moves a point along two axes; planes are separate until all shares are done
        d_positions = torch.zeros(3, batch, count, 3, dtype=table.dtype) if to_points else table.new_zeros(3, 1, 1, 3)
        run_shares(
            sample_backward_share, min(thread_count(), 3 * batch), table.numpy(), normalized.numpy(), AXES, factor,
            d_out.contiguous().numpy(), planes, to_table, to_points, d_table.numpy(), d_positions.numpy(),
        )  # fmt: skip
        return d_table if to_table else None, d_positions.sum(0) if to_points else None, None


@jit()
def _neighbours(position, size):
    """The two pixels around a position in [-1, 1] along an axis of ``size`` pixels.

    Returns their numbers, moved inside; their weights, 0 outside; and how these change with the position in pixels.
    """
    number = type(position)
    zero, one = number(0), number(1)
    place = ((position + one) * number(size) - one) * number(0.5)
    # beyond one pixel outside everything is zero: the clamp only keeps far points within the integers
    place = min(max(place, number(-2)), number(size + 1))
    first = int(place + number(2)) - 2  # the floor, as there is nothing below -2
    after = place - number(first)
    here, there = 0 <= first < size, 0 <= first + 1 < size
    numbers = (min(max(first, 0), size - 1), min(max(first + 1, 0), size - 1))
    weights = (one - after if here else zero, after if there else zero)
    return numbers, weights, (-one if here else zero, one if there else zero)


@jit()
def _places(line, rows, columns, width, channels):
    """Where the four pixels of a cell begin in the flat table; ``line`` is the plane's first row of pixels."""
    upper, lower = (line + rows[0]) * width, (line + rows[1]) * width
    return (
        (upper + columns[0]) * channels,
        (upper + columns[1]) * channels,
        (lower + columns[0]) * channels,
        (lower + columns[1]) * channels,
    )


@jit()
def _products(down, right, factor):
    """Factors of the four pixels, in the order of `_places`."""
    upper, lower = factor * down[0], factor * down[1]
    return upper * right[0], upper * right[1], lower * right[0], lower * right[1]


@jit()
def sample_share(share, shares, table, positions, axes, factor, out, planes):
    """Add the features of one share of the points to out (B, N, planes C)."""
    batch, count = positions.shape[0], positions.shape[1]
    height, width, channels = table.shape[2], table.shape[3], table.shape[4]
    flat, target = table.reshape(-1), out.reshape(-1)
    whole, total = channels - channels % LANES, batch * count
    for index in range(total * share // shares, total * (share + 1) // shares):
        b, n = index // count, index % count
        for plane in range(3):
            columns, right, _ = _neighbours(positions[b, n, axes[plane, 0]], width)
            rows, down, _ = _neighbours(positions[b, n, axes[plane, 1]], height)
            places = _places((b * 3 + plane) * height, rows, columns, width, channels)
            factors = _products(down, right, factor)
            at = (index * planes + plane % planes) * channels
            for c in range(0, whole, LANES):
                blend_lanes(target, at + c, flat, _shifted(places, c), factors)
            for c in range(whole, channels):
                for k in range(4):
                    target[at + c] += factors[k] * flat[places[k] + c]


@jit()
def _shifted(places, c):
    return places[0] + c, places[1] + c, places[2] + c, places[3] + c


@jit()
def sample_backward_share(
    share, shares, table, positions, axes, factor, d_out, planes, to_table, to_points, d_table, d_positions
):
    """Gradients of every ``shares``-th plane: to d_table (B, 3, H, W, C) and to d_positions (3, B, N, 3)."""
    batch, count = positions.shape[0], positions.shape[1]
    height, width, channels = table.shape[2], table.shape[3], table.shape[4]
    flat, incoming, target = table.reshape(-1), d_out.reshape(-1), d_table.reshape(-1)
    number = table.dtype.type
    half, whole = number(0.5), channels - channels % LANES
    for unit in range(share, 3 * batch, shares):
        b, plane = unit // 3, unit % 3
        for n in range(count):
            columns, right, to_right = _neighbours(positions[b, n, axes[plane, 0]], width)
            rows, down, to_down = _neighbours(positions[b, n, axes[plane, 1]], height)
            places = _places(unit * height, rows, columns, width, channels)
            at = ((b * count + n) * planes + plane % planes) * channels
            if to_table:
                factors = _products(down, right, factor)
                for c in range(0, whole, LANES):
                    scatter_lanes(target, _shifted(places, c), incoming, at + c, factors)
                for c in range(whole, channels):
                    for k in range(4):
                        target[places[k] + c] += factors[k] * incoming[at + c]
            if to_points:
                along_right, along_down = _products(down, to_right, factor), _products(to_down, right, factor)
                d_right, d_down = number(0), number(0)
                for k in range(4):
                    product = _row_dot(flat, places[k], incoming, at, channels)
                    d_right += along_right[k] * product
                    d_down += along_down[k] * product
                d_positions[plane, b, n, axes[plane, 0]] = d_right * number(width) * half
                d_positions[plane, b, n, axes[plane, 1]] = d_down * number(height) * half


@jit()
def _row_dot(left, left_at, right, right_at, channels):
    """Sum of left.flat[l : l + channels] * right.flat[r : r + channels]."""
    whole = channels - channels % LANES
    total = left.dtype.type(0)
    for c in range(0, whole, LANES):
        total += lane_dot(left, left_at + c, right, right_at + c)
    for c in range(whole, channels):
        total += left[left_at + c] * right[right_at + c]
    return total
