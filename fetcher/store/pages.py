"""The page cache of a transfer: pages are written back early and dropped, so that a small container can write any amount.

A kubelet counts active page cache against a pod. Without this, dirty pages accumulate until the kernel throttles the writer
or, with cgroup v1, kills it. So each piece starts writing back when it is written, and the next piece waits for it: each
connection has two dirty pieces at most, and a slow disk slows its writer instead of filling memory.

These functions raise no errors: fsync reports the same error again (errseq, Linux 4.13), and its result decides.
"""

from __future__ import annotations

import os
from contextlib import suppress

from fetcher.artifact import ByteRange
from fetcher.host.libc import libc

_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4


def start_writing_back(descriptor: int, written: ByteRange) -> None:
    """Start writing these pages back. Waits only for room in the device's queue."""
    _sync_file_range(descriptor, written, _WRITE)


def finish_writing_back(descriptor: int, written: ByteRange) -> None:
    """Wait until these pages are clean."""
    _sync_file_range(descriptor, written, _WAIT_BEFORE | _WRITE | _WAIT_AFTER)


def drop(descriptor: int, part: ByteRange) -> None:
    """Drop the clean pages of a part of a file from the page cache."""
    with suppress(OSError):
        os.posix_fadvise(descriptor, part.start, len(part), os.POSIX_FADV_DONTNEED)


def _sync_file_range(descriptor: int, part: ByteRange, flags: int) -> None:
    libc().sync_file_range(descriptor, part.start, len(part), flags)
