"""The body of a response, taken from the socket by the thread that writes it to disk, and decrypted there (`tls`).

Once the head has arrived and says how long the body is, there is nothing left to parse. The event loop only waits until a
worthwhile amount is there; whoever calls `read`, on any thread, takes it from the kernel, so that bytes are written while they
are still in that processor's cache, and no buffer crosses from one thread to another. 2 GiB over 16 connections, hashed by
XXH3 and written to memory: 1.1 s and 1.8 CPU seconds over plain TCP, where receiving on the event loop took 1.6 and 2.4.

::

    tap          drain what the parser has read already; the transport is paused, and stays so
    readable     wait for LOW_WATER bytes, or for any a moment later
    read         as much as there is, without blocking
    end          nothing may follow the last byte; feed_eof, which returns the connection to aiohttp's pool
    otherwise    error, cancellation, close before the end: abort

While nobody reads, the kernel's buffer fills, which holds the sender back by TCP's own means.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import termios
from contextlib import suppress

import aiohttp

from fetcher.errors import BadResponse, FetchError, Stalled, Unreachable
from fetcher.transport.tls import TlsTransport, Wire

LOW_WATER = 512 * 1024
"""Bytes worth waking up for, and half the buffer of a thread that reads them. 256 KiB to 1 MiB measured alike."""
LINGER = 0.25
"""Seconds after which less than that is read too: a slow link's progress is shown and journalled."""


class Tap:
    """One body. `read` may run on a thread of its own while nothing else is called."""

    @staticmethod
    def fits(response: aiohttp.ClientResponse) -> bool:
        """Whether what the socket delivers is the body itself, from here on."""
        transport = unread(response)
        return transport is not None and (isinstance(transport, TlsTransport) or transport.get_extra_info("sslcontext") is None)

    def __init__(self, response: aiohttp.ClientResponse, *, length: int, what: str, stall: float) -> None:
        # All of this without an await: nothing can arrive in between.
        transport = unread(response)
        if transport is None:
            raise ValueError("the response has no connection; see Tap.fits")
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
        # Draining may have brought the end: aiohttp has then given the connection back already.
        self._attached = not response.content.is_eof()
        self._wire: Wire | None = None
        if self._attached:
            self._transport.pause_reading()
            self._wire = _wire(self._transport)
            self._dry = self._wire.held == 0

    # For the reader

    @property
    def direct(self) -> Tap:
        """See `sources.base.Body`: a thread may take the bytes from the kernel."""
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
                    self._error = Unreachable(f"the connection ended {self._place()}")
                    break
                filled += count
                self._left -= count
        except BlockingIOError:
            self._dry = True
        except OSError as error:
            self._error = Unreachable(f"the connection broke {self._place()}: {type(error).__name__}")
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
        """Until `amount` bytes are there, or any after LINGER, or the end of the connection. Raises Stalled."""
        if self._wire is None:
            raise ValueError("the body is closed")
        if isinstance(self._transport, TlsTransport):
            self._transport.flush()
        with suppress(OSError):  # a kernel that can't count wakes us earlier
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
            self._error = Stalled(f"nothing came for {self._stall:.0f} s in the middle of {self._what} (--timeout-stall)")
            self._settle()
        else:
            self._timer = self._loop.call_later(LINGER, self._tick, began)

    def _end(self) -> None:
        if not self._attached:
            return
        if self._goes_on():
            # aiohttp would take it for the beginning of the next answer.
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
        """Whether something waits in the socket."""
        if self._wire is None:
            return False
        count: int = struct.unpack("i", fcntl.ioctl(self._wire.socket, termios.FIONREAD, b"\0" * 4))[0]
        return count > 0

    def _goes_on(self) -> bool:
        """Whether content follows the last byte. (TLS may send messages of its own there.)"""
        try:
            return self._wire is not None and self._wire.read(memoryview(bytearray(1))) > 0
        except OSError:
            return False

    def _place(self) -> str:
        return f"after {self._length - self._left:,} bytes of {self._what}"


def _wire(transport: asyncio.Transport) -> Wire:
    """What `transport`, which is paused, would have received."""
    # A descriptor of our own: the event loop watches none that a transport has.
    plug = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    if isinstance(transport, TlsTransport):
        return Wire(plug, transport.tls, transport.incoming)
    return Wire(plug)


def unread(response: aiohttp.ClientResponse) -> asyncio.Transport | None:
    """The connection the rest of the body comes over, to be taken over; None when it is gone. (A small body may have arrived
    with its head.)"""
    connection = response.connection
    if connection is None or connection.transport is None or connection.transport.is_closing() or response.content.is_eof():
        return None
    return connection.transport


def drained(content: aiohttp.StreamReader) -> bytes:
    """What the parser has read already. Taking some lets it parse more of what it holds back, hence the loop."""
    pieces = []
    while piece := content.read_nowait(-1):
        pieces.append(piece)
    return b"".join(pieces)
