"""What a running digest is, whichever library computes it."""

from __future__ import annotations

from typing import Protocol


class Hasher(Protocol):
    """As in `hashlib`."""

    def update(self, data: bytes | bytearray | memoryview, /) -> object: ...
    def hexdigest(self) -> str: ...
