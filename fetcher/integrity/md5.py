"""MD5, which object stores publish: of the whole object or, as the ETag of an upload in parts, of the MD5s of its parts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from fetcher.integrity.hasher import Hasher
from fetcher.planning.borders import Borders


def new_md5(parts: Sequence[int] = ()) -> Hasher:
    """Return a running MD5 or, with the sizes of parts in bytes, the MD5 of their MD5s."""
    return PartedMd5(parts) if parts else _plain()


class PartedMd5:
    """The MD5 of the MD5s of parts. Feed it the bytes in order."""

    __slots__ = ("_borders", "_of_parts", "_part", "_position")

    def __init__(self, parts: Sequence[int]) -> None:
        self._borders = Borders([parts])
        self._position = 0
        self._part = _plain()
        self._of_parts = _plain()

    def update(self, data: bytes | bytearray | memoryview) -> None:
        for piece in self._borders.cut(memoryview(data), self._position):
            self._part.update(piece)
            self._position += len(piece)
            if self._position in self._borders:
                self._of_parts.update(bytes.fromhex(self._part.hexdigest()))
                self._part = _plain()

    def hexdigest(self) -> str:
        return self._of_parts.hexdigest()


def _plain() -> Hasher:
    # It finds damage, and proves nothing against forgery: usedforsecurity=False keeps it working on FIPS hosts.
    return hashlib.md5(usedforsecurity=False)
