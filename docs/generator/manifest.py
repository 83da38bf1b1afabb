"""docs/manifest.md: the fields of a manifest, from its schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docs.generator.tables import NOTICE, table

_SCHEMA = Path(__file__).parents[1] / "manifest.schema.json"
_INTRODUCTION = """\
# Manifest

A manifest is the record of a complete artifact: `.fetcher/manifest.json` in its directory. With `--layout hf-cache` it
is `.fetcher/manifests/<key>.json` in the cache root. It is written last, so its presence proves that every listed file
was verified. It holds no credential. The JSON schema is [manifest.schema.json](manifest.schema.json).

A reader ignores fields that it does not know. A writer keeps them. A manifest with a later `format_version` is never
overwritten: the command ends with 78 [`NewerFormat`](errors.md#newerformat)."""


def manifest() -> str:
    """The page, in Markdown."""
    schema = json.loads(_SCHEMA.read_text())
    lines = [_INTRODUCTION, "", NOTICE]
    for title, part in (("The document", schema), ("One of `files`", schema["$defs"]["file"])):
        lines += ["", f"## {title}", "", *table(("field", "type", "required", "meaning"), _fields(part))]
    return "\n".join(lines) + "\n"


def _fields(part: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for name, field in part["properties"].items():
        required = "yes" if name in part["required"] else "no"
        yield f"`{name}`", _type(field), required, field.get("description", "")


def _type(field: Mapping[str, Any]) -> str:
    """In words: `string or null`, `array of string`, `1`."""
    if "const" in field:
        return f"`{field['const']}`"
    if "$ref" in field:
        return "object"
    if field["type"] == "array":
        return f"array of {_type(field['items'])}"
    return field["type"] if isinstance(field["type"], str) else " or ".join(field["type"])
