"""A source whose listed files can be archives (`sources.base.Packed`), with the members of these in their place.

The archives are fetched into a private directory beside the lease, resumable and verified like any artifact, and unpacked next
to them. The unpacked files are then hard-linked into the staging. All of this happens under the lease of the artifact, and
within its room: archives have theirs before their first byte, and each unpacked file before it is written.
"""

from __future__ import annotations

import os
import stat
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fetcher.artifact import ArtifactRef, ByteRange, Listing, RemoteFile, redact, total_size
from fetcher.engine.fetching import fetch_uncached
from fetcher.engine.portion import Portion
from fetcher.engine.request import recover_and_request
from fetcher.errors import FetchError, HostilePath, LocalIOError, MalformedArchive, OutOfSpace, UsageError
from fetcher.events import Event, Finished, Subscriber, Unpacked
from fetcher.filesystem import mark, storing
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.settings import Settings
from fetcher.sources.base import Asking, Body, Derived, Packed, Packing, Source, once
from fetcher.sources.local import LocalBody
from fetcher.steps import Step
from fetcher.store.allowance import Allowance
from fetcher.store.archives import archives_of, discard, fetched_in, forget_empty, remove_archives, unpacked_in
from fetcher.store.beneath import make_directories, open_beneath
from fetcher.store.in_place import InPlace
from fetcher.store.layout import base_of
from fetcher.store.room import Room
from fetcher.uncancelled import run_uncancelled

if TYPE_CHECKING:
    from fetcher.archives.layers import UnpackedFile

_PLACED = ("manifest placed", "renamed", "exchanged")
"""Steps of a commit after which the artifact is complete at its place."""
_TRIES, _POLL = 20, 0.1
"""Attempts to take the lease for the last clean-up, and seconds between them. A process that waited for the artifact holds it
for a moment, until it sees that the artifact is there."""


class UnpackingSource(Derived):
    """The files of `source`, which is a `Packed` one. `under` comes before `list`."""

    def __init__(self, source: Source, ref: ArtifactRef, settings: Settings, on_event: Subscriber) -> None:
        super().__init__(source)
        self._ref = ref
        self._settings = settings
        self._on_event = on_event
        self._room: Room | None = None
        self._unpacked: Mapping[str, UnpackedFile] = {}
        self._placed = False

    def under(self, room: Room) -> None:
        """Fetch and unpack below the root of the lease of `room`, while it is held, and within `room`."""
        self._room = room

    def local_path(self, file: RemoteFile) -> Path | None:
        return self._unpacked[file.path].place if file.path in self._unpacked else self._source.local_path(file)

    async def describe(self, files: Sequence[RemoteFile], ask: Asking = once) -> Sequence[RemoteFile]:
        return [file for file in files if file.path in self._unpacked] + list(
            await self._source.describe([file for file in files if file.path not in self._unpacked], ask)
        )

    async def list(self, revision: str | None, ask: Asking = once) -> Listing:
        """List the files; fetch and unpack the archives first, if there are any. Raises FetchError."""
        listing = await self._source.list(revision, ask)
        packing = await self._source.packing(revision, ask) if isinstance(self._source, Packed) else None
        if packing is None:
            return listing
        if self._settings.part is not None:
            raise UsageError(
                f"{redact(self._ref.uri)} is packed in archives, which --part cannot divide; let one process fetch it, without "
                "--part"
            )
        archives = await self._fetched(listing, packing, ask)
        files = await self._unpack(archives, packing)
        others = tuple(file for file in listing.files if file.path not in packing.archives)
        authenticated = listing.authenticated or archives.authenticated
        return replace(listing, revision=archives.revision, files=(*others, *files), authenticated=authenticated)

    @asynccontextmanager
    async def open(self, file: RemoteFile, byte_range: ByteRange | None) -> AsyncIterator[Body]:
        unpacked = self._unpacked.get(file.path)
        if unpacked is None:
            async with self._source.open(file, byte_range) as body:
                yield body
            return
        with storing("read the unpacked file", file.path):
            descriptor = open_beneath(base_of(unpacked.place), unpacked.place, os.O_RDONLY)
        try:
            yield LocalBody(descriptor, file, byte_range or ByteRange(0, file.size or 0))
        finally:
            os.close(descriptor)

    def note(self, step: str) -> None:
        """Note a step of the commit: once the artifact is placed, closing the source removes the archives."""
        self._placed = self._placed or step in _PLACED

    async def aclose(self) -> None:
        if self._placed:
            await run_uncancelled(self.clean_up)
        await self._source.aclose()

    def clean_up(self) -> None:
        """Remove the archives and the unpacked files, unless another process works with them by now. Blocks."""
        if self._room is not None:
            with suppress(OSError, FetchError):  # the artifact is complete; `fetcher gc` removes them
                for _ in range(_TRIES):
                    if remove_archives(self._room.lease.directory):
                        break
                    time.sleep(_POLL)
            if self._room.lease.directory.name == InPlace.LEASE:
                forget_empty(self._room.lease.directory)

    async def _fetched(self, listing: Listing, packing: Packing, ask: Asking) -> Manifest:
        """Fetch the archives of this revision and return their manifest."""
        directory = fetched_in(self._archives)
        # Not a hit by its URI alone: the archives of a killed fetch may be those of another revision.
        settings = replace(
            self._settings, dest=directory, shared_dest=False, layout="flat", refresh="on-change", hard_link=True,
            expect={}, expect_file=None, signer=None, max_size=None, min_free=None, min_idle=None, hold=None, pod_uid=None,
        )  # fmt: skip
        request = recover_and_request(ArtifactRef(self._ref.uri, self._ref.revision), settings)
        archives = tuple(file for file in listing.files if file.path in packing.archives)
        source = Portion(self._source, replace(listing, files=tuple(await self._source.describe(archives, ask))))
        await fetch_uncached(replace(request, room=self._leased), self._except_finished, source=source)
        manifest = Manifest.read(directory / RELATIVE_PATH)
        if manifest is None:
            raise LocalIOError(f"{directory} changed while it was in use; run the same command again")
        return manifest

    @property
    def _leased(self) -> Room:
        if self._room is None:
            raise AssertionError("list needs a lease")
        return self._room

    @property
    def _archives(self) -> Path:
        return archives_of(self._leased.lease.directory)

    async def _unpack(self, archives: Manifest, packing: Packing) -> tuple[RemoteFile, ...]:
        stopping = threading.Event()
        files = await run_uncancelled(self._unpack_anew, archives, packing, stopping, stop=stopping.set)
        self._on_event(Unpacked(packing.archives[0], len(files), total_size(files)))
        return files

    def _unpack_anew(self, archives: Manifest, packing: Packing, stopping: threading.Event) -> tuple[RemoteFile, ...]:
        """Unpack into a new directory: a stopped process that lost its lease can still write into an old one."""
        room, parent = replace(self._leased, stopped=stopping.is_set), unpacked_in(self._archives)
        directory, allowance = parent / uuid.uuid4().hex, Allowance(room.make)
        with storing("make a directory for the unpacked files"):
            discard(room.lease, parent)
            make_directories(base_of(directory), directory)
        try:
            self._unpacked = self._unpacked_into(directory, packing, allowance.take, room.stopped)
            # Files of archives that were compared with no digest are verified by none either.
            digests = all(file.digests for file in archives.files)
            with storing("check the unpacked files"):
                return tuple(_listed(path, file, digests) for path, file in sorted(self._unpacked.items()))
        except BaseException as error:
            final = isinstance(error, MalformedArchive | HostilePath) or (isinstance(error, OutOfSpace) and allowance.refused)
            with suppress(OSError, FetchError):
                discard(room.lease, self._archives if final else parent)
            raise

    def _unpacked_into(
        self, directory: Path, packing: Packing, make_room: Callable[[int], None], stopped: Callable[[], bool]
    ) -> Mapping[str, UnpackedFile]:
        from fetcher.archives.layers import unpack_layers  # late: few artifacts are packed

        fetched = [fetched_in(self._archives) / path for path in packing.archives]

        def take(size: int) -> None:
            with storing("make room for an unpacked file"):
                make_room(size)

        return unpack_layers(fetched, directory, prefix=packing.prefix, make_room=take, stopped=stopped)

    def _except_finished(self, event: Event) -> None:
        """Pass on all events but Finished: the end of the archives' fetch is not the end of this one."""
        if not isinstance(event, Finished):
            self._on_event(event)


def _listed(path: str, file: UnpackedFile, digests: bool) -> RemoteFile:
    """The entry of an unpacked file. Its mark shows later whether another file replaced it."""
    descriptor = open_beneath(base_of(file.place), file.place, os.O_RDONLY)
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size != file.size:
        raise LocalIOError(f"{path} of the archive changed during unpacking; run the same command again")
    return RemoteFile(path, file.size, (file.digest,) if digests else (), mark(status))


def unpacking(
    source: Source, ref: ArtifactRef, settings: Settings, on_event: Subscriber, step: Step
) -> tuple[Source, Settings, Step]:
    """Return `source` with the members of its archives, the settings for it, and a step that the commit must call.

    A source that is not `Packed` is returned as it is. Unpacked files are hard-linked, since nobody else has them.
    """
    if not isinstance(source, Packed):
        return source, settings, step
    unpacked = UnpackingSource(source, ref, settings, on_event)

    def noting(name: str) -> None:
        unpacked.note(name)
        step(name)

    return unpacked, replace(settings, hard_link=True), noting
