"""TLS that any thread can decrypt: a transport over a plain one, and an event loop that uses it for its connections.

An event loop's own TLS decrypts on the loop, one core for all connections: 0.6 GB/s, a third of what a 25 Gbit/s link carries.
Here TLS is Python's `ssl` on two memory buffers (PEP 644's SSLObject, as in asyncio's own TLS). Handshakes, requests and heads
are processed on the loop as usual. For a body the transport is paused, and `Wire.read` decrypts in the calling thread.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvloop

RAW = 256 * 1024
"""Bytes of ciphertext for each read from the kernel, 16 records: 2.1 CPU seconds a GB where OpenSSL's 16 KiB take 2.4."""
_local = threading.local()


class Wire:
    """Reads the content that a connection's socket delivers, without waiting. Use it from one thread at a time."""

    def __init__(self, plug: socket.socket, tls: ssl.SSLObject | None = None, incoming: ssl.MemoryBIO | None = None) -> None:
        self.socket = plug
        self._tls = tls
        self._incoming = incoming

    @property
    def held(self) -> int:
        """Bytes that were read from the socket and are not decrypted yet."""
        return self._incoming.pending if self._incoming is not None else 0

    def read(self, buffer: memoryview) -> int:
        """Fill `buffer`. Returns the number of bytes, 0 at the connection's end. Raises OSError, BlockingIOError if none."""
        if self._tls is None or self._incoming is None:
            return self.socket.recv_into(buffer)
        while True:
            try:
                return self._tls.read(len(buffer), buffer)  # type: ignore[return-value]  # the count
            except ssl.SSLWantReadError:
                raw = _raw()
                count = self.socket.recv_into(raw)
                if count == 0:
                    return 0
                self._incoming.write(raw[:count])


class TlsTransport(asyncio.Transport):
    """The client's side of TLS over `plain`, usable after `handshake`."""

    def __init__(
        self, plain: asyncio.Transport, protocol: asyncio.BaseProtocol, context: ssl.SSLContext, host: str | None
    ) -> None:
        super().__init__()
        self._plain = plain
        self._protocol = protocol
        self._context = context
        self.incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self._outgoing, server_hostname=host)
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._paused = False
        self._closing = False
        plain.set_protocol(_Below(self))

    async def handshake(self) -> None:
        """Perform the handshake. Raises ssl.SSLError, OSError, and closes the connection then."""
        try:
            self._shake()
            await self._ready
        except BaseException:
            self._plain.abort()
            raise

    def _shake(self) -> None:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self.flush()
        except ssl.SSLError as error:
            self.flush()  # the alert that tells the server why
            self._closing = True
            self._ready.set_exception(error)
        else:
            self.flush()
            self._ready.set_result(None)

    def deliver(self) -> None:
        """Pass decrypted data to the protocol."""
        while not self._paused and not self._closing:
            try:
                piece = self.tls.read(RAW)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError as error:
                self._broken(error)
                return
            if not piece:
                self._ended()
                return
            self._protocol.data_received(piece)  # type: ignore[attr-defined]  # aiohttp's protocol is not a BufferedProtocol
        self.flush()

    def flush(self) -> None:
        """Send TLS's own messages: handshakes, answers to new keys, alerts."""
        if self._outgoing.pending and not self._plain.is_closing():
            self._plain.write(self._outgoing.read())

    def _ended(self) -> None:
        if not self._protocol.eof_received():  # type: ignore[attr-defined]
            self.close()

    def _broken(self, error: OSError) -> None:
        self._closing = True
        self.flush()
        self._plain.abort()
        self._protocol.connection_lost(error)
        self._protocol = asyncio.Protocol()

    # Called by the connection below

    def data_came(self, data: bytes) -> None:
        self.incoming.write(data)
        if self._ready.done():
            self.deliver()
        else:
            self._shake()

    def lost(self, error: Exception | None) -> None:
        self._closing = True
        if self._ready.done():
            self._protocol.connection_lost(error)
        else:
            self._ready.set_exception(error or ConnectionResetError("the connection ended during the TLS handshake"))

    def cut(self) -> None:
        """Handle the connection's end without TLS's close_notify: the body may be truncated."""
        if self._ready.done() and not self._closing:
            self._broken(ConnectionResetError("the connection ended without TLS's close_notify"))

    # The interface of a transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._closing:
            self.tls.write(data)
            self.flush()

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        with suppress(ssl.SSLError):  # WantRead: we do not wait for the server's close_notify
            self.tls.unwrap()
        self.flush()
        self._plain.close()

    def abort(self) -> None:
        self._closing = True
        self._plain.abort()

    def is_closing(self) -> bool:
        return self._closing or self._plain.is_closing()

    def pause_reading(self) -> None:
        self._paused = True
        if not self._plain.is_closing():
            self._plain.pause_reading()

    def resume_reading(self) -> None:
        self._paused = False
        if not self._plain.is_closing():
            self._plain.resume_reading()
            self._loop.call_soon(self.deliver)

    def is_reading(self) -> bool:
        return not self._paused and not self.is_closing()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        match name:
            case "sslcontext":
                return self._context
            case "ssl_object":
                return self.tls
            case "peercert":
                return self.tls.getpeercert()
        return self._plain.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        return self._plain.get_write_buffer_size()

    def can_write_eof(self) -> bool:
        return False

    def writing(self, *, paused: bool) -> None:
        """Pause or resume the protocol's writing, because the connection below is full or ready again."""
        (self._protocol.pause_writing if paused else self._protocol.resume_writing)()


class _Below(asyncio.Protocol):
    """The protocol of the plain connection, which forwards to the TLS transport."""

    def __init__(self, above: TlsTransport) -> None:
        self._above = above

    def data_received(self, data: bytes) -> None:
        self._above.data_came(data)

    def eof_received(self) -> None:
        self._above.cut()

    def connection_lost(self, exc: Exception | None) -> None:
        self._above.lost(exc)

    def pause_writing(self) -> None:
        self._above.writing(paused=True)

    def resume_writing(self) -> None:
        self._above.writing(paused=False)


class TlsEventLoop(uvloop.Loop):
    """uvloop's event loop, with `TlsTransport` for TLS connections to servers."""

    async def create_connection(self, protocol_factory: Callable[[], Any], *args: Any, **words: Any) -> Any:
        """Connect, like the event loop's method. Raises OSError, ssl.SSLError."""
        context = words.get("ssl")
        if not isinstance(context, ssl.SSLContext):
            return await super().create_connection(protocol_factory, *args, **words)
        host = words.get("server_hostname") or (args[0] if args else words.get("host"))
        for name in ("ssl", "server_hostname", "ssl_handshake_timeout", "ssl_shutdown_timeout"):
            words.pop(name, None)
        plain, _ = await super().create_connection(asyncio.Protocol, *args, **words)
        protocol = protocol_factory()
        transport = await self._secured(plain, protocol, context, host)
        protocol.connection_made(transport)
        return transport, protocol

    async def start_tls(self, transport: Any, protocol: Any, sslcontext: Any, **words: Any) -> Any:
        """Start TLS in a proxy's tunnel, like the event loop's method. Raises OSError, ssl.SSLError."""
        if words.get("server_side") or isinstance(transport, TlsTransport):
            return await super().start_tls(transport, protocol, sslcontext, **words)
        return await self._secured(transport, protocol, sslcontext, words.get("server_hostname"))

    async def _secured(self, plain: Any, protocol: Any, context: ssl.SSLContext, host: str | None) -> TlsTransport:
        transport = TlsTransport(plain, protocol, context, host)
        await transport.handshake()
        return transport


def _raw() -> memoryview:
    try:
        raw: memoryview = _local.raw
    except AttributeError:
        raw = _local.raw = memoryview(bytearray(RAW))
    return raw
