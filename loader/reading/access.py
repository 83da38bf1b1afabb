"""Ways to bring the bytes of an open file into memory: read, read past the page cache (O_DIRECT), or mapped.

`open_access` returns the requested way. If the filesystem or the kernel refuses it, it returns plain reading and the reason.
"""

from __future__ import annotations

import errno
import mmap
import os
from typing import Protocol

from fetcher.quantities import ceil_div
from loader.errors import FileReplaced, from_os_error
from loader.kernel import PAGE, bring_in, can_bring_in, os_error
from loader.reading.arena import Arena, address_of
from loader.reading.blocks import Block, Remote, Source
from loader.reading.strategy import Mode

_REFUSED = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV}


class Access(Protocol):
    """A way to bring the bytes of one file into memory. Several threads fill different pieces at the same time."""

    fallback: str | None
    """Why the file is not, or no longer, read in the requested way; None if it is."""

    def memory(self, block: Block, arena: Arena) -> memoryview:
        """Return memory for the block. Its first byte is byte `origin` of the file."""

    def fill(self, memory: memoryview, origin: int, start: int, stop: int) -> None:
        """Read bytes `start` to `stop` of the file. Raises an error that names it."""

    def check(self) -> None:
        """Raise an error if what was read cannot be trusted: the file was replaced, or differs from what is published of it.

        Called after each block, before it is delivered.
        """

    def stop(self) -> None:
        """End the pieces that are being read, if they could take long. Nothing else is read afterwards."""

    def close(self) -> None:
        """Release the file."""


class Buffered:
    """Reads with preadv through the page cache. Several threads can fill different pieces without a lock."""

    fallback: str | None = None
    """Why the file is not, or no longer, read in the requested way; None if it is."""

    def __init__(self, source: Source, descriptor: int) -> None:
        self._source = source
        self._descriptor = descriptor

    def memory(self, block: Block, arena: Arena) -> memoryview:
        """Return memory for the block. Its first byte is byte `origin` of the file."""
        return arena.take(block.span)

    def fill(self, memory: memoryview, origin: int, start: int, stop: int) -> None:
        """Read bytes `start` to `stop` of the file. Continues after a short read.

        Raises FileReplaced if the file ends before `stop`, LocalIOError if the disk fails.
        """
        while start < stop:
            start += self._read(self._descriptor, memory[start - origin : stop - origin], start)

    def check(self) -> None:
        """Raise FileReplaced if the file was written to since its header was read."""
        self._source.check(self._descriptor)

    def stop(self) -> None:
        """Nothing: a disk answers soon, and a read from it cannot be ended."""

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)

    def _read(self, descriptor: int, into: memoryview, offset: int) -> int:
        try:
            count = os.preadv(descriptor, [into], offset)
        except OSError as error:
            raise self._failed(error, offset, len(into)) from error
        if count == 0:
            raise self._truncated()
        return count

    def _failed(self, error: OSError, offset: int, count: int) -> Exception:
        return from_os_error(error, doing=f"read {count} bytes at offset {offset}", path=self._source.path)

    def _truncated(self) -> FileReplaced:
        path, size = self._source.path, self._size()
        return FileReplaced(f"{path} was truncated during the read: it now ends at byte {size}; try again", path=path)

    def _size(self) -> int:
        try:
            return os.fstat(self._descriptor).st_size
        except OSError as error:
            raise from_os_error(error, doing="look at the size", path=self._source.path) from error


class Direct(Buffered):
    """Reads with preadv past the page cache (O_DIRECT). The block's memory holds whole pages, so an unaligned start or end is
    read with its page. After a refusal (a device with larger blocks, a short read that ends inside a block) the file is read
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
        """Returns the bytes read; 0 if O_DIRECT is refused."""
        try:
            count = os.preadv(self._direct, [into], offset)
        except OSError as error:
            if error.errno not in _REFUSED:
                raise self._failed(error, offset, len(into)) from error
            self.fallback = f"O_DIRECT was refused at offset {offset} ({os.strerror(error.errno or 0).lower()})"
            return 0
        if count == 0:
            raise self._truncated()
        return count


class Mapped(Buffered):
    """Maps the file: views of the page cache itself, without copying. Missing pages are read without the risk of SIGBUS. A
    write to a view copies its page (MAP_PRIVATE) and does not change the file.

    A page that is lost later, by truncation or a broken disk, still raises SIGBUS. Published files are replaced by a rename and
    never truncated. The mapping keeps a descriptor of the file open while there is a view.
    """

    def __init__(self, source: Source, descriptor: int, mapping: mmap.mmap) -> None:
        super().__init__(source, descriptor)
        self._mapping = mapping
        self._address = address_of(mapping)

    def memory(self, block: Block, arena: Arena) -> memoryview:
        if block.stop > len(self._mapping):
            raise self._truncated()
        return memoryview(self._mapping)[block.origin : block.stop]

    def fill(self, memory: memoryview, origin: int, start: int, stop: int) -> None:
        first = start // PAGE * PAGE
        error_number = bring_in(self._address + first, stop - first)
        if error_number == errno.EFAULT:
            if self._size() < stop:
                raise self._truncated()
            error_number = errno.EIO
        if error_number:
            raise self._failed(os_error(error_number), first, stop - first)


def open_access(source: Source | Remote, mode: Mode) -> Access:
    """Open the file and return its access; a remote file has its own, whatever the mode. Raises the errors of `Source.open`."""
    if isinstance(source, Remote):
        return source.access()
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
        # By descriptor, not by path: another file may be at the path by now.
        direct = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
    except OSError as error:
        return _fall_back(source, descriptor, f"O_DIRECT was refused ({os.strerror(error.errno or 0).lower()})")
    return Direct(source, descriptor, direct)


def _mapped(source: Source, descriptor: int) -> Buffered:
    if not can_bring_in():
        return _fall_back(source, descriptor, "this kernel cannot read mapped pages safely (that needs Linux 5.14)")
    try:
        return Mapped(source, descriptor, mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY))
    except ValueError:
        return Buffered(source, descriptor)  # an empty file can't be mapped
    except OSError as error:
        return _fall_back(source, descriptor, f"mapping was refused ({os.strerror(error.errno or 0).lower()})")


def _fall_back(source: Source, descriptor: int, reason: str) -> Buffered:
    access = Buffered(source, descriptor)
    access.fallback = reason
    return access
