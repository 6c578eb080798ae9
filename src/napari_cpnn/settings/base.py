"""Base class of all settings: JSON conversion, help texts and validation."""

from __future__ import annotations

import dataclasses
import functools
import numbers
import os
import typing
from pathlib import Path
from typing import Any, Self

import numpy as np

from napari_cpnn.errors import SettingsError
from napari_cpnn.geometry import PatchSpec

DeviceName = str
"""``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``."""


def setting(default: Any, help_: str, before: Any = None) -> Any:
    """Return a dataclass field with a default and a help text.

    ``before`` is the value that the setting had in effect before it existed, where that is not the default.
    """
    return dataclasses.field(default=default, metadata={"help": help_, "before": default if before is None else before})


class Settings:
    """Base class of frozen dataclasses with JSON conversion, which check the types of their values."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        check_values = cls.__dict__.get("__post_init__")

        def post_init(self: Any) -> None:
            _require_types(self)
            if check_values is not None:
                check_values(self)

        cls.__post_init__ = post_init  # type: ignore[attr-defined]

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON types."""
        return {
            f.name: _plain(getattr(self, f.name))
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Create settings from :meth:`to_dict` output; raise :class:`SettingsError` on unknown names or wrong types."""
        if not isinstance(data, dict):
            raise SettingsError(f"The settings of {cls.__name__} must be a mapping of names to values.")
        known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(data) - known)
        if unknown:
            raise SettingsError(f"{cls.__name__} has no setting {', '.join(unknown)}.")
        values = dict(data)
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            if isinstance(field.default, Settings) and isinstance(values.get(field.name), dict):
                values[field.name] = type(field.default).from_dict(values[field.name])
        for name, value in values.items():
            if isinstance(value, list):
                values[name] = tuple(value)
        hints = typing.get_type_hints(cls)
        wrong = [name for name, value in values.items() if not _is_of(value, hints[name])]
        if wrong:
            raise SettingsError(f"The setting {wrong[0]} of {cls.__name__} has a value of the wrong type.")
        try:
            if isinstance(values.get("patch"), dict):
                values["patch"] = PatchSpec(**values["patch"])
            return cls(**values)
        except (TypeError, ValueError, ArithmeticError, AttributeError) as exc:  # e.g. text instead of a number
            raise SettingsError(f"A setting of {cls.__name__} has a value of the wrong type ({exc}).") from exc

    @classmethod
    def from_written(cls, data: dict[str, Any]) -> Self:
        """Read settings that were written in full, perhaps before some settings existed; otherwise as from_dict."""
        before = {
            f.name: f.metadata["before"]
            for f in dataclasses.fields(cls)  # type: ignore[arg-type]
            if f.metadata.get("before", f.default) != f.default
        }
        return cls.from_dict({**before, **data} if isinstance(data, dict) else data)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some values changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]


#: What a value of a type is called.
_WORDS: dict[Any, str] = {
    float: "a number", int: "a whole number", bool: "True or False", str: "a text", type(None): "None",
    PatchSpec: "a PatchSpec",
}  # fmt: skip
_LONGEST = 40


@functools.cache
def _kinds_of(cls: type) -> dict[str, tuple[type, ...]]:
    """Types of the values of each setting; of a setting that is a choice of some words, none."""
    kinds = {name: typing.get_args(hint) or (hint,) for name, hint in typing.get_type_hints(cls).items()}
    return {name: some for name, some in kinds.items() if all(isinstance(one, type) for one in some)}


def _require_types(settings: Settings) -> None:
    """Raise a :class:`SettingsError` that names the first setting with a value of another type."""
    cls: Any = type(settings)
    for name, kinds in _kinds_of(cls).items():
        value = getattr(settings, name)
        if not any(_fits(value, kind) for kind in kinds):
            wanted = " or ".join(_WORDS.get(kind, kind.__name__) for kind in kinds)
            given = f"{repr(value)[:_LONGEST]} ({type(value).__name__})"
            raise SettingsError(f"The setting {name} of {type(settings).__name__} must be {wanted}, not {given}.")


def _fits(value: Any, kind: type) -> bool:
    """Return whether a value is of a type; numbers of numpy are numbers, and a path is a text."""
    if isinstance(value, (bool, np.bool_)):
        return kind is bool
    wanted = {float: numbers.Real, int: numbers.Integral, str: (str, os.PathLike)}.get(kind, kind)
    return isinstance(value, wanted)  # type: ignore[arg-type]


def _is_of(value: Any, hint: Any) -> bool:
    """Return whether a value has a plain type or one of a union; other types are validated elsewhere."""
    kinds = set(typing.get_args(hint) or (hint,))
    if not kinds <= {bool, int, float, str, type(None)}:
        return True
    return type(value) in kinds or (type(value) is int and float in kinds)


def _plain(value: Any) -> Any:
    if isinstance(value, PatchSpec):
        return dataclasses.asdict(value)
    if isinstance(value, Settings):
        return value.to_dict()
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def check(ok: bool, message: str) -> None:
    """Raise :class:`SettingsError` with a message unless a condition holds."""
    if not ok:
        raise SettingsError(message)


def check_precision(precision: str, *, with_int8: bool = False) -> None:
    """Raise :class:`SettingsError` for an unknown precision."""
    known = ("auto", "float32", "bfloat16", *(["int8"] if with_int8 else []))
    check(precision in known, f"Unknown precision {precision!r}; use one of {', '.join(known)}.")
