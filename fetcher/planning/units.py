"""Divides an artifact into units for the parts of a cooperative fetch. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterable, Iterator, Sequence

from fetcher.artifact import CHUNK_SIZE, ByteRange, RemoteFile
from fetcher.quantities import ceil_div
from fetcher.settings import Part
from fetcher.values import dataclass

UNITS_PER_PART = 4
"""So many units for each part: a part that is slow or dies leaves a quarter of its share, not all of it."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What a part fetches at a time: whole files or, with `segment`, these bytes of one file."""

    paths: tuple[str, ...]
    segment: ByteRange | None = None


def units_of(files: Iterable[RemoteFile], parts: int, *, held: Container[str] = ()) -> tuple[Unit, ...]:
    """Return the units: segments of every file that is larger than the share of a part, and whole files for the rest.

    Whole files go, the largest first, to the unit with the fewest bytes. `held` are the paths of files that need not be
    fetched: they are never cut. The same files give the same units in any order. No unit is empty.
    """
    ordered = sorted(files, key=lambda file: (-(file.size or 0), file.path))
    total = sum(file.size or 0 for file in ordered if file.path not in held)
    length = max(1, ceil_div(total, parts * UNITS_PER_PART * CHUNK_SIZE)) * CHUNK_SIZE
    cut = [file for file in ordered if file.path not in held and _is_cut(file, total // parts, length)]
    segments = [Unit((file.path,), part) for file in cut for part in _segments(file.size or 0, length)]
    return (*segments, *_groups([file for file in ordered if file not in cut], parts * UNITS_PER_PART))


def in_turn(units: Sequence[object], part: Part) -> list[int]:
    """Return the indexes of all units in the order in which `part` wants them: its own first, then those of the others."""
    return sorted(
        range(len(units)), key=lambda index: ((index - part.index) % part.count != 0, (index - part.index) % len(units))
    )


def _is_cut(file: RemoteFile, share: int, length: int) -> bool:
    """Whether `file` is cut. Without an identity, its parts could be of two contents; a segment is at least a chunk."""
    return file.size is not None and file.size > max(share, length) and file.ranges and file.identity is not None


def _segments(size: int, length: int) -> Iterator[ByteRange]:
    for start in range(0, size, length):
        yield ByteRange(start, min(start + length, size))


def _groups(ordered: Sequence[RemoteFile], most: int) -> Iterator[Unit]:
    """At most `most` groups of whole files, of about the same size."""
    number = min(len(ordered), most)
    loads = [(0, index) for index in range(number)]
    groups: list[list[str]] = [[] for _ in range(number)]
    for file in ordered:
        load, index = heapq.heappop(loads)
        groups[index].append(file.path)
        # A file without bytes counts too: 10,000 of them must not end in one unit.
        heapq.heappush(loads, (load + max(1, file.size or 0), index))
    return (Unit(tuple(sorted(paths))) for paths in groups)
