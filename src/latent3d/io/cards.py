"""Cards: what made a result, from what and how, as JSON beside it."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from latent3d.io.atomic import write_text

FORMAT = 1
PACKAGES = ("torch", "numpy", "diffusers", "numba", "pillow", "av", "viser", "safetensors")
"""Their versions stand in every card."""


class Stopwatch:
    """Wall-clock seconds by stage: ``with watch("sampling"): ...``; a stage met twice adds up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def versions() -> dict[str, str]:
    """Versions of Python, latent3d and the packages that shape its results ('missing' where one is not installed)."""
    from latent3d import __version__

    found = {"latent3d": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def machine() -> dict[str, Any]:
    """Kind of machine, without names of host or user."""
    return {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count() or 1}


def make_card(**parts: Any) -> dict[str, Any]:
    """A card with format number, versions and machine first, then the given parts; paths become strings.

    Raises:
        ValueError: if a part cannot be written as JSON (NaN included).
    """
    card = {"format": FORMAT, "versions": versions(), "machine": machine(), **parts}
    try:
        return json.loads(json.dumps(card, default=_plain, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the card holds a value that JSON cannot: {error}") from error


def write_card(path: str | Path, card: dict[str, Any]) -> None:
    """Write a card, atomically."""
    write_text(path, json.dumps(card, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_card(path: str | Path) -> dict[str, Any]:
    """Read a card.

    Raises:
        FileNotFoundError, ValueError: if there is none or it is not one.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no card '{path}'; give a folder written by latent3d")
    try:
        card = json.loads(path.read_bytes().decode("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"the card '{path}' is damaged ({error}); make the result again") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise ValueError(f"'{path}' is not a card of format {FORMAT}; make the result again")
    return card


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | set):
        return list(value)
    raise TypeError(f"{type(value).__name__} {value!r}")
