"""`pvc://`: an artifact that stands where it will be used. It is verified there, and never written."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from fetcher.artifact import ArtifactRef, ByteRange, RemoteFile, total_size
from fetcher.engine import Artifact, described
from fetcher.engine.pipeline import pinned
from fetcher.errors import DigestMismatch, NotFound
from fetcher.events import BytesHashed, FileVerified, Planned, Resolved, Subscriber
from fetcher.filesystem import storing
from fetcher.integrity.digests import DigestCheck
from fetcher.integrity.frontier import chunk_digest, read_pieces
from fetcher.manifest import RELATIVE_PATH, Manifest, ManifestFile
from fetcher.planning.ranges import chunk_count, chunk_range
from fetcher.planning.selection import select
from fetcher.settings import Settings
from fetcher.sources.base import Source


async def check(ref: ArtifactRef, settings: Settings, *, source: Source, on_event: Subscriber) -> Artifact:
    """Compare every file with its manifest's chunks, else with its digests. Raises NotFound, DigestMismatch, LocalIOError."""
    began = time.monotonic()
    listing = await source.list(await source.resolve())
    files = pinned(select(listing.files, include=ref.include, exclude=ref.exclude), settings)
    on_event(Resolved(ref.uri, listing.revision, len(files), total_size(files)))
    on_event(Planned(len(files), total_size(files), total_size(files), 0))
    root = _root(source, files)
    known = Manifest.read(root / RELATIVE_PATH)
    entries = [await asyncio.to_thread(_checked, file, source.local_path(file), known, on_event) for file in files]
    if known is not None and not ref.include and not ref.exclude:
        _refuse_missing(known, {file.path for file in files})
    manifest = Manifest.for_request(ref, revision=listing.revision, files=entries, created="", version="")
    return described(ref, manifest, path=root, fetched=0, seconds=time.monotonic() - began, cached=True)


def _root(source: Source, files: tuple[RemoteFile, ...]) -> Path:
    path = source.local_path(files[0])
    if path is None:
        raise NotFound("the claim holds no such file")
    return path.parents[files[0].path.count("/")]


def _refuse_missing(known: Manifest, present: set[str]) -> None:
    for file in known.files:
        if file.path not in present:
            raise DigestMismatch(f"{file.path} is listed in the manifest but missing; fetch it again", path=file.path)


def _checked(file: RemoteFile, path: Path | None, known: Manifest | None, on_event: Subscriber) -> ManifestFile:
    if path is None:
        raise NotFound(f"{file.path} is not there", path=file.path)
    entry = known.file(file.path) if known else None
    with storing("read the file", file.path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            chunks = tuple(chunk_digest(descriptor, chunk_range(at, size)) or "" for at in range(chunk_count(size)))
            if entry is not None and (size, chunks) != (entry.size, entry.chunks):
                raise DigestMismatch(f"{file.path} differs from its manifest; fetch it again", path=file.path)
            _compare_digests(file, entry, descriptor, size)
        finally:
            os.close(descriptor)
    on_event(BytesHashed(file.path, size))
    on_event(FileVerified(file.path, size, bool(file.digests)))
    return ManifestFile(file.path, size, file.digests, chunks, file.validator)


def _compare_digests(file: RemoteFile, entry: ManifestFile | None, descriptor: int, size: int) -> None:
    """Those that the manifest's chunks do not stand for already."""
    unproven = [digest for digest in file.digests if entry is None or digest not in entry.digests]
    if not unproven:
        return
    check = DigestCheck(unproven, size=size)
    for piece in read_pieces(descriptor, ByteRange(0, size)):
        check.update(piece)
    if found := check.mismatch():
        raise DigestMismatch(
            f"{file.path}: expected {found[0]}, found {found[1]}; fetch it again",
            path=file.path,
            expected=str(found[0]),
            actual=found[1],
        )
