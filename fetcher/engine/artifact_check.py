"""Verifies a placed artifact: XXH3 of every chunk at disk speed; with `full`, the published digests too."""

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
class Sibling:
    """A file with the content of a repaired one in the artifact at `artifact`. `problem` is None if its chunks match."""

    artifact: str
    path: str
    problem: str | None


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The result of a verification. `bad`: (path, problem). `unverifiable`: paths without a digest, of which only chunks were
    compared. `bytes` is the size of all files.

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
    repaired: tuple[str, ...] = ()
    fetched: int = 0
    siblings: tuple[Sibling, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every file is intact."""
        return not self.bad and all(each.problem is None for each in self.siblings)


def verify(entry: Entry, *, full: bool, on_event: Subscriber) -> VerifyReport:
    """Read every file of `entry` on all processors. Returns problems in the report and raises nothing for them."""
    began = time.monotonic()
    files, total = entry.manifest.files, entry.manifest.size
    on_event(Planned(len(files), total, 0, 0))

    problems: dict[str, str] = {}
    present = [on_disk for file in files if (on_disk := _on_disk(entry, file, problems)) is not None]
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


def _wrong_chunk(file: ManifestFile, chunks: tuple[str, ...] | Unread) -> str | None:
    if isinstance(chunks, Unread):
        return _unread(chunks)
    for index, (chunk, known) in enumerate(zip(chunks, file.chunks, strict=True)):
        if chunk != known:
            start = chunk_range(index, file.size).start
            return f"chunk {index} (from byte {start:,}) differs from the verified content"
    return None


def _unread(error: Unread) -> str:
    return f"cannot be read: {(getattr(error, 'strerror', None) or str(error)).lower()}"
