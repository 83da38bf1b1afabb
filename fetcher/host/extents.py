"""The blocks of a file that other files share: clones on xfs and btrfs."""

from __future__ import annotations

import fcntl
import struct
from collections.abc import Iterator

_FS_IOC_FIEMAP = 0xC020660B
_HEADER = struct.Struct("=QQLLLL")
"""Start and length of the part that is asked about, flags, extents returned, extents that fit, reserved."""
_EXTENT = struct.Struct("=QQQ16xL12x")
"""Offset in the file, offset on the device, length, flags."""
_LAST, _SHARED = 0x1, 0x2000
_NO_PLACE = 0x2 | 0x4 | 0x8 | 0x80 | 0x100 | 0x200
"""Flags of extents whose place is unknown, or whose length on the device is another: not written yet, compressed, inline."""
_AT_ONCE = 512


def shared_extents(descriptor: int) -> list[tuple[int, int]]:
    """Return start and stop on the device of each extent that another file shares. Raises OSError on tmpfs and NFS."""
    return [
        (physical, physical + length)
        for _, physical, length, flags in _extents(descriptor)
        if flags & _SHARED and not flags & _NO_PLACE
    ]


def _extents(descriptor: int) -> Iterator[tuple[int, int, int, int]]:
    start = 0
    while True:
        buffer = bytearray(_HEADER.size + _AT_ONCE * _EXTENT.size)
        _HEADER.pack_into(buffer, 0, start, 2**64 - 1 - start, 0, 0, _AT_ONCE, 0)
        fcntl.ioctl(descriptor, _FS_IOC_FIEMAP, buffer)
        count = _HEADER.unpack_from(buffer)[3]
        extents = [_EXTENT.unpack_from(buffer, _HEADER.size + number * _EXTENT.size) for number in range(count)]
        yield from extents
        if not extents or extents[-1][3] & _LAST or extents[-1][0] + extents[-1][2] <= start:
            return
        start = extents[-1][0] + extents[-1][2]
