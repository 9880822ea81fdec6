"""The numba back end of tri-plane sampling: compiled loops over points, gradients by hand.

Forward, every share takes points; backward, every share takes whole planes, so that no two write to one place and the
result does not depend on the number of threads. Letters: B objects, N points, C channels, H/W rows and columns.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from latent3d.rendering.splats_numba_lanes import LANES, add_scaled, jit, lane_dot
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
def _cell(position, size):
    """Pixel before a position in [-1, 1] along an axis of ``size`` pixels, and the weight of the pixel after it.

    Positions beyond one pixel outside give a cell without pixels.
    """
    number = type(position)
    place = ((position + number(1)) * number(size) - number(1)) / number(2)
    place = min(max(place, number(-2)), number(size + 1))
    first = math.floor(place)
    return int(first), place - number(first)


@jit()
def _add_row(target, target_at, source, source_at, factor, channels):
    """target.flat[t : t + channels] += factor * source.flat[s : s + channels], of flat arrays."""
    whole = channels - channels % LANES
    for c in range(0, whole, LANES):
        add_scaled(target, target_at + c, source, source_at + c, factor)
    for c in range(whole, channels):
        target[target_at + c] += factor * source[source_at + c]


@jit()
def _row_dot(left, left_at, right, right_at, channels):
    whole = channels - channels % LANES
    total = left.dtype.type(0)
    for c in range(0, whole, LANES):
        total += lane_dot(left, left_at + c, right, right_at + c)
    for c in range(whole, channels):
        total += left[left_at + c] * right[right_at + c]
    return total


@jit()
def sample_share(share, shares, table, positions, axes, factor, out, planes):
    """Add the features of one share of the points to out (B, N, planes C)."""
    batch, count = positions.shape[0], positions.shape[1]
    height, width, channels = table.shape[2], table.shape[3], table.shape[4]
    flat, target = table.reshape(-1), out.reshape(-1)
    one = table.dtype.type(1)
    total = batch * count
    for index in range(total * share // shares, total * (share + 1) // shares):
        b, n = index // count, index % count
        for plane in range(3):
            column, right = _cell(positions[b, n, axes[plane, 0]], width)
            row, down = _cell(positions[b, n, axes[plane, 1]], height)
            at = (index * planes + plane % planes) * channels
            base = (b * 3 + plane) * height
            for i in range(2):
                if row + i < 0 or row + i >= height:
                    continue
                along = factor * (down if i else one - down)
                line = (base + row + i) * width
                if 0 <= column < width:
                    _add_row(target, at, flat, (line + column) * channels, along * (one - right), channels)
                if 0 <= column + 1 < width:
                    _add_row(target, at, flat, (line + column + 1) * channels, along * right, channels)


@jit()
def sample_backward_share(
    share, shares, table, positions, axes, factor, d_out, planes, to_table, to_points, d_table, d_positions
):
    """Gradients of every ``shares``-th plane: to d_table (B, 3, H, W, C) and to d_positions (3, B, N, 3)."""
    batch, count = positions.shape[0], positions.shape[1]
    height, width, channels = table.shape[2], table.shape[3], table.shape[4]
    flat, incoming, target = table.reshape(-1), d_out.reshape(-1), d_table.reshape(-1)
    number = table.dtype.type
    zero, one, half = number(0), number(1), number(0.5)
    for unit in range(share, 3 * batch, shares):
        b, plane = unit // 3, unit % 3
        base = (b * 3 + plane) * height
        first, second = axes[plane, 0], axes[plane, 1]
        for n in range(count):
            column, right = _cell(positions[b, n, first], width)
            row, down = _cell(positions[b, n, second], height)
            at = ((b * count + n) * planes + plane % planes) * channels
            d_right, d_down = zero, zero
            for i in range(2):
                if row + i < 0 or row + i >= height:
                    continue
                along = down if i else one - down
                for j in range(2):
                    if column + j < 0 or column + j >= width:
                        continue
                    across = right if j else one - right
                    place = ((base + row + i) * width + column + j) * channels
                    if to_table:
                        _add_row(target, place, incoming, at, factor * along * across, channels)
                    if to_points:
                        product = factor * _row_dot(flat, place, incoming, at, channels)
                        d_right += product * (along if j else -along)
                        d_down += product * (across if i else -across)
            if to_points:
                d_positions[plane, b, n, first] = d_right * number(width) * half
                d_positions[plane, b, n, second] = d_down * number(height) * half
