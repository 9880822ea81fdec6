"""What all compiled kernels share: the compiler's options, a fast exponential, and arithmetic on 16 lanes at once.

The lane operations say explicitly what the compiler cannot find out (that arrays do not overlap), and so turn into
vector instructions on every machine: one AVX-512 register, two of AVX2, four of NEON hold 16 float32.
"""

from __future__ import annotations

import functools
import hashlib
import math
import warnings
from pathlib import Path

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

LANES = 16
"""Numbers that one lane operation handles; also the side of a tile in pixels."""


def _digest() -> str:
    """Digest of every file whose code or constants can end up inside a compiled loop."""
    folder = Path(__file__).parent
    files = sorted([*folder.glob("*numba*.py"), folder / "projection.py"])
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


STAMP = _digest()


def jit(**options):
    """`numba.njit` without the interpreter lock, with the on-disk cache.

    numba keeps what it compiled in NUMBA_CACHE_DIR, else beside the source, else in the user's cache folder, whichever
    can be written first; where none can, a warning says so once, and every process compiles for itself. numba compiles
    again when a function's own file changes, not when a function inlined into it does; so the cache is stamped with the
    digest of all files involved.
    """

    def decorate(function):
        try:
            dispatcher = numba.njit(cache=True, nogil=True, error_model="numpy", **options)(function)
        except RuntimeError:  # numba's answer when no folder can be written
            _say_not_kept()
            return numba.njit(nogil=True, error_model="numpy", **options)(function)
        dispatcher._cache._cache_file._source_stamp = STAMP
        return dispatcher

    return decorate


@functools.cache
def _say_not_kept() -> None:
    warnings.warn(
        "compiled loops cannot be kept on disk, so every process compiles them again (some seconds); set "
        "NUMBA_CACHE_DIR to a folder that can be written",
        stacklevel=4,
    )


@intrinsic
def _float_from_bits(typing_context, bits):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


def exponential(x):
    """exp(x) for x <= 10 inside kernels."""
    return math.exp(x)


@overload(exponential)
def _exponential_by_type(x):
    """float32: 2^n times a degree-7 polynomial, relative error about 6e-8, no branch, 0 below -87."""
    if x != types.float32:
        return lambda x: math.exp(x)

    def exp32(x):
        x = max(x, np.float32(-87.0))
        n = np.floor(x * np.float32(1.4426950408889634) + np.float32(0.5))
        r = (x - n * np.float32(0.693359375)) - n * np.float32(-2.12194440e-4)
        p = np.float32(1.0 / 5040)
        p = p * r + np.float32(1.0 / 720)
        p = p * r + np.float32(1.0 / 120)
        p = p * r + np.float32(1.0 / 24)
        p = p * r + np.float32(1.0 / 6)
        p = p * r + np.float32(0.5)
        p = p * r + np.float32(1.0)
        p = p * r + np.float32(1.0)
        return p * _float_from_bits((np.int32(n) + np.int32(127)) << np.int32(23))

    return exp32


def _lanes(context, builder, array_type, array, index):
    """Pointer to 16 lanes of a C-contiguous array from a flat index on."""
    data = context.make_array(array_type)(context, builder, array).data
    vector = ir.VectorType(context.get_data_type(array_type.dtype), LANES)
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer()), vector


def _load(builder, pointer, array_type):
    value = builder.load(pointer)
    value.align = array_type.dtype.bitwidth // 8
    return value


def _everywhere(builder, vector, number):
    """One number in all lanes."""
    single = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(single, single, zeros)


@intrinsic
def add_scaled(typing_context, target, target_index, source, source_index, factor):
    """target.flat[i : i + 16] += factor * source.flat[j : j + 16], for C-contiguous arrays of one type."""

    def generate(context, builder, signature, arguments):
        kind, _, source_kind, _, _ = signature.args
        pointer, vector = _lanes(context, builder, kind, arguments[0], arguments[1])
        other, _ = _lanes(context, builder, source_kind, arguments[2], arguments[3])
        factors = _everywhere(builder, vector, arguments[4])
        product = builder.fmul(factors, _load(builder, other, source_kind), flags=["contract"])
        total = builder.fadd(_load(builder, pointer, kind), product, flags=["contract"])
        builder.store(total, pointer).align = kind.dtype.bitwidth // 8
        return context.get_dummy_value()

    index = types.intp
    return types.void(target, index, source, index, target.dtype), generate


@intrinsic
def lane_dot(typing_context, left, left_index, right, right_index):
    """Sum of left.flat[i : i + 16] * right.flat[j : j + 16], for C-contiguous arrays of one type."""

    def generate(context, builder, signature, arguments):
        left_kind, _, right_kind, _ = signature.args
        first, vector = _lanes(context, builder, left_kind, arguments[0], arguments[1])
        second, _ = _lanes(context, builder, right_kind, arguments[2], arguments[3])
        product = builder.fmul(_load(builder, first, left_kind), _load(builder, second, right_kind))
        name = f"llvm.vector.reduce.fadd.v{LANES}f{left_kind.dtype.bitwidth}"
        kind = ir.FunctionType(vector.element, [vector.element, vector])
        reduce = builder.module.declare_intrinsic(name, fnty=kind)
        return builder.call(reduce, [ir.Constant(vector.element, 0.0), product], fastmath=["reassoc", "nsz"])

    index = types.intp
    return left.dtype(left, index, right, index), generate


@intrinsic
def blend_lanes(typing_context, target, target_at, source, places, factors):
    """target.flat[t : t + 16] += sum_k factors[k] * source.flat[places[k] : places[k] + 16] for four k, one store."""

    def generate(context, builder, signature, arguments):
        kind, _, source_kind, _, _ = signature.args
        pointer, vector = _lanes(context, builder, kind, arguments[0], arguments[1])
        total = _load(builder, pointer, kind)
        for k in range(4):
            row, _ = _lanes(context, builder, source_kind, arguments[2], builder.extract_value(arguments[3], k))
            factor = _everywhere(builder, vector, builder.extract_value(arguments[4], k))
            product = builder.fmul(factor, _load(builder, row, source_kind), flags=["contract"])
            total = builder.fadd(total, product, flags=["contract"])
        builder.store(total, pointer).align = kind.dtype.bitwidth // 8
        return context.get_dummy_value()

    four = types.UniTuple(target.dtype, 4)
    return types.void(target, types.intp, source, types.UniTuple(types.intp, 4), four), generate


@intrinsic
def scatter_lanes(typing_context, target, places, source, source_at, factors):
    """target.flat[places[k] : places[k] + 16] += factors[k] * source.flat[s : s + 16] for four k, in turn."""

    def generate(context, builder, signature, arguments):
        kind, _, source_kind, _, _ = signature.args
        pointer, vector = _lanes(context, builder, source_kind, arguments[2], arguments[3])
        value = _load(builder, pointer, source_kind)
        for k in range(4):
            row, _ = _lanes(context, builder, kind, arguments[0], builder.extract_value(arguments[1], k))
            factor = _everywhere(builder, vector, builder.extract_value(arguments[4], k))
            product = builder.fmul(factor, value, flags=["contract"])
            total = builder.fadd(_load(builder, row, kind), product, flags=["contract"])
            builder.store(total, row).align = kind.dtype.bitwidth // 8
        return context.get_dummy_value()

    four = types.UniTuple(target.dtype, 4)
    return types.void(target, types.UniTuple(types.intp, 4), source, types.intp, four), generate
