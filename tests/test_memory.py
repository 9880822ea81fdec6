"""The memory option: what computing anew and working off in parts change (nothing), and stepping down."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from latent3d.memory import (
    LEVELS,
    NotEnoughMemoryError,
    at_once,
    in_parts,
    is_lean,
    is_out_of_memory,
    memory,
    recomputed,
    retried,
)


def failing(times, error=None):
    """A function that runs out of memory so many times and then says at which level it succeeded."""
    left = iter(range(times))

    def work():
        if next(left, None) is not None:
            raise error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return next(level for level in reversed(LEVELS) if is_lean(level))

    return work


def test_levels_nest_and_end():
    assert not is_lean()
    with memory("leanest") as outer:
        assert is_lean("leanest")
        with memory("lean"):
            assert is_lean()
            assert not is_lean("leanest")
        assert (outer.level, at_once(9, 4, 1)) == ("leanest", 1)
    assert at_once(9, 4, 1) == 9
    with pytest.raises(ValueError, match="'thin' is unknown; choose one of fast, lean, leanest"), memory("thin"):
        pass


@pytest.mark.parametrize("level", LEVELS)
def test_computing_anew_gives_the_same_bits(level):
    block = nn.Sequential(nn.Linear(5, 5), nn.Dropout(0.5), nn.SiLU())
    x = torch.randn(7, 5, requires_grad=True)

    def gradients():
        torch.manual_seed(3)
        out = recomputed(block, recomputed(block, x), level="lean")
        return [out, *torch.autograd.grad(out.square().sum(), [x, *block.parameters()])]

    expected = gradients()
    with memory(level):
        assert all(torch.equal(a, b) for a, b in zip(expected, gradients(), strict=True))


def test_from_a_level_on_activations_are_not_kept():
    calls = []

    def square(x):
        calls.append(len(x))
        return x * x

    x = torch.randn(5, requires_grad=True)
    for level, expected in (("fast", [5]), ("lean", [5, 5]), ("leanest", [2, 2, 1, 1, 2, 2])):
        calls.clear()
        with memory(level):
            in_parts(square, x, lean=5, leanest=2).sum().backward()
        assert sorted(calls) == sorted(expected)
    with memory("leanest"), torch.no_grad():
        calls.clear()
        in_parts(square, x, lean=None, leanest=4)
    assert calls == [4, 1]


@pytest.mark.parametrize("dim", [0, 1])
def test_parts_are_put_together_again(dim):
    a, b = torch.randn(3, 5, 2), torch.randn(3, 5, 4)

    def function(a, nothing, b):
        assert nothing is None
        return a + 1, b.flip(-1)

    with memory("leanest"):
        one, two = in_parts(function, a, None, b, lean=None, leanest=2, dim=dim)
    assert torch.equal(one, a + 1)
    assert torch.equal(two, b.flip(-1))


@pytest.mark.parametrize(
    ("error", "yes"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("HIP out of memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), False),
        (NotEnoughMemoryError("told already"), False),
        (ValueError("out of memory"), False),
    ],
)  # fmt: skip
def test_what_counts_as_out_of_memory(error, yes):
    assert is_out_of_memory(error) == yes


def test_a_real_refusal_of_the_allocator_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_failed_work_is_done_again_at_leaner_levels():
    told = []
    with memory("fast") as present:
        assert retried(failing(2), "use less", told.append) == "leanest"
        assert told == ["lean", "leanest"]
        assert present.level == "leanest"  # and stays
        assert retried(failing(0), "use less") == "leanest"
        with pytest.raises(NotEnoughMemoryError, match="even at the level 'leanest'; use less"):
            retried(failing(1), "use less")
    with memory("fast") as present:
        with pytest.raises(RuntimeError, match="shapes"):
            retried(failing(1, RuntimeError("wrong shapes")), "use less")
        assert present.level == "fast"


def test_tensors_of_a_failed_attempt_are_gone_before_the_next():
    import weakref

    alive = []

    def work():
        if not is_lean():
            big = torch.zeros(1000)
            alive.append(weakref.ref(big))
            raise MemoryError
        return alive[0]() is None

    with memory("fast"):
        assert retried(work, "use less")
