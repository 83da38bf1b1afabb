"""Divides an artifact into units for the parts of a cooperative fetch. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from fetcher.artifact import RemoteFile
from fetcher.settings import Part

UNITS_PER_PART = 4
"""So many units for each part: a part that is slow or dies leaves a quarter of its share, not all of it."""


def units_of(files: Iterable[RemoteFile], parts: int) -> tuple[tuple[str, ...], ...]:
    """Return the paths of each unit: whole files, the largest first, each to the unit with the fewest bytes.

    The same files give the same units in any order. No unit is empty.
    """
    ordered = sorted(files, key=lambda file: (-(file.size or 0), file.path))
    number = min(len(ordered), parts * UNITS_PER_PART)
    loads = [(0, index) for index in range(number)]
    units: list[list[str]] = [[] for _ in range(number)]
    for file in ordered:
        load, index = heapq.heappop(loads)
        units[index].append(file.path)
        # A file without bytes counts too: 10,000 of them must not end in one unit.
        heapq.heappush(loads, (load + max(1, file.size or 0), index))
    return tuple(tuple(sorted(paths)) for paths in units)


def in_turn(units: Sequence[object], part: Part) -> list[int]:
    """Return the indexes of all units in the order in which `part` wants them: its own first, then those of the others."""
    return sorted(
        range(len(units)), key=lambda index: ((index - part.index) % part.count != 0, (index - part.index) % len(units))
    )
