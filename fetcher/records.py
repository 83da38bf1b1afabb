"""Compatibility rules for records on a shared volume: manifests, journals, heartbeats.

Several versions can use a volume at the same time. So a reader ignores unknown fields and keeps them when it writes the record
again. The format number rises only for a change that an older reader would misunderstand, and a release writes the format
that the previous release already reads.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from fetcher.errors import NewerFormat


def unknown_fields(document: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return the fields of `document` that this version does not know, to be written back unchanged."""
    return {name: value for name, value in document.items() if name not in known}


def check_format(document: Mapping[str, Any], *, newest: int, what: str) -> None:
    """Check that this version, which reads formats up to `newest`, can read the record at path `what`.

    Raises NewerFormat for a later format, ValueError if `format_version` is not a positive integer.
    """
    number = document.get("format_version")
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError(f"{what} has no format_version")
    if number > newest:
        raise NewerFormat(
            f"{what} was written by weightlift {_shown(document.get('version'))} in format {number}; this version reads up to "
            f"format {newest} and does not change the file: use that version or another directory",
            path=what,
        )


def _shown(version: object) -> str:
    text = version if isinstance(version, str) else ""
    return "".join(character for character in text[:40] if character.isprintable()) or "of a later version"
