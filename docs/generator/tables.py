"""A table in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

NOTICE = "This page is generated from the code by `python -m docs.generator`. Do not edit it."


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table. A cell may hold a vertical bar."""
    return [_row(header), "|" + "---|" * len(header), *(_row(row) for row in rows)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
