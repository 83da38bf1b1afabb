"""What a root offers to others: its published artifacts, and what it has of those under way. Each by the digest of its listing.

The manifest decides which files of a published artifact exist. Each is opened below the root without following a link, and
only if the manifest is still the same afterwards: the bytes then belong to that listing, whatever is replaced or evicted later.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
from contextlib import suppress
from pathlib import Path

from fetcher import filesystem
from fetcher.artifact import ByteRange, listing_digest
from fetcher.cache.offer import Offer, OfferedFile
from fetcher.cache.open_chunk import OpenChunk
from fetcher.cache.under_way import UnderWay
from fetcher.errors import NewerFormat
from fetcher.manifest import LARGEST, RELATIVE_PATH, Manifest, ManifestFile
from fetcher.store.beneath import open_beneath, read_beneath
from fetcher.store.identity import made_identity

_KEY = re.compile("[0-9a-f]{16}")
_MOST_FILES = 100_000
"""Files of all artifacts whose manifests are kept parsed: some 40 MB. A manifest of 800 GB takes 30 ms to parse again."""


class Offers:
    """What the root `cache_dir` has, for any thread, without artifacts that no source has confirmed.

    Blocks, as long as its disk takes.
    """

    def __init__(self, cache_dir: Path) -> None:
        self._root = cache_dir
        self._under_way = UnderWay(cache_dir)
        self._looks = (self._published, self._under_way.find, self._published)  # a fetch may publish between the first two
        self._known: dict[str, Offer] = {}
        self._lock = threading.Lock()

    def find(self, key: str, listing: str | None = None) -> Offer | None:
        """Return what there is of the artifact `key` with this listing, or None; without one, first what is published."""
        if not _KEY.fullmatch(key):
            return None
        found = (offer for look in self._looks if (offer := look(key)) is not None)
        return next((offer for offer in found if listing in (None, offer.listing)), None)

    def chunk(self, offer: Offer, path: str, index: int, buffer: memoryview) -> OpenChunk | None:
        """Open a chunk of a file of `offer`, which was under way and may be published by now; None if it is gone.

        `buffer` has room for a piece of it.
        """
        staged = self._under_way.chunk(offer, path, index, buffer)
        if staged is not None:
            return staged
        published = self._published(offer.key)
        if published is None or published.listing != offer.listing or (published.authenticated and not offer.authenticated):
            return None
        descriptor = self.open(published, path)
        if descriptor is None:
            return None
        start = index * offer.chunk_size
        return OpenChunk(descriptor, ByteRange(start, min(start + offer.chunk_size, published.files[path].size)))

    def _published(self, key: str) -> Offer | None:
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
        """Return a descriptor of a file of an `offer` that is published; None if it is gone or not what the manifest says."""
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


def identity(root: Path) -> str:
    """Return the identity of a root, which peers recognise it by; "" if it has none and cannot be given one."""
    try:
        return made_identity(root)
    except OSError:
        return ""


def _tag(file: ManifestFile) -> str:
    """A text that names the content of a file: a digest, or a hash of the hashes of its chunks."""
    if file.digests:
        return str(min(file.digests))
    return f"xxh3:{hashlib.sha256(''.join(file.chunks).encode()).hexdigest()}"
