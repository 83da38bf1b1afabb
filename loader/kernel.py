"""What the kernel can be asked about the pages of an open file; each question says when its answer is no answer.

No page is ever touched by an instruction of ours, so a file that is truncated meanwhile cannot raise SIGBUS. Calls go through
`ctypes.CDLL`, which releases the GIL.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from fetcher.host.libc import TMPFS, filesystem_type, libc
from fetcher.quantities import ceil_div

PAGE = mmap.PAGESIZE
_CACHESTAT = 451  # on x86-64 and arm64 alike
_MADV_RANDOM = 1
_MADV_POPULATE_READ = 22
_IOV_MAX = 1024
_MAP_FAILED = ctypes.c_void_p(-1).value
_FAR = 1 << 30
_LOW_BIT = bytes(value & 1 for value in range(256))

# statfs(2) f_type. Overlay, and FUSE in passthrough, keep their pages under another file's address space.
_PAGES_ELSEWHERE = {0x794C7630, 0x65735546}
# Those whose page faults go through the kernel's own filemap_fault, which says when it had to wait: NFS, Ceph, Lustre, FUSE,
# virtiofs, 9p, CIFS, SMB, overlay, ext4, xfs, btrfs, f2fs, erofs, squashfs, zfs, tmpfs, hostfs.
_WAITING_IS_COUNTED = {
    *(0x6969, 0x00C36400, 0x0BD00BD0, 0x65735546, 0x6A656A63, 0x01021997, 0xFF534D42, 0xFE534D42, 0x794C7630, 0xEF53),
    *(0x58465342, 0x9123683E, 0xF2F52010, 0xE0F5E1E2, 0x73717368, 0x2FC12FC1, 0x01021994, 0x00C0FFEE),
}
_MEMORY = {TMPFS, 0x858458F6, 0x958458F6}  # tmpfs, ramfs, hugetlbfs


@dataclass(frozen=True, slots=True)
class CacheCounts:
    """Pages of a part of a file. `cached` counts those that are still being read."""

    cached: int
    unwritten: int


def cache_counts(fd: int, start: int, length: int) -> CacheCounts | None:
    """cachestat(2), 0.2 ms a GiB. None before Linux 6.5, where seccomp refuses it, for a file neither one's own nor writable
    (EPERM, lately), and where a zero only means that another file holds the pages."""
    asked = (ctypes.c_uint64 * 2)(start, length)
    told = (ctypes.c_uint64 * 5)()
    if libc().syscall(ctypes.c_long(_CACHESTAT), ctypes.c_uint(fd), asked, told, ctypes.c_uint(0)) != 0:
        return None
    if told[0] == 0 and filesystem_type(fd) in _PAGES_ELSEWHERE:
        return None
    return CacheCounts(cached=told[0], unwritten=told[1] + told[2])


class Mapped:
    """A part of a file as address space; made by `mapped`."""

    def __init__(self, address: int, length: int) -> None:
        self._address = address
        self._length = length
        self._told = (ctypes.c_ubyte * ceil_div(length, PAGE))()

    def resident_pages(self) -> int | None:
        """mincore(2), 15 ms a GiB: pages that are up to date. Every page, where the kernel won't tell (see `tells_truth`)."""
        if libc().mincore(self._address, self._length, self._told) != 0:
            return None
        return bytes(self._told).translate(_LOW_BIT).count(1)

    def faults(self, *, alone: bool = False) -> int:
        """Bring every page in, 50-100 ms a GiB, and count those that had to be waited for (major faults).

        0 is proof that all were there, where `counts_waiting`. A page behind the end of the file counts. `alone` reads no
        neighbours of a missing page.

        A byte of each page goes into a pipe, for there a page that can't be had is EFAULT and not SIGBUS. MADV_POPULATE_READ
        would be simpler, but Linux 6.1 does not count its waiting.
        """
        if alone:
            libc().madvise(self._address, self._length, _MADV_RANDOM)
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_majflt
        readable = self._touch()
        waited = resource.getrusage(resource.RUSAGE_THREAD).ru_majflt - before
        return waited if readable else max(waited, 1)

    def _touch(self) -> bool:
        receiver, sender = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            for start in range(0, len(self._told), _IOV_MAX):
                count = min(_IOV_MAX, len(self._told) - start)
                if libc().writev(sender, _a_byte_of_each(self._address + start * PAGE), count) != count:
                    return False
                os.read(receiver, count)
            return True
        finally:
            os.close(receiver)
            os.close(sender)


@functools.lru_cache(maxsize=64)
def _a_byte_of_each(address: int) -> ctypes.Array[ctypes.c_uint64]:
    """The struct iovec of a byte of each of so many pages. The kernel maps at the same addresses again and again."""
    flat = ((address + page * PAGE, 1) for page in range(_IOV_MAX))
    return (ctypes.c_uint64 * (2 * _IOV_MAX))(*chain.from_iterable(flat))


def counts_waiting(fd: int) -> bool:
    """Whether `Mapped.faults` is to be believed of this file: not in a sandbox that counts no faults (gVisor), nor on a
    filesystem whose faults are its own business (GPFS)."""
    return filesystem_type(fd) in _WAITING_IS_COUNTED and _faults_are_counted()


@functools.cache
def _faults_are_counted(vmstat: Path = Path("/proc/vmstat")) -> bool:
    try:
        return re.search(r"^pgmajfault [1-9]", vmstat.read_text(), re.MULTILINE) is not None
    except OSError:
        return False


@contextmanager
def mapped(fd: int, start: int, length: int) -> Iterator[Mapped | None]:
    """Map a part that begins on a page, for the questions of `Mapped` only; None where the filesystem maps nothing."""
    try:
        address = map_shared(fd, start, length)
    except OSError:
        yield None
        return
    try:
        yield Mapped(address, length)
    finally:
        unmap(address, length)


def map_shared(fd: int, start: int, length: int) -> int:
    """The address of a part of a file that begins on a page, to be read there. Raises OSError."""
    address: int = libc().mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, fd, start)
    if address == _MAP_FAILED:
        raise os_error(ctypes.get_errno())
    return address


def unmap(address: int, length: int) -> None:
    """Unlocks too."""
    libc().munmap(address, length)


def lock(address: int, length: int) -> int:
    """mlock(2): `bring_in`, and keep. Returns an errno: ENOMEM or EPERM past the limit of locking, EAGAIN or ENOMEM for a page
    that can't be had."""
    return ctypes.get_errno() if libc().mlock(address, length) != 0 else 0


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def bring_in(address: int, length: int) -> int:
    """MADV_POPULATE_READ: map the pages that are there and read those that are not. Returns an errno, 0 when all are in.

    EFAULT: a page can't be had, be it behind the end of the file or on a broken disk; touching it would be SIGBUS. EINVAL:
    before Linux 5.14.
    """
    return ctypes.get_errno() if libc().madvise(address, length, _MADV_POPULATE_READ) != 0 else 0


@functools.cache
def can_bring_in() -> bool:
    """Whether this kernel knows `bring_in`."""
    with mmap.mmap(-1, PAGE) as page:
        probe = ctypes.c_char.from_buffer(page)
        known = bring_in(ctypes.addressof(probe), PAGE) == 0
        del probe
        return known


def tells_truth(fd: int) -> bool:
    """Whether mincore answers for this file. From Linux 5.2 on it calls every page resident when the caller neither owns the
    file nor may write it; so it is asked about a page far behind the end, which nobody has."""
    with mapped(fd, (os.fstat(fd).st_size // _FAR + 2) * _FAR, PAGE) as witness:
        return witness is not None and witness.resident_pages() == 0


def read_at_once(fd: int, offset: int) -> bool | None:
    """Whether the page at `offset` can be read without waiting; None where the filesystem can't say.

    NFS, FUSE, overlay and tmpfs can't. A page that is not there begins to come in by being asked for.
    """
    try:
        return os.preadv(fd, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
    except OSError:
        return None


@contextmanager
def reopened(fd: int) -> Iterator[int | None]:
    """The same file with a position and read-ahead of its own, which is off; None where it may not be opened again."""
    try:
        own = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        os.posix_fadvise(own, 0, 0, os.POSIX_FADV_RANDOM)
        yield own
    finally:
        os.close(own)


def always_in_memory(fd: int, swaps: Path = Path("/proc/swaps")) -> bool:
    """A file of tmpfs or the like, on a machine without swap: it has no other place to be."""
    return filesystem_type(fd) in _MEMORY and not _any_swap(swaps)


def _any_swap(swaps: Path) -> bool:
    try:
        return len(swaps.read_text().splitlines()) > 1
    except OSError:
        return True
