"""The page cache behind a transfer: pages written back early and dropped, so that a small container can write any amount.

A kubelet counts active page cache against a pod. Left alone, written pages gather until the kernel throttles the writer or,
with cgroup v1, kills it. So writing back begins with each piece that is written, and is waited for one piece later: never more
than two pieces a connection are dirty, and a slow disk holds its writer back, not its memory.

Errors are not raised here: the same error is reported to fsync (errseq, Linux 4.13), which alone decides.
"""

from __future__ import annotations

import os
from contextlib import suppress

from fetcher.artifact import ByteRange
from fetcher.host.libc import libc

_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4


def start_writing_back(descriptor: int, written: ByteRange) -> None:
    """Begin, without waiting (but for room in the device's queue)."""
    _sync_file_range(descriptor, written, _WRITE)


def finish_writing_back(descriptor: int, written: ByteRange) -> None:
    """Wait until these pages are clean."""
    _sync_file_range(descriptor, written, _WAIT_BEFORE | _WRITE | _WAIT_AFTER)


def drop(descriptor: int, part: ByteRange) -> None:
    """Give back the clean pages of a part of a file."""
    with suppress(OSError):
        os.posix_fadvise(descriptor, part.start, len(part), os.POSIX_FADV_DONTNEED)


def _sync_file_range(descriptor: int, part: ByteRange, flags: int) -> None:
    libc().sync_file_range(descriptor, part.start, len(part), flags)
