"""Is what was placed still what was verified? XXH3 of every chunk at disk speed; with `full`, the published digests too."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from fetcher.engine.rereading import FileOnDisk, Unread, chunk_digests, wrong_digests
from fetcher.events import BytesHashed, FileVerified, Planned, Subscriber
from fetcher.manifest import ManifestFile
from fetcher.planning.ranges import chunk_range
from fetcher.store.catalog import Entry


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """`bad` are (path, problem); `unverifiable` the paths for which no digest was ever published (their chunks are checked)."""

    path: str
    files: int
    bytes: int
    bad: tuple[tuple[str, str], ...]
    unverifiable: tuple[str, ...]
    seconds: float
    full: bool

    @property
    def ok(self) -> bool:
        return not self.bad


def verify(entry: Entry, *, full: bool, on_event: Subscriber) -> VerifyReport:
    """Read every file of `entry`, all processors at once. Never raises for what it finds: it reports."""
    began = time.monotonic()
    files, total = entry.manifest.files, entry.manifest.size
    on_event(Planned(len(files), total, 0, 0))

    problems: dict[str, str] = {}
    present = [there for file in files if (there := _found(entry, file, problems)) is not None]
    known = {file.path: file for file in files}
    for file, chunks in zip(present, chunk_digests(present, lambda name, size: on_event(BytesHashed(name, size))), strict=True):
        if problem := _wrong_chunk(known[file.name], chunks):
            problems[file.name] = problem
    if full:
        whole = [file for file in present if file.name not in problems and file.digests]
        for file, wrong in zip(whole, wrong_digests(whole), strict=True):
            if wrong is not None:
                problems[file.name] = _unread(wrong) if isinstance(wrong, Unread) else f"has {wrong[1]} instead of {wrong[0]}"
    for file in present:
        if file.name not in problems:
            on_event(FileVerified(file.name, file.size, full and bool(file.digests)))
    return VerifyReport(
        path=str(entry.path),
        files=len(files),
        bytes=total,
        bad=tuple((file.path, problems[file.path]) for file in files if file.path in problems),
        unverifiable=tuple(file.path for file in files if not file.digests),
        seconds=round(time.monotonic() - began, 3),
        full=full,
    )


def _found(entry: Entry, file: ManifestFile, problems: dict[str, str]) -> FileOnDisk | None:
    """The file as it is to be, if it is there at all."""
    path = entry.path / file.path
    try:
        size = os.stat(path).st_size
    except OSError as error:
        problems[file.path] = f"can't be opened: {(error.strerror or str(error)).lower()}"
        return None
    if size != file.size:
        problems[file.path] = f"has {size:,} bytes instead of {file.size:,}"
        return None
    return FileOnDisk(file.path, path, size, file.digests)


def _wrong_chunk(file: ManifestFile, chunks: tuple[str, ...] | Unread) -> str | None:
    if isinstance(chunks, Unread):
        return _unread(chunks)
    for index, (chunk, known) in enumerate(zip(chunks, file.chunks, strict=True)):
        if chunk != known:
            start = chunk_range(index, file.size).start
            return f"chunk {index} (from byte {start:,}) differs from what was verified"
    return None


def _unread(error: Unread) -> str:
    return f"can't be read: {(getattr(error, 'strerror', None) or str(error)).lower()}"
