"""What a root offers of fetches under way: the chunks that may be passed on, each read and compared before it is sent.

The journal of a fetch says which: of a file that is verified all, before that what came from the origin itself. So no byte of
a peer is passed on before the digest that the origin publishes has proven it. Files without such a digest are not offered:
who fetches takes them from the origin only.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from fetcher.artifact import CHUNK_SIZE, published_content
from fetcher.cache.offer import Offer, OfferedFile
from fetcher.cache.open_chunk import OpenChunk, compared
from fetcher.errors import HostilePath
from fetcher.planning.have import bitmap
from fetcher.planning.paths import refuse_hostile_paths
from fetcher.planning.ranges import chunk_count
from fetcher.store.following import Following
from fetcher.store.journal import Journalled, JournalledFile
from fetcher.store.layout import Root
from fetcher.values import dataclass

FRESH = 0.1
"""Seconds that a look at a fetch counts for those who only ask what there is: many peers ask at the same time. For bytes that
are sent each look is new."""
_MOST = 256
"""Fetches that are followed at a time. The journal of another one is read from its beginning again."""


class UnderWay:
    """The fetches under way in the root `cache_dir`, by other processes. For any thread."""

    def __init__(self, cache_dir: Path) -> None:
        self._staging = Root(cache_dir).staging
        self._lock = threading.Lock()
        self._followed: dict[str, _Followed] = {}

    def find(self, key: str) -> Offer | None:
        """Return what there is of the artifact `key` by now; None if nobody fetches it, or nothing of it can be offered."""
        return self._of(key).offer()

    def chunk(self, offer: Offer, path: str, index: int, buffer: memoryview) -> OpenChunk | None:
        """Open a chunk of `offer`, if it is what the journal says, and may still be passed on. `buffer`: see `compared`."""
        return self._of(offer.key).chunk(offer, path, index, buffer) if path in offer.files else None

    def _of(self, key: str) -> _Followed:
        with self._lock:
            followed = self._followed.pop(key, None) or _Followed(key, Following(self._staging / key))
            self._followed[key] = followed
            while len(self._followed) > _MOST:
                del self._followed[next(iter(self._followed))]
        return followed


class _Followed:
    """One fetch, and what is offered of it. `lock`: a Following is for one thread at a time."""

    def __init__(self, key: str, following: Following) -> None:
        self._key = key
        self._following = following
        self._lock = threading.Lock()
        self._looked = float("-inf")
        self._offer: Offer | None = None
        self._files: dict[str, _File] = {}
        self._journalled: Journalled | None = None

    def offer(self) -> Offer | None:
        with self._lock:
            if time.monotonic() - self._looked >= FRESH:
                self._offer = self._look()
                self._looked = time.monotonic()
            return self._offer

    def chunk(self, offer: Offer, path: str, index: int, buffer: memoryview) -> OpenChunk | None:
        with self._lock:
            chunk = self._following.chunk(offer.listing, path, index)
        if chunk is None or (chunk.authenticated and not offer.authenticated):
            return None
        found = compared(chunk, buffer)
        with self._lock:
            if found is None or self._following.still(chunk, offer.listing, path, index):
                return found
        found.close()
        return None

    def _look(self) -> Offer | None:
        journalled = self._following.look()
        if journalled is not self._journalled:  # of another owner
            self._journalled, self._files = journalled, {}
        if journalled is None or journalled.listing is None:
            return None
        for path in self._following.changed():
            file = _described(path, journalled.files.get(path))
            if file is not None:
                self._files[path] = file
            else:
                self._files.pop(path, None)
        return Offer(
            self._key,
            journalled.listing,
            {path: file.offered for path, file in self._files.items()},
            CHUNK_SIZE,
            journalled.authenticated,
            held={path: file.held for path, file in self._files.items()},
        )


@dataclass(frozen=True, slots=True)
class _File:
    offered: OfferedFile
    held: bytes


def _described(path: str, file: JournalledFile | None) -> _File | None:
    """What is offered of a file; None if nothing may be."""
    content = published_content(file.identity) if file is not None else None
    if file is None or content is None:
        return None
    try:
        refuse_hostile_paths([path])  # others who may write here can write journals too
    except HostilePath:
        return None
    size, digest = content
    count = chunk_count(size)
    return _File(
        OfferedFile(size, str(digest)), bitmap((i for i in file.chunks if 0 <= i < count and file.passed_on(i)), count)
    )
