"""Receives a response body: exactly the announced length, or an error.

`receiving` chooses the path. A body of announced length, which is the content itself, bypasses aiohttp's parser: by `tap`, or
by `sink` over TLS of another event loop than ours. Any other body (chunked, or up to the connection's end) uses the parser.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from fetcher.errors import BadResponse, FetchError, Stalled, Unreachable
from fetcher.transport.http_library import aiohttp
from fetcher.transport.ranges import content_length
from fetcher.transport.sink import LoopBody
from fetcher.transport.tap import LINGER, SocketBody, drained


class Direct(Protocol):
    """The part of `sources.base.DirectBody` that this package implements."""

    @property
    def direct(self) -> Direct | None: ...
    async def readinto(self, buffer: memoryview) -> int: ...
    async def readable(self, room: int) -> bool: ...
    def read(self, buffer: memoryview) -> int: ...


class ResponseBody(Protocol):
    """A body of a response; see `receiving`."""

    @property
    def direct(self) -> Direct | None: ...
    async def readinto(self, buffer: memoryview) -> int: ...
    def close(self) -> None: ...


def receiving(response: aiohttp.ClientResponse, *, length: int | None, what: str, stall: float) -> ResponseBody:
    """The body of `response`, `length` bytes long, or up to the sender's proper end if `length` is None.

    `what` names the file in errors; `stall` is in seconds. `readinto` is that of `sources.base.Body`, and raises Stalled,
    Unreachable, BadResponse. `close` returns the connection to the pool if the body has ended; otherwise it drops it at once.
    """
    announced = content_length(response.headers)
    if length is not None and announced == length and SocketBody.fits(response):
        return SocketBody(response, length=length, what=what, stall=stall)
    if length is not None and announced == length and LoopBody.fits(response):
        return LoopBody(response, length=length, what=what, stall=stall)
    return OrdinaryBody(response, length=length, what=what, stall=stall)


class OrdinaryBody:
    """A body that aiohttp's parser collects, copied into the reader's buffer."""

    direct: Direct | None = None

    def __init__(self, response: aiohttp.ClientResponse, *, length: int | None, what: str, stall: float) -> None:
        self._response = response
        self._length = length
        self._what = what
        self._stall = stall
        self._seen = 0
        self._rest = memoryview(b"")
        self._error: FetchError | None = None
        self._complete = False
        content = response.content
        if content.is_eof() and content.exception() is None:
            # aiohttp returned the connection already, and each read of the content resumes its transport. By then another body
            # may have paused it, so take everything now.
            self._rest = memoryview(drained(content))
            self._seen = len(self._rest)
            self._complete = self._length in (None, self._seen)
            self._error = self._length_error() if self._rest else None

    async def readinto(self, buffer: memoryview) -> int:
        clock = asyncio.get_running_loop().time
        filled, until = 0, clock() + LINGER
        while filled < len(buffer) and not (filled and clock() > until):
            if not self._rest and not await self._next():
                break
            count = min(len(self._rest), len(buffer) - filled)
            buffer[filled : filled + count] = self._rest[:count]
            self._rest = self._rest[count:]
            filled += count
        if filled == 0 and self._error is not None:
            raise self._error
        return filled

    def close(self) -> None:
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()

    async def _next(self) -> bool:
        """Get the next piece; False at the end, or if there is an error to raise."""
        if self._error is None and not self._complete:
            scope = asyncio.timeout(self._stall)
            try:
                async with scope:
                    self._rest = memoryview(await self._response.content.readany())
                self._seen += len(self._rest)
                self._error = self._length_error()
            except (TimeoutError, aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
                self._error = self._classified(error, silent=scope.expired())
        return self._error is None and len(self._rest) > 0

    def _length_error(self) -> BadResponse | None:
        if self._length is None:
            return None
        if self._seen > self._length:
            return BadResponse(f"the server sends more than the {self._length:,} bytes it announced for {self._what}")
        if not self._rest and self._seen != self._length:
            return BadResponse(f"the server announced {self._length:,} bytes for {self._what} and sent only {self._seen:,}")
        return None

    def _classified(self, error: Exception, *, silent: bool) -> FetchError:
        if silent:
            return Stalled(f"no data for {self._stall:.0f} s in the middle of {self._what} (--timeout-stall)")
        if isinstance(error, aiohttp.ClientPayloadError):
            return Unreachable(f"the connection ended after {self._seen:,} bytes of {self._what}")
        return Unreachable(f"the connection broke after {self._seen:,} bytes of {self._what}: {type(error).__name__}")
