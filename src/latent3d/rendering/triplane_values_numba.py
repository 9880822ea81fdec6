"""What a tri-plane field says of points and grids, in compiled loops that keep nothing of what is in between.

Letters: B objects, N points, C channels of the planes, H/W their rows and columns, K colours, G points of a grid along
each axis, U units of the first layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from latent3d.rendering.splats_numba_lanes import LANES, add_scaled, jit
from latent3d.rendering.threads import run_shares, thread_count
from latent3d.rendering.triplane_network_numba import (
    Formulas,
    Network,
    activate,
    add_gradients,
    new_tile,
    pack,
    read_features,
    run_layers,
    run_network,
    run_with_slopes,
    unpack,
)
from latent3d.rendering.triplane_numba import AXES
from latent3d.rendering.triplane_numba_lanes import fill_lanes, multiply_lanes
from latent3d.rendering.triplane_numba_products import ROWS, add_products, set_products, transpose_lanes


def evaluate(
    table: Tensor, points: Tensor, half_size: float, formulas: Formulas, parameters: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Densities (B, N) and colours (B, N, K) of world points (B, N, 3) from a table (B, 3, H, W, C); differentiable in
    the table and the parameters (weight, bias, weight, ...)."""
    return _Evaluate.apply(table, points, half_size, formulas, *parameters)


def grid_raw(shares: Tensor, network: Network) -> Tensor:
    """The first raw output at a grid's points (B, G, G, G), indexed by x, y, z, from what each plane (B, 3, G, G, U)
    adds to the U units of the first layer; planes are indexed by their two axes, see `PLANE_AXES`."""
    batch, _, count, _, units = shares.shape
    missing = -count % LANES
    filled = F.pad(shares, (0, int(network.widths[1]) - units))
    xy = filled[:, 0].contiguous()
    # z becomes the last axis of both others, in full lanes
    yz, zx = (F.pad(part, (0, missing)).contiguous()
              for part in (filled[:, 1].transpose(2, 3), filled[:, 2].permute(0, 2, 3, 1)))  # fmt: skip
    raw = torch.empty(batch, count, count, count)
    run_shares(grid_share, min(thread_count(), count), xy.numpy(), yz.numpy(), zx.numpy(), network, raw.numpy())
    return raw


class _Evaluate(torch.autograd.Function):
    """Keeps nothing but its inputs: the backward pass computes the layers again."""

    @staticmethod
    def forward(ctx, table, points, half_size, formulas, *parameters):
        table, points = table.detach().contiguous(), points.detach().contiguous()
        batch, count = points.shape[:2]
        density, colors = torch.empty(batch, count), torch.empty(batch, count, formulas.channels)
        ctx.save_for_backward(table, points, *parameters)
        ctx.settings = (half_size, formulas)
        run_shares(
            values_share, min(thread_count(), max(1, batch * count // LANES)), table.numpy(), points.numpy(),
            np.float32(half_size), AXES, pack(parameters, formulas), density.numpy(), colors.numpy(),
        )  # fmt: skip
        return density, colors

    @staticmethod
    @once_differentiable
    def backward(ctx, d_density, d_colors):
        table, points, *parameters = ctx.saved_tensors
        half_size, formulas = ctx.settings
        network = pack(parameters, formulas)
        d_table, d_weights = torch.zeros_like(table), np.zeros((len(table), network.weights.size), np.float32)
        run_shares(
            values_backward_share, min(thread_count(), len(table)), table.numpy(), points.numpy(),
            np.float32(half_size), AXES, network, d_density.contiguous().numpy(), d_colors.contiguous().numpy(),
            d_table.numpy(), d_weights,
        )  # fmt: skip
        return d_table, None, None, None, *unpack(d_weights.sum(0), network.widths, parameters)


@jit()
def _place(tile, points, b, first, count, half_size):
    """Put ``count`` of an object's points into a tile, in [-1, 1]."""
    positions = tile[2]
    for p in range(count):
        for axis in range(3):
            positions[axis * LANES + p] = points[b, first + p, axis] / half_size


@jit()
def values_share(share, shares, table, points, half_size, axes, network, density, colors):
    """Densities (B, N) and colours (B, N, K) of one share of the points."""
    batch, count = points.shape[0], points.shape[1]
    flat, size = table.reshape(-1), (table.shape[2], table.shape[3], table.shape[4])
    length, tile = 3 * size[0] * size[1] * size[2], new_tile(network)
    values, tiles = tile[0], (count + LANES - 1) // LANES
    for index in range(batch * tiles * share // shares, batch * tiles * (share + 1) // shares):
        b, first = index // tiles, index % tiles * LANES
        some = min(LANES, count - first)
        _place(tile, points, b, first, some, half_size)
        read_features(tile, flat, b * length, size, axes, some)
        out = run_network(network, values)
        for p in range(some):
            density[b, first + p] = values[out + p]
            for c in range(network.formulas.channels):
                colors[b, first + p, c] = values[out + (1 + c) * LANES + p]


@jit()
def values_backward_share(
    share, shares, table, points, half_size, axes, network, d_density, d_colors, d_table, d_weights
):
    """Gradients of every ``shares``-th object: to d_table (B, 3, H, W, C) and to d_weights (B, weights)."""
    batch, count = points.shape[0], points.shape[1]
    flat, target, widths = table.reshape(-1), d_table.reshape(-1), network.widths
    size = (table.shape[2], table.shape[3], table.shape[4])
    length, layers, tile = 3 * size[0] * size[1] * size[2], widths.size - 1, new_tile(network)
    values, inputs = tile[0], widths[0]
    slopes, gradients = np.empty(values.size, np.float32), np.empty(values.size, np.float32)
    rows, features = np.empty(widths.max() * LANES, np.float32), np.empty(inputs * LANES, np.float32)
    for b in range(share, batch, shares):
        d_network, d_biases = d_weights[b], np.zeros(widths[1:].sum() * LANES, np.float32)
        for first in range(0, count, LANES):
            some = min(LANES, count - first)
            _place(tile, points, b, first, some, half_size)
            read_features(tile, flat, b * length, size, axes, some)
            out = run_with_slopes(network, values, slopes)
            gradients[out:] = 0
            for p in range(some):
                gradients[out + p] = d_density[b, first + p]
                for c in range(network.formulas.channels):
                    gradients[out + (1 + c) * LANES + p] = d_colors[b, first + p, c]
            multiply_lanes(gradients, out, slopes, out, 1 + network.formulas.channels)
            _layers_backward(network, values, slopes, gradients, rows, d_network, d_biases)
            for c in range(0, inputs, LANES):
                transpose_lanes(features, c, inputs, gradients, c * LANES, LANES)
            add_gradients(tile, target, b * length, size[2], features, some)
        weights_at = biases_at = 0
        for layer in range(layers):
            weights_at += widths[layer] * widths[layer + 1]
            for unit in range(widths[layer + 1]):
                d_network[weights_at + unit] = d_biases[biases_at * LANES : (biases_at + 1) * LANES].sum()
                biases_at += 1
            weights_at += widths[layer + 1]


@jit()
def _layers_backward(network, values, slopes, gradients, rows, d_weights, d_biases):
    """From the gradients of a tile's raw outputs to those of all layers' inputs, weights and biases.

    Biases are summed lane by lane; ``rows`` is scratch, a layer's inputs point by point.
    """
    widths = network.widths
    last = widths.size - 2
    out, weights_at, biases_at = values.size - widths[last + 1] * LANES, network.weights.size, d_biases.size // LANES
    for layer in range(last, -1, -1):
        inputs, outputs = widths[layer], widths[layer + 1]
        at, weights_at, biases_at = out - inputs * LANES, weights_at - (inputs + 1) * outputs, biases_at - outputs
        for c in range(0, inputs, LANES):
            transpose_lanes(rows, c, inputs, values, at + c * LANES, LANES)
        for unit in range(0, outputs, ROWS):
            for c in range(0, inputs, LANES):
                to = weights_at + unit * inputs + c
                add_products(d_weights, to, inputs, gradients, out + unit * LANES, LANES, 1, rows, c, inputs, LANES)
        for unit in range(outputs):
            add_scaled(d_biases, (biases_at + unit) * LANES, gradients, out + unit * LANES, np.float32(1))
        for c in range(0, inputs, ROWS):
            left = weights_at + c
            set_products(
                gradients, at + c * LANES, LANES, network.weights, left, 1, inputs, gradients, out, LANES, outputs, -1
            )
        if layer > 0:
            multiply_lanes(gradients, at, slopes, at, inputs)
        out = at


@jit()
def grid_share(share, shares, xy, yz, zx, network, raw):
    """Every ``shares``-th slice along x of raw (B, G, G, G) from xy (B, G, G, U), yz and zx (B, G, U, G in full
    lanes)."""
    batch, count, units = raw.shape[0], raw.shape[1], network.widths[1]
    values, ones = np.empty(network.widths.sum() * LANES, np.float32), np.float32(1)
    first, bias = network.widths[0] * LANES, network.widths[0] * units
    along, across, full = yz.reshape(-1), zx.reshape(-1), yz.shape[3]
    for b in range(batch):
        for x in range(share, count, shares):
            for y in range(count):
                for start in range(0, count, LANES):
                    for unit in range(units):
                        to = first + unit * LANES
                        fill_lanes(values, to, xy[b, x, y, unit] + network.weights[bias + unit])
                        add_scaled(values, to, along, ((b * count + y) * units + unit) * full + start, ones)
                        add_scaled(values, to, across, ((b * count + x) * units + unit) * full + start, ones)
                    activate(network, values, first, units)
                    out = run_layers(network, values, 1)
                    for lane in range(min(LANES, count - start)):
                        raw[b, x, y, start + lane] = values[out + lane]
