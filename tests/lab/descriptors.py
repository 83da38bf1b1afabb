"""Descriptors in the form that the engine takes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext


def always(descriptor: int) -> Callable[[], AbstractContextManager[int]]:
    """Return an opener of a file that the test keeps open."""

    def opened() -> AbstractContextManager[int]:
        return nullcontext(descriptor)

    return opened
