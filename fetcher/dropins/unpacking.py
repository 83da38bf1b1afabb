"""A source whose files are the members of one published archive.

The archive is fetched into the destination's private directory, resumable and verified like any artifact, and unpacked next to
it. The engine then hard-links the unpacked files in the order in which they become visible. All of this happens under the
destination's lease, so two processes that share a volume unpack once.
"""

from __future__ import annotations

import os
import stat
import threading
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from fetcher import engine
from fetcher.archives.reading import unpack
from fetcher.artifact import ArtifactRef, ByteRange, Listing, RemoteFile
from fetcher.errors import LocalIOError
from fetcher.events import Event, Finished, Subscriber, Unpacked
from fetcher.filesystem import mark, storing
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.settings import Settings
from fetcher.sources import open_source
from fetcher.sources.access import Access
from fetcher.sources.base import Asking, Body, Capabilities, once
from fetcher.sources.local import LocalBody
from fetcher.store.beneath import make_directories, open_beneath, remove_tree
from fetcher.store.layout import Root
from fetcher.uncancelled import run_uncancelled


class ArchiveSource:
    """The files of the archive that `ref` names, for the destination of `settings`."""

    def __init__(self, ref: ArtifactRef, settings: Settings, on_event: Subscriber, credentials: Access | None = None) -> None:
        self._ref = ref
        self._credentials = credentials
        self._settings = settings
        self._on_event = on_event
        self._root = settings.dest or settings.cache_dir
        self._scratch = Root(self._root).archive
        self._directory: Path | None = None

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(local=True)

    def local_path(self, file: RemoteFile) -> Path | None:
        return self._directory / file.path if self._directory else None

    @asynccontextmanager
    async def open(self, file: RemoteFile, byte_range: ByteRange | None) -> AsyncIterator[Body]:
        if self._directory is None:
            raise AssertionError("open needs a listing first")
        with storing("read the unpacked file", file.path):
            descriptor = open_beneath(self._root, self._directory / file.path, os.O_RDONLY)
        try:
            yield LocalBody(descriptor, file, byte_range or ByteRange(0, file.size or 0))
        finally:
            os.close(descriptor)

    async def aclose(self) -> None:
        """Do nothing: no file is open, and fetched data stays for the next run."""

    async def resolve(self, ask: Asking = once) -> str | None:
        """Return the revision of the archive."""
        source = open_source(self._ref, self._settings, credentials=self._credentials)
        try:
            return await source.resolve(ask)
        finally:
            await source.aclose()

    async def describe(self, files: Sequence[RemoteFile], ask: Asking = once) -> Sequence[RemoteFile]:
        return files

    async def list(self, revision: str | None, ask: Asking = once) -> Listing:
        """Fetch and unpack the archive, and return its files. Raises FetchError."""
        settings = replace(self._settings, dest=self._scratch / "fetched", shared_dest=False, hard_link=True)
        archive = await engine.fetch(self._ref, settings, self._except_finished, credentials=self._credentials)
        manifest = _manifest_of_one(archive.path)
        path = archive.path / manifest.files[0].path
        files = await self._unpack(path)
        self._on_event(Unpacked(path.name, len(files), sum(file.size or 0 for file in files)))
        return Listing(archive.revision, files, authenticated=manifest.authenticated)

    def clean_up(self) -> None:
        """Remove the archive and the unpacked files, after the files were placed."""
        remove_tree(self._root, self._scratch)

    async def _unpack(self, archive: Path) -> tuple[RemoteFile, ...]:
        stopping = threading.Event()
        return await run_uncancelled(self._unpack_into_new_directory, archive, stopping, stop=stopping.set)

    def _unpack_into_new_directory(self, archive: Path, stopping: threading.Event) -> tuple[RemoteFile, ...]:
        """Unpack into a new directory: a stopped process that lost its lease can still write into an old one."""
        parent = self._scratch / "unpacked"
        directory = parent / uuid.uuid4().hex
        with storing("make a directory for the unpacked files"):
            remove_tree(self._root, parent)
            make_directories(self._root, directory)
        sizes = unpack(archive, directory, stopped=stopping.is_set)
        self._directory = directory
        with storing("check the unpacked files"):
            return tuple(self._listed(directory, path, size) for path, size in sorted(sizes.items()))

    def _listed(self, directory: Path, path: str, size: int) -> RemoteFile:
        """Return the entry of an unpacked file. Its mark shows later whether another file replaced it."""
        descriptor = open_beneath(self._root, directory / path, os.O_RDONLY)
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            raise LocalIOError(f"{path} of the archive changed during unpacking; run the same command again")
        return RemoteFile(path, size, validator=mark(status))

    def _except_finished(self, event: Event) -> None:
        """Pass on all events but Finished: the end of the archive's fetch is not the end of this one."""
        if not isinstance(event, Finished):
            self._on_event(event)


def _manifest_of_one(directory: Path) -> Manifest:
    """Return the manifest of an artifact that has one file."""
    manifest = Manifest.read(directory / RELATIVE_PATH)
    if manifest is None or len(manifest.files) != 1:
        raise LocalIOError(f"{directory} changed while it was in use; run the same command again")
    return manifest
