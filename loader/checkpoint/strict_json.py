"""Parse JSON as serde_json does for the safetensors package. Both readers then see the same document, or both refuse it.

Python's parser accepts more: NaN, duplicate keys (the last one wins), half a surrogate pair, numbers beyond a double, `-0` as
an integer, and nesting up to the limit of the stack. Each lets two readers see two documents, or crashes one of them. Duplicate
keys are refused even where serde_json accepts them.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from loader.errors import shown

MAX_DEPTH = 127
"""Levels that serde_json's recursion limit of 128 allows, the outermost object included."""


def parse(data: bytes) -> Any:
    """Return the parsed document. Raises ValueError with the problem and its position."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason} at byte {error.start}") from None
    # The hook of _CAREFUL costs a Python call per number, so it is used only if the text may contain a negative zero.
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
    """Raise ValueError if `value`, at level `depth`, is nested too deep or contains a number beyond a double.

    For the parts of a document that no other code checks.
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
        duplicate = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"duplicate key {shown(duplicate)}")
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
