"""`pvc://`: verifies an artifact in place, where it will be used. Writes nothing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fetcher.artifact import ArtifactRef, RemoteFile, total_size
from fetcher.engine.choosing import pinned, warn_of_selection
from fetcher.engine.expecting import with_listed_pins
from fetcher.engine.rereading import FileOnDisk, Unread, Wrong, chunk_digests, wrong_digests
from fetcher.engine.result import Artifact, described
from fetcher.errors import DigestMismatch, FetchError, LocalIOError, NotFound, from_os_error
from fetcher.events import BytesHashed, FileVerified, Planned, Resolved, Subscriber
from fetcher.filesystem import storing
from fetcher.manifest import RELATIVE_PATH, Manifest, ManifestFile
from fetcher.planning.pointers import LONGEST, refuse_pointer
from fetcher.planning.selection import select
from fetcher.settings import Settings
from fetcher.sources.base import Source, once
from fetcher.uncancelled import Stopped, run_uncancelled


async def check(ref: ArtifactRef, settings: Settings, *, source: Source, on_event: Subscriber) -> Artifact:
    """Compare every file with the chunks of its manifest, or else with its digests. Raises NotFound, DigestMismatch,
    LfsPointer, LocalIOError."""
    began = time.monotonic()
    listing = await source.list(await source.resolve())
    settings = await with_listed_pins(settings, ref, listing, source=source, ask=once)
    files = pinned(select(listing.files, include=ref.include, exclude=ref.exclude), settings)
    on_event(Resolved(ref.uri, listing.revision, len(files), total_size(files)))
    warn_of_selection(listing, files, ref, on_event)
    on_event(Planned(len(files), total_size(files), total_size(files), 0))
    root = _root(source, files)
    known = Manifest.read(root / RELATIVE_PATH)
    stopping = threading.Event()
    entries = await run_uncancelled(_checked, files, source, known, on_event, stopping.is_set, stop=stopping.set)
    if known is not None and not ref.include and not ref.exclude:
        _refuse_missing(known, {file.path for file in files})
    manifest = Manifest.for_request(ref, revision=listing.revision, files=entries, created="", version="")
    return described(ref, manifest, path=root, fetched={}, seconds=time.monotonic() - began, cached=True)


def _root(source: Source, files: tuple[RemoteFile, ...]) -> Path:
    path = source.local_path(files[0])
    if path is None:
        raise NotFound("the claim does not contain such a file")
    return path.parents[files[0].path.count("/")]


def _refuse_missing(known: Manifest, present: set[str]) -> None:
    for file in known.files:
        if file.path not in present:
            raise DigestMismatch(f"{file.path} is listed in the manifest but missing; fetch it again", path=file.path)


def _checked(
    files: Sequence[RemoteFile], source: Source, known: Manifest | None, on_event: Subscriber, stopped: Callable[[], bool]
) -> list[ManifestFile]:
    present = [_on_disk(file, source.local_path(file)) for file in files]

    def hashed(name: str, size: int) -> None:
        if stopped():
            raise Stopped
        on_event(BytesHashed(name, size))

    digests = chunk_digests(present, hashed)
    entries = [_entry(file, each.size, chunks, known) for file, each, chunks in zip(files, present, digests, strict=True)]
    # The chunks of the manifest already prove the digests in it.
    proven = {file.path: file.digests for file in known.files} if known else {}
    unproven = [
        replace(each, digests=digests_left)
        for each in present
        if (digests_left := tuple(digest for digest in each.digests if digest not in proven.get(each.name, ())))
    ]
    for each, wrong in zip(unproven, wrong_digests(unproven, stopped), strict=True):
        _refuse(each.name, wrong)
    for entry in entries:
        on_event(FileVerified(entry.path, entry.size, bool(entry.digests)))
    return entries


def _on_disk(file: RemoteFile, path: Path | None) -> FileOnDisk:
    if path is None:
        raise NotFound(f"{file.path} does not exist", path=file.path)
    with storing("read the file", file.path):
        size = os.stat(path).st_size
        if size < LONGEST and not file.digests:
            refuse_pointer(file.path, path.read_bytes())
        return FileOnDisk(file.path, path, size, file.digests)


def _entry(file: RemoteFile, size: int, chunks: tuple[str, ...] | Unread, known: Manifest | None) -> ManifestFile:
    if isinstance(chunks, Unread):
        raise _unreadable(file.path, chunks)
    entry = known.file(file.path) if known else None
    if entry is not None and (size, chunks) != (entry.size, entry.chunks):
        raise DigestMismatch(f"{file.path} differs from its manifest; fetch it again", path=file.path)
    # Its chunks prove the checksums of the manifest as they prove its digests.
    return ManifestFile(
        file.path, size, file.digests, chunks, file.validator, checksums=entry.checksums if entry is not None else ()
    )


def _refuse(path: str, wrong: Wrong | Unread | None) -> None:
    if isinstance(wrong, Unread):
        raise _unreadable(path, wrong)
    if wrong is not None:
        raise DigestMismatch(
            f"{path}: expected {wrong[0]}, found {wrong[1]}; fetch it again", path=path, expected=str(wrong[0]), actual=wrong[1]
        )


def _unreadable(path: str, error: Unread) -> FetchError:
    if isinstance(error, OSError):
        return from_os_error(error, doing="read the file", path=path)
    return LocalIOError(f"{path} was truncated while it was read; run again when nothing writes to it", path=path)
