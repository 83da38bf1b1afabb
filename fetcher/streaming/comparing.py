"""Compares a file with what its source publishes of it, while several threads receive its ranges in any order.

CRCs are computed range by range and combined. Digests need the bytes in order: one thread at a time hashes what continues the
hashed prefix, its own range or those that others left waiting. So a range that was left waiting is hashed before the call that
takes an earlier one returns; whoever hands out ranges in order hands out hashed ones only.
"""

from __future__ import annotations

import threading

from fetcher.artifact import RemoteFile
from fetcher.errors import DigestMismatch
from fetcher.integrity.checksums import CrcCheck, checkable, in_order
from fetcher.integrity.digests import DigestCheck
from fetcher.integrity.hasher import Hasher
from fetcher.manifest import strongest


class Comparison:
    """One reading of one file. All bytes must be added once; `check` then compares. Safe for use from several threads."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._digests = DigestCheck(file.digests, size=file.size, checksums=in_order(file))
        self._crcs = CrcCheck(file)
        self._lock = threading.Lock()
        self._added = 0
        self._hashed = 0
        self._hashing = False
        self._waiting: dict[int, memoryview | bytes] = {}

    @property
    def by(self) -> str:
        """What the file is compared with: `sha256`, `crc64nvme`, ..., or `size` if nothing is published of it."""
        digests, checksums = self._file.digests, checkable(self._file)
        return strongest([*(each.algorithm for each in digests), *(each.algorithm for each in checksums)])

    def new_hasher(self, start: int) -> Hasher:
        """Return the running checksums of the range from byte `start`. Feed it the range in order, then `add` it."""
        return self._crcs.new_hasher(start)

    def add(self, start: int, data: memoryview | bytes, hasher: Hasher) -> None:
        """Add the range of bytes from `start`. `data` must not change until it is hashed; see above."""
        with self._lock:
            self._crcs.add(start, hasher)
            self._added += len(data)
            if not self._digests.hashers:
                return
            self._waiting[start] = data
            if self._hashing:
                return
            self._hashing = True
        while (piece := self._next()) is not None:
            self._digests.update(piece)

    def _next(self) -> memoryview | bytes | None:
        """Return the bytes after the hashed prefix, which the caller hashes at once; None if they have not come."""
        with self._lock:
            piece = self._waiting.pop(self._hashed, None)
            self._hashing = piece is not None
            self._hashed += len(piece or b"")
            return piece

    def check(self) -> None:
        """Raise DigestMismatch if all bytes came, and differ. Call it after each `add`, or after several."""
        with self._lock:
            if self._added != self._file.size or self._hashing or self._waiting:
                return
        mismatch = self._digests.mismatch() or self._crcs.mismatch()
        if mismatch is not None:
            expected, actual = mismatch
            path = self._file.path
            raise DigestMismatch(
                f"{path}: expected {expected}, but the source sent {actual}; its tensors must not be used; start again, and "
                "ask the publisher if it differs again",
                path=path,
                expected=str(expected),
                actual=actual,
            )
