"""Sixteen numbers as one value inside compiled kernels: what stays in registers from one line of a kernel to the next.

Arrays of a kernel are read and written by `load` and `store`; in between, lanes are added, multiplied and compared with
lanes or with single numbers by the usual operators, and chosen by `where`. One AVX-512 register, two of AVX2, four of
NEON hold 16 float32. Products and sums may be fused; `fused` always is where the processor can.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.datamodel import models
from numba.extending import intrinsic, overload, register_model

from latent3d.rendering.splats_numba_lanes import LANES, _everywhere, _lanes, _load

AHEAD = 8
"""Splats between the one that a loop is at and the one that it has fetched from memory meanwhile (see `fetch`)."""
_NUMBERS = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}
_INTEGERS = ir.VectorType(ir.IntType(32), LANES)


class LanesType(types.Type):
    """Sixteen float32 or float64."""

    def __init__(self, dtype: types.Type) -> None:
        self.dtype = dtype
        super().__init__(f"lanes({dtype})")


class MaskType(types.Type):
    """Sixteen answers of a comparison."""

    def __init__(self) -> None:
        super().__init__("lane mask")


MASK = MaskType()


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, ir.VectorType(_NUMBERS[kind.dtype], LANES))


@register_model(MaskType)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, ir.VectorType(ir.IntType(1), LANES))


def _spread(builder: ir.IRBuilder, kind: types.Type, value: ir.Value) -> ir.Value:
    """Lanes as they are, a single number in all lanes."""
    if isinstance(kind, LanesType):
        return value
    return _everywhere(builder, ir.VectorType(value.type, LANES), value)


def _lanes_of(*kinds: types.Type) -> LanesType | None:
    return next((kind for kind in kinds if isinstance(kind, LanesType)), None)


def _as_lanes_or_number(lanes: LanesType, kind: types.Type) -> types.Type:
    return lanes if isinstance(kind, LanesType) else lanes.dtype


def _elementwise(operation: Callable, build: Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value], compares: bool):
    """Give a binary operator a meaning for lanes with lanes and lanes with a number."""

    @intrinsic
    def apply(typing_context, left, right):
        lanes = _lanes_of(left, right)

        def generate(context, builder, signature, arguments):
            both = zip(signature.args, arguments, strict=True)
            return build(builder, *(_spread(builder, kind, value) for kind, value in both))

        kinds = (_as_lanes_or_number(lanes, kind) for kind in (left, right))
        return (MASK if compares else lanes)(*kinds), generate

    @overload(operation)
    def resolve(left, right):
        if _lanes_of(left, right) is not None:
            return lambda left, right: apply(left, right)
        return None


def _fused_if_possible(name: str) -> Callable:
    return lambda builder, left, right: getattr(builder, name)(left, right, flags=["contract"])


def _comparison(sign: str) -> Callable:
    return lambda builder, left, right: builder.fcmp_ordered(sign, left, right)


_elementwise(operator.add, _fused_if_possible("fadd"), False)
_elementwise(operator.sub, _fused_if_possible("fsub"), False)
_elementwise(operator.mul, _fused_if_possible("fmul"), False)
_elementwise(operator.truediv, _fused_if_possible("fdiv"), False)
_elementwise(operator.gt, _comparison(">"), True)
_elementwise(operator.ge, _comparison(">="), True)


@intrinsic
def load(typing_context, array, index):
    """array.flat[index : index + 16] of a C-contiguous array."""

    def generate(context, builder, signature, arguments):
        pointer, _ = _lanes(context, builder, signature.args[0], *arguments)
        return _load(builder, pointer, signature.args[0])

    return LanesType(array.dtype)(array, types.intp), generate


@intrinsic
def store(typing_context, array, index, value):
    """array.flat[index : index + 16] = value, lanes or one number."""

    def generate(context, builder, signature, arguments):
        kind = signature.args[0]
        pointer, _ = _lanes(context, builder, kind, *arguments[:2])
        values = _spread(builder, signature.args[2], arguments[2])
        builder.store(values, pointer).align = kind.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.intp, _as_lanes_or_number(LanesType(array.dtype), value)), generate


@intrinsic
def everywhere(typing_context, number):
    """A number in all lanes."""

    def generate(context, builder, signature, arguments):
        return _spread(builder, number, arguments[0])

    return LanesType(number)(number), generate


@intrinsic
def steps(typing_context, like):
    """0, 1, ..., 15 in the type of a number."""

    def generate(context, builder, signature, arguments):
        return ir.Constant(ir.VectorType(_NUMBERS[like], LANES), [float(lane) for lane in range(LANES)])

    return LanesType(like)(like), generate


@intrinsic
def where(typing_context, mask, yes, no):
    """Lane by lane one or the other; at least one of them is lanes."""
    lanes = _lanes_of(yes, no)

    def generate(context, builder, signature, arguments):
        chosen = [_spread(builder, signature.args[i], arguments[i]) for i in (1, 2)]
        return builder.select(arguments[0], *chosen)

    return lanes(MASK, *(_as_lanes_or_number(lanes, kind) for kind in (yes, no))), generate


@intrinsic
def fused(typing_context, left, right, addend):
    """left * right + addend, rounded alike wherever it stands; at least one of them is lanes."""
    lanes = _lanes_of(left, right, addend)

    def generate(context, builder, signature, arguments):
        values = [_spread(builder, kind, value) for kind, value in zip(signature.args, arguments, strict=True)]
        vector = values[0].type
        name = f"llvm.fmuladd.v{LANES}f{lanes.dtype.bitwidth}"
        return builder.call(builder.module.declare_intrinsic(name, fnty=ir.FunctionType(vector, [vector] * 3)), values)

    return lanes(*(_as_lanes_or_number(lanes, kind) for kind in (left, right, addend))), generate


@intrinsic
def total(typing_context, lanes):
    """Sum over the lanes."""

    def generate(context, builder, signature, arguments):
        vector = arguments[0].type
        name = f"llvm.vector.reduce.fadd.v{LANES}f{lanes.dtype.bitwidth}"
        kind = ir.FunctionType(vector.element, [vector.element, vector])
        reduce = builder.module.declare_intrinsic(name, fnty=kind)
        return builder.call(reduce, [ir.Constant(vector.element, 0.0), arguments[0]], fastmath=["reassoc", "nsz"])

    return lanes.dtype(lanes), generate


@intrinsic
def pack(typing_context, array, index, mask, lanes):
    """array.flat[index:] = the lanes that a mask chooses, then anything up to index + 16; index + number of them."""

    def generate(context, builder, signature, arguments):
        kind, (_, at, which, values) = signature.args[0], arguments
        pointer, vector = _lanes(context, builder, kind, arguments[0], at)
        if lanes.dtype == types.float32 and _has_compress(context):
            name = f"llvm.experimental.vector.compress.v{LANES}f32"
            function = builder.module.declare_intrinsic(
                name, fnty=ir.FunctionType(vector, [vector, which.type, vector])
            )
            packed = builder.call(function, [values, which, ir.Constant(vector, ir.Undefined)])
            builder.store(packed, pointer).align = kind.dtype.bitwidth // 8
            bits = builder.ctpop(builder.bitcast(which, ir.IntType(LANES)))
            return builder.add(at, builder.zext(bits, at.type))
        data = context.make_array(kind)(context, builder, arguments[0]).data
        for lane in range(LANES):
            place = ir.Constant(ir.IntType(32), lane)
            builder.store(builder.extract_element(values, place), builder.gep(data, [at]))
            at = builder.add(at, builder.zext(builder.extract_element(which, place), at.type))
        return at

    return types.intp(array, types.intp, MASK, lanes), generate


@intrinsic
def copy_transposed(typing_context, target, target_at, target_step, source, source_at, source_step):
    """target.flat[target_at + i target_step + j] = source.flat[source_at + j source_step + i], i and j from 0 to 15.

    Both arrays are C-contiguous and of one type; the block stays in registers.
    """

    def generate(context, builder, signature, arguments):
        def place(kind, array, at, step, row):
            offset = builder.add(at, builder.mul(step, ir.Constant(step.type, row)))
            return _lanes(context, builder, kind, array, offset)[0]

        target_kind, source_kind = signature.args[0], signature.args[3]
        block = [_load(builder, place(source_kind, *arguments[3:], row), source_kind) for row in range(LANES)]
        span = 1
        while span < LANES:  # rows change their odd runs of ``span`` numbers for the even ones of the row below
            odd = [bool(lane & span) for lane in range(LANES)]
            upper = [LANES + lane - span if is_odd else lane for lane, is_odd in enumerate(odd)]
            lower = [LANES + lane if is_odd else lane + span for lane, is_odd in enumerate(odd)]
            for row in (row for row in range(LANES) if not row & span):
                pair = block[row], block[row + span]
                for at, lanes in ((row, upper), (row + span, lower)):
                    block[at] = builder.shuffle_vector(*pair, ir.Constant(_INTEGERS, lanes))
            span *= 2
        for row, values in enumerate(block):
            builder.store(values, place(target_kind, *arguments[:3], row)).align = target_kind.dtype.bitwidth // 8
        return context.get_dummy_value()

    places = (types.intp, types.intp)
    return types.void(target, *places, source, *places), generate


@intrinsic
def claim(typing_context, counters, index):
    """counters[index] += 1 as one step that no other thread can divide; the value before."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [arguments[1]]), ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(counters, types.intp), generate


@intrinsic
def fetch(typing_context, array, index):
    """Begin to bring array.flat[index] into the caches; nothing waits for it."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, number, number, number])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
        builder.call(prefetch, [place, *(ir.Constant(number, flag) for flag in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


def _has_compress(context) -> bool:
    """Whether packing is one instruction here; what compilers make of it elsewhere is slower or wrong."""
    _, _, features = context.codegen().magic_tuple()
    return llvm.llvm_version_info[0] >= 20 and "+avx512f" in features.split(",")


@intrinsic
def _times_power_of_two(typing_context, lanes, shifted):
    """lanes * 2^n for float32, n in the last bits of ``shifted``."""

    def generate(context, builder, signature, arguments):
        value, power = (builder.bitcast(argument, _INTEGERS) for argument in arguments)
        power = builder.shl(power, ir.Constant(_INTEGERS, [23] * LANES))
        return builder.bitcast(builder.add(value, power), arguments[0].type)

    return lanes(lanes, lanes), generate


@intrinsic
def _exponential(typing_context, lanes):
    """exp by the processor's library, lane by lane."""

    def generate(context, builder, signature, arguments):
        vector = arguments[0].type
        single = ir.FunctionType(vector.element, [vector.element])
        exponential = builder.module.declare_intrinsic("llvm.exp", [vector.element], single)
        value = arguments[0]
        for lane in range(LANES):
            place = ir.Constant(ir.IntType(32), lane)
            number = builder.extract_element(arguments[0], place)
            value = builder.insert_element(value, builder.call(exponential, [number]), place)
        return value

    return lanes(lanes), generate


def power_of_two(x):
    """2^x of lanes, x <= 10."""
    raise TypeError("power_of_two is for lanes inside kernels")


@overload(power_of_two)
def _power_of_two(x):
    """float32: 2^n times the Taylor polynomial of degree 6, relative error about 1e-7, no branch, 0 below -120."""
    if x.dtype != types.float32:
        return lambda x: _exponential(x * 0.6931471805599453)

    def power32(x):
        shift = np.float32(12582912)  # 1.5 * 2^23: the nearest integer to x is in the last bits of the sum
        x = where(x > np.float32(-120), x, np.float32(-120))
        shifted = x + shift
        f = x - (shifted - shift)
        p = fused(f, np.float32(1.54035304e-4), np.float32(1.33335581e-3))
        p = fused(f, p, np.float32(9.61812911e-3))
        p = fused(f, p, np.float32(5.55041087e-2))
        p = fused(f, p, np.float32(2.40226507e-1))
        p = fused(f, p, np.float32(6.93147181e-1))
        p = fused(f, p, np.float32(1))
        return _times_power_of_two(p, shifted)

    return power32
