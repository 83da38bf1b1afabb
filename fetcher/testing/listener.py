"""An HTTP/1.1 server on one loopback port: reads requests, gets responses, applies faults, sends them."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from fetcher.testing.content import body_of
from fetcher.testing.delivery import Delivery, Interrupted
from fetcher.testing.exchange import OriginName, Request, Response, parse_head
from fetcher.testing.faults import Faults
from fetcher.testing.throttle import Throttle

_HEAD_LIMIT = 256 * 1024
"""Maximum bytes of a request's head. A signed address has a few thousand."""
_TURNS = 5
"""Turns of the event loop that asyncio needs to hand over an accepted connection, or to close an aborted one."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Limits in bytes a second of all connections together and of each connection; None means no limit."""

    total: float | None = None
    per_connection: float | None = None


@dataclass(slots=True)
class Listener:
    """A server on one event loop. `rates` is called for each request, so that rates can change on open connections."""

    name: OriginName
    answer: Callable[[Request], Awaitable[Response]]
    faults: Faults
    log: Callable[[Request], None]
    rates: Callable[[], Rates]
    total: Throttle
    tls: ssl.SSLContext | None
    host: str = "127.0.0.1"
    _server: asyncio.Server | None = None
    _connections: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict)

    async def listen(self, port: int) -> int:
        """Bind `host` and return the port; 0 picks a free one. Raises OSError."""
        self._server = await asyncio.start_server(self._accepted, self.host, port, ssl=self.tls, limit=_HEAD_LIMIT, backlog=512)
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    async def close(self) -> None:
        """Stop listening and abort every connection."""
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
        # Register the task before its first step: a task that is cancelled before that does not close its connection.
        task = asyncio.get_running_loop().create_task(self._connected(reader, writer))
        self._connections[task] = writer
        task.add_done_callback(self._connections.pop)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A drain empties the buffers of this process, so that "after N bytes" means N bytes on the wire.
        # On TLS, asyncio treats a limit of 0 as reached even with an empty buffer, and a drain never ends.
        writer.transport.set_write_buffer_limits(high=1 if self.tls else 0, low=0)
        try:
            with contextlib.suppress(Interrupted, ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                await self._converse(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()  # unsent data keeps it open; `close` aborts that

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own = Throttle(None)
        delivery = Delivery(reader, writer, (own, self.total))
        while True:
            try:
                request = await self._read(reader)
            except (ValueError, asyncio.LimitOverrunError):
                await delivery.send(Response(400, body=body_of(b"invalid request")), (), head_only=False)
                return
            self.log(request)
            response, effects = self.faults.apply(request, await self.answer(request))
            own.rate, self.total.rate = self.rates().per_connection, self.rates().total
            await delivery.send(response, effects, head_only=request.method == "HEAD")
            if request.headers.get("connection", "").lower() == "close":
                return

    async def _read(self, reader: asyncio.StreamReader) -> Request:
        head = await reader.readuntil(b"\r\n\r\n")
        scheme = "https" if self.tls else "http"
        request = parse_head(self.name, head, scheme=scheme, at=asyncio.get_running_loop().time())
        return replace(request, body=await reader.readexactly(int(request.headers.get("content-length", "0"))))
