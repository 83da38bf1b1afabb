"""The descriptor of one staged inode: opened when needed, closed when unused.

An artifact may have more files than a process may have descriptors. A descriptor is never closed while a thread uses it: the
kernel would give its number to another file.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Handle:
    """A shared descriptor. `opening` opens the inode by name, and raises OSError if it is gone. Thread-safe."""

    def __init__(self, opening: Callable[[], int]) -> None:
        self._opening = opening
        self._lock = threading.Lock()
        self._descriptor = -1
        self._users = 0
        self._kept = False
        self.closed = False

    def keep(self) -> None:
        """Keep the inode open from its next use on, until `close`. fsync reports an error of writing back only to descriptors
        that were open before it, and on NFS every close waits for the server."""
        self._kept = True

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Yield the descriptor, which is valid within the block. Raises OSError, with EBADF after `close`."""
        descriptor = self._enter()
        try:
            yield descriptor
        finally:
            self._leave()

    def close(self) -> None:
        """Forbid further opening. The descriptor is closed now, or at the end of the last block that uses it."""
        with self._lock:
            self.closed = True
            self._close_if_unused()

    def _enter(self) -> int:
        with self._lock:
            if self.closed:
                raise OSError(errno.EBADF, "the staged file is closed")
            if self._descriptor < 0:
                self._descriptor = self._opening()
            self._users += 1
            return self._descriptor

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._descriptor >= 0 and self._users == 0 and (self.closed or not self._kept):
            descriptor, self._descriptor = self._descriptor, -1
            with suppress(OSError):
                os.close(descriptor)
