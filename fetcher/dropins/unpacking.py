"""An archive as a source: what is published is one file, what is wanted are the files in it.

The archive is fetched into the destination's private directory, resumable and verified like any artifact, and unpacked beside
itself; the engine then takes the unpacked files by further links, in the order in which they may become visible. All of that
happens under the destination's lease, so two processes with one volume unpack once.
"""

from __future__ import annotations

import shutil
import threading
import uuid
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

from fetcher import engine
from fetcher.artifact import ArtifactRef, ByteRange, Listing, RemoteFile
from fetcher.dropins.archives import Contents, unpack
from fetcher.errors import LocalIOError
from fetcher.events import Event, Finished, Subscriber, Unpacked
from fetcher.filesystem import make_directory, storing
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.settings import Settings
from fetcher.sources import open_source
from fetcher.sources.base import Asking, Body, Capabilities, once
from fetcher.sources.local import LocalSource
from fetcher.store.layout import Root
from fetcher.uncancelled import run_uncancelled


class ArchiveSource:
    """The files of the archive that `ref` names, for the destination of `settings`."""

    def __init__(self, ref: ArtifactRef, settings: Settings, on_event: Subscriber) -> None:
        self._ref = ref
        self._settings = settings
        self._on_event = on_event
        self._scratch = Root(settings.dest or settings.cache_dir).archive
        self._unpacked: LocalSource | None = None

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(local=True)

    def local_path(self, file: RemoteFile) -> Path | None:
        return self._unpacked.local_path(file) if self._unpacked else None

    def open(self, file: RemoteFile, byte_range: ByteRange | None) -> AbstractAsyncContextManager[Body]:
        if self._unpacked is None:
            raise AssertionError("nothing is opened before it was listed")
        return self._unpacked.open(file, byte_range)

    async def aclose(self) -> None:
        """Nothing is kept open; what was fetched stays, for the next run."""

    async def resolve(self) -> str | None:
        """The archive's revision."""
        source = open_source(self._ref, self._settings)
        try:
            return await source.resolve()
        finally:
            await source.aclose()

    async def list(self, revision: str | None, ask: Asking = once) -> Listing:
        """What is in the archive, which is here then. Raises FetchError."""
        settings = replace(self._settings, dest=self._scratch / "fetched", shared_dest=False, hard_link=True)
        archive = await engine.fetch(self._ref, settings, self._without_the_end)
        manifest = _manifest_of_one(archive.path)
        path = archive.path / manifest.files[0].path
        directory, contents = await self._unpack(path)
        self._on_event(Unpacked(path.name, contents.files, contents.bytes))
        self._unpacked = LocalSource(directory)
        listing = await self._unpacked.list(None)
        return replace(listing, revision=archive.revision, authenticated=manifest.authenticated)

    def clean_up(self) -> None:
        """The files are placed: remove the archive, and what is left of its directory."""
        shutil.rmtree(self._scratch, ignore_errors=True)

    async def _unpack(self, archive: Path) -> tuple[Path, Contents]:
        stopping = threading.Event()
        return await run_uncancelled(self._unpack_anew, archive, stopping, stop=stopping.set)

    def _unpack_anew(self, archive: Path, stopping: threading.Event) -> tuple[Path, Contents]:
        """Into a new directory: a process that was stopped and lost its lease may still write into an old one."""
        parent = self._scratch / "unpacked"
        directory = parent / uuid.uuid4().hex
        with storing("make room for what is unpacked"):
            shutil.rmtree(parent, ignore_errors=True)
            make_directory(directory)
        return directory, unpack(archive, directory, stopped=stopping.is_set)

    def _without_the_end(self, event: Event) -> None:
        """That the archive is here is not the end."""
        if not isinstance(event, Finished):
            self._on_event(event)


def _manifest_of_one(directory: Path) -> Manifest:
    """The manifest of an artifact that has one file."""
    manifest = Manifest.read(directory / RELATIVE_PATH)
    if manifest is None or len(manifest.files) != 1:
        raise LocalIOError(f"{directory} was changed while it was in use; run the same command again")
    return manifest
