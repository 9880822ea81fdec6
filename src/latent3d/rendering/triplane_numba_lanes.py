"""Formulas of small networks on planes for 16 float32 side by side, as explicit vector instructions.

Formulas are written once, on `_Vector`, and become operations on flat C-contiguous arrays: activations with their
slopes, and the pixels around points. Matrix products and the reading of pixels are in `triplane_numba_products`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from latent3d.rendering.splats_numba_lanes import LANES, _everywhere, _lanes, _load

INDEX = types.intp
FLOATS, INTEGERS = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(ir.IntType(32), LANES)


@dataclass(frozen=True)
class _Vector:
    """16 float32 in a function that is being built."""

    builder: Any
    value: Any

    def _other(self, other: _Vector | float) -> Any:
        return other.value if isinstance(other, _Vector) else ir.Constant(self.value.type, [other] * LANES)

    def __add__(self, other: _Vector | float) -> _Vector:
        return _Vector(self.builder, self.builder.fadd(self.value, self._other(other), flags=["contract"]))

    def __sub__(self, other: _Vector | float) -> _Vector:
        return _Vector(self.builder, self.builder.fsub(self.value, self._other(other), flags=["contract"]))

    def __mul__(self, other: _Vector | float) -> _Vector:
        return _Vector(self.builder, self.builder.fmul(self.value, self._other(other), flags=["contract"]))

    def __truediv__(self, other: _Vector | float) -> _Vector:
        return _Vector(self.builder, self.builder.fdiv(self.value, self._other(other)))

    def below(self, other: _Vector | float) -> Any:
        """A mask."""
        return self.builder.fcmp_ordered("<", self.value, self._other(other))

    def where(self, mask: Any, other: _Vector | float) -> _Vector:
        """Self where the mask is true, else the other."""
        return _Vector(self.builder, self.builder.select(mask, self.value, self._other(other)))

    def at_least(self, other: _Vector | float) -> _Vector:
        return self.where(self.builder.not_(self.below(other)), other)

    def at_most(self, other: _Vector | float) -> _Vector:
        return self.where(self.below(other), other)

    def floor(self) -> _Vector:
        kind = ir.FunctionType(self.value.type, [self.value.type])
        name = f"llvm.floor.v{LANES}f32"
        floor = self.builder.module.declare_intrinsic(name, fnty=kind)
        return _Vector(self.builder, self.builder.call(floor, [self.value]))

    def integers(self) -> Any:
        """The same as int32; of whole numbers."""
        return self.builder.fptosi(self.value, INTEGERS)


def _exponential(x: _Vector) -> _Vector:
    """exp(x) for x <= 0: 2^n times a polynomial (Taylor's, of degree 7), relative error about 1e-7, 0 below -87."""
    x = x.at_least(-87.0)
    n = (x * 1.4426950408889634 + 0.5).floor()
    r = x - n * 0.693359375 + n * 2.12194440e-4
    p = r * (1 / 5040) + 1 / 720
    for coefficient in (1 / 120, 1 / 24, 1 / 6, 0.5, 1.0, 1.0):
        p = p * r + coefficient
    exponent = x.builder.add(n.integers(), _constant(127))
    bits = x.builder.shl(exponent, _constant(23))
    return p * _Vector(x.builder, x.builder.bitcast(bits, x.value.type))


def _softplus(x: _Vector) -> tuple[_Vector, _Vector]:
    """log(1 + exp(x)) and its slope; relative errors below 5e-7."""
    e = _exponential(x.at_most(x * -1.0))
    # log(1 + e) / e on [0, 1]: interpolated at Chebyshev's nodes, relative error below 4e-8
    p = e * 0.00512610212 - 0.0290740646
    for coefficient in (0.0775160866, -0.136022476, 0.190768807, -0.24835399, 0.333181217, -0.49999445, 1.0):
        p = p * e + coefficient
    return x.at_least(0.0) + p * e, e.where(x.below(0.0), 1.0) / (e + 1.0)


def _sigmoid(x: _Vector) -> tuple[_Vector, _Vector]:
    """1 / (1 + exp(-x)), relative error below 5e-7, and its slope."""
    e = _exponential(x.at_most(x * -1.0))
    level = e.where(x.below(0.0), 1.0) / (e + 1.0)
    return level, level - level * level


def _silu(x: _Vector) -> tuple[_Vector, _Vector]:
    """x sigmoid(x) and its slope."""
    level, slope = _sigmoid(x)
    return x * level, level + x * slope


def _relu(x: _Vector) -> tuple[_Vector, _Vector]:
    """max(x, 0) and its slope."""
    value = x.at_least(0.0)
    return value, _Vector(x.builder, _constant(1.0)).where(_Vector(x.builder, _constant(0.0)).below(x), 0.0)


def _constant(number: float) -> Any:
    return ir.Constant(INTEGERS if isinstance(number, int) else FLOATS, [number] * LANES)


def _mapped(formula: Callable[[_Vector], tuple[_Vector, _Vector]]) -> tuple[Any, Any]:
    """Two operations in place on ``count`` times 16 entries from ``at`` on, scaled by the numbers (a, g, s, o).

    The first: values = a formula(g values - s) + o. The second also sets ``slopes``, at the same places.
    """

    def build(context, builder, arrays, kinds, at, count, scaling):
        outer, gain, shift, offset = (
            _Vector(builder, _everywhere(builder, FLOATS, builder.extract_value(scaling, k))) for k in range(4)
        )
        with cgutils.for_range(builder, count) as loop:
            place = builder.add(at, builder.mul(loop.index, ir.Constant(at.type, LANES)))
            pointers = [
                _lanes(context, builder, kind, array, place)[0] for kind, array in zip(kinds, arrays, strict=True)
            ]
            value, slope = formula(_Vector(builder, _load(builder, pointers[0], kinds[0])) * gain - shift)
            for pointer, result in zip(pointers, (value * outer + offset, slope * (outer * gain)), strict=False):
                builder.store(result.value, pointer).align = 4
        return context.get_dummy_value()

    @intrinsic
    def apply(typing_context, values, at, count, scaling):
        def generate(context, builder, signature, arguments):
            return build(context, builder, arguments[:1], signature.args[:1], *arguments[1:])

        return types.void(values, INDEX, INDEX, types.UniTuple(types.float32, 4)), generate

    @intrinsic
    def apply_with_slopes(typing_context, values, slopes, at, count, scaling):
        def generate(context, builder, signature, arguments):
            return build(context, builder, arguments[:2], signature.args[:2], *arguments[2:])

        return types.void(values, slopes, INDEX, INDEX, types.UniTuple(types.float32, 4)), generate

    return apply, apply_with_slopes


softplus_lanes, softplus_slopes = _mapped(_softplus)
sigmoid_lanes, sigmoid_slopes = _mapped(_sigmoid)
silu_lanes, silu_slopes = _mapped(_silu)
relu_lanes, relu_slopes = _mapped(_relu)


@intrinsic
def fill_lanes(typing_context, target, target_at, number):
    """target[t : t + 16] = number."""

    def generate(context, builder, signature, arguments):
        pointer, _ = _lanes(context, builder, signature.args[0], arguments[0], arguments[1])
        builder.store(_everywhere(builder, FLOATS, arguments[2]), pointer).align = 4
        return context.get_dummy_value()

    return types.void(target, INDEX, types.float32), generate


@intrinsic
def multiply_lanes(typing_context, target, target_at, source, source_at, count):
    """target[t : t + 16 count] *= source[s : s + 16 count]."""

    def generate(context, builder, signature, arguments):
        kind, _, source_kind, _, _ = signature.args
        to, to_at, other, other_at, length = arguments
        with cgutils.for_range(builder, length) as loop:
            step = builder.mul(loop.index, ir.Constant(to_at.type, LANES))
            pointer, _ = _lanes(context, builder, kind, to, builder.add(to_at, step))
            factor, _ = _lanes(context, builder, source_kind, other, builder.add(other_at, step))
            product = builder.fmul(_load(builder, pointer, kind), _load(builder, factor, source_kind))
            builder.store(product, pointer).align = 4
        return context.get_dummy_value()

    return types.void(target, INDEX, source, INDEX, INDEX), generate


@intrinsic
def locate_lanes(typing_context, places, factors, at, positions, across_at, along_at, sizes, line, channels, factor):
    """The four pixels of one plane around 16 positions in [-1, 1], corner by corner.

    Args:
        places: where each pixel's features begin in a table of rows of ``channels``, int32, from ``at`` on.
        factors: bilinear weights times ``factor``, 0 of pixels outside the plane.
        positions: along columns from ``across_at`` on, along rows from ``along_at`` on.
        sizes: rows and columns of the plane, float32, as is ``line``: the pixels before it in the table. All pixels of
            a table together must be whole numbers in float32, fewer than 2^24.
    """

    def generate(context, builder, signature, arguments):
        place_kind, factor_kind, _, kind = signature.args[:4]
        to, weights, first, given, across, along, size, before, width, third = arguments

        def everywhere(number):
            return _Vector(builder, _everywhere(builder, FLOATS, number))

        def cells(start, count):
            """Two pixels along an axis, moved inside, and their weights."""
            pointer, _ = _lanes(context, builder, kind, given, start)
            place = ((_Vector(builder, _load(builder, pointer, kind)) + 1.0) * count - 1.0) * 0.5
            # one pixel outside everything is zero: the clamp only keeps far points, and what is no number, in range
            place = place.at_most(count + 1.0).at_least(-2.0)
            low, one = place.floor(), _Vector(builder, _constant(1.0))
            after, pixels = place - low, []
            for pixel, weight in ((low, one - after), (low + 1.0, after)):
                inside = builder.and_(_Vector(builder, _constant(-1.0)).below(pixel), pixel.below(count))
                pixels.append((pixel.at_least(0.0).at_most(count - 1.0), weight.where(inside, 0.0)))
            return pixels

        rows, columns = (everywhere(builder.extract_value(size, k)) for k in range(2))
        number, scale = builder.trunc(width, ir.IntType(32)), everywhere(third)
        steps = builder.shuffle_vector(
            builder.insert_element(ir.Constant(INTEGERS, ir.Undefined), number, ir.Constant(ir.IntType(32), 0)),
            ir.Constant(INTEGERS, ir.Undefined), _constant(0),
        )  # fmt: skip
        corners = [(row, column) for row in cells(along, rows) for column in cells(across, columns)]
        for k, ((row, down), (column, right)) in enumerate(corners):
            pixel = (row * columns + column + everywhere(before)).integers()
            entry = builder.add(first, ir.Constant(first.type, k * LANES))
            pointer, _ = _lanes(context, builder, factor_kind, weights, entry)
            builder.store((scale * down * right).value, pointer).align = 4
            data = context.make_array(place_kind)(context, builder, to).data
            target = builder.bitcast(builder.gep(data, [entry]), INTEGERS.as_pointer())
            builder.store(builder.mul(pixel, steps), target).align = 4
        return context.get_dummy_value()

    pair = types.UniTuple(types.float32, 2)
    arguments = (places, factors, INDEX, positions, INDEX, INDEX, pair, types.float32, INDEX, types.float32)
    return types.void(*arguments), generate
