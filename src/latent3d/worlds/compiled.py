"""One way to compile the loops of this package."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit

_FAST = {"contract", "nsz", "arcp", "reassoc", "afn"}
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": _FAST}
_SOURCES = ("compiled", "tables", "noise", "patterns", "textures", "shapes", "tree", "shading", "tracer")


def _digest() -> str:
    """Digest of every file whose code ends up inside a compiled loop."""
    folder = Path(__file__).parent
    return hashlib.sha256(b"\0".join((folder / f"{name}.py").read_bytes() for name in _SOURCES)).hexdigest()


_STAMP = _digest()


def compiled(function: Callable) -> Callable:
    """``numba.njit`` with a disk cache where one can be written, without it elsewhere; releases the GIL.

    numba renews a cached function when its own file changes, but not when a function that was compiled into it does.
    The stamp of the cache is therefore set to the digest of all files involved.
    """
    try:
        dispatcher = njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # numba's answer when no cache folder is writable
        return njit(**_OPTIONS)(function)
    dispatcher._cache._cache_file._source_stamp = _STAMP
    return dispatcher
