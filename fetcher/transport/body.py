"""A response body on its way in: exactly as long as announced, or an error.

`receiving` picks the path. A body whose length is announced and that is the content itself bypasses aiohttp's parser, by `tap`
or, over the TLS of another event loop than ours, by `sink`. Any other (chunked, up to the connection's end) passes through it.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import aiohttp

from fetcher.errors import BadResponse, FetchError, Stalled, Unreachable
from fetcher.transport.ranges import content_length
from fetcher.transport.sink import Sink
from fetcher.transport.tap import LINGER, Tap


class Direct(Protocol):
    """See `sources.base.DirectBody`."""

    @property
    def direct(self) -> Direct | None: ...
    async def readinto(self, buffer: memoryview) -> int: ...
    async def readable(self, room: int) -> bool: ...
    def read(self, buffer: memoryview) -> int: ...


class ResponseBody(Protocol):
    @property
    def direct(self) -> Direct | None: ...
    async def readinto(self, buffer: memoryview) -> int: ...
    def close(self) -> None: ...


def receiving(response: aiohttp.ClientResponse, *, length: int | None, what: str, stall: float) -> ResponseBody:
    """The body of `response`, `length` bytes in all, or up to the sender's proper end when that is None.

    Of all kinds `readinto` is that of `sources.base.Body`, and raises Stalled, Unreachable, BadResponse. `close` gives the
    connection back if the body has ended, else drops it at once.
    """
    announced = content_length(response.headers)
    if length is not None and announced == length and Tap.fits(response):
        return Tap(response, length=length, what=what, stall=stall)
    if length is not None and announced == length and Sink.fits(response):
        return Sink(response, length=length, what=what, stall=stall)
    return OrdinaryBody(response, length=length, what=what, stall=stall)


class OrdinaryBody:
    """What aiohttp's parser has gathered, copied into the reader's buffer."""

    direct: Direct | None = None

    def __init__(self, response: aiohttp.ClientResponse, *, length: int | None, what: str, stall: float) -> None:
        self._response = response
        self._length = length
        self._what = what
        self._stall = stall
        self._seen = 0
        self._rest = memoryview(b"")
        self._error: FetchError | None = None

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
        """Get the next piece; False at the end, and when there is an error to raise."""
        if self._error is None:
            scope = asyncio.timeout(self._stall)
            try:
                async with scope:
                    self._rest = memoryview(await self._response.content.readany())
                self._seen += len(self._rest)
                self._error = self._misfit()
            except (TimeoutError, aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
                self._error = self._classified(error, silent=scope.expired())
        return self._error is None and len(self._rest) > 0

    def _misfit(self) -> BadResponse | None:
        if self._length is None:
            return None
        if self._seen > self._length:
            return BadResponse(f"the server sends more than the {self._length:,} bytes it announced for {self._what}")
        if not self._rest and self._seen != self._length:
            return BadResponse(f"the server announced {self._length:,} bytes for {self._what} and ended after {self._seen:,}")
        return None

    def _classified(self, error: Exception, *, silent: bool) -> FetchError:
        if silent:
            return Stalled(f"nothing came for {self._stall:.0f} s in the middle of {self._what} (--timeout-stall)")
        if isinstance(error, aiohttp.ClientPayloadError):
            return Unreachable(f"the connection ended after {self._seen:,} bytes of {self._what}")
        return Unreachable(f"the connection broke after {self._seen:,} bytes of {self._what}: {type(error).__name__}")
