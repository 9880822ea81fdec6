"""One way to compile the loops of this package."""

from __future__ import annotations

from collections.abc import Callable

from numba import njit

# Finite arithmetic without reassociation: results do not depend on how the compiler groups sums.
_OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz", "arcp"}}


def compiled(function: Callable) -> Callable:
    """``numba.njit`` with a disk cache where one can be written, without it elsewhere; releases the GIL."""
    try:
        return njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # numba's answer when no cache folder is writable
        return njit(**_OPTIONS)(function)
