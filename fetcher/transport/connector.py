"""The pool of connections, which ends at once those that it does not keep."""

from __future__ import annotations

from typing import Any

from fetcher.transport.http_library import aiohttp


class Connector(aiohttp.TCPConnector):
    """aiohttp's pool of TCP connections.

    aiohttp closes a connection that it does not keep and forgets it. Over TLS the event loop then waits up to 30 s for the
    server's own farewell, which a server that is busy or hostile does not send: the socket would outlive its request, and even
    this pool.
    """

    def _release(self, key: Any, protocol: Any, *, should_close: bool = False) -> None:
        transport = protocol.transport
        super()._release(key, protocol, should_close=should_close)
        if transport is not None and transport.is_closing():
            transport.abort()
