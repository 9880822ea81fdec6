"""Procedural worlds with exact depth, normals and poses. Names load on first use (the tracer compiles loops)."""

from __future__ import annotations

from typing import Any

_HOMES = {
    "sample_clip": "clips",
    "plan_shot": "clips",
    "FAMILIES": "clips",
    "SPLITS": "clips",
    "TEST_SEEDS": "clips",
    "contact_sheet": "preview",
    "make_object": "objects",
    "ObjectModel": "objects",
    "OBJECT_LABELS": "objects",
    "label_text": "objects",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
