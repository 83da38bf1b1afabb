"""Selects files of a listing, and refuses what can be refused before anything is fetched."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import replace
from pathlib import Path

from fetcher.artifact import ArtifactRef, Digest, Listing, RemoteFile
from fetcher.errors import DigestMismatch, DigestUnavailable, NotFound
from fetcher.events import Subscriber, Warned
from fetcher.filesystem import storing
from fetcher.integrity.checksums import checkable
from fetcher.manifest import ManifestFile
from fetcher.planning.paths import refuse_hostile_paths, without_duplicates
from fetcher.planning.pointers import LONGEST, refuse_pointer
from fetcher.planning.selection import select, unmatched_patterns
from fetcher.planning.sets import incomplete_sets
from fetcher.settings import Settings
from fetcher.sources.base import Asking, Source


def in_one_piece(listing: Listing, pins: Container[str]) -> Listing:
    """Return `listing` for a source with contradictory validators: files without digest or pin are fetched in one response.

    One response has one content, whatever its validator is. Neither those validators nor a revision made of them is recorded:
    the same validator from another server can mean other content.
    """
    files = tuple(
        file if file.digests or file.path in pins else replace(file, ranges=False, validator=None) for file in listing.files
    )
    disputed = any(before.validator != after.validator for before, after in zip(listing.files, files, strict=True))
    return replace(listing, files=files, revision=None if disputed else listing.revision)


async def chosen(
    listing: Listing, ref: ArtifactRef, settings: Settings, *, source: Source, ask: Asking
) -> tuple[RemoteFile, ...]:
    """Return the selected files as their source describes them, with the user's pins. Other files are not checked.

    Raises SourceError, HostilePath, DigestMismatch, DigestUnavailable.
    """
    files = without_duplicates(select(listing.files, include=ref.include, exclude=ref.exclude))
    refuse_hostile_paths(file.path for file in files)
    return pinned(await source.describe(files, ask), settings)


def pinned(files: Iterable[RemoteFile], settings: Settings) -> tuple[RemoteFile, ...]:
    """Return `files` with the user's pins added to their digests. Raises DigestMismatch, DigestUnavailable, NotFound."""
    by_path = {file.path: file for file in files}
    for path, expected in settings.expect.items():
        if path not in by_path:
            raise NotFound(
                f"--expect names {path}, which is not a file of the artifact; `fetcher plan` lists its files", path=path
            )
        listed = by_path[path].digests
        if expected not in listed:
            by_path[path] = replace(by_path[path], digests=(*listed, expected))
    for file in by_path.values():
        listed_of = {digest.algorithm: digest for digest in reversed(file.digests)}
        for digest in file.digests:
            if digest != listed_of[digest.algorithm]:
                raise _contradiction(file.path, digest, listed_of[digest.algorithm])
    _refuse_unproven(by_path.values(), settings)
    return tuple(by_path.values())


def _refuse_unproven(files: Iterable[RemoteFile], settings: Settings) -> None:
    """Raise DigestUnavailable for a file without a digest or checksum that the settings require."""
    for file in files:
        if settings.require_digests and not file.digests:
            raise DigestUnavailable(
                f"{file.path}: --require-digests is set, but the source publishes no digest; pin the file with "
                f"--expect {file.path}=sha256:...",
                path=file.path,
            )
        if settings.require_checksums and not file.digests and not checkable(file):
            raise DigestUnavailable(
                f"{file.path}: --require-checksums is set, but the source publishes no digest, and no checksum that can be "
                f"computed here; pin the file with --expect {file.path}=sha256:...",
                path=file.path,
            )


def proves_no_less(known: ManifestFile, file: RemoteFile) -> bool:
    """Whether the file that `known` describes was compared with no less than is published of `file` now."""
    return bool(known.digests) or {str(each) for each in checkable(file)} <= set(known.checksums)


def with_pins(listed: Iterable[RemoteFile], chosen: Iterable[RemoteFile]) -> tuple[RemoteFile, ...]:
    """Return `listed`, with each chosen file in place of the listed one of the same path."""
    pinned = {file.path: file for file in chosen}
    return tuple(pinned.get(file.path, file) for file in listed)


def warn_of_selection(listing: Listing, files: Iterable[RemoteFile], ref: ArtifactRef, emit: Subscriber) -> None:
    """Warn of a possible mistake: a pattern that matches nothing, or a set with missing parts. Both can be intended."""
    for sentence in unmatched_patterns(listing.files, include=ref.include, exclude=ref.exclude):
        emit(Warned("NoMatch", sentence))
    for each in incomplete_sets(file.path for file in files):
        emit(
            Warned(
                "IncompleteSet", f"{each.example} is one of {each.total} parts, but the selection contains only {each.present}"
            )
        )


def refuse_pointers(files: Iterable[RemoteFile], place: Callable[[RemoteFile], Path | None]) -> None:
    """Raise LfsPointer for a file without a digest that is a pointer. `place` returns its path; a missing file is skipped."""
    for file in files:
        path = None if file.digests or (file.size or 0) >= LONGEST else place(file)
        if path is not None and path.is_file() and path.stat().st_size < LONGEST:
            with storing("read the file", file.path):
                refuse_pointer(file.path, path.read_bytes())


def _contradiction(path: str, expected: Digest, listed: Digest) -> DigestMismatch:
    """The error for a pin of the user that contradicts the source's listing, before any byte is fetched."""
    return DigestMismatch(
        f"{path}: expected {expected}, but the source lists {listed}; correct the pin, or the revision it belongs to",
        path=path,
        expected=str(expected),
        actual=str(listed),
    )
