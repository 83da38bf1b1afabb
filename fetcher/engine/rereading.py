"""Reads existing files again on all processors: XXH3 of every chunk, and published digests in the lanes of a vector unit.

Both functions block. They do not raise for a file: its result is the error that kept it from being read.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from fetcher.artifact import Checksum, Digest, RemoteFile
from fetcher.engine.hashing import LEAST, hash_threads
from fetcher.engine.incoming import STRETCH
from fetcher.host.allocation import map_memory
from fetcher.host.descriptors import free_descriptors
from fetcher.host.processors import cpu_count
from fetcher.integrity.frontier import Frontier, Stretch, advance_together, chunk_digest
from fetcher.integrity.lanes import MOST
from fetcher.planning.descriptors import hash_threads_within
from fetcher.planning.memory import HASH_BUFFER
from fetcher.planning.ranges import chunk_count, chunk_range
from fetcher.quantities import ceil_div
from fetcher.values import dataclass

PART = 8
"""Chunks (128 MiB) that one thread reads at a time: all threads share one file."""

T = TypeVar("T")
R = TypeVar("R")
Unread = OSError | EOFError
Wrong = tuple[Digest | Checksum, str]
"""The expected digest or checksum of a file, and the actual one."""


@dataclass(frozen=True, slots=True)
class FileOnDisk:
    """A file of `size` bytes at `path`. Names are unique."""

    name: str
    path: Path
    size: int
    digests: tuple[Digest, ...] = ()


def chunk_digests(
    files: Sequence[FileOnDisk], on_chunk: Callable[[str, int], None], *, chosen: Mapping[str, Sequence[int]] | None = None
) -> list[tuple[str, ...] | Unread]:
    """Return the XXH3-128 of the chunks of each file, "" for a truncated chunk. One thread at a time calls `on_chunk`.

    `chosen` are the indexes of the chunks to read, by name; None reads all of them.
    """
    one_at_a_time = threading.Lock()

    def read(part: tuple[FileOnDisk, Sequence[int]]) -> list[str] | Unread:
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

    wanted = {file.name: range(chunk_count(file.size)) if chosen is None else chosen[file.name] for file in files}
    parts = [(file, indexes) for file in files for indexes in _parts(wanted[file.name])]
    results: dict[str, list[str] | Unread] = {file.name: [] for file in files}
    for (file, _), digests in zip(parts, _on_threads(cpu_count(), read, parts), strict=True):
        before = results[file.name]
        if not isinstance(before, Unread):
            results[file.name] = digests if isinstance(digests, Unread) else before + digests
    return [digests if isinstance(digests, Unread) else tuple(digests) for digests in results.values()]


def wrong_digests(
    files: Sequence[FileOnDisk],
    stopped: Callable[[], bool] = lambda: False,
    spend: Callable[[int], None] = lambda _: None,
) -> list[Wrong | Unread | None]:
    """Return the first wrong digest of each file; None if all agree. Ends early, with meaningless results, once `stopped()`.

    Each thread calls `spend` with the bytes that it has read, and waits until it returns.
    """
    compared: dict[str, Wrong | Unread | None] = {}
    threads = hash_threads_within(free_descriptors(), hash_threads(cpu_count()))
    # Files of similar size are hashed together, so that no lane is empty.
    order = sorted(files, key=lambda file: file.size, reverse=True)
    width = min(MOST, max(LEAST, ceil_div(len(order), threads)))
    groups = [order[start : start + width] for start in range(0, len(order), width)]
    for results in _on_threads(threads, lambda group: _compared(group, stopped, spend), groups):
        compared |= results
    return [compared[file.name] for file in files]


def _compared(
    group: Sequence[FileOnDisk], stopped: Callable[[], bool], spend: Callable[[int], None]
) -> dict[str, Wrong | Unread | None]:
    """Compare up to 16 files in parallel lanes, on one thread."""
    results: dict[str, Wrong | Unread | None] = {}
    buffer = map_memory(HASH_BUFFER)
    stretches: dict[str, Stretch] = {}
    for file in group:
        frontier = Frontier(RemoteFile(file.name, file.size, file.digests), streams=len(group))
        stretches[file.name] = Stretch(file.name, frontier, partial(_opened, file), min(file.size, STRETCH))
    while moving := [stretch for stretch in stretches.values() if stretch.left and stretch.name not in results]:
        if stopped():
            break
        before = sum(stretch.left for stretch in moving)
        results |= _stepped(moving, buffer)
        spend(before - sum(stretch.left for stretch in moving))
        for file in group:
            if not (stretch := stretches[file.name]).left and stretch.limit < file.size:
                stretches[file.name] = _further(stretch, file.size)
    for name, stretch in stretches.items():
        stretch.close()
        if name not in results:
            results[name] = stretch.frontier.mismatch()
    return results


def _further(stretch: Stretch, size: int) -> Stretch:
    """Return the next stretch of the file. Only a part is mapped at a time, so it fits the page cache of a small cgroup."""
    stretch.close()
    return Stretch(stretch.name, stretch.frontier, stretch.opened, min(size, stretch.limit + STRETCH))


def _stepped(stretches: Sequence[Stretch], buffer: memoryview) -> dict[str, Unread]:
    """Advance all stretches by one step. Returns the errors of those that cannot be read."""
    try:
        advance_together(stretches, buffer)
    except (OSError, EOFError) as error:
        if len(stretches) == 1:
            return {stretches[0].name: error}
        # No frontier has moved. Advancing each alone shows which one fails.
        return {name: why for stretch in stretches for name, why in _stepped([stretch], buffer).items()}
    return {}


def _parts(indexes: Sequence[int]) -> Iterator[Sequence[int]]:
    return (indexes[start : start + PART] for start in range(0, len(indexes), PART))


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
        # On interrupt we do not wait for threads: they only read.
        pool.shutdown(wait=False, cancel_futures=True)
