"""Receives a body in the thread that writes it to disk: the thread reads from the socket, and decrypts there (`tls`).

After the head, the length of the body is known, and nothing is left to parse. The event loop only waits for a worthwhile
amount. The thread that calls `read` takes it from the kernel, so bytes are written while they are still in that processor's
cache, and no buffer crosses from one thread to another. 2 GiB over 16 connections, hashed by XXH3 and written to memory: 1.1 s
and 1.8 CPU seconds over plain TCP, where receiving on the event loop took 1.6 and 2.4.

::

    tap          drain the bytes that the parser has read already; pause the transport until the end
    readable     wait for LOW_WATER bytes, or a moment longer for any
    read         take the available bytes, without blocking
    end          nothing may follow the last byte; feed_eof, which returns the connection to aiohttp's pool
    otherwise    error, cancellation, close before the end: abort

While no thread reads, the kernel's buffer fills, and TCP's flow control stops the sender.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import termios
from contextlib import suppress

from fetcher.errors import BadResponse, FetchError, Stalled, Unreachable
from fetcher.transport.http_library import aiohttp
from fetcher.transport.tls import TlsTransport, Wire

LOW_WATER = 512 * 1024
"""Bytes worth waking up for, and half the buffer of a reading thread. 256 KiB to 1 MiB measured alike."""
LINGER = 1.0
"""Seconds after which fewer bytes are read too, so that the progress of a slow link is shown and journalled.

Each read takes a switch to a thread and back: 0.5 to 1 ms of a processor. With 0.25 s, 16 connections that shared 6 MB/s made
ten reads a MiB. They were half of the processor time of eight nodes that fetched from each other."""


class SocketBody:
    """One body. `read` may run on any thread while no other method runs."""

    @staticmethod
    def fits(response: aiohttp.ClientResponse) -> bool:
        """Whether the socket delivers the rest of the body itself."""
        transport = unread(response)
        return transport is not None and (isinstance(transport, TlsTransport) or transport.get_extra_info("sslcontext") is None)

    def __init__(self, response: aiohttp.ClientResponse, *, length: int, what: str, stall: float) -> None:
        # There is no await in here, so nothing can arrive in between.
        transport = unread(response)
        if transport is None:
            raise ValueError("the response has no connection; see SocketBody.fits")
        self._loop = asyncio.get_running_loop()
        self._response = response
        self._transport = transport
        self._length = length
        self._what = what
        self._stall = stall
        self._early = memoryview(drained(response.content))
        self._left = length - len(self._early)
        self._dry = True
        """Whether the last `read` found less than it had room for."""
        self._error: FetchError | None = None
        # If draining reached the end, aiohttp has already returned the connection to its pool.
        self._attached = not response.content.is_eof()
        self._wire: Wire | None = None
        if self._attached:
            self._transport.pause_reading()
            self._wire = _wire(self._transport)
            self._dry = self._wire.held == 0

    # For the reader

    @property
    def direct(self) -> SocketBody:
        """This body itself, see `sources.base.Body`: a thread can read from the kernel."""
        return self

    async def readinto(self, buffer: memoryview) -> int:
        """See `sources.base.Body`. Raises Stalled, Unreachable, BadResponse."""
        while await self.readable(len(buffer)):
            if count := self.read(buffer):
                return count
        return 0

    async def readable(self, room: int) -> bool:
        """See `sources.base.DirectBody`. Raises Stalled, Unreachable, BadResponse."""
        if self._early:
            return True
        if self._error is not None:
            raise self._error
        if self._left == 0:
            self._end()
            return False
        if self._dry:
            await self._wait(min(self._left, room, LOW_WATER))
        return True

    def read(self, buffer: memoryview) -> int:
        """See `sources.base.DirectBody`."""
        filled = min(len(self._early), len(buffer))
        buffer[:filled] = self._early[:filled]
        self._early = self._early[filled:]
        room = min(len(buffer), filled + self._left)
        try:
            while filled < room and self._wire is not None:
                count = self._wire.read(buffer[filled:room])
                if count == 0:
                    self._error = Unreachable(f"the connection ended {self._progress()}")
                    break
                filled += count
                self._left -= count
        except BlockingIOError:
            self._dry = True
        except OSError as error:
            self._error = Unreachable(f"the connection broke {self._progress()}: {type(error).__name__}")
        else:
            self._dry = False
        return filled

    def close(self) -> None:
        """Drop the connection unless the body has ended. Idempotent."""
        if self._attached:
            self._attached = False
            self._transport.abort()
        self._abandon()
        self._response.close()

    async def _wait(self, amount: int) -> None:
        """Wait for `amount` bytes, or any after LINGER seconds, or the end of the connection. Raises Stalled."""
        if self._wire is None:
            raise ValueError("the body is closed")
        if isinstance(self._transport, TlsTransport):
            self._transport.flush()
        with suppress(OSError):  # without SO_RCVLOWAT the kernel only wakes us earlier
            self._wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, max(1, amount - self._wire.held))
        self._waiter = self._loop.create_future()
        self._timer = self._loop.call_later(LINGER, self._tick, self._loop.time())
        self._loop.add_reader(self._wire.socket, self._settle)
        try:
            await self._waiter
        finally:
            self._timer.cancel()
            self._loop.remove_reader(self._wire.socket)
        if self._error is not None:
            raise self._error

    def _settle(self) -> None:
        if not self._waiter.done():
            self._waiter.set_result(None)

    def _tick(self, began: float) -> None:
        if self._arrived():
            self._settle()
        elif self._loop.time() - began >= self._stall:
            self._error = Stalled(f"no data for {self._stall:.0f} s in the middle of {self._what} (--timeout-stall)")
            self._settle()
        else:
            self._timer = self._loop.call_later(LINGER, self._tick, began)

    def _end(self) -> None:
        if not self._attached:
            return
        if self._has_surplus():
            # aiohttp would take the rest for the beginning of the next answer.
            self._error = BadResponse(f"the server sends more than the {self._length:,} bytes it announced for {self._what}")
            raise self._error
        self._attached = False
        self._abandon()
        self._response.content.feed_eof()
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _abandon(self) -> None:
        if self._wire is not None:
            with suppress(OSError):
                self._wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            self._wire.socket.close()
            self._wire = None

    def _arrived(self) -> bool:
        """Whether the socket has unread bytes."""
        if self._wire is None:
            return False
        count: int = struct.unpack("i", fcntl.ioctl(self._wire.socket, termios.FIONREAD, b"\0" * 4))[0]
        return count > 0

    def _has_surplus(self) -> bool:
        """Whether content follows the last byte. TLS's own messages do not count."""
        try:
            return self._wire is not None and self._wire.read(memoryview(bytearray(1))) > 0
        except OSError:
            return False

    def _progress(self) -> str:
        return f"after {self._length - self._left:,} bytes of {self._what}"


def _wire(transport: asyncio.Transport) -> Wire:
    """The wire that the paused `transport` reads from."""
    # A duplicate: the event loop refuses to watch the descriptor of a transport.
    plug = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    if isinstance(transport, TlsTransport):
        return Wire(plug, transport.tls, transport.incoming)
    return Wire(plug)


def unread(response: aiohttp.ClientResponse) -> asyncio.Transport | None:
    """The transport that will deliver the rest of the body; None if it is gone. (A small body may arrive with its head.)"""
    connection = response.connection
    if connection is None or connection.transport is None or connection.transport.is_closing() or response.content.is_eof():
        return None
    return connection.transport


def drained(content: aiohttp.StreamReader) -> bytes:
    """The bytes that the parser has read already. Taking some lets it parse more, hence the loop."""
    pieces = []
    while piece := content.read_nowait(-1):
        pieces.append(piece)
    return b"".join(pieces)
