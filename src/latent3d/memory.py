"""How much memory to use: one choice for training, sampling and rendering, which changes no result.

- ``fast``: nothing is done twice, but for the parts whose own configuration says ``checkpointing``.
- ``lean``: blocks of networks do not keep what they computed for the backward pass, but compute it anew there
  (T. Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174). Pictures, views, points and
  objects of a batch are worked off a few at a time.
- ``leanest``: one scene, picture or view and fewer points at a time, and of whole networks only the input is kept.

Computing anew gives the same bits; working off in parts gives the same up to the order of sums.

Where the memory is not enough all the same, `retried` lowers the level and does the failed work again, until the
leanest fails too.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, get_args

MemoryLevel: TypeAlias = Literal["fast", "lean", "leanest"]
LEVELS: tuple[MemoryLevel, ...] = get_args(MemoryLevel)
"""From most to least memory."""
_SIGNS = ("out of memory", "allocate memory", "not enough memory", "alloc_failed", "bad_alloc")
"""What allocators other than PyTorch's for GPUs say, in lower case."""

T = TypeVar("T")


class NotEnoughMemoryError(MemoryError):
    """Not even the leanest level fits; the message names what to lower."""


@dataclass
class Memory:
    """What a `memory` block uses at present."""

    level: MemoryLevel = "fast"


# One for the process and not for each thread: on GPUs the backward pass computes anew in threads of its own.
_present = Memory()


def check_level(level: str) -> None:
    """Raises ValueError for a level that does not exist."""
    if level not in LEVELS:
        raise ValueError(f"the memory level '{level}' is unknown; choose one of {', '.join(LEVELS)}")


@contextmanager
def memory(level: MemoryLevel) -> Iterator[Memory]:
    """Inside, everything works at a level, or at a leaner one once `retried` had to lower it: see what it yields.

    Raises:
        ValueError: for an unknown level.
    """
    global _present
    check_level(level)
    outer, _present = _present, Memory(level)
    try:
        yield _present
    finally:
        _present = outer


def present_level() -> MemoryLevel:
    """The level at which everything works now."""
    return _present.level


def is_lean(level: MemoryLevel = "lean") -> bool:
    """Whether the present level is at least as lean as this one."""
    return LEVELS.index(_present.level) >= LEVELS.index(level)


def at_once(usual: int, lean: int, leanest: int) -> int:
    """How many of something to work on at once, by the present level."""
    return (usual, lean, leanest)[LEVELS.index(_present.level)]


def recomputed(function: Callable[..., T], *inputs: Any, level: MemoryLevel = "lean", always: bool = False) -> T:
    """``function(*inputs)``, from this level on without its activations, which the backward pass computes anew.

    Args:
        always: at any level.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    if torch.is_grad_enabled() and (always or is_lean(level)):
        return checkpoint(function, *inputs, use_reentrant=False)  # type: ignore[return-value]
    return function(*inputs)


def in_parts(function: Callable[..., Any], *inputs: Any, lean: int | None, leanest: int, dim: int = 0) -> Any:
    """``function(*inputs)``, from a level on for a few entries along an axis at a time, each part `recomputed`.

    Args:
        function: gives a tensor or a tuple of tensors, each entry of which depends on that entry of the inputs alone.
        inputs: the first is a tensor; others are tensors or sliceable records of the same length, or None.
        lean, leanest: entries at once at these levels; None does nothing at `lean`.
        dim: the axis, of inputs and outputs.
    """
    import torch

    count = inputs[0].shape[dim]
    size = at_once(count, lean or count, leanest)
    if size >= count:
        return recomputed(function, *inputs, level="lean" if lean else "leanest")
    every = (slice(None),) * dim

    def part(start: int) -> Any:
        chosen = slice(start, start + size)
        return recomputed(
            function, *(one if one is None else one[(*every, chosen) if dim else chosen] for one in inputs)
        )

    parts = [part(start) for start in range(0, count, size)]
    if isinstance(parts[0], tuple):
        return tuple(torch.cat(column, dim) for column in zip(*parts, strict=True))
    return torch.cat(parts, dim)


def retried(
    work: Callable[[], T],
    remedy: str,
    lowered: Callable[[MemoryLevel], None] | None = None,
    agree: Callable[[bool], bool] = bool,
) -> T:
    """``work()``, at ever leaner levels where the memory is not enough. The level stays lowered for what follows.

    Args:
        work: may be called again after it failed half-way; it draws from generators that it seeds itself.
        remedy: what to lower where the leanest fails too, for example "use fewer views".
        lowered: called with the new level.
        agree: from whether this process failed to whether any of those did that work together and do it again together.

    Raises:
        NotEnoughMemoryError: the leanest level does not fit.
    """
    while True:
        done: list[T] = []
        try:
            done.append(work())
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # out here the error is gone, and with it the frames that hold on to the tensors of the failed attempt
        if not agree(not done):
            return done[0]
        done.clear()
        release()
        if is_lean("leanest"):
            raise NotEnoughMemoryError(f"the memory is not enough, even at the level 'leanest'; {remedy}")
        _present.level = LEVELS[LEVELS.index(_present.level) + 1]
        if lowered is not None:
            lowered(_present.level)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator, on any device, has said no."""
    import torch

    if isinstance(error, NotEnoughMemoryError):
        return False
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def release() -> None:
    """Give back memory that nothing uses any more."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
