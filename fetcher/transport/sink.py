"""Receives a body over an event loop's own TLS directly into the reader's buffers.

aiohttp copies a body three times (transport → bytes → parser → joined). After the head, the length of the body is known, and
nothing is left to parse. So this protocol takes the connection over, receives exactly that many bytes, and returns the
connection to aiohttp's pool. (With our own event loop, bodies do not pass through the loop at all: `tap`, `tls`.)

::

    take over    drain the bytes that the parser has read already; set_protocol(sink); paused
    readinto     resume; the event loop receives into the caller's buffer; pause when it is full, or at the end
    end          nothing may follow the last byte; set_protocol(aiohttp's); feed_eof, which returns the connection to its pool
    otherwise    error, cancellation, close before the end: set_protocol(aiohttp's); abort

Reading is paused while no call is pending, so TCP's flow control slows the sender down to the speed of the disk.
"""

from __future__ import annotations

import asyncio

from fetcher.errors import BadResponse, FetchError, Stalled, Unreachable
from fetcher.transport.http_library import aiohttp
from fetcher.transport.tap import LINGER, drained, unread


class LoopBody(asyncio.BufferedProtocol):
    """One body. Only one `readinto` may be pending. A buffer is written only while its call is pending."""

    @staticmethod
    def fits(response: aiohttp.ClientResponse) -> bool:
        """Whether the connection can be taken over."""
        return unread(response) is not None

    def __init__(self, response: aiohttp.ClientResponse, *, length: int, what: str, stall: float) -> None:
        # There is no await in here, so nothing can arrive in between.
        connection, transport = response.connection, unread(response)
        if connection is None or connection.protocol is None or transport is None:
            raise ValueError("the response has no connection; see LoopBody.fits")
        self._response = response
        self._handler = connection.protocol
        self._transport = transport
        self._length = length
        self._what = what
        self._stall = stall
        self._early = memoryview(drained(response.content))
        self._left = length - len(self._early)
        self._view: memoryview | None = None
        self._filled = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: FetchError | None = None
        # If draining reached the end, aiohttp has already returned the connection to its pool.
        self._attached = not response.content.is_eof()
        if self._attached:
            self._transport.pause_reading()
            self._transport.set_protocol(self)

    # For the reader

    @property
    def direct(self) -> None:
        """None, see `sources.base.Body`: the event loop decrypts, so no thread can read from the kernel."""
        return None

    async def readinto(self, buffer: memoryview) -> int:
        """See `sources.base.Body`. Raises Stalled, Unreachable, BadResponse."""
        filled = self._take_early(buffer)
        if self._left and filled < len(buffer) and self._error is None:
            filled = await self._receive(buffer, filled)
        if self._left == 0 and self._attached and self._error is None:
            await self._end()
        if filled == 0 and self._error is not None:
            raise self._error
        return filled

    def close(self) -> None:
        """Drop the connection unless the body has ended. Idempotent."""
        if self._attached:
            self._attached = False
            self._transport.set_protocol(self._handler)
            self._transport.abort()
        self._response.close()

    def _take_early(self, buffer: memoryview) -> int:
        count = min(len(self._early), len(buffer))
        buffer[:count] = self._early[:count]
        self._early = self._early[count:]
        return count

    async def _receive(self, buffer: memoryview, filled: int) -> int:
        loop = asyncio.get_running_loop()
        self._view, self._filled = buffer, filled
        self._waiter = loop.create_future()
        quiet = _Quiet(self, loop)
        self._transport.resume_reading()
        try:
            await self._waiter
            return self._filled
        finally:
            quiet.cancel()
            self._view = self._waiter = None
            if self._attached:
                self._transport.pause_reading()

    def tick(self, silent_for: float) -> None:
        """End the pending call if it has data, or if it stalled. Called every `LINGER` seconds. `silent_for` is in seconds."""
        if self._filled:
            self._settle()
        elif silent_for >= self._stall:
            self._error = Stalled(f"no data for {self._stall:.0f} s in the middle of {self._what} (--timeout-stall)")
            self._settle()

    async def _end(self) -> None:
        if await self._has_surplus():
            self._error = BadResponse(f"the server sends more than the {self._length:,} bytes it announced for {self._what}")
            return
        if self._attached:
            self._attached = False
            self._transport.set_protocol(self._handler)
            self._response.content.feed_eof()
            if not self._transport.is_closing():
                self._transport.resume_reading()

    async def _has_surplus(self) -> bool:
        """Whether bytes follow the last one. aiohttp would take them for the beginning of the next answer."""
        # Only the transport can tell content from TLS messages: run the loop once with room for one more byte.
        self._view, self._filled, self._left = memoryview(bytearray(1)), 0, 1
        self._transport.resume_reading()
        try:
            await asyncio.sleep(0)
        finally:
            surplus, self._view, self._left = self._filled, None, 0
            if self._attached:
                self._transport.pause_reading()
        return surplus > 0

    def _settle(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # For the event loop

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._view is None:
            raise RuntimeError("the transport reads although it is paused")
        # At most the rest of the body, and never an empty buffer, which uvloop treats as an error.
        return self._view[self._filled : self._filled + self._left]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        self._left -= nbytes
        if self._left == 0 or self._view is None or self._filled == len(self._view):
            self._transport.pause_reading()
            self._settle()

    def eof_received(self) -> None:
        self._handler.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._attached = False
        if self._left and self._error is None:
            progress = f"after {self._length - self._left:,} bytes of {self._what}"
            how = f"broke {progress}: {type(exc).__name__}" if exc is not None else f"ended {progress}"
            self._error = Unreachable(f"the connection {how}")
        self._handler.connection_lost(exc)
        self._settle()

    def pause_writing(self) -> None:
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._handler.resume_writing()


class _Quiet:
    """Calls `tick` every `LINGER` seconds with the seconds since the call began."""

    def __init__(self, sink: LoopBody, loop: asyncio.AbstractEventLoop) -> None:
        self._sink = sink
        self._loop = loop
        self._began = loop.time()
        self._timer = loop.call_later(LINGER, self._tick)

    def cancel(self) -> None:
        self._timer.cancel()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(LINGER, self._tick)
        self._sink.tick(self._loop.time() - self._began)
