"""A tri-plane's small network in compiled loops, on tiles of 16 points that never leave the cache.

A tile holds the features and the outputs of all layers, one after another, in rows of 16 points: row u of a layer is
what its unit u says of the 16. Widths are filled up with zeros to multiples of `PADDING`. Everything is float32.

Letters: B objects, N points, C channels of the planes, H/W their rows and columns, K colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from latent3d.rendering.splats_numba_lanes import LANES, add_scaled, jit
from latent3d.rendering.threads import run_shares, thread_count
from latent3d.rendering.triplane_numba import AXES, add_features, scatter_features
from latent3d.rendering.triplane_numba_lanes import (
    PADDING,
    ROWS,
    activate,
    activate_with_slopes,
    add_products,
    sigmoid,
    softplus,
    transpose_lanes,
)

ACTIVATIONS = ("softplus", "relu", "silu")
"""As numbered in `triplane_numba_lanes`."""
THIRD = np.float32(1 / 3)


class Formulas(NamedTuple):
    """How outputs become values: density = scale softplus(raw - shift), color = (1 + 2 m) sigmoid(gain raw) - m."""

    activation: int
    channels: int
    density_scale: np.float32
    density_shift: np.float32
    color_gain: np.float32
    color_margin: np.float32


class Network(NamedTuple):
    """A network as compiled loops read it.

    Attributes:
        weights: per layer the matrix (outputs, inputs), row by row, then the biases (outputs,), flat.
        widths: of the features and of every layer's outputs, filled up.
    """

    weights: np.ndarray
    widths: np.ndarray
    formulas: Formulas


def formulas(
    activation: str, channels: int, density_scale: float, density_shift: float, color_gain: float, color_margin: float
) -> Formulas:
    """Raises ValueError for an activation that there is no loop for."""
    numbers = (np.float32(value) for value in (density_scale, density_shift, color_gain, color_margin))
    return Formulas(ACTIVATIONS.index(activation), channels, *numbers)


def pack(parameters: Sequence[Tensor], formulas: Formulas) -> Network:
    """Weights and biases, layer by layer, in one array."""
    matrices = [parameter.detach().numpy() for parameter in parameters[::2]]
    biases = [parameter.detach().numpy() for parameter in parameters[1::2]]
    widths = [-(-width // PADDING) * PADDING for width in (matrices[0].shape[1], *(len(bias) for bias in biases))]
    parts = []
    for matrix, bias, inputs, outputs in zip(matrices, biases, widths, widths[1:], strict=False):
        missing = outputs - len(bias)
        parts += [np.pad(matrix, ((0, missing), (0, inputs - matrix.shape[1]))).ravel(), np.pad(bias, (0, missing))]
    return Network(np.concatenate(parts), np.array(widths), formulas)


def unpack(gradient: np.ndarray, widths: np.ndarray, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Inverse of `pack`, for gradients."""
    at, parts = 0, []
    for index, parameter in enumerate(parameters):
        inputs, outputs = widths[index // 2], widths[index // 2 + 1]
        size = outputs * inputs if index % 2 == 0 else outputs
        padded = gradient[at : at + size].reshape(outputs, -1)
        shape = parameter.shape if parameter.ndim == 2 else (len(parameter), 1)
        parts.append(torch.from_numpy(padded[: shape[0], : shape[1]].copy()).view(parameter.shape))
        at += size
    return parts


def evaluate(
    table: Tensor, points: Tensor, half_size: float, formulas: Formulas, parameters: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Densities (B, N) and colours (B, N, K) of world points (B, N, 3) from a table (B, 3, H, W, C); differentiable in
    the table and the parameters (weight, bias, weight, ...)."""
    return _Evaluate.apply(table, points, half_size, formulas, *parameters)


def grid_density(shares: Tensor, network: Network) -> Tensor:
    """Densities (B, G, G, G), indexed by x, y, z, of a grid's points, from what each plane (B, 3, G, G, U) adds to the
    U units of the first layer; planes are indexed by their two axes, see `PLANE_AXES`."""
    batch, _, count, _, units = shares.shape
    missing = -count % LANES
    filled = torch.nn.functional.pad(shares, (0, int(network.widths[1]) - units))
    xy = filled[:, 0].contiguous()
    # z becomes the last axis of both others, in full lanes
    yz, zx = (torch.nn.functional.pad(part, (0, missing)).contiguous()
              for part in (filled[:, 1].transpose(2, 3), filled[:, 2].permute(0, 2, 3, 1)))  # fmt: skip
    density = torch.empty(batch, count, count, count)
    run_shares(grid_share, min(thread_count(), count), xy.numpy(), yz.numpy(), zx.numpy(), network, density.numpy())
    return density


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
def fill(values, at, count, number):
    """values[at : at + count] = number."""
    part = values[at : at + count]
    for i in range(part.size):
        part[i] = number


@jit()
def read_features(tile, rows, flat, b, height, width, channels, axes, positions, first, count):
    """Features of ``count`` <= 16 positions (., 3) in [-1, 1], from ``first`` on: to ``rows`` (16, inputs), by point, and
    to the first rows of the tile; 0 beyond."""
    inputs = rows.size // LANES
    fill(rows, 0, rows.size, np.float32(0))
    for p in range(count):
        point = (positions[first + p, 0], positions[first + p, 1], positions[first + p, 2])
        add_features(flat, b, height, width, channels, axes, point, THIRD, rows, p * inputs, 1)
    for c in range(0, inputs, LANES):
        transpose_lanes(tile, c * LANES, LANES, rows, c, inputs)


@jit()
def _layer(network, layer, at, weights_at, tile):
    """Outputs of a layer before its activation, from its inputs at ``at``; where they and the next layer's weights
    begin."""
    inputs, outputs = network.widths[layer], network.widths[layer + 1]
    to, bias = at + inputs * LANES, weights_at + inputs * outputs
    for unit in range(outputs):
        fill(tile, to + unit * LANES, LANES, network.weights[bias + unit])
    for unit in range(0, outputs, ROWS):
        left = weights_at + unit * inputs
        add_products(tile, to + unit * LANES, LANES, network.weights, left, inputs, 1, tile, at, LANES, inputs)
    return to, bias + outputs


@jit()
def run_network(network, tile, layer):
    """Fill in the layers of a tile from ``layer`` on, whose inputs are there; where the outputs begin."""
    at = weights_at = 0
    for earlier in range(layer):
        at += network.widths[earlier] * LANES
        weights_at += (network.widths[earlier] + 1) * network.widths[earlier + 1]
    last = network.widths.size - 2
    for k in range(layer, last + 1):
        at, weights_at = _layer(network, k, at, weights_at, tile)
        if k < last:
            activate(tile[at : at + network.widths[k + 1] * LANES], network.formulas.activation)
    return at


@jit()
def finish(formulas, tile, out):
    """Turn raw outputs into densities, in the first row of outputs, and colours, in the next ones."""
    values = tile[out : out + (1 + formulas.channels) * LANES]
    one, margin, gain = np.float32(1), formulas.color_margin, formulas.color_gain
    for i in range(LANES):
        values[i] = formulas.density_scale * softplus(values[i] - formulas.density_shift)
    for i in range(LANES, values.size):
        values[i] = (one + margin + margin) * sigmoid(gain * values[i]) - margin


@jit()
def values_share(share, shares, table, points, half_size, axes, network, density, colors):
    """Densities (B, N) and colours (B, N, K) of one share of the points."""
    batch, count = points.shape[0], points.shape[1]
    flat, formulas = table.reshape(-1), network.formulas
    height, width, channels = table.shape[2], table.shape[3], table.shape[4]
    tile, rows = np.empty(network.widths.sum() * LANES, np.float32), np.empty(network.widths[0] * LANES, np.float32)
    positions = np.empty((LANES, 3), np.float32)
    tiles = (count + LANES - 1) // LANES
    for index in range(batch * tiles * share // shares, batch * tiles * (share + 1) // shares):
        b, first = index // tiles, index % tiles * LANES
        some = min(LANES, count - first)
        for p in range(some):
            for axis in range(3):
                positions[p, axis] = points[b, first + p, axis] / half_size
        read_features(tile, rows, flat, b, height, width, channels, axes, positions, 0, some)
        out = run_network(network, tile, 0)
        finish(formulas, tile, out)
        for p in range(some):
            density[b, first + p] = tile[out + p]
            for c in range(formulas.channels):
                colors[b, first + p, c] = tile[out + (1 + c) * LANES + p]


@jit()
def grid_share(share, shares, xy, yz, zx, network, density):
    """Every ``shares``-th slice along x of density (B, G, G, G) from xy (B, G, G, U), yz and zx (B, G, U, G in full
    lanes)."""
    batch, count = density.shape[0], density.shape[1]
    tile = np.empty(network.widths.sum() * LANES, np.float32)
    first, units, bias = network.widths[0] * LANES, network.widths[1], network.widths[0] * network.widths[1]
    hidden = tile[first : first + units * LANES]
    for b in range(batch):
        for x in range(share, count, shares):
            for y in range(count):
                for start in range(0, count, LANES):
                    for unit in range(units):
                        common = xy[b, x, y, unit] + network.weights[bias + unit]
                        left, right = yz[b, y, unit, start : start + LANES], zx[b, x, unit, start : start + LANES]
                        row = hidden[unit * LANES : (unit + 1) * LANES]
                        for lane in range(LANES):
                            row[lane] = common + left[lane] + right[lane]
                    activate(hidden, network.formulas.activation)
                    out = run_network(network, tile, 1)
                    for lane in range(min(LANES, count - start)):
                        raw = tile[out + lane] - network.formulas.density_shift
                        density[b, x, y, start + lane] = network.formulas.density_scale * softplus(raw)


@jit()
def _output_gradients(formulas, raw, d_raw, d_density, d_colors, b, first, count):
    """Gradients of the raw outputs, 0 of those that are not asked for and of lanes without a point."""
    fill(d_raw, 0, d_raw.size, np.float32(0))
    for p in range(count):
        d_raw[p] = d_density[b, first + p]
        for c in range(formulas.channels):
            d_raw[(1 + c) * LANES + p] = d_colors[b, first + p, c]
    one = np.float32(1)
    stretch = (one + formulas.color_margin + formulas.color_margin) * formulas.color_gain
    for i in range(LANES):
        d_raw[i] *= formulas.density_scale * sigmoid(raw[i] - formulas.density_shift)
    for i in range(LANES, (1 + formulas.channels) * LANES):
        level = sigmoid(formulas.color_gain * raw[i])
        d_raw[i] *= stretch * level * (one - level)


@jit()
def _layer_backward(network, layer, at, weights_at, tile, rows, d_tile, d_weights, d_biases, biases_at):
    """Gradients of a layer's weights, biases and inputs from those of its outputs.

    ``rows`` holds its inputs point by point; biases are summed lane by lane.
    """
    inputs, outputs = network.widths[layer], network.widths[layer + 1]
    out = at + inputs * LANES
    for unit in range(0, outputs, ROWS):
        left = out + unit * LANES
        for c in range(0, inputs, LANES):
            to = weights_at + unit * inputs + c
            add_products(d_weights, to, inputs, d_tile, left, LANES, 1, rows, c, inputs, LANES)
    for unit in range(outputs):
        add_scaled(d_biases, (biases_at + unit) * LANES, d_tile, out + unit * LANES, np.float32(1))
    fill(d_tile, at, inputs * LANES, np.float32(0))
    for c in range(0, inputs, ROWS):
        to = at + c * LANES
        add_products(d_tile, to, LANES, network.weights, weights_at + c, 1, inputs, d_tile, out, LANES, outputs)


@jit()
def _run_with_slopes(network, tile, slopes):
    """`run_network` that also keeps the slopes of the activations."""
    at = weights_at = 0
    last = network.widths.size - 2
    for layer in range(last + 1):
        at, weights_at = _layer(network, layer, at, weights_at, tile)
        if layer < last:
            end = at + network.widths[layer + 1] * LANES
            activate_with_slopes(tile[at:end], slopes[at:end], network.formulas.activation)
    return at


@jit()
def values_backward_share(
    share, shares, table, points, half_size, axes, network, d_density, d_colors, d_table, d_weights
):
    """Gradients of every ``shares``-th object: to d_table (B, 3, H, W, C) and to d_weights (B, weights)."""
    batch, count = points.shape[0], points.shape[1]
    flat, target, widths = table.reshape(-1), d_table.reshape(-1), network.widths
    height, width, channels = table.shape[2], table.shape[3], table.shape[4]
    size, layers = widths.sum() * LANES, widths.size - 1
    tile, slopes, d_tile = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32)
    features, rows = np.empty(widths[0] * LANES, np.float32), np.empty(widths.max() * LANES, np.float32)
    positions = np.empty((LANES, 3), np.float32)
    for b in range(share, batch, shares):
        gradient, d_biases = d_weights[b], np.zeros(widths[1:].sum() * LANES, np.float32)
        for first in range(0, count, LANES):
            some = min(LANES, count - first)
            for p in range(some):
                for axis in range(3):
                    positions[p, axis] = points[b, first + p, axis] / half_size
            read_features(tile, features, flat, b, height, width, channels, axes, positions, 0, some)
            out = _run_with_slopes(network, tile, slopes)
            _output_gradients(network.formulas, tile[out:], d_tile[out:], d_density, d_colors, b, first, some)
            at, weights_at, biases_at = out, network.weights.size, d_biases.size // LANES
            for layer in range(layers - 1, -1, -1):
                inputs, outputs = widths[layer], widths[layer + 1]
                at, weights_at, biases_at = (
                    at - inputs * LANES,
                    weights_at - (inputs + 1) * outputs,
                    biases_at - outputs,
                )
                for c in range(0, inputs, LANES):
                    transpose_lanes(rows, c, inputs, tile, at + c * LANES, LANES)
                _layer_backward(network, layer, at, weights_at, tile, rows, d_tile, gradient, d_biases, biases_at)
                if layer > 0:
                    for i in range(at, at + inputs * LANES):
                        d_tile[i] *= slopes[i]
            for c in range(0, widths[0], LANES):
                transpose_lanes(rows, c, widths[0], d_tile, c * LANES, LANES)
            for p in range(some):
                point = (positions[p, 0], positions[p, 1], positions[p, 2])
                scatter_features(target, b, height, width, channels, axes, point, THIRD, rows, p * widths[0])
        weights_at = biases_at = 0
        for layer in range(layers):
            weights_at += widths[layer] * widths[layer + 1]
            for unit in range(widths[layer + 1]):
                gradient[weights_at + unit] = d_biases[biases_at * LANES : (biases_at + 1) * LANES].sum()
                biases_at += 1
            weights_at += widths[layer + 1]
