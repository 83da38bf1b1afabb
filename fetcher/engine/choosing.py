"""Which of the listed files are wanted, and what can be refused before a byte of them is fetched."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import replace
from pathlib import Path

from fetcher.artifact import ArtifactRef, Listing, RemoteFile
from fetcher.errors import DigestUnavailable, NotFound
from fetcher.events import Subscriber, Warned
from fetcher.filesystem import storing
from fetcher.planning.paths import each_once, refuse_hostile_paths
from fetcher.planning.pointers import LONGEST, refuse_pointer
from fetcher.planning.selection import in_vain, select
from fetcher.planning.sets import incomplete_sets
from fetcher.settings import Settings
from fetcher.store.selector import contradiction


def in_one_piece(listing: Listing, pins: Container[str]) -> Listing:
    """`listing` for a source whose answers contradict each other: a file without digest or pin is to come in one answer.

    One answer of one server is one content, whatever the validators say. None of them is recorded then, and no revision that
    is made of them: what another server says later must not pass for this content.
    """
    files = tuple(
        file if file.digests or file.path in pins else replace(file, ranges=False, validator=None) for file in listing.files
    )
    disputed = any(before.validator != after.validator for before, after in zip(listing.files, files, strict=True))
    return replace(listing, files=files, revision=None if disputed else listing.revision)


def chosen(listing: Listing, ref: ArtifactRef, settings: Settings) -> tuple[RemoteFile, ...]:
    """What is to be fetched, with the user's pins. What the selection leaves out is not judged.

    Raises NotFound, HostilePath, DigestMismatch, DigestUnavailable.
    """
    files = each_once(select(listing.files, include=ref.include, exclude=ref.exclude))
    refuse_hostile_paths(file.path for file in files)
    return pinned(files, settings)


def pinned(files: Iterable[RemoteFile], settings: Settings) -> tuple[RemoteFile, ...]:
    """`files` with the user's pins among their digests. Raises DigestMismatch, DigestUnavailable, NotFound."""
    by_path = {file.path: file for file in files}
    for path, expected in settings.expect.items():
        if path not in by_path:
            raise NotFound(f"--expect names {path}, which is not among the artifact's files; see `fetcher plan`", path=path)
        listed = by_path[path].digests
        if expected not in listed:
            by_path[path] = replace(by_path[path], digests=(*listed, expected))
    for file in by_path.values():
        listed_of = {digest.algorithm: digest for digest in reversed(file.digests)}
        for digest in file.digests:
            if digest != listed_of[digest.algorithm]:
                raise contradiction(file.path, digest, listed_of[digest.algorithm])
    if settings.require_digests:
        for file in by_path.values():
            if not file.digests:
                raise DigestUnavailable(
                    f"{file.path}: --require-digests is set, but the source publishes none; pin it with "
                    f"--expect {file.path}=sha256:...",
                    path=file.path,
                )
    return tuple(by_path.values())


def with_pins(listed: Iterable[RemoteFile], chosen: Iterable[RemoteFile]) -> tuple[RemoteFile, ...]:
    pinned = {file.path: file for file in chosen}
    return tuple(pinned.get(file.path, file) for file in listed)


def warn_of_selection(listing: Listing, files: Iterable[RemoteFile], ref: ArtifactRef, emit: Subscriber) -> None:
    """What may be a mistake, or meant: a pattern in vain (of a list for many models), a part alone (for each node its own)."""
    for sentence in in_vain(listing.files, include=ref.include, exclude=ref.exclude):
        emit(Warned("NoMatch", sentence))
    for each in incomplete_sets(file.path for file in files):
        emit(Warned("IncompleteSet", f"{each.example} is one of {each.total} parts; fetched of them: {each.present}"))


def refuse_pointers(files: Iterable[RemoteFile], place: Callable[[RemoteFile], Path | None]) -> None:
    """Raises LfsPointer for a file that no digest vouches for. It lies where `place` says; what is not there is not judged."""
    for file in files:
        path = None if file.digests or (file.size or 0) >= LONGEST else place(file)
        if path is not None and path.is_file() and path.stat().st_size < LONGEST:
            with storing("read the file", file.path):
                refuse_pointer(file.path, path.read_bytes())
