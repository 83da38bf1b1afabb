"""A server that sends exactly the bytes that a test chooses, plain or over TLS, on any event loop."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme

from fetcher.testing.checkpoint import random_bytes
from fetcher.transport.client import Answer, HttpTransport
from fetcher.transport.tls import TlsEventLoop

MiB = 1024 * 1024
CONTENT = random_bytes("sink", 3 * MiB + 17)

Reply = Callable[["Sender"], Awaitable[None]]


@dataclass(slots=True)
class Sender:
    """One request to answer. `heads` are the lines of the request's head."""

    writer: asyncio.StreamWriter
    heads: list[str]
    number: int
    """The number of the request on its connection, from 0."""

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, length: int = len(CONTENT), *, status: str = "206 Partial Content", more: str = "") -> None:
        await self.send(f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{more}\r\n".encode())


@dataclass(slots=True)
class Peer:
    """A server at `url` that answers every request with its reply. `authorities` makes clients trust it."""

    url: str
    authorities: dict[str, str]
    connections: list[asyncio.StreamWriter] = field(default_factory=list)

    @asynccontextmanager
    async def transport(self, *, stall: float = 5.0, **variables: str) -> AsyncIterator[HttpTransport]:
        environ = {**self.authorities, **variables}
        made = HttpTransport(connections=4, timeout_stall=stall, read_buffer=64 * 1024, environ=environ)
        try:
            yield made
        finally:
            await made.aclose()


@functools.cache
def _authority() -> trustme.CA:
    return trustme.CA()


@asynccontextmanager
async def peer(reply: Reply, *, tls: bool, directory: Path) -> AsyncIterator[Peer]:
    """Start a peer on a free port of loopback."""
    authority = _authority()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if tls else None
    if context is not None:
        authority.issue_cert("127.0.0.1").configure_cert(context)
    connections: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        number = 0
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await reply(Sender(writer, head.decode().splitlines(), number))
                number += 1
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client is gone
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    try:
        scheme = "https" if tls else "http"
        yield Peer(f"{scheme}://127.0.0.1:{port}/f", {"SSL_CERT_FILE": str(directory / "ca.pem")}, connections)
    finally:
        server.close()
        for writer in connections:
            writer.close()


async def collected(answer: Answer, *, length: int = len(CONTENT), buffer: int = 100_001) -> bytes:
    """Read the whole body, and close the answer in any case."""
    content, view = bytearray(), memoryview(bytearray(buffer))
    try:
        body = answer.body(length=length, what="f")
        while count := await body.readinto(view):
            content += view[:count]
    finally:
        answer.close()
    return bytes(content)


class Run:
    """Runs a coroutine on one kind of event loop. With `tls`, its peers use TLS."""

    def __init__(self, factory: Callable[[], asyncio.AbstractEventLoop], *, tls: bool, directory: Path) -> None:
        self._factory = factory
        self.tls = tls
        self.ours = factory is TlsEventLoop
        self.directory = directory

    def __call__(self, work: Callable[[], Awaitable[Any]]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(30):
                await work()

        with asyncio.Runner(loop_factory=self._factory) as runner:
            runner.run(bounded())

    def peer(self, reply: Reply) -> Any:
        return peer(reply, tls=self.tls, directory=self.directory)
