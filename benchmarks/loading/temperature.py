"""Make files cold or warm before each run, and check the residency of each page."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.measuring import Failed, MiB
from loader.residency.page_cache import Residency, drop, measure, together

TRIES = 3
"""Repeats of an attempt: pages that a previous run still reads or writes stay in memory at the first attempt."""


def chill(files: Iterable[Path]) -> None:
    """Write each file back and drop its pages. Raises Failed unless mincore then finds none."""
    for file in files:
        _until(file, drop, lambda state: state.resident == 0, "stayed in memory")


def heat(files: Iterable[Path]) -> None:
    """Read each file that is not in memory. Raises Failed unless mincore then finds every page."""
    for file in files:
        _until(file, _read, lambda state: state.complete, "were in memory instead of all")


def residency(files: Iterable[Path]) -> float:
    """Return the fraction of the files that is in memory."""
    return together([_with(file, measure) for file in files]).fraction or 0.0


def _until(file: Path, change: Callable[[int], Residency], done: Callable[[Residency], bool], otherwise: str) -> None:
    state = _with(file, change)
    for _ in range(TRIES):
        if done(state) and state.method in ("mincore", "memory"):
            return
        state = _with(file, change)
    raise Failed(f"{state.resident} of {state.total} bytes of {file.name} {otherwise}, according to {state.method}")


def _with(file: Path, look: Callable[[int], Residency]) -> Residency:
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return look(descriptor)
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> Residency:
    if not (state := measure(descriptor)).complete:
        buffer, position = bytearray(4 * MiB), 0
        while count := os.preadv(descriptor, [buffer], position):
            position += count
        state = measure(descriptor)
    return state
