"""Between frozen dataclasses and the JSON of Kubernetes: `failed_nodes` here is `failedNodes` there.

Reading ignores fields that this version does not know, and takes the default for a field that is absent or null: the server
of a rolling upgrade may send either. Writing leaves out what is None or empty.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


def camel(name: str) -> str:
    """Return a field's name as Kubernetes writes it."""
    first, *rest = name.split("_")
    return first + "".join(each.capitalize() for each in rest)


def decoded(kind: type[T], document: Mapping[str, Any]) -> T:
    """Return the `kind`, a dataclass, of a JSON object. Raises ValueError if it cannot be one; the message names the field."""
    values = {}
    for name, wire, hint in _fields_of(cast(type, kind)):
        if document.get(wire) is None:
            continue
        try:
            values[name] = _decoded(hint, document[wire])
        except (TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{wire}: {error}") from error
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"a required field is missing: {error}") from error


def encoded(value: Any) -> Any:
    """Return a dataclass as JSON. A False, a 0 and an empty text stay: they are answers."""
    if is_dataclass(value) and not isinstance(value, type):
        pairs = ((wire, encoded(getattr(value, name))) for name, wire, _ in _fields_of(type(value)))
        return {wire: each for wire, each in pairs if each is not None and each != [] and each != {}}
    if isinstance(value, tuple | list):
        return [encoded(each) for each in value]
    if isinstance(value, Mapping):
        return {key: encoded(each) for key, each in value.items()}
    return value


def merge_patch(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON merge patch (RFC 7386) that makes the object `now` of `before`, two JSON objects without nulls."""
    patch: dict[str, Any] = dict.fromkeys(before.keys() - now.keys())
    for name, value in now.items():
        if name not in before:
            patch[name] = value
        elif before[name] != value:
            both = isinstance(value, Mapping) and isinstance(before[name], Mapping)
            patch[name] = merge_patch(before[name], value) if both else value
    return patch


def patched(before: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a merge patch (RFC 7386) makes of `before`."""
    result = {name: value for name, value in before.items() if patch.get(name, value) is not None}
    for name, value in patch.items():
        if isinstance(value, Mapping):
            there = result.get(name)
            result[name] = patched(there if isinstance(there, Mapping) else {}, value)
        elif value is not None:
            result[name] = value
    return result


@cache
def _fields_of(kind: type) -> tuple[tuple[str, str, Any], ...]:
    hints = get_type_hints(kind)
    return tuple((each.name, camel(each.name), hints[each.name]) for each in fields(kind))


def _decoded(hint: Any, value: Any) -> Any:
    if get_origin(hint) is Annotated:
        return _decoded(get_args(hint)[0], value)
    if get_origin(hint) in (Union, types.UnionType):
        return _decoded(next(each for each in get_args(hint) if each is not type(None)), value)
    if get_origin(hint) is tuple:
        return tuple(_decoded(get_args(hint)[0], each) for each in value)
    if get_origin(hint) is Mapping:
        return {key: _decoded(get_args(hint)[1], each) for key, each in value.items()}
    if is_dataclass(hint) and isinstance(hint, type):
        return decoded(hint, value)
    if hint in (str, int, bool) and type(value) is not hint:
        raise TypeError(f"{value!r} is no {hint.__name__}")
    return value
