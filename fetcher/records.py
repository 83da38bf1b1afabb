"""Rules that let a record on a shared volume grow: manifests, journals, signs of life.

A volume is read by several versions at once. So a reader ignores fields it does not know and keeps them when it writes the
record again. Only a change that an older reader would misunderstand raises the format's number, and a release writes the
format that the release before it already reads.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from fetcher.errors import NewerFormat


def unknown_fields(document: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The fields of `document` that this version does not know, to be written back as they are."""
    return {name: value for name, value in document.items() if name not in known}


def check_format(document: Mapping[str, Any], *, newest: int, what: str) -> None:
    """Compare `format_version` with the newest one that this version reads. `what` is the record's path.

    Raises NewerFormat for a later one, ValueError for anything that is no format's number.
    """
    number = document.get("format_version")
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError(f"{what} has no format_version")
    if number > newest:
        raise NewerFormat(
            f"{what} was written by weightlift {_shown(document.get('version'))} in format {number}; this version reads up to "
            f"format {newest} and leaves it as it is: use that version, or another directory",
            path=what,
        )


def _shown(version: object) -> str:
    text = version if isinstance(version, str) else ""
    return "".join(character for character in text[:40] if character.isprintable()) or "of a later version"
