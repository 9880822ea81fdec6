"""Sixteen numbers as one value inside kernels: arithmetic, choice, packing and powers of two, in both types."""

import threading

import numba
import numpy as np
import pytest

from latent3d.rendering import splats_numba_vectors
from latent3d.rendering.splats_numba_vectors import (
    claim,
    copy_transposed,
    everywhere,
    fused,
    load,
    pack,
    power_of_two,
    steps,
    store,
    total,
    where,
)

TYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@numba.njit
def _arithmetic(values, number, out):
    left, right = load(values, 0), load(values, 16)
    store(out, 0, left + right * number)
    store(out, 16, (number - left) / right)
    store(out, 32, where(left > right, left, number))
    store(out, 48, where(number >= right, everywhere(number), steps(number)))
    store(out, 64, fused(left, right, number))
    store(out, 80, number)
    out[96] = total(left)


@TYPES
def test_lanes_calculate_as_numbers_do(dtype):
    values = np.random.default_rng(0).normal(size=32).astype(dtype)
    left, right, number = values[:16], values[16:], dtype(0.5)
    out = np.full(97, np.nan, dtype)
    _arithmetic(values, number, out)
    expected = (
        left + right * number, (number - left) / right, np.where(left > right, left, number),
        np.where(number >= right, number, np.arange(16)), left * right + number, np.full(16, number), [left.sum()],
    )  # fmt: skip
    np.testing.assert_allclose(
        out, np.concatenate(expected), rtol=20 * np.finfo(dtype).eps, atol=4 * np.finfo(dtype).eps
    )


def _positive(values, out):
    count = 0
    for row in range(values.shape[0]):
        lanes = load(values, row * 16)
        count = pack(out, count, lanes > values.dtype.type(0), lanes)
    return count


@TYPES
@pytest.mark.parametrize("instruction", [True, False])
def test_packing_keeps_the_chosen_lanes_in_their_order(dtype, instruction, monkeypatch):
    """With the processor's instruction, where it has one, and without."""
    if not instruction:
        monkeypatch.setattr(splats_numba_vectors, "_has_compress", lambda context: False)
    values = np.random.default_rng(1).normal(size=(9, 16)).astype(dtype)
    values[3], values[5] = 1, -1  # all of a row, and none
    out = np.empty(values.size + 16, dtype)
    count = numba.njit(_positive)(values, out)
    assert np.array_equal(out[:count], values[values > 0])


@numba.njit
def _powers(values, out):
    for i in range(0, values.size, 16):
        store(out, i, power_of_two(load(values, i)))


@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 2.5e-7), (np.float64, 2e-14)])
def test_powers_of_two(dtype, bound):
    values = np.linspace(-119, 9, 16 * 4000).astype(dtype)
    out = np.empty_like(values)
    _powers(values, out)
    assert np.abs(out / np.exp2(values.astype(np.longdouble)) - 1).max() < bound
    far = np.full(16, -1e30, dtype)
    _powers(far, far)
    assert (far < 1e-36).all()


def test_powers_of_two_are_for_kernels():
    with pytest.raises(TypeError, match="inside kernels"):
        power_of_two(1.0)


@numba.njit
def _transposed(source, target):
    copy_transposed(target, 3, 19, source, 5, 21)


@TYPES
def test_a_block_is_copied_transposed_and_nothing_beside_it(dtype):
    source = np.random.default_rng(2).normal(size=5 + 16 * 21).astype(dtype)
    target = np.full(3 + 16 * 19, -1, dtype)
    _transposed(source, target)
    wanted = np.full_like(target, -1)
    for i in range(16):
        for j in range(16):
            wanted[3 + i * 19 + j] = source[5 + j * 21 + i]
    assert np.array_equal(target, wanted)


@numba.njit(nogil=True)
def _claim_all(counters, mine):
    count = 0
    while True:
        place = claim(counters, 1)
        if place >= mine.shape[0]:
            return count
        mine[place] += 1
        count += 1


def test_threads_never_claim_the_same_place():
    counters, taken = np.zeros(3, np.int64), np.zeros(200_000, np.int64)
    threads = [threading.Thread(target=_claim_all, args=(counters, taken)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (taken == 1).all()
    assert counters.tolist() == [0, len(taken) + 3, 0]
