"""Verifies a placed artifact: XXH3 of every chunk, or of a random sample, at disk speed or slower; with `full`, the published
digests too."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from types import MappingProxyType

from fetcher.artifact import Digest
from fetcher.engine.pace import ReadingPace
from fetcher.engine.rereading import FileOnDisk, Unread, chunk_digests, wrong_digests
from fetcher.events import BytesHashed, FileVerified, Planned, Subscriber
from fetcher.manifest import ManifestFile
from fetcher.planning.ranges import chunk_count, chunk_range
from fetcher.planning.sampling import sampled
from fetcher.store.catalog import Entry
from fetcher.values import dataclass

NO_PINS: Mapping[str, Digest] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Sample:
    """A random `percent` of all chunks of an artifact, at least one."""

    percent: float
    randomness: Random


@dataclass(frozen=True, slots=True)
class Sibling:
    """A file with the content of a repaired one in the artifact at `artifact`. `problem` is None if its chunks match."""

    artifact: str
    path: str
    problem: str | None


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The result of a verification. `bad`: (path, problem). `unverifiable`: paths without a digest, of which only chunks were
    compared. `bytes` is the size of all files; `chunks` chunks of `bytes_compared` bytes were compared. `sample` is the
    percentage of a random sample, None if every chunk was to be compared.

    After a repair, `bad` are the files that are still damaged, and `fetched` bytes came from the source. `siblings` are
    files of other artifacts that may have shared the inode of a `repaired` one.
    """

    path: str
    files: int
    bytes: int
    bad: tuple[tuple[str, str], ...]
    unverifiable: tuple[str, ...]
    seconds: float
    full: bool
    chunks: int
    bytes_compared: int
    sample: float | None = None
    repaired: tuple[str, ...] = ()
    fetched: int = 0
    siblings: tuple[Sibling, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every file is intact."""
        return not self.bad and all(each.problem is None for each in self.siblings)


def verify(
    entry: Entry,
    *,
    full: bool,
    on_event: Subscriber,
    sample: Sample | None = None,
    max_rate: float | None = None,
    expect: Mapping[str, Digest] = NO_PINS,
    only: Sequence[ManifestFile] | None = None,
) -> VerifyReport:
    """Read every file of `entry` on all processors. Returns problems in the report and raises nothing for them.

    `sample` reads some chunks only; the size of every file is compared nevertheless. `max_rate` is in bytes per second, None
    for no limit. `expect` has further digests by path. `only` are the files to read, None for all.
    Raises NotFound, NewerFormat if the artifact was replaced meanwhile.
    """
    began, pace = time.monotonic(), ReadingPace(max_rate)
    files = entry.manifest.files if only is None else only
    problems: dict[str, str] = {}
    present = [on_disk for file in files if (on_disk := _on_disk(entry, file, problems)) is not None]
    chosen = _chosen(present, sample)
    sizes = [len(chunk_range(index, file.size)) for file in present for index in chosen[file.name]]
    on_event(Planned(len(files), sum(sizes), 0, 0))
    compared: list[int] = []

    def on_chunk(name: str, size: int) -> None:
        compared.append(size)
        on_event(BytesHashed(name, size))
        pace.spend(size)

    known = {file.path: file for file in files}
    for file, chunks in zip(present, chunk_digests(present, on_chunk, chosen=chosen), strict=True):
        if problem := _wrong_chunk(known[file.name], chosen[file.name], chunks):
            problems[file.name] = problem
    intact = [_with_digests(file, full=full, expected=expect.get(file.name)) for file in present if file.name not in problems]
    if whole := [file for file in intact if file.digests]:
        for file, wrong in zip(whole, wrong_digests(whole, spend=pace.spend), strict=True):
            if wrong is not None:
                problems[file.name] = _unread(wrong) if isinstance(wrong, Unread) else f"has {wrong[1]} instead of {wrong[0]}"
    for file in present:
        if sample is None and file.name not in problems:
            on_event(FileVerified(file.name, file.size, full and bool(file.digests)))
    return VerifyReport(
        path=str(entry.path),
        files=len(files),
        bytes=sum(file.size for file in files),
        bad=tuple((file.path, problems[file.path]) for file in files if file.path in problems),
        unverifiable=tuple(file.path for file in files if not file.digests),
        seconds=round(time.monotonic() - began, 3),
        full=full,
        chunks=len(compared),
        bytes_compared=sum(compared),
        sample=sample.percent if sample else None,
    )


def _with_digests(file: FileOnDisk, *, full: bool, expected: Digest | None) -> FileOnDisk:
    """Return the file with the digests to recompute. The chunks prove the others: those of the manifest."""
    further = () if expected is None or expected in file.digests else (expected,)
    return replace(file, digests=(*file.digests, *further) if full else further)


def _chosen(files: Sequence[FileOnDisk], sample: Sample | None) -> Mapping[str, Sequence[int]]:
    """Return the indexes of the chunks to compare, by file."""
    counts = {file.name: chunk_count(file.size) for file in files}
    if sample is None:
        return {name: range(count) for name, count in counts.items()}
    return sampled(counts, sample.percent, sample.randomness)


def _on_disk(entry: Entry, file: ManifestFile, problems: dict[str, str]) -> FileOnDisk | None:
    """Return the file if it exists with the right size, else None, and record the problem."""
    path = entry.path / file.path
    try:
        size = os.stat(path).st_size
    except OSError as error:
        problems[file.path] = f"cannot be opened: {(error.strerror or str(error)).lower()}"
        return None
    if size != file.size:
        problems[file.path] = f"has {size:,} bytes instead of {file.size:,}"
        return None
    return FileOnDisk(file.path, path, size, file.digests)


def _wrong_chunk(file: ManifestFile, indexes: Sequence[int], chunks: tuple[str, ...] | Unread) -> str | None:
    if isinstance(chunks, Unread):
        return _unread(chunks)
    for index, chunk in zip(indexes, chunks, strict=True):
        if (chunk,) != file.chunks[index : index + 1]:
            start = chunk_range(index, file.size).start
            return f"chunk {index} (from byte {start:,}) differs from the verified content"
    return None


def _unread(error: Unread) -> str:
    return f"cannot be read: {(getattr(error, 'strerror', None) or str(error)).lower()}"
