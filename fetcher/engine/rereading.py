"""Files that stand, read again on all processors: XXH3 of every chunk, and published digests in the lanes of a vector unit.

Both functions block, and raise nothing for what they find: what kept a file from being read stands in its result's place.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from fetcher.artifact import Digest, RemoteFile
from fetcher.engine.hashing import LEAST, hash_threads
from fetcher.engine.incoming import STRETCH
from fetcher.host.allocation import pages
from fetcher.host.descriptors import free_descriptors
from fetcher.host.processors import cpu_count
from fetcher.integrity.frontier import Frontier, Stretch, advance_together, chunk_digest
from fetcher.integrity.lanes import MOST
from fetcher.planning.descriptors import hash_threads_within
from fetcher.planning.memory import HASH_BUFFER
from fetcher.planning.ranges import chunk_count, chunk_range
from fetcher.quantities import ceil_div

PART = 8
"""Chunks (128 MiB) that one thread reads at a time: one file is read by all of them."""

T = TypeVar("T")
R = TypeVar("R")
Unread = OSError | EOFError
Wrong = tuple[Digest, str]
"""The digest a file is to have, and the one it has."""


@dataclass(frozen=True, slots=True)
class FileOnDisk:
    """A file of `size` bytes at `path`. Names are unique."""

    name: str
    path: Path
    size: int
    digests: tuple[Digest, ...] = ()


def chunk_digests(files: Sequence[FileOnDisk], on_chunk: Callable[[str, int], None]) -> list[tuple[str, ...] | Unread]:
    """Of each file the XXH3-128 of its chunks, "" for one that is cut short. `on_chunk` is called by one thread at a time."""
    one_at_a_time = threading.Lock()

    def read(part: tuple[FileOnDisk, range]) -> list[str] | Unread:
        file, indexes = part
        digests = []
        try:
            with _opened(file) as descriptor:
                for chunk in (chunk_range(index, file.size) for index in indexes):
                    digests.append(chunk_digest(descriptor, chunk) or "")
                    with one_at_a_time:
                        on_chunk(file.name, len(chunk))
        except OSError as error:
            return error
        return digests

    parts = [(file, indexes) for file in files for indexes in _parts(chunk_count(file.size))]
    found: dict[str, list[str] | Unread] = {file.name: [] for file in files}
    for (file, _), digests in zip(parts, _on_threads(cpu_count(), read, parts), strict=True):
        before = found[file.name]
        if not isinstance(before, Unread):
            found[file.name] = digests if isinstance(digests, Unread) else before + digests
    return [digests if isinstance(digests, Unread) else tuple(digests) for digests in found.values()]


def wrong_digests(files: Sequence[FileOnDisk], stopped: Callable[[], bool] = lambda: False) -> list[Wrong | Unread | None]:
    """Of each file the first of its digests that its bytes do not have; None where all agree. Ends early, with results that say
    nothing, once `stopped()`."""
    found: dict[str, Wrong | Unread | None] = {}
    threads = hash_threads_within(free_descriptors(), hash_threads(cpu_count()))
    # Those of one size are done at one time, so that no lane runs empty.
    order = sorted(files, key=lambda file: file.size, reverse=True)
    width = min(MOST, max(LEAST, ceil_div(len(order), threads)))
    groups = [order[start : start + width] for start in range(0, len(order), width)]
    for results in _on_threads(threads, lambda group: _compared(group, stopped), groups):
        found |= results
    return [found[file.name] for file in files]


def _compared(group: Sequence[FileOnDisk], stopped: Callable[[], bool]) -> dict[str, Wrong | Unread | None]:
    """One thread's work: up to 16 files side by side."""
    found: dict[str, Wrong | Unread | None] = {}
    buffer = pages(HASH_BUFFER)
    stretches: dict[str, Stretch] = {}
    for file in group:
        frontier = Frontier(RemoteFile(file.name, file.size, file.digests), streams=len(group))
        stretches[file.name] = Stretch(file.name, frontier, partial(_opened, file), min(file.size, STRETCH))
    while moving := [stretch for stretch in stretches.values() if stretch.left and stretch.name not in found]:
        if stopped():
            break
        found |= _stepped(moving, buffer)
        for file in group:
            if not (stretch := stretches[file.name]).left and stretch.limit < file.size:
                stretches[file.name] = _further(stretch, file.size)
    for name, stretch in stretches.items():
        stretch.close()
        if name not in found:
            found[name] = stretch.frontier.mismatch()
    return found


def _further(stretch: Stretch, size: int) -> Stretch:
    """The next one of the file: so much is mapped at a time that a small cgroup's page cache need not hold all of it."""
    stretch.close()
    return Stretch(stretch.name, stretch.frontier, stretch.opened, min(size, stretch.limit + STRETCH))


def _stepped(stretches: Sequence[Stretch], buffer: memoryview) -> dict[str, Unread]:
    """All of them a step further; those that can't be read, and why."""
    try:
        advance_together(stretches, buffer)
    except (OSError, EOFError) as error:
        if len(stretches) == 1:
            return {stretches[0].name: error}
        # None of them has moved: each for itself shows which it is.
        return {name: why for stretch in stretches for name, why in _stepped([stretch], buffer).items()}
    return {}


def _parts(chunks: int) -> Iterator[range]:
    return (range(start, min(start + PART, chunks)) for start in range(0, chunks, PART))


@contextmanager
def _opened(file: FileOnDisk) -> Iterator[int]:
    descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _on_threads(threads: int, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    pool = ThreadPoolExecutor(threads, "read")
    try:
        return list(pool.map(work, items))
    finally:
        # Who is interrupted waits for no thread: they only read.
        pool.shutdown(wait=False, cancel_futures=True)
