"""Copies bytes between open files: within the kernel, or on the server of an NFS mount, where that is possible."""

from __future__ import annotations

import errno
import os

from fetcher.artifact import ByteRange
from fetcher.store.pages import finish_writing_back, start_writing_back

PIECE = 2 * 1024 * 1024
"""Bytes that are copied at a time. Two pieces are dirty at most, so that a copy of any size fits a small cgroup."""
_NO_COPY_CALL = {errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.ETXTBSY}
"""Errors of copy_file_range between two filesystems, on older kernels and on some FUSE and NFS servers: then it is read."""


def copy_range(source: int, target: int, part: ByteRange, *, at: int) -> None:
    """Copy `part` of `source` to offset `at` of `target`, piece by piece. Stops where a truncated source ends.

    A caller that compares the copied chunk sees that. Raises OSError.
    """
    shift = at - part.start
    before = ByteRange(part.start, part.start)
    while before.stop < part.stop:
        piece = ByteRange(before.stop, min(before.stop + PIECE, part.stop))
        if (count := _copy_some(source, target, piece, piece.start + shift)) == 0:
            return
        piece = ByteRange(piece.start, piece.start + count)
        start_writing_back(target, _moved(piece, shift))
        finish_writing_back(target, _moved(before, shift))
        before = piece


def _moved(part: ByteRange, shift: int) -> ByteRange:
    return ByteRange(part.start + shift, part.stop + shift)


def _copy_some(source: int, target: int, piece: ByteRange, at: int) -> int:
    """Copy the beginning of `piece`. Return how many bytes."""
    try:
        return os.copy_file_range(source, target, len(piece), piece.start, at)
    except OSError as error:
        if error.errno not in _NO_COPY_CALL:
            raise
    return os.pwrite(target, os.pread(source, len(piece), piece.start), at)
