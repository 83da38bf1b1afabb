"""Calls of the C library that Python lacks, with their types. `ctypes` releases the GIL."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

TMPFS = 0x01021994
"""statfs(2)'s f_type of tmpfs."""


@functools.cache
def libc() -> Any:
    """Return the C library. The errno of a failed call is `ctypes.get_errno()`."""
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
    library.munmap.argtypes = library.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    library.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    library.writev.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
    library.writev.restype = ctypes.c_ssize_t
    library.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    library.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return library


def filesystem_type(descriptor: int) -> int:
    """Return statfs(2)'s f_type of the filesystem of a file; 0 if the kernel does not say."""
    status = (ctypes.c_long * 32)()
    return status[0] & 0xFFFFFFFF if libc().fstatfs(descriptor, ctypes.byref(status)) == 0 else 0
