"""Reads and locks pages without copying them, by mapping parts of a file. Our code never touches the mapped memory."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from loader.kernel import bring_in, lock, map_shared, os_error, unmap


class MappedRange:
    """A read-only shared mapping of `length` bytes of an open file, from the page-aligned offset `start`, until `close`.

    Raises OSError if the filesystem cannot map files. The descriptor can be closed earlier.
    """

    def __init__(self, descriptor: int, start: int, length: int) -> None:
        self._length = length
        self._address: int | None = map_shared(descriptor, start, length)

    def populate(self) -> None:
        """Read the missing pages (`kernel.bring_in`). Raises OSError."""
        _refuse(bring_in(self._mapped, self._length))

    def lock(self) -> None:
        """Read the missing pages and lock all of them until `close` (`kernel.lock`). Raises OSError."""
        _refuse(lock(self._mapped, self._length))

    @property
    def _mapped(self) -> int:
        if self._address is None:
            raise ValueError("the mapping is closed")
        return self._address

    def close(self) -> None:
        """Unmap the range, which also unlocks it."""
        if self._address is not None:
            unmap(self._address, self._length)
            self._address = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _refuse(number: int) -> None:
    if number:
        raise os_error(number)
