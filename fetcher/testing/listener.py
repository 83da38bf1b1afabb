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
_TURNS = 5
"""Turns of the event loop that it needs for a connection it has just accepted, or aborted: until then nobody else holds it."""


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
    _connections: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict)

    async def listen(self, port: int) -> int:
        """Binds 127.0.0.1 and returns the port; 0 picks a free one. Raises OSError."""
        self._server = await asyncio.start_server(
            self._accepted, "127.0.0.1", port, ssl=self.tls, limit=_HEAD_LIMIT, backlog=512
        )
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    async def close(self) -> None:
        """Stops listening and breaks every connection."""
        if self._server:
            self._server.close()
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        for connection, writer in self._connections.items():
            connection.cancel()
            writer.transport.abort()
        await asyncio.gather(*self._connections, return_exceptions=True)
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Known before its task takes a first step: one that is cancelled before that closes nothing.
        task = asyncio.get_running_loop().create_task(self._connected(reader, writer))
        self._connections[task] = writer
        task.add_done_callback(self._connections.pop)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
            with contextlib.suppress(OSError):
                await writer.wait_closed()  # what is not sent yet holds it open; `close` breaks that off

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
