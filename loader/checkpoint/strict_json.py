"""JSON as serde_json reads it for the safetensors package, so that both see the same document, or none.

Python's parser is more generous: it takes NaN, a duplicate key (the last one wins), half a surrogate pair, numbers
beyond a double, `-0` as an integer, and nesting up to whatever the stack holds. Each is a way to show two readers two
documents, or to crash one of them. What serde_json is generous in (duplicate keys where it ignores or maps them) is
refused all the same.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from loader.errors import shown

MAX_DEPTH = 127
"""What serde_json's recursion limit of 128 lets through, the outermost object included."""


def parse(data: bytes) -> Any:
    """Raises ValueError with a text that says what is wrong and where."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason} at byte {error.start}") from None
    # A hook costs a Python call a number: taken only where a negative zero may be. Tensors' names often hold "-0" too.
    decoder = _CAREFUL if "-0" in text else _PLAIN
    try:
        document = decoder.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from None
    if _SURROGATE.search(data):
        _refuse_half_pairs(document)
    return document


def refuse_excess(value: object, depth: int) -> None:
    """Raises ValueError if `value`, inside `depth` other levels, is nested too deep or holds a number beyond a double.

    For the parts of a document that nothing else looks at; what is looked at has neither.
    """
    pending = [(value, depth)]
    while pending:
        value, depth = pending.pop()
        if isinstance(value, dict | list):
            if depth >= MAX_DEPTH:
                raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
            pending.extend((item, depth + 1) for item in (value.values() if isinstance(value, dict) else value))
        elif isinstance(value, int | float) and _beyond_double(value):
            raise ValueError("a number out of range")


def _beyond_double(value: float) -> bool:
    try:
        return float(value) in (float("inf"), float("-inf"))
    except OverflowError:
        return True


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {shown(twice)} is there twice")
    return document


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _integer(text: str) -> float:
    return -0.0 if text == "-0" else int(text)


def _refuse_half_pairs(document: Any) -> None:
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("half a surrogate pair in a string") from None
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from None


_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_PLAIN = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
_CAREFUL = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant, parse_int=_integer)
