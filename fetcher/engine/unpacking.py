"""A source whose listed files can be archives (`sources.base.Packed`), with the members of these in their place.

The archives are fetched into a private directory below the root, resumable and verified like any artifact, and unpacked next to
them. The unpacked files are then hard-linked into the staging. All of this happens under the lease of the artifact.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fetcher.artifact import ArtifactRef, ByteRange, Listing, RemoteFile
from fetcher.engine.fetching import fetch
from fetcher.engine.portion import Portion
from fetcher.errors import UsageError
from fetcher.events import Event, Finished, Subscriber, Unpacked
from fetcher.filesystem import mark, storing
from fetcher.settings import Settings
from fetcher.sources.base import Asking, Body, Derived, Packed, Packing, Source, once
from fetcher.sources.local import LocalBody
from fetcher.store.beneath import make_directories, open_beneath, remove_tree
from fetcher.store.layout import Root
from fetcher.store.placement import Step
from fetcher.uncancelled import run_uncancelled

if TYPE_CHECKING:
    from fetcher.archives.layers import UnpackedFile

_PLACED = ("manifest placed", "renamed", "exchanged")
"""Steps of a commit after which the artifact is complete at its place."""


class UnpackingSource(Derived):
    """The files of `source`, which is a `Packed` one, for the placement of `ref` by `settings`."""

    def __init__(self, source: Source, ref: ArtifactRef, settings: Settings, on_event: Subscriber) -> None:
        super().__init__(source)
        self._ref = ref
        self._settings = settings
        self._on_event = on_event
        self._root = settings.dest or settings.cache_dir
        self._scratch = Root(self._root).archive / ref.key
        self._unpacked: dict[str, Path] = {}

    def local_path(self, file: RemoteFile) -> Path | None:
        return self._unpacked.get(file.path)

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
            raise UsageError("--part cannot divide an artifact that is packed in archives; leave it out")
        files = await self._unpack(await self._fetched(listing, packing), packing)
        others = tuple(file for file in listing.files if file.path not in packing.archives)
        return replace(listing, files=(*others, *files))

    @asynccontextmanager
    async def open(self, file: RemoteFile, byte_range: ByteRange | None) -> AsyncIterator[Body]:
        place = self._unpacked.get(file.path)
        if place is None:
            async with self._source.open(file, byte_range) as body:
                yield body
            return
        with storing("read the unpacked file", file.path):
            descriptor = open_beneath(self._root, place, os.O_RDONLY)
        try:
            yield LocalBody(descriptor, file, byte_range or ByteRange(0, file.size or 0))
        finally:
            os.close(descriptor)

    def clean_up(self) -> None:
        """Remove the archives and the unpacked files, after the files were placed."""
        if self._unpacked:
            remove_tree(self._root, self._scratch)

    async def _fetched(self, listing: Listing, packing: Packing) -> Path:
        """Fetch the archives of this revision and return their directory."""
        settings = replace(
            self._settings, dest=self._scratch / "fetched", shared_dest=False, layout="flat", refresh="if-not-present",
            expect={}, expect_file=None, signer=None, max_size=None, min_free=None, min_idle=None, hold=None, pod_uid=None,
        )  # fmt: skip
        ref = ArtifactRef(self._ref.uri, listing.revision)
        archives = tuple(file for file in listing.files if file.path in packing.archives)
        source = Portion(self._source, replace(listing, files=archives))
        return (await fetch(ref, settings, self._except_finished, source=source)).path

    async def _unpack(self, fetched: Path, packing: Packing) -> tuple[RemoteFile, ...]:
        stopping = threading.Event()
        return await run_uncancelled(self._unpack_anew, fetched, packing, stopping, stop=stopping.set)

    def _unpack_anew(self, fetched: Path, packing: Packing, stopping: threading.Event) -> tuple[RemoteFile, ...]:
        """Unpack into a new directory: a stopped process that lost its lease can still write into an old one."""
        parent = self._scratch / "unpacked"
        directory = parent / uuid.uuid4().hex
        with storing("make a directory for the unpacked files"):
            remove_tree(self._root, parent)
            make_directories(self._root, directory)
        archives = [fetched / path for path in packing.archives]
        from fetcher.archives.layers import unpack_layers  # late: few artifacts are packed

        found = unpack_layers(archives, directory, prefix=packing.prefix, stopped=stopping.is_set)
        self._unpacked = {path: file.place for path, file in found.items()}
        for archive in archives[:1]:
            self._on_event(Unpacked(archive.name, len(found), sum(file.size for file in found.values())))
        with storing("check the unpacked files"):
            return tuple(self._listed(path, file) for path, file in sorted(found.items()))

    def _listed(self, path: str, file: UnpackedFile) -> RemoteFile:
        """The entry of an unpacked file: its digest gives it an identity, the mark shows if another file replaced it."""
        descriptor = open_beneath(self._root, file.place, os.O_RDONLY)
        try:
            return RemoteFile(path, file.size, (file.digest,), mark(os.fstat(descriptor)))
        finally:
            os.close(descriptor)

    def _except_finished(self, event: Event) -> None:
        """Pass on all events but Finished: the end of the archives' fetch is not the end of this one."""
        if not isinstance(event, Finished):
            self._on_event(event)


def unpacking(
    source: Source, ref: ArtifactRef, settings: Settings, on_event: Subscriber, step: Step
) -> tuple[Source, Settings, Step]:
    """Return `source` with the members of its archives, the settings for it, and a step that cleans up.

    A source that is not `Packed` is returned as it is. Unpacked files are hard-linked, since nobody else has them.
    """
    if not isinstance(source, Packed):
        return source, settings, step
    unpacked = UnpackingSource(source, ref, settings, on_event)

    def cleaning(name: str) -> None:
        if name in _PLACED:
            unpacked.clean_up()
        step(name)

    return unpacked, replace(settings, hard_link=True), cleaning
