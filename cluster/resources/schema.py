"""A structural schema of Kubernetes from a frozen dataclass.

A field's type gives its schema, `Annotated[..., Schema(...)]` adds bounds, `RULES` of a class are its CEL rules. A field
without a default is required. A default of a specification is written by the API server, so that users see it.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from cluster.resources.wire import camel


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule in CEL on an object or a field, and the message if it is broken."""

    rule: str
    message: str


IMMUTABLE = Rule("self == oldSelf", "cannot be changed; delete the object and create it anew")


@dataclass(frozen=True, slots=True)
class Schema:
    """What a type does not say. `keys` make a list of objects a map: appliers of several fields do not disturb each other.

    `whole`: a map with one writer, of which the server does not keep who wrote each field. `any_value`: an object of
    Kubernetes' own, which is passed on unread.
    """

    description: str = ""
    pattern: str | None = None
    least: int | None = None
    most: int | None = None
    """The most of a number, characters of a text, items of a list or of a map."""
    keys: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    form: str | None = None
    whole: bool = False
    any_value: bool = False


_NONE = Schema()
_SCALARS: dict[Any, str] = {str: "string", int: "integer", bool: "boolean"}
_BOUNDS = {
    "string": ("minLength", "maxLength"),
    "integer": ("minimum", "maximum"),
    "array": ("minItems", "maxItems"),
    "object": ("minProperties", "maxProperties"),
}


def schema_of(kind: type, *, defaults: bool) -> dict[str, Any]:
    """Return the schema of a dataclass. Raises TypeError for a type that no schema can express."""
    if not is_dataclass(kind):
        raise TypeError(f"{kind} is no dataclass")
    hints = get_type_hints(kind, include_extras=True)
    properties: dict[str, Any] = {}
    required = []
    for each in fields(kind):
        schema = _schema(hints[each.name], defaults=defaults)
        if each.default is MISSING and each.default_factory is MISSING:
            required.append(camel(each.name))
        elif defaults and (default := _plain_default(each)) is not None:
            schema["default"] = default
        properties[camel(each.name)] = schema
    rules = [_rule(rule) for rule in getattr(kind, "RULES", ())]
    return {
        "type": "object",
        **({"description": " ".join(kind.__doc__.split())} if kind.__doc__ else {}),
        **({"required": required} if required else {}),
        "properties": properties,
        **({"x-kubernetes-validations": rules} if rules else {}),
    }


def _plain_default(each: Field[Any]) -> Any:
    return each.default if isinstance(each.default, str | int | bool) else None


def _schema(hint: Any, *, defaults: bool) -> dict[str, Any]:
    extra, hint = _unannotated(hint)
    extra, hint = _optional(extra, hint)
    schema = _bare(hint, extra, defaults=defaults)
    least, most = _BOUNDS.get(schema.get("type", ""), ("", ""))
    if extra.least is not None:
        schema[least] = extra.least
    if extra.most is not None:
        schema[most] = extra.most
    if extra.pattern is not None:
        schema["pattern"] = extra.pattern
    if extra.form is not None:
        schema["format"] = extra.form
    if extra.description:
        schema["description"] = extra.description
    if extra.rules:
        schema["x-kubernetes-validations"] = [_rule(rule) for rule in extra.rules] + schema.get("x-kubernetes-validations", [])
    return schema


def _unannotated(hint: Any) -> tuple[Schema, Any]:
    if get_origin(hint) is Annotated:
        hint, extra = get_args(hint)[:2]
        return extra, hint
    return _NONE, hint


def _optional(extra: Schema, hint: Any) -> tuple[Schema, Any]:
    """Take `| None` off: a field that is absent. Its annotation may stand inside."""
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (each for each in get_args(hint) if each is not type(None))
        inner, hint = _unannotated(hint)
        return (inner if extra is _NONE else extra), hint
    return extra, hint


def _bare(hint: Any, extra: Schema, *, defaults: bool) -> dict[str, Any]:
    if extra.any_value:
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    if hint in _SCALARS:
        return {"type": _SCALARS[hint], **({"format": "int64"} if hint is int else {})}
    if get_origin(hint) is Literal:
        return {"type": "string", "enum": list(get_args(hint))}
    if get_origin(hint) is tuple:
        items = _schema(get_args(hint)[0], defaults=defaults)
        as_map = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(extra.keys)} if extra.keys else {}
        return {"type": "array", "items": items, **as_map}
    if get_origin(hint) is Mapping:
        as_whole = {"x-kubernetes-map-type": "atomic"} if extra.whole else {}
        return {"type": "object", "additionalProperties": _schema(get_args(hint)[1], defaults=defaults), **as_whole}
    if is_dataclass(hint) and isinstance(hint, type):
        return schema_of(hint, defaults=defaults)
    raise TypeError(f"no schema for {hint}")


def _rule(rule: Rule) -> dict[str, str]:
    return {"rule": rule.rule, "message": rule.message}
