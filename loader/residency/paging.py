"""Pages brought in without copying them, and kept: parts of a file as address space that no instruction of ours touches."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from loader.kernel import bring_in, lock, map_shared, os_error, unmap


class MappedRange:
    """`length` bytes of an open file from `start` on, which is on a page; mapped read-only and shared until `close`.

    Raises OSError where the filesystem maps nothing. The descriptor may be closed before.
    """

    def __init__(self, descriptor: int, start: int, length: int) -> None:
        self._length = length
        self._address: int | None = map_shared(descriptor, start, length)

    def populate(self) -> None:
        """Read what is not there (`kernel.bring_in`). Raises OSError."""
        _refuse(bring_in(self._mapped, self._length))

    def lock(self) -> None:
        """Read what is not there, and keep all of it until `close` (`kernel.lock`). Raises OSError."""
        _refuse(lock(self._mapped, self._length))

    @property
    def _mapped(self) -> int:
        if self._address is None:
            raise ValueError("the mapped_range is closed")
        return self._address

    def close(self) -> None:
        """Unlocks too."""
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
