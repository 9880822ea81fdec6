"""Configurations: frozen, keyword-only dataclasses that nest, build their part and travel as plain dictionaries.

A config sits beside its class, ``build()`` is the only factory, and an unknown key is an error that names the nearest
known one. Where a field admits several configs (``VideoUNetConfig | MultiViewTransformerConfig``), the dictionary
carries a ``type`` key with the class name.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from typing import Any, Self


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Base of all configurations. Subclass with ``@dataclass(frozen=True, kw_only=True)``."""

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary (JSON-able), nested configs tagged by ``type``."""
        out: dict[str, Any] = {"type": type(self).__name__}
        for field in dataclasses.fields(self):
            out[field.name] = _plain(getattr(self, field.name))
        return out

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Inverse of `to_dict`.

        Raises:
            ValueError: for an unknown key (with the nearest known name), a missing key, a foreign ``type`` or a value
                of the wrong type.
        """
        values = dict(values)
        tag = values.pop("type", cls.__name__)
        if tag != cls.__name__:
            raise ValueError(f"expected the configuration of a {cls.__name__}, found one of a {tag}")
        hints = typing.get_type_hints(cls)
        names = [field.name for field in dataclasses.fields(cls)]
        unknown = [key for key in values if key not in names]
        if unknown:
            near = difflib.get_close_matches(unknown[0], names, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; known keys: {', '.join(names)}"
            raise ValueError(f"{cls.__name__} has no key '{unknown[0]}'{hint}")
        try:
            return cls(**{key: cls._revive_field(key, hints[key], value) for key, value in values.items()})
        except TypeError as error:
            raise ValueError(f"{cls.__name__}: {error}") from error

    @classmethod
    def _revive_field(cls, key: str, hint: Any, value: Any) -> Any:
        try:
            return _revive(hint, value)
        except _WrongTypeError as error:
            raise ValueError(f"{cls.__name__}.{key} {error}") from error

    def replace(self, **changes: Any) -> Self:
        """Copy with some fields changed."""
        return dataclasses.replace(self, **changes)


class _WrongTypeError(ValueError):
    """A value that does not fit its annotation; `Config.from_dict` adds which field it was for."""


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return value.to_dict()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _revive(hint: Any, value: Any) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        configs = [arg for arg in args if isinstance(arg, type) and issubclass(arg, Config)]
        if configs and isinstance(value, dict):
            return _revive_config(configs, value)
        others = [arg for arg in args if arg is not type(None)]
        return _revive(others[0], value) if len(others) == 1 else value
    if origin is typing.Literal and value not in args:
        raise _WrongTypeError(f"must be one of {', '.join(map(repr, args))}, found {value!r}")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in (bool, int, float, str) and type(value) is not hint:
        raise _WrongTypeError(f"must be of type {hint.__name__}, found {value!r}")
    if isinstance(hint, type) and issubclass(hint, Config):
        if not isinstance(value, dict):
            raise _WrongTypeError(f"must be the configuration of a {hint.__name__}, found {value!r}")
        return _revive_config([hint], value)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise _WrongTypeError(f"must be a list, found {value!r}")
        inner = [args[0]] * len(value) if len(args) == 2 and args[1] is Ellipsis else list(args)
        if len(inner) != len(value):
            raise _WrongTypeError(f"must have {len(inner)} entries, found {len(value)}")
        return tuple(_revive(kind, item) for kind, item in zip(inner, value, strict=True))
    if origin is dict and isinstance(value, dict):
        return {key: _revive(args[1], item) for key, item in value.items()}
    return value


def _revive_config(bases: list[type[Config]], value: dict[str, Any]) -> Config:
    """A config of the class that the dictionary's ``type`` names: one of ``bases`` or a subclass that is imported."""
    by_name: dict[str, type[Config]] = {}
    rest = list(bases)
    while rest:
        base = rest.pop(0)
        by_name.setdefault(base.__name__, base)
        rest += base.__subclasses__()
    tag = value.get("type", bases[0].__name__)
    if tag not in by_name:
        raise ValueError(f"unknown part '{tag}'; choose one of {', '.join(by_name)}")
    return by_name[tag].from_dict(value)
