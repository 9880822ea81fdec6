"""A tri-plane's small network in compiled loops, on tiles of 16 points that never leave the cache.

The values of a tile are its features and the outputs of all layers, one after another, in rows of 16 points: row u of a
layer is what its unit u says of the 16. Widths are filled up with zeros to multiples of `PADDING`. Everything is
float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from latent3d.rendering.splats_numba_lanes import LANES, jit
from latent3d.rendering.triplane_numba_lanes import (
    locate_lanes,
    relu_lanes,
    relu_slopes,
    sigmoid_lanes,
    sigmoid_slopes,
    silu_lanes,
    silu_slopes,
    softplus_lanes,
    softplus_slopes,
)
from latent3d.rendering.triplane_numba_products import (
    PADDING,
    PIXELS,
    ROWS,
    gather_lanes,
    set_products,
    spread_lanes,
    transpose_lanes,
)

ACTIVATIONS = ("softplus", "relu", "silu")
THIRD = np.float32(1 / 3)
PLAIN = (np.float32(1), np.float32(1), np.float32(0), np.float32(0))
"""Scaling of hidden layers: none."""


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
        filled, shifts = np.zeros((outputs, inputs), np.float32), np.zeros(outputs, np.float32)
        filled[: len(bias), : matrix.shape[1]], shifts[: len(bias)] = matrix, bias
        parts += [filled.ravel(), shifts]
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


@jit()
def new_tile(network):
    """Scratch of a tile: its values; features by point; positions (3, 16); places and factors of pixels (12, 16)."""
    return (
        np.empty(network.widths.sum() * LANES, np.float32), np.zeros(network.widths[0] * LANES, np.float32),
        np.zeros(3 * LANES, np.float32), np.empty(PIXELS * LANES, np.int32), np.empty(PIXELS * LANES, np.float32),
    )  # fmt: skip


@jit()
def read_features(tile, flat, base, size, axes, count):
    """Features of a tile's ``count`` <= 16 positions in [-1, 1], from the table of rows, columns and channels ``size``
    that begins at ``base``."""
    values, rows, positions, places, factors = tile
    height, width, channels = size
    for plane in range(3):
        across, along = axes[plane, 0] * LANES, axes[plane, 1] * LANES
        locate_lanes(
            places, factors, plane * 4 * LANES, positions, across, along, (np.float32(height), np.float32(width)),
            np.float32(plane * height * width), channels, THIRD,
        )  # fmt: skip
    inputs, whole = rows.size // LANES, channels - channels % LANES
    for p in range(count):
        for c in range(0, whole, LANES):
            gather_lanes(rows, p * inputs + c, flat, base + c, places, factors, p)
        for c in range(whole, channels):
            total = np.float32(0)
            for k in range(PIXELS):
                total += factors[k * LANES + p] * flat[base + places[k * LANES + p] + c]
            rows[p * inputs + c] = total
    for c in range(0, inputs, LANES):
        transpose_lanes(values, c * LANES, LANES, rows, c, inputs)


@jit()
def add_gradients(tile, target, base, channels, gradients, count):
    """Add the gradients (16, inputs) of the features that were read last to those of the table."""
    places, factors = tile[3], tile[4]
    inputs, whole = gradients.size // LANES, channels - channels % LANES
    for p in range(count):
        for c in range(0, whole, LANES):
            spread_lanes(target, base + c, places, factors, p, gradients, p * inputs + c)
        for c in range(whole, channels):
            for k in range(PIXELS):
                target[base + places[k * LANES + p] + c] += factors[k * LANES + p] * gradients[p * inputs + c]


@jit()
def start_of(network, layer):
    """Where a layer's inputs begin in a tile's values, and its weights in those of the network."""
    at = weights_at = 0
    for earlier in range(layer):
        at += network.widths[earlier] * LANES
        weights_at += (network.widths[earlier] + 1) * network.widths[earlier + 1]
    return at, weights_at


@jit()
def run_layer(network, layer, at, weights_at, values):
    """Outputs of a layer before its activation, from its inputs; where they and the next layer's weights begin."""
    inputs, outputs = network.widths[layer], network.widths[layer + 1]
    to, bias = at + inputs * LANES, weights_at + inputs * outputs
    for unit in range(0, outputs, ROWS):
        left = weights_at + unit * inputs
        set_products(
            values, to + unit * LANES, LANES, network.weights, left, inputs, 1, values, at, LANES, inputs, bias + unit
        )
    return to, bias + outputs


@jit()
def activate(network, values, at, count):
    """Apply the activation to ``count`` rows."""
    if network.formulas.activation == 0:
        softplus_lanes(values, at, count, PLAIN)
    elif network.formulas.activation == 1:
        relu_lanes(values, at, count, PLAIN)
    else:
        silu_lanes(values, at, count, PLAIN)


@jit()
def run_layers(network, values, layer):
    """Fill in the layers from ``layer`` on, the last one raw; where that begins."""
    at, weights_at = start_of(network, layer)
    last = network.widths.size - 2
    for k in range(layer, last + 1):
        at, weights_at = run_layer(network, k, at, weights_at, values)
        if k < last:
            activate(network, values, at, network.widths[k + 1])
    return at


@jit()
def run_network(network, values):
    """Fill in all layers, the last one's first outputs as density and colours; where these begin."""
    at = run_layers(network, values, 0)
    softplus_lanes(values, at, 1, _density_scaling(network.formulas))
    sigmoid_lanes(values, at + LANES, network.formulas.channels, _color_scaling(network.formulas))
    return at


@jit()
def run_with_slopes(network, values, slopes):
    """`run_network` of all layers that also notes the slopes of all activations, the last one's too."""
    at = weights_at = 0
    last = network.widths.size - 2
    for k in range(last + 1):
        at, weights_at = run_layer(network, k, at, weights_at, values)
        count = network.widths[k + 1]
        if k < last:
            if network.formulas.activation == 0:
                softplus_slopes(values, slopes, at, count, PLAIN)
            elif network.formulas.activation == 1:
                relu_slopes(values, slopes, at, count, PLAIN)
            else:
                silu_slopes(values, slopes, at, count, PLAIN)
    softplus_slopes(values, slopes, at, 1, _density_scaling(network.formulas))
    sigmoid_slopes(values, slopes, at + LANES, network.formulas.channels, _color_scaling(network.formulas))
    return at


@jit()
def _density_scaling(formulas):
    return formulas.density_scale, np.float32(1), formulas.density_shift, np.float32(0)


@jit()
def _color_scaling(formulas):
    margin = formulas.color_margin
    return np.float32(1) + margin + margin, formulas.color_gain, np.float32(0), -margin
