"""Imports aiohttp quickly: `from fetcher.transport.http_library import aiohttp`.

aiohttp makes two TLS contexts when it is imported, and each loads the system's authorities: 42 of 190 ms. The transport
never uses them (see `trust`). So a context that is made by this import loads the authorities when it is first used. Other users
of aiohttp in the process notice nothing.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_loading = threading.Lock()


class _Late(ssl.SSLContext):
    """A context that loads the system's authorities before its first connection."""

    def wrap_bio(self, *arguments: Any, **words: Any) -> ssl.SSLObject:
        return self._loaded().wrap_bio(*arguments, **words)

    def wrap_socket(self, *arguments: Any, **words: Any) -> ssl.SSLSocket:
        return self._loaded().wrap_socket(*arguments, **words)

    def _loaded(self) -> ssl.SSLContext:
        with _loading:
            if self.__class__ is _Late:
                ssl.SSLContext.set_default_verify_paths(self)
                self.__class__ = ssl.SSLContext  # type: ignore[assignment]  # an ordinary context from now on
        return self


@contextmanager
def late_authorities() -> Iterator[None]:
    """Make the contexts that this thread creates in the block load the system's authorities before their first connection."""
    load, thread = ssl.SSLContext.set_default_verify_paths, threading.get_ident()

    def set_default_verify_paths(context: ssl.SSLContext) -> None:
        if threading.get_ident() == thread:
            context.__class__ = _Late
        else:
            load(context)

    ssl.SSLContext.set_default_verify_paths = set_default_verify_paths  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        del ssl.SSLContext.set_default_verify_paths  # that of its base class is the original


with late_authorities():
    import aiohttp as aiohttp
