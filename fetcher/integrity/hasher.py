"""The interface of a running digest, whichever library computes it."""

from __future__ import annotations

from typing import Protocol


class Hasher(Protocol):
    """A running digest with the methods of `hashlib`."""

    def update(self, data: bytes | bytearray | memoryview, /) -> object: ...
    def hexdigest(self) -> str: ...
