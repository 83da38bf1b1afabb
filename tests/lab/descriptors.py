"""Descriptors as the engine asks for them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext


def always(descriptor: int) -> Callable[[], AbstractContextManager[int]]:
    """Of a file that the test keeps open itself."""

    def opened() -> AbstractContextManager[int]:
        return nullcontext(descriptor)

    return opened
