"""Kernel calls about the pages of an open file. Each function says when its answer cannot be trusted.

Our code never touches a mapped page, so a file that is truncated meanwhile cannot raise SIGBUS. Calls go through `ctypes.CDLL`,
which releases the GIL.
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
from itertools import chain
from pathlib import Path

from fetcher.host.libc import TMPFS, filesystem_type, libc
from fetcher.quantities import ceil_div
from fetcher.values import dataclass

PAGE = mmap.PAGESIZE
_CACHESTAT = 451  # the same number on x86-64 and arm64
_MADV_RANDOM = 1
_MADV_POPULATE_READ = 22
_IOV_MAX = 1024
_MAP_FAILED = ctypes.c_void_p(-1).value
_FAR = 1 << 30
_LOW_BIT = bytes(value & 1 for value in range(256))

# statfs(2) f_type. Overlay, and FUSE in passthrough, keep their pages under another file's address space.
_PAGES_ELSEWHERE = {0x794C7630, 0x65735546}
# Filesystems whose page faults go through the kernel's own filemap_fault, which counts a wait as a major fault: NFS, Ceph,
# Lustre, FUSE, virtiofs, 9p, CIFS, SMB, overlay, ext4, xfs, btrfs, f2fs, erofs, squashfs, zfs, tmpfs, hostfs.
_WAITING_IS_COUNTED = {
    *(0x6969, 0x00C36400, 0x0BD00BD0, 0x65735546, 0x6A656A63, 0x01021997, 0xFF534D42, 0xFE534D42, 0x794C7630, 0xEF53),
    *(0x58465342, 0x9123683E, 0xF2F52010, 0xE0F5E1E2, 0x73717368, 0x2FC12FC1, 0x01021994, 0x00C0FFEE),
}
_MEMORY = {TMPFS, 0x858458F6, 0x958458F6}  # tmpfs, ramfs, hugetlbfs


@dataclass(frozen=True, slots=True)
class CacheCounts:
    """Numbers of pages of a part of a file. `cached` includes pages that are still being read; `unwritten` are dirty."""

    cached: int
    unwritten: int


def cache_counts(fd: int, start: int, length: int) -> CacheCounts | None:
    """Call cachestat(2): 0.2 ms a GiB. Returns None before Linux 6.5, if seccomp refuses it, for a file that the caller neither
    owns nor can write (EPERM in recent kernels), and if a zero only means that another file holds the pages."""
    byte_range = (ctypes.c_uint64 * 2)(start, length)
    counts = (ctypes.c_uint64 * 5)()
    if libc().syscall(ctypes.c_long(_CACHESTAT), ctypes.c_uint(fd), byte_range, counts, ctypes.c_uint(0)) != 0:
        return None
    if counts[0] == 0 and filesystem_type(fd) in _PAGES_ELSEWHERE:
        return None
    return CacheCounts(cached=counts[0], unwritten=counts[1] + counts[2])


class Mapped:
    """A mapped part of a file; made by `mapped`."""

    def __init__(self, address: int, length: int) -> None:
        self._address = address
        self._length = length
        self._flags = (ctypes.c_ubyte * ceil_div(length, PAGE))()

    def resident_pages(self) -> int | None:
        """Count up-to-date pages with mincore(2): 15 ms a GiB. Counts every page unless `mincore_is_reliable`."""
        if libc().mincore(self._address, self._length, self._flags) != 0:
            return None
        return bytes(self._flags).translate(_LOW_BIT).count(1)

    def faults(self, *, alone: bool = False) -> int:
        """Read every page in, 50-100 ms a GiB, and return how many had to be waited for (major faults).

        If `counts_waiting`, 0 proves that all pages were in memory. A page beyond the end of the file counts as a wait.
        `alone`: read no neighbours of a missing page.

        A byte of each page is written to a pipe: there an unreadable page gives EFAULT instead of SIGBUS. MADV_POPULATE_READ
        would be simpler, but Linux 6.1 does not count its waits.
        """
        if alone:
            libc().madvise(self._address, self._length, _MADV_RANDOM)
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_majflt
        readable = self._read_a_byte_of_each()
        waited = resource.getrusage(resource.RUSAGE_THREAD).ru_majflt - before
        return waited if readable else max(waited, 1)

    def _read_a_byte_of_each(self) -> bool:
        receiver, sender = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            for start in range(0, len(self._flags), _IOV_MAX):
                count = min(_IOV_MAX, len(self._flags) - start)
                if libc().writev(sender, _iovec(self._address + start * PAGE), count) != count:
                    return False
                os.read(receiver, count)
            return True
        finally:
            os.close(receiver)
            os.close(sender)


@functools.lru_cache(maxsize=64)
def _iovec(address: int) -> ctypes.Array[ctypes.c_uint64]:
    """The iovec array with one byte of each page. Cached, because the kernel often maps at the same address again."""
    flat = ((address + page * PAGE, 1) for page in range(_IOV_MAX))
    return (ctypes.c_uint64 * (2 * _IOV_MAX))(*chain.from_iterable(flat))


def counts_waiting(fd: int) -> bool:
    """Return whether `Mapped.faults` can be trusted for this file. It cannot in a sandbox that counts no faults (gVisor), or on
    a filesystem with its own fault handler (GPFS)."""
    return filesystem_type(fd) in _WAITING_IS_COUNTED and _faults_are_counted()


@functools.cache
def _faults_are_counted(vmstat: Path = Path("/proc/vmstat")) -> bool:
    try:
        return re.search(r"^pgmajfault [1-9]", vmstat.read_text(), re.MULTILINE) is not None
    except OSError:
        return False


@contextmanager
def mapped(fd: int, start: int, length: int) -> Iterator[Mapped | None]:
    """Map a page-aligned part of a file for the methods of `Mapped`. Yields None if the filesystem cannot map files."""
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
    """Map a page-aligned part of a file read-only, and return its address. Raises OSError."""
    address: int = libc().mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, fd, start)
    if address == _MAP_FAILED:
        raise os_error(ctypes.get_errno())
    return address


def unmap(address: int, length: int) -> None:
    """Unmap the range, which also unlocks it."""
    libc().munmap(address, length)


def lock(address: int, length: int) -> int:
    """Read and lock the pages with mlock(2). Returns 0 or an errno: ENOMEM or EPERM beyond the lock limit, EAGAIN or ENOMEM for
    an unreadable page."""
    return ctypes.get_errno() if libc().mlock(address, length) != 0 else 0


def os_error(number: int) -> OSError:
    """Return the OSError for an errno."""
    return OSError(number, os.strerror(number))


def bring_in(address: int, length: int) -> int:
    """Map the resident pages and read the missing ones with MADV_POPULATE_READ. Returns 0 or an errno.

    EFAULT: a page cannot be read (beyond the end of the file, or a broken disk); touching it would raise SIGBUS. EINVAL: the
    kernel is older than Linux 5.14.
    """
    return ctypes.get_errno() if libc().madvise(address, length, _MADV_POPULATE_READ) != 0 else 0


@functools.cache
def can_bring_in() -> bool:
    """Return whether this kernel supports `bring_in`."""
    with mmap.mmap(-1, PAGE) as page:
        probe = ctypes.c_char.from_buffer(page)
        known = bring_in(ctypes.addressof(probe), PAGE) == 0
        del probe
        return known


def mincore_is_reliable(fd: int) -> bool:
    """Return whether mincore tells the truth about this file. Since Linux 5.2 it reports every page as resident if the caller
    neither owns the file nor can write it. So we ask about a page far beyond the end, which is never resident."""
    with mapped(fd, (os.fstat(fd).st_size // _FAR + 2) * _FAR, PAGE) as witness:
        return witness is not None and witness.resident_pages() == 0


def read_at_once(fd: int, offset: int) -> bool | None:
    """Return whether the page at `offset` can be read without waiting; None if the filesystem does not support the question.

    NFS, FUSE, overlay and tmpfs do not. Asking starts the reading of a missing page.
    """
    try:
        return os.preadv(fd, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
    except OSError:
        return None


@contextmanager
def reopened(fd: int) -> Iterator[int | None]:
    """Open the same file again without read-ahead, and yield the descriptor; None if the open is refused."""
    try:
        descriptor = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        yield descriptor
    finally:
        os.close(descriptor)


def always_in_memory(fd: int, swaps: Path = Path("/proc/swaps")) -> bool:
    """Return whether the file is on tmpfs (or similar) and the machine has no swap: its pages cannot leave memory."""
    return filesystem_type(fd) in _MEMORY and not _any_swap(swaps)


def _any_swap(swaps: Path) -> bool:
    try:
        return len(swaps.read_text().splitlines()) > 1
    except OSError:
        return True
