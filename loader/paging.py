"""Pages brought in without copying them, and kept: parts of a file as address space that no instruction of ours touches."""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
from types import TracebackType
from typing import Any, Self

_MADV_POPULATE_READ = 22
_MAP_FAILED = ctypes.c_void_p(-1).value


@functools.cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
    libc.munmap.argtypes = libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return libc


class Stretch:
    """`length` bytes of an open file from `start` on, which is on a page; mapped read-only and shared until `close`.

    Raises OSError where the filesystem maps nothing. The descriptor may be closed before.
    """

    def __init__(self, descriptor: int, start: int, length: int) -> None:
        self._length = length
        address = _libc().mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, start)
        if address == _MAP_FAILED:
            raise _last_error()
        self._address: int | None = address

    def populate(self) -> None:
        """Read what is not there (MADV_POPULATE_READ, Linux 5.14). Raises OSError: EINVAL before that, EFAULT for a page that
        can't be had, where touching it would be SIGBUS."""
        if _libc().madvise(self._address, self._length, _MADV_POPULATE_READ) != 0:
            raise _last_error()

    def lock(self) -> None:
        """Read what is not there, and keep all of it until `close`. Raises OSError: ENOMEM or EPERM past the limit of locking,
        EAGAIN or ENOMEM for a page that can't be had."""
        if _libc().mlock(self._address, self._length) != 0:
            raise _last_error()

    def close(self) -> None:
        """Unlocks too."""
        if self._address is not None:
            _libc().munmap(self._address, self._length)
            self._address = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _last_error() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))
