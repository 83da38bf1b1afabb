"""Files of the artifacts of a root, found by their digests: a fetch need not download what another artifact already has."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from fetcher.artifact import CHUNK_SIZE, RemoteFile
from fetcher.errors import NewerFormat
from fetcher.manifest import Manifest, ManifestFile
from fetcher.store.catalog import Entry, entries
from fetcher.values import dataclass

_MANIFESTS = 4
"""Manifests that are kept in memory: the files of an artifact have few donors."""


@dataclass(frozen=True, slots=True)
class Donor:
    """A published file with the wanted content, as its manifest `file` says. `path`: the file itself, not a link to it."""

    key: str
    path: Path
    file: ManifestFile


class Donors:
    """The files of all artifacts of `root`. Thread-safe. Reads nothing before the first question.

    Without `authenticated`, artifacts that were fetched with a credential give nothing: others may have no right to read them.
    """

    def __init__(self, root: Path, *, authenticated: bool) -> None:
        self._root = root
        self._authenticated = authenticated
        self._lock = threading.Lock()
        self._entries: tuple[Entry, ...] | None = None
        self._manifest = lru_cache(_MANIFESTS)(_read)

    def __call__(self, file: RemoteFile) -> Iterator[Donor]:
        """Yield the files that have the size and all digests of `file`. A file without a digest has no donor."""
        if not file.digests:
            return
        for entry in self._known():
            for path in sorted(entry.summary.paths(file)):
                if (donor := self._donor(entry, path)) is not None and _equal(donor.file, file):
                    yield donor

    def _known(self) -> tuple[Entry, ...]:
        with self._lock:
            if self._entries is None:
                self._entries = ()
                with suppress(OSError):  # a root that cannot be listed shares nothing
                    self._entries = tuple(entries(self._root, on_newer=lambda _: None))
            return self._entries

    def _donor(self, entry: Entry, path: str) -> Donor | None:
        with self._lock:
            manifest = self._manifest(entry.record)
        if manifest is None or manifest.chunk_size != CHUNK_SIZE or (manifest.authenticated and not self._authenticated):
            return None
        if (listed := manifest.file(path)) is None or not listed.digests:
            return None
        if entry.summary.snapshot is None:
            return Donor(entry.key, entry.path / path, listed)
        return Donor(entry.key, entry.path.parent.parent / "blobs" / listed.digests[0].hex, listed)  # as `hub_cache` places it


def _read(record: Path) -> Manifest | None:
    with suppress(NewerFormat):  # replaced meanwhile
        return Manifest.read(record)
    return None


def _equal(listed: ManifestFile, file: RemoteFile) -> bool:
    return listed.size == file.size and set(file.digests) <= set(listed.digests)
