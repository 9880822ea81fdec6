"""Geometry keeps the precision of its inputs, also inside a mixed-precision forward pass."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: run ``function`` outside autocast.

    Autocast rounds every matrix product to 16 bits; a pixel position then errs by whole pixels (bfloat16 has 8 bits of
    mantissa: the spacing between neighbouring values near 128 is 1). Cameras and rays are small, so nothing is lost.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with contextlib.ExitStack() as stack:
            for kind in ("cpu", "cuda"):
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            return function(*args, **kwargs)

    return wrapper
