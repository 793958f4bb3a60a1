"""Which names JSON must have, and which types."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from relational_rnn._check import InputError, check_choice, describe
from relational_rnn._reading.guard import shown
from relational_rnn._reading.json_text import Json

T = TypeVar("T")


def check_entries(
    value: Mapping[str, Any],
    needed: Mapping[str, Any],
    optional: Mapping[str, Any],
    *,
    where: str,
    hint: str | None = None,
) -> None:
    """Refuse an object that lacks a needed name, or has a value of the wrong type; other names may stand beside.

    >>> check_entries({"seed": "7"}, {"seed": int}, {}, where="config.json")
    Traceback (most recent call last):
    ...
    relational_rnn._check.InputError: config.json: seed has the wrong type
      got       '7'
      expected  int
    """
    missing = [name for name in needed if name not in value]
    if missing:
        raise InputError(describe(where, f"lacks {', '.join(missing)}", hint=hint))
    for name, kind in {**needed, **optional}.items():
        if name in value:
            _decode(kind, value[name], where, name)


def from_json(kind: type[T], value: Json, *, where: str) -> T:
    """The configuration of class `kind` that `to_json` wrote; messages start with `where`.

    Args:
        kind: a dataclass, or any type its fields may have: numbers, strings, booleans, None, `Path`, `Literal`,
            `tuple[X, ...]`, `Mapping[str, X]`, `Mapping[int, X]`, unions and dataclasses of these, or `Any`.
        value: the JSON.
        where: usually the name of the file.

    Raises:
        InputError: a name that `kind` does not have, a name that is missing, or a value of the wrong type.
    """
    return _decode(kind, value, where, "")


def _decode(kind: Any, value: Json, where: str, path: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, where, path)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        choices = [choice for choice in inner if choice is not type(None)]
        for choice in choices:
            try:
                return _decode(choice, value, where, path)
            except InputError:
                if len(choices) == 1:
                    raise
        _refuse(value, where, path, str(kind))
    if origin is Literal:
        if value in inner and not isinstance(value, bool):
            return value
        check_choice(where, path, value, inner)
    if kind is Any:
        return value
    if origin is Mapping and isinstance(value, dict):
        prefix = f"{path}." if path else ""
        return {
            _name(inner[0], name, where, path): _decode(inner[1], item, where, prefix + name)
            for name, item in value.items()
        }
    if origin is tuple and isinstance(value, list):
        assert inner[1:] == (...,), f"{path}: only tuple[X, ...] has a JSON form"
        return tuple(_decode(inner[0], item, where, f"{path}[{i}]") for i, item in enumerate(value))
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    expected = {tuple: "a list", Mapping: "an object"}.get(origin) or getattr(kind, "__name__", str(kind))
    _refuse(value, where, path, expected)


def _refuse(value: Json, where: str, path: str, expected: str) -> NoReturn:
    problem = f"{path or 'the configuration'} has the wrong type"
    raise InputError(describe(where, problem, got=shown(value), expected=expected))


def _decode_dataclass(kind: Any, value: Json, where: str, path: str) -> Any:
    if not isinstance(value, dict):
        _refuse(value, where, path, f"an object with the fields of {kind.__name__}")
    names = [field.name for field in dataclasses.fields(kind)]
    later = {field.name for field in dataclasses.fields(kind) if field.metadata.get("later")}
    prefix = f"{path}." if path else ""
    for problem, wrong in (
        ("unknown", [name for name in value if name not in names]),
        ("missing", [name for name in names if name not in value and name not in later]),
    ):
        if wrong:
            text = f"{problem} in the configuration: {', '.join(prefix + name for name in wrong)}"
            hint = "was the file written by another version of relational-rnn?"
            raise InputError(describe(where, text, hint=hint))
    hints = get_type_hints(kind)
    fields = {name: _decode(hints[name], value[name], where, prefix + name) for name in names if name in value}
    try:
        return kind(**fields)
    except InputError as error:  # a value that its own check refuses
        text = str(error)
        raise InputError(text if text.startswith(f"{where}: ") else f"{where}: {text}") from error


def _name(kind: Any, name: str, where: str, path: str) -> Any:
    """The name of an entry, or the number that it is."""
    if kind is str:
        return name
    if not (name.isascii() and name.isdecimal() and len(name) < 19):
        raise InputError(describe(where, f"{path} has a name that is not a number", got=shown(name)))
    return int(name)
