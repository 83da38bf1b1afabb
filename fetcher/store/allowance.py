"""Room for files that are written one after another, and whose sizes are known only one by one: the members of archives.

Each file has its room before its first byte. Each decision about room surveys the root, so room for many small files is
promised at once.
"""

from __future__ import annotations

from collections.abc import Callable

from fetcher.errors import CacheBusy, OutOfSpace

_BLOCK = 4096
"""Bytes that filesystems allocate at a time."""
_LEAST = 16 * 1024 * 1024
"""Bytes that are promised at a time at least."""
_SHARE = 8
"""A step is at most this part of what was written already: more could evict an artifact in vain."""


class Allowance:
    """Makes room by `make`, which promises so many more bytes, beside those that are allocated (`Room.make`)."""

    def __init__(self, make: Callable[[int], None]) -> None:
        self._make = make
        self._left = 0
        self._taken = 0
        self.refused = False
        """Whether the last file has no room."""

    def take(self, size: int) -> None:
        """Have room for a file of `size` bytes that is written next. Blocks. Raises as `Room.make`."""
        allocated = -(-size // _BLOCK) * _BLOCK
        if allocated > self._left:
            self._left = self._promised(allocated)
        self._left -= allocated
        self._taken += allocated

    def _promised(self, least: int) -> int:
        """Make room for a step of at least `least` bytes, and return it: the largest one that is not refused."""
        step = max(least, _LEAST, self._taken // _SHARE)
        while True:
            try:
                self._make(step)
            except (OutOfSpace, CacheBusy):
                if step == least:
                    self.refused = True
                    raise
                step = max(least, step // 2)
            else:
                return step
