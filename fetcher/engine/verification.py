"""Is what was placed still what was verified? XXH3 of every chunk at disk speed; with `full`, the published digests too."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from fetcher.artifact import ByteRange
from fetcher.cpu import cpu_count
from fetcher.events import BytesHashed, Event, FileVerified, Planned, Subscriber
from fetcher.integrity.digests import DigestCheck
from fetcher.integrity.frontier import chunk_digest, read_pieces
from fetcher.manifest import ManifestFile
from fetcher.planning.ranges import chunk_count, chunk_range
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
    """Read every file of `entry`, several at once. Never raises for what it finds: it reports."""
    began = time.monotonic()
    files, total = entry.manifest.files, entry.manifest.size
    on_event(Planned(len(files), total, 0, 0))

    one_at_a_time = threading.Lock()

    def say(event: Event) -> None:
        with one_at_a_time:
            on_event(event)

    def check(file: ManifestFile) -> str | None:
        problem = _problem(entry, file, full=full, on_event=say)
        if problem is None:
            say(FileVerified(file.path, file.size, full and bool(file.digests)))
        return problem

    pool = ThreadPoolExecutor(cpu_count())
    try:
        problems = list(pool.map(check, files))
    finally:
        # An interrupted check waits for no thread: it only reads.
        pool.shutdown(wait=False, cancel_futures=True)
    return VerifyReport(
        path=str(entry.path),
        files=len(files),
        bytes=total,
        bad=tuple((file.path, problem) for file, problem in zip(files, problems, strict=True) if problem),
        unverifiable=tuple(file.path for file in files if not file.digests),
        seconds=round(time.monotonic() - began, 3),
        full=full,
    )


def _problem(entry: Entry, file: ManifestFile, *, full: bool, on_event: Subscriber) -> str | None:
    try:
        descriptor = os.open(entry.path / file.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return f"can't be opened: {(error.strerror or str(error)).lower()}"
    try:
        if (size := os.fstat(descriptor).st_size) != file.size:
            return f"has {size:,} bytes instead of {file.size:,}"
        for index in range(chunk_count(size)):
            chunk = chunk_range(index, size)
            if chunk_digest(descriptor, chunk) != file.chunks[index]:
                return f"chunk {index} (from byte {chunk.start:,}) differs from what was verified"
            on_event(BytesHashed(file.path, len(chunk)))
        return _wrong_digest(file, descriptor) if full else None
    except OSError as error:
        return f"can't be read: {(error.strerror or str(error)).lower()}"
    finally:
        os.close(descriptor)


def _wrong_digest(file: ManifestFile, descriptor: int) -> str | None:
    check = DigestCheck(file.digests, size=file.size)
    for piece in read_pieces(descriptor, ByteRange(0, file.size)):
        check.update(piece)
    found = check.mismatch()
    return f"has {found[1]} instead of {found[0]}" if found else None
