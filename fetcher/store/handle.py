"""The descriptor of one staged inode: opened when it is needed, closed when nobody uses it.

An artifact may have more files than a process may have descriptors. A descriptor is never closed while a thread is in a call
that uses it: its number would be given to another file.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Handle:
    """`opening` opens the inode by its name, and raises OSError when it is not there any more. Safe on several threads."""

    def __init__(self, opening: Callable[[], int]) -> None:
        self._opening = opening
        self._lock = threading.Lock()
        self._descriptor = -1
        self._users = 0
        self._kept = False
        self.closed = False

    def keep(self) -> None:
        """From its next use on the inode stays open until `close`: fsync reports an error of writing back only to a descriptor
        that was open before it, and on NFS every close waits for the server."""
        self._kept = True

    @contextmanager
    def opened(self) -> Iterator[int]:
        """The descriptor, valid within the block. Raises OSError, with EBADF after `close`."""
        descriptor = self._enter()
        try:
            yield descriptor
        finally:
            self._leave()

    def close(self) -> None:
        """Nobody opens it again. It is closed now, or at the end of the last block that uses it."""
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
