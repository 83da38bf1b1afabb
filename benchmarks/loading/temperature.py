"""Files made cold or warm before each run, and looked at, page by page, to see that they are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.measuring import Failed, MiB
from loader.residency.page_cache import Residency, evict, measure, together

TRIES = 3
"""Pages that are just being read or written, by whoever ran before, stay at the first try."""


def chill(files: Iterable[Path]) -> None:
    """Write each file back and give its pages up. Raises Failed unless mincore then finds none."""
    for file in files:
        _until(file, evict, lambda told: told.resident == 0, "stayed in memory")


def heat(files: Iterable[Path]) -> None:
    """Read each file unless it is there. Raises Failed unless mincore then finds every page."""
    for file in files:
        _until(file, _read, lambda told: told.complete, "was in memory, not all")


def residency(files: Iterable[Path]) -> float:
    """The part of the files that is in memory."""
    return together([_with(file, measure) for file in files]).fraction or 0.0


def _until(file: Path, change: Callable[[int], Residency], done: Callable[[Residency], bool], otherwise: str) -> None:
    told = _with(file, change)
    for _ in range(TRIES):
        if done(told) and told.method in ("mincore", "memory"):
            return
        told = _with(file, change)
    raise Failed(f"{told.resident} of {told.total} bytes of {file.name} {otherwise}, told by {told.method}")


def _with(file: Path, look: Callable[[int], Residency]) -> Residency:
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return look(descriptor)
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> Residency:
    if not (told := measure(descriptor)).complete:
        buffer, position = bytearray(4 * MiB), 0
        while count := os.preadv(descriptor, [buffer], position):
            position += count
        told = measure(descriptor)
    return told
