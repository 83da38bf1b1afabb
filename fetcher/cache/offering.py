"""What a root offers to others: its published artifacts, file by file, each by the digest of its listing.

The manifest decides which files exist. Each file is opened below the root without following a link, and only if the manifest
is still the same afterwards: the bytes then belong to that listing, whatever is replaced or evicted later.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from fetcher import filesystem
from fetcher.artifact import listing_digest
from fetcher.errors import NewerFormat
from fetcher.manifest import LARGEST, RELATIVE_PATH, Manifest, ManifestFile
from fetcher.store.beneath import open_beneath, read_beneath
from fetcher.values import dataclass

_KEY = re.compile("[0-9a-f]{16}")
_MOST_FILES = 100_000
"""Files of all artifacts whose manifests are kept parsed: some 40 MB. A manifest of 800 GB takes 30 ms to parse again."""


@dataclass(frozen=True, slots=True)
class OfferedFile:
    """A file of `size` bytes. `tag` names its content."""

    size: int
    tag: str


@dataclass(frozen=True, slots=True)
class Offer:
    """A published artifact. `listing` is the digest of its listing, `chunk_size` in bytes.

    `authenticated`: a credential was used to fetch it, so not everybody may have it.
    """

    key: str
    listing: str
    files: Mapping[str, OfferedFile]
    chunk_size: int
    authenticated: bool
    mark: str
    """Size, time and inode of the manifest."""


class Offers:
    """The published artifacts of the root `cache_dir`, for any thread, without those that no source has confirmed."""

    def __init__(self, cache_dir: Path) -> None:
        self._root = cache_dir
        self._known: dict[str, Offer] = {}
        self._lock = threading.Lock()

    def find(self, key: str) -> Offer | None:
        """Return the artifact `key`, or None if the root has none that it can offer."""
        if not _KEY.fullmatch(key):
            return None
        try:
            mark = self._mark(key)
            with self._lock:
                known = self._known.get(key)
            return known if known is not None and known.mark == mark else self._read(key, mark)
        except (OSError, ValueError, NewerFormat):
            with self._lock:
                self._known.pop(key, None)
            return None

    def open(self, offer: Offer, path: str) -> int | None:
        """Return a descriptor of a file of `offer`; None if it is gone, replaced, or not what the manifest says."""
        file = offer.files.get(path)
        if file is None:
            return None
        with suppress(OSError, ValueError):
            descriptor = open_beneath(self._root, self._root / offer.key / path, os.O_RDONLY)
            try:
                status = os.fstat(descriptor)
                # The manifest is looked at after the file was opened: whatever replaces a file removes the manifest first.
                if stat.S_ISREG(status.st_mode) and status.st_size == file.size and self._mark(offer.key) == offer.mark:
                    found, descriptor = descriptor, -1
                    return found
            finally:
                if descriptor >= 0:
                    os.close(descriptor)
        return None

    def _mark(self, key: str) -> str:
        descriptor = open_beneath(self._root, self._root / key / RELATIVE_PATH, os.O_PATH)
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        return filesystem.mark(status)

    def _read(self, key: str, mark: str) -> Offer | None:
        """Read the manifest. Its mark is older than its content, so a replaced one is read again."""
        record = self._root / key / RELATIVE_PATH
        manifest = Manifest.from_bytes(read_beneath(self._root, record, limit=LARGEST), where=str(record))
        if manifest.unconfirmed or not manifest.fingerprint.startswith(key) or manifest.snapshot is not None:
            return None
        files = {file.path: OfferedFile(file.size, _tag(file)) for file in manifest.files}
        offer = Offer(key, listing_digest(manifest.files), files, manifest.chunk_size, manifest.authenticated, mark)
        with self._lock:
            self._known.pop(key, None)
            self._known[key] = offer
            while len(self._known) > 1 and sum(len(each.files) for each in self._known.values()) > _MOST_FILES:
                del self._known[next(iter(self._known))]
        return offer


def _tag(file: ManifestFile) -> str:
    """A text that names the content of a file: a digest, or a hash of the hashes of its chunks."""
    if file.digests:
        return str(min(file.digests))
    return f"xxh3:{hashlib.sha256(''.join(file.chunks).encode()).hexdigest()}"
