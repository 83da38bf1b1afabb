"""How the bytes of an open file come into memory: read, read past the page cache, or mapped.

`open_access` gives what was asked for or, where the filesystem or the kernel refuses it, plain reading and the reason.
"""

from __future__ import annotations

import errno
import mmap
import os

from fetcher.quantities import ceil_div
from loader.arena import Arena, address_of
from loader.blocks import Block, Source
from loader.errors import FileReplaced, from_os_error
from loader.filesystems import Strategy
from loader.kernel import PAGE, bring_in, can_bring_in, os_error

_REFUSED = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV}


class Buffered:
    """preadv, through the page cache. It fills without locks: several threads may, each another piece."""

    fallback: str | None = None
    """Why this is not, or is no longer, what was asked for."""

    def __init__(self, source: Source, descriptor: int) -> None:
        self._source = source
        self._descriptor = descriptor

    def memory(self, block: Block, arena: Arena) -> memoryview:
        """Where the block will be: its byte `origin` of the file is the first."""
        return arena.take(block.span)

    def fill(self, memory: memoryview, origin: int, start: int, stop: int) -> None:
        """Bring in bytes `start` to `stop` of the file. A read that brings less than it was asked for is continued.

        Raises FileReplaced where the file ends before them, LocalIOError where the disk fails.
        """
        while start < stop:
            start += self._read(self._descriptor, memory[start - origin : stop - origin], start)

    def check(self) -> None:
        """Raises FileReplaced if the file was written to since its header was read."""
        self._source.check(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)

    def _read(self, descriptor: int, into: memoryview, offset: int) -> int:
        try:
            count = os.preadv(descriptor, [into], offset)
        except OSError as error:
            raise self._failed(error, offset, len(into)) from error
        if count == 0:
            raise self._shorter()
        return count

    def _failed(self, error: OSError, offset: int, count: int) -> Exception:
        return from_os_error(error, doing=f"read {count} bytes at offset {offset}", path=self._source.path)

    def _shorter(self) -> FileReplaced:
        path, size = self._source.path, self._size()
        return FileReplaced(f"{path} became shorter while it was read: it ends at byte {size}; try again", path=path)

    def _size(self) -> int:
        try:
            return os.fstat(self._descriptor).st_size
        except OSError as error:
            raise from_os_error(error, doing="look at the size", path=self._source.path) from error


class Direct(Buffered):
    """preadv past the page cache. The block's memory has room for whole pages, so an unaligned beginning or end is read along
    with its page. From the first refusal on (a device with larger blocks, a short read that ends within one) the file is read
    through the page cache."""

    def __init__(self, source: Source, descriptor: int, direct: int) -> None:
        super().__init__(source, descriptor)
        self._direct = direct

    def fill(self, memory: memoryview, origin: int, start: int, stop: int) -> None:
        position, end = start // PAGE * PAGE, ceil_div(stop, PAGE) * PAGE
        while position < stop:
            if self.fallback:
                super().fill(memory, origin, position, stop)
                return
            position += self._read_directly(memory[position - origin : end - origin], position)

    def close(self) -> None:
        os.close(self._direct)
        super().close()

    def _read_directly(self, into: memoryview, offset: int) -> int:
        """0 when it is refused."""
        try:
            count = os.preadv(self._direct, [into], offset)
        except OSError as error:
            if error.errno not in _REFUSED:
                raise self._failed(error, offset, len(into)) from error
            self.fallback = f"O_DIRECT was refused at offset {offset} ({os.strerror(error.errno or 0).lower()})"
            return 0
        if count == 0:
            raise self._shorter()
        return count


class Mapped(Buffered):
    """Views of the page cache itself. Nothing is copied; pages that are not there are read, without SIGBUS. Who writes to a
    view gets a page of their own (MAP_PRIVATE), as with memory that was read into; the file does not change.

    A page that vanishes later, because the file is truncated or its disk breaks, is SIGBUS all the same. Published files are
    replaced by a rename and never truncated. As long as there is a view, the mapping keeps a descriptor of the file open.
    """

    def __init__(self, source: Source, descriptor: int, mapping: mmap.mmap) -> None:
        super().__init__(source, descriptor)
        self._mapping = mapping
        self._address = address_of(mapping)

    def memory(self, block: Block, arena: Arena) -> memoryview:
        if block.stop > len(self._mapping):
            raise self._shorter()
        return memoryview(self._mapping)[block.origin : block.stop]

    def fill(self, memory: memoryview, origin: int, start: int, stop: int) -> None:
        first = start // PAGE * PAGE
        refused = bring_in(self._address + first, stop - first)
        if refused == errno.EFAULT:
            if self._size() < stop:
                raise self._shorter()
            refused = errno.EIO
        if refused:
            raise self._failed(os_error(refused), first, stop - first)


def open_access(source: Source, mode: Strategy) -> Buffered:
    """Raises what opening a source raises."""
    descriptor = source.open()
    try:
        if mode == "direct":
            return _direct(source, descriptor)
        if mode == "mmap":
            return _mapped(source, descriptor)
        return Buffered(source, descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def _direct(source: Source, descriptor: int) -> Buffered:
    try:
        # The very inode that is open, whatever lies at its path by now.
        direct = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
    except OSError as error:
        return _instead(source, descriptor, f"O_DIRECT was refused ({os.strerror(error.errno or 0).lower()})")
    return Direct(source, descriptor, direct)


def _mapped(source: Source, descriptor: int) -> Buffered:
    if not can_bring_in():
        return _instead(source, descriptor, "this kernel cannot tell whether mapped pages can be had (Linux 5.14 does)")
    try:
        return Mapped(source, descriptor, mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY))
    except ValueError:
        return Buffered(source, descriptor)  # an empty file can't be mapped
    except OSError as error:
        return _instead(source, descriptor, f"mapping was refused ({os.strerror(error.errno or 0).lower()})")


def _instead(source: Source, descriptor: int, reason: str) -> Buffered:
    access = Buffered(source, descriptor)
    access.fallback = reason
    return access
