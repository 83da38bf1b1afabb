"""One loopback port speaking HTTP/1.1: reads requests, asks for a response, lets the faults at it, sends it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

from fetcher.testing.content import body_of
from fetcher.testing.delivery import Delivery, Interrupted
from fetcher.testing.exchange import OriginName, Request, Response, parse_head
from fetcher.testing.faults import Faults
from fetcher.testing.throttle import Throttle

_HEAD_LIMIT = 256 * 1024
"""Bytes of a request's head. A signed address has a few thousand; more is a client gone wrong."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Bytes a second, None for no limit: of all connections together, and of each one."""

    total: float | None = None
    per_connection: float | None = None


@dataclass(slots=True)
class Listener:
    """Lives on one event loop. `rates` is asked at each request, so that it may change while connections stand."""

    name: OriginName
    answer: Callable[[Request], Response]
    faults: Faults
    log: Callable[[Request], None]
    rates: Callable[[], Rates]
    total: Throttle
    tls: ssl.SSLContext | None
    _server: asyncio.Server | None = None
    _connections: set[asyncio.Task[None]] = field(default_factory=set)

    async def listen(self, port: int) -> int:
        """Binds 127.0.0.1 and returns the port; 0 picks a free one. Raises OSError."""
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", port, ssl=self.tls, limit=_HEAD_LIMIT, backlog=512
        )
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    async def close(self) -> None:
        """Stops listening and breaks every connection."""
        if self._server:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        # Nothing is left in this process's buffers after a drain, so that "after N bytes" means N bytes on the wire.
        # On TLS asyncio takes a limit of 0 for reached when nothing waits, and a drain would never end.
        writer.transport.set_write_buffer_limits(high=1 if self.tls else 0, low=0)
        try:
            with contextlib.suppress(Interrupted, ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                await self._converse(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own = Throttle(None)
        delivery = Delivery(reader, writer, (own, self.total))
        while True:
            try:
                request = await self._read(reader)
            except (ValueError, asyncio.LimitOverrunError):
                await delivery.send(Response(400, body=body_of(b"not a request")), (), head_only=False)
                return
            self.log(request)
            response, effects = self.faults.apply(request, self.answer(request))
            own.rate, self.total.rate = self.rates().per_connection, self.rates().total
            await delivery.send(response, effects, head_only=request.method == "HEAD")
            if request.headers.get("connection", "").lower() == "close":
                return

    async def _read(self, reader: asyncio.StreamReader) -> Request:
        head = await reader.readuntil(b"\r\n\r\n")
        scheme = "https" if self.tls else "http"
        request = parse_head(self.name, head, scheme=scheme, at=asyncio.get_running_loop().time())
        await reader.readexactly(int(request.headers.get("content-length", "0")))
        return request
