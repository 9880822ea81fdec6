"""Matrix products of tiles of 16 points, and the reading and writing of the points' pixels, as vector instructions.

All arrays are flat, C-contiguous and float32 (places: int32); a step is the distance between two entries of a matrix.
"""

from __future__ import annotations

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from latent3d.rendering.splats_numba_lanes import LANES, _everywhere, _lanes, _load
from latent3d.rendering.triplane_numba_lanes import FLOATS, INDEX, INTEGERS

ROWS = 8 if llvm.get_host_cpu_features().get("avx512f") else 4
"""Rows of a product that are summed at once: as many as there are registers for. It does not change any sum."""
PADDING = 16
"""Widths are filled up with zeros to a multiple of this, which every number of rows divides."""
PIXELS = 12
"""Pixels that a point's features are made of: four of each plane."""


def _products(context, builder, kinds, target, left, source, count, starts) -> None:
    """Store ROWS rows: what they start from, and the sum over k < ``count`` of a number of the left matrix times 16
    lanes of the source."""
    (to, to_at, to_step), (matrix, at, over, along), (rows, rows_at, rows_step) = target, left, source
    numbers = context.make_array(kinds[1])(context, builder, matrix).data
    pointers, sums = [], []
    for row in range(ROWS):
        place = builder.add(to_at, builder.mul(to_step, ir.Constant(to_step.type, row)))
        pointers.append(_lanes(context, builder, kinds[0], to, place)[0])
        sums.append(cgutils.alloca_once(builder, FLOATS))
        builder.store(starts(row, pointers[-1]), sums[-1])
    with cgutils.for_range(builder, count) as loop:
        place = builder.add(rows_at, builder.mul(rows_step, loop.index))
        values = _load(builder, _lanes(context, builder, kinds[2], rows, place)[0], kinds[2])
        first = builder.add(at, builder.mul(along, loop.index))
        for row, total in enumerate(sums):
            number = builder.gep(numbers, [builder.add(first, builder.mul(over, ir.Constant(over.type, row)))])
            product = builder.fmul(_everywhere(builder, FLOATS, builder.load(number)), values, flags=["contract"])
            builder.store(builder.fadd(builder.load(total), product, flags=["contract"]), total)
    for pointer, total in zip(pointers, sums, strict=True):
        builder.store(builder.load(total), pointer).align = 4


@intrinsic
def add_products(typing_context, target, target_at, target_step, left, left_at, row_step, step, source, source_at,
                 source_step, count):  # fmt: skip
    """target[t + T r + lane] += sum over k < count of left[l + R r + S k] * source[s + K k + lane], for ROWS rows r."""

    def generate(context, builder, signature, arguments):
        kinds = (signature.args[0], signature.args[3], signature.args[7])

        def starts(row, pointer):
            return _load(builder, pointer, kinds[0])

        _products(context, builder, kinds, arguments[:3], arguments[3:7], arguments[7:10], arguments[10], starts)
        return context.get_dummy_value()

    return types.void(
        target, INDEX, INDEX, left, INDEX, INDEX, INDEX, source, INDEX, INDEX, INDEX
    ), generate  # fmt: skip


@intrinsic
def set_products(typing_context, target, target_at, target_step, left, left_at, row_step, step, source, source_at,
                 source_step, count, begin_at):  # fmt: skip
    """The same, but each row starts from left[begin_at + r]; from 0 where that is negative."""

    def generate(context, builder, signature, arguments):
        kinds, begin = (signature.args[0], signature.args[3], signature.args[7]), arguments[11]
        numbers = context.make_array(kinds[1])(context, builder, arguments[3]).data

        def starts(row, pointer):
            some = builder.icmp_signed(">=", begin, ir.Constant(begin.type, 0))
            place = builder.select(some, builder.add(begin, ir.Constant(begin.type, row)), ir.Constant(begin.type, 0))
            number = builder.select(some, builder.load(builder.gep(numbers, [place])), ir.Constant(ir.FloatType(), 0.0))
            return _everywhere(builder, FLOATS, number)

        _products(context, builder, kinds, arguments[:3], arguments[3:7], arguments[7:10], arguments[10], starts)
        return context.get_dummy_value()

    return types.void(
        target, INDEX, INDEX, left, INDEX, INDEX, INDEX, source, INDEX, INDEX, INDEX, INDEX
    ), generate  # fmt: skip


@intrinsic
def transpose_lanes(typing_context, target, target_at, target_step, source, source_at, source_step):
    """target[t + T i + j] = source[s + S j + i] for 16 i and 16 j."""

    def generate(context, builder, signature, arguments):
        kind, source_kind = signature.args[0], signature.args[3]

        def place(row, array_kind, array, at, step):
            flat = builder.add(at, builder.mul(step, ir.Constant(step.type, row)))
            return _lanes(context, builder, array_kind, array, flat)[0]

        rows = [_load(builder, place(row, source_kind, *arguments[3:]), source_kind) for row in range(LANES)]
        integers, number = INTEGERS, range(LANES)
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

    return types.void(target, INDEX, INDEX, source, INDEX, INDEX), generate


@intrinsic
def gather_lanes(typing_context, target, target_at, source, source_at, places, factors, point):
    """target[t + lane] = sum over k < PIXELS of factors[16 k + point] * source[s + places[16 k + point] + lane]."""

    def generate(context, builder, signature, arguments):
        kind, _, source_kind, _, place_kind, factor_kind, _ = signature.args
        to, to_at, table, first, *where, point = arguments
        total = None
        for place, factor in _pixels(context, builder, place_kind, factor_kind, *where, point):
            pointer, _ = _lanes(context, builder, source_kind, table, builder.add(first, place))
            row = _load(builder, pointer, source_kind)
            product = builder.fmul(_everywhere(builder, FLOATS, factor), row, flags=["contract"])
            total = product if total is None else builder.fadd(total, product, flags=["contract"])
        builder.store(total, _lanes(context, builder, kind, to, to_at)[0]).align = 4
        return context.get_dummy_value()

    return types.void(target, INDEX, source, INDEX, places, factors, INDEX), generate


@intrinsic
def spread_lanes(typing_context, target, target_at, places, factors, point, source, source_at):
    """target[t + places[16 k + point] + lane] += factors[16 k + point] * source[s + lane] for all PIXELS k in turn."""

    def generate(context, builder, signature, arguments):
        kind, _, place_kind, factor_kind, _, source_kind, _ = signature.args
        to, first, *where, point, given, given_at = arguments
        values = _load(builder, _lanes(context, builder, source_kind, given, given_at)[0], source_kind)
        for place, factor in _pixels(context, builder, place_kind, factor_kind, *where, point):
            pointer, _ = _lanes(context, builder, kind, to, builder.add(first, place))
            product = builder.fmul(_everywhere(builder, FLOATS, factor), values, flags=["contract"])
            total = builder.fadd(_load(builder, pointer, kind), product, flags=["contract"])
            builder.store(total, pointer).align = 4
        return context.get_dummy_value()

    return types.void(target, INDEX, places, factors, INDEX, source, INDEX), generate


def _pixels(context, builder, place_kind, factor_kind, places, factors, point):
    """Place and factor of each of a point's pixels."""
    place_data = context.make_array(place_kind)(context, builder, places).data
    factor_data = context.make_array(factor_kind)(context, builder, factors).data
    for k in range(PIXELS):
        entry = builder.add(point, ir.Constant(point.type, LANES * k))
        place = builder.load(builder.gep(place_data, [entry]))
        yield builder.sext(place, point.type), builder.load(builder.gep(factor_data, [entry]))
