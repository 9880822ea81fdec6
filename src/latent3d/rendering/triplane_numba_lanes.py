"""Lane arithmetic of small networks: matrix products of tiles of 16 points, transposition, activations.

Every operation works on 16 float32 side by side (`splats_numba_lanes.LANES`); matrices are flat arrays, and what is
called a step is the distance between two of their entries.
"""

from __future__ import annotations

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from latent3d.rendering.splats_numba_lanes import LANES, _everywhere, _lanes, _load, exponential, jit

ROWS = 8 if llvm.get_host_cpu_features().get("avx512f") else 4
"""Rows of a product that are summed at once: as many as there are registers for. It does not change any sum."""
PADDING = 16
"""Widths are filled up with zeros to a multiple of this, which every number of rows divides."""
SOFTPLUS, RELU, SILU = range(3)
"""Activations by number."""


@intrinsic
def add_products(typing_context, target, target_at, target_step, left, left_at, row_step, step, source, source_at,
                 source_step, count):  # fmt: skip
    """target[t + T r + lane] += sum over k < count of left[l + R r + S k] * source[s + K k + lane], for ROWS rows r.

    ``left`` is a matrix of single numbers, ``target`` and ``source`` have 16 lanes; all are C-contiguous float32.
    """

    def generate(context, builder, signature, arguments):
        kind, left_kind, source_kind = signature.args[0], signature.args[3], signature.args[7]
        to, to_at, to_step, matrix, at, over, along, rows, rows_at, rows_step, length = arguments
        numbers = context.make_array(left_kind)(context, builder, matrix).data
        pointers, sums = [], []
        for row in range(ROWS):
            place = builder.add(to_at, builder.mul(to_step, ir.Constant(to_step.type, row)))
            pointer, vector = _lanes(context, builder, kind, to, place)
            sums.append(cgutils.alloca_once(builder, vector))
            builder.store(_load(builder, pointer, kind), sums[-1])
            pointers.append(pointer)
        with cgutils.for_range(builder, length) as loop:
            place = builder.add(rows_at, builder.mul(rows_step, loop.index))
            values = _load(builder, _lanes(context, builder, source_kind, rows, place)[0], source_kind)
            first = builder.add(at, builder.mul(along, loop.index))
            for row, total in enumerate(sums):
                number = builder.gep(numbers, [builder.add(first, builder.mul(over, ir.Constant(over.type, row)))])
                factors = _everywhere(builder, vector, builder.load(number))
                product = builder.fmul(factors, values, flags=["contract"])
                builder.store(builder.fadd(builder.load(total), product, flags=["contract"]), total)
        for pointer, total in zip(pointers, sums, strict=True):
            builder.store(builder.load(total), pointer).align = kind.dtype.bitwidth // 8
        return context.get_dummy_value()

    index = types.intp
    return types.void(target, index, index, left, index, index, index, source, index, index, index), generate


@intrinsic
def transpose_lanes(typing_context, target, target_at, target_step, source, source_at, source_step):
    """target[t + T i + j] = source[s + S j + i] for 16 i and 16 j."""

    def generate(context, builder, signature, arguments):
        kind, source_kind = signature.args[0], signature.args[3]

        def place(row, array_kind, array, at, step):
            flat = builder.add(at, builder.mul(step, ir.Constant(step.type, row)))
            return _lanes(context, builder, array_kind, array, flat)[0]

        rows = [_load(builder, place(row, source_kind, *arguments[3:]), source_kind) for row in range(LANES)]
        integers, number = ir.VectorType(ir.IntType(32), LANES), range(LANES)
        for half in (8, 4, 2, 1):  # blocks off the diagonal change places, ever smaller ones
            upper = ir.Constant(integers, [lane if not lane & half else LANES + lane - half for lane in number])
            lower = ir.Constant(integers, [lane + half if not lane & half else LANES + lane for lane in number])
            for row in number:
                if not row & half:
                    a, b = rows[row], rows[row + half]
                    rows[row] = builder.shuffle_vector(a, b, upper)
                    rows[row + half] = builder.shuffle_vector(a, b, lower)
        for row in number:
            builder.store(rows[row], place(row, kind, *arguments[:3])).align = kind.dtype.bitwidth // 8
        return context.get_dummy_value()

    index = types.intp
    return types.void(target, index, index, source, index, index), generate


@jit()
def softplus(x):
    """log(1 + exp(x)); relative error below 3e-7."""
    return max(x, np.float32(0)) + _log_one_plus(exponential(-abs(x)))


@jit()
def _log_one_plus(e):
    """log(1 + e) for e in [0, 1]."""
    # log(1 + e) / e as a polynomial: interpolated at Chebyshev's nodes, relative error below 4e-8
    p = np.float32(0.00512610212)
    p = p * e + np.float32(-0.0290740646)
    p = p * e + np.float32(0.0775160866)
    p = p * e + np.float32(-0.136022476)
    p = p * e + np.float32(0.190768807)
    p = p * e + np.float32(-0.24835399)
    p = p * e + np.float32(0.333181217)
    p = p * e + np.float32(-0.49999445)
    p = p * e + np.float32(1.0)
    return p * e


@jit()
def sigmoid(x):
    """1 / (1 + exp(-x)); relative error below 3e-7."""
    e = exponential(-abs(x))
    return (np.float32(1) if x >= np.float32(0) else e) / (np.float32(1) + e)


@jit()
def activate(values, activation):
    """Apply an activation in place."""
    if activation == SOFTPLUS:
        for i in range(values.size):
            values[i] = softplus(values[i])
    elif activation == SILU:
        for i in range(values.size):
            values[i] *= sigmoid(values[i])
    else:
        for i in range(values.size):
            values[i] = max(values[i], np.float32(0))


@jit()
def activate_with_slopes(values, slopes, activation):
    """Apply an activation in place, and note its slope there."""
    zero, one = np.float32(0), np.float32(1)
    if activation == SOFTPLUS:
        for i in range(values.size):
            x = values[i]
            e = exponential(-abs(x))
            slopes[i] = (one if x >= zero else e) / (one + e)
            values[i] = max(x, zero) + _log_one_plus(e)
    elif activation == SILU:
        for i in range(values.size):
            x = values[i]
            level = sigmoid(x)
            slopes[i] = level * (one + x * (one - level))
            values[i] = x * level
    else:
        for i in range(values.size):
            slopes[i] = one if values[i] > zero else zero
            values[i] = max(values[i], zero)
