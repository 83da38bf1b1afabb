"""Send one response over one connection: at full speed, throttled, or interrupted."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Iterable
from dataclasses import dataclass

from fetcher.testing.content import Slice
from fetcher.testing.exchange import Response
from fetcher.testing.faults import Effect
from fetcher.testing.interruptions import Finish, Interruption, Reset, Stall, Trickle
from fetcher.testing.throttle import Throttle

_PIECE = 256 * 1024
"""Bytes of one write when the kernel cannot send the file itself."""

_PACES = 50
"""Pieces a second of a throttled body, so that it flows evenly."""


class Interrupted(Exception):
    """An effect closed the connection."""


@dataclass(slots=True)
class Delivery:
    """The sending side of one connection. Each piece waits for all of `throttles`."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    throttles: tuple[Throttle, ...]

    async def send(self, response: Response, effects: Iterable[Effect], *, head_only: bool) -> None:
        """Send `response`. Raises Interrupted if an effect closed the connection."""
        interruption = next((effect for effect in effects if isinstance(effect, Interruption)), Interruption())
        slow = isinstance(interruption, Trickle)
        if interruption.after is None and not slow:
            await self._interrupt(interruption)
        await self._write(response.head())
        if head_only:
            return
        cut = min(interruption.after or 0, len(response.body)) if interruption.after is not None or slow else None
        if cut is None:
            await self._body(response, response.body)
        else:
            await self._body_with(response, cut, interruption)
        if response.chunked:
            await self._write(b"0\r\n\r\n")
        if response.trailing:
            await self._write(response.trailing)

    async def _body_with(self, response: Response, cut: int, interruption: Interruption) -> None:
        body = response.body
        middle = body.start + cut
        await self._body(response, Slice(body.content, body.start, middle))
        rest = Slice(body.content, middle, body.stop)
        if isinstance(interruption, Trickle):
            await self._trickle(response, rest, interruption)
        else:
            await self._interrupt(interruption)
            await self._body(response, rest)

    async def _trickle(self, response: Response, rest: Slice, trickle: Trickle) -> None:
        for start in range(rest.start, rest.stop, trickle.size):
            await asyncio.sleep(trickle.interval)
            await self._body(response, Slice(rest.content, start, min(start + trickle.size, rest.stop)))

    async def _interrupt(self, interruption: Interruption) -> None:
        if isinstance(interruption, Stall):
            await self._stall(interruption.seconds)
        elif isinstance(interruption, (Reset, Finish)):
            await self._flushed()
            if isinstance(interruption, Reset):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.writer.transport.abort()
            raise Interrupted

    async def _stall(self, seconds: float | None) -> None:
        """Send nothing for `seconds`; None: until the client closes. It sends no more requests, so a read returns only then."""
        if seconds is not None:
            await asyncio.sleep(seconds)
            return
        await self.reader.read(1)
        raise Interrupted

    async def _body(self, response: Response, part: Slice) -> None:
        """Send `part` of the body, framed as one chunk if the response is chunked."""
        if not len(part):
            return
        if response.chunked:
            await self._write(b"%x\r\n" % len(part))
        await self._slice(part)
        if response.chunked:
            await self._write(b"\r\n")

    async def _slice(self, part: Slice) -> None:
        rates = [throttle.rate for throttle in self.throttles if throttle.rate is not None]
        if part.content.file is not None and not rates and not self._encrypted:
            with part.content.file.open("rb") as opened:
                await asyncio.get_running_loop().sendfile(self.writer.transport, opened, part.start, len(part))
            return
        step = max(1, min(_PIECE, *(int(rate / _PACES) for rate in rates))) if rates else _PIECE
        for start in range(part.start, part.stop, step):
            piece = part.content.read(start, min(start + step, part.stop))
            await self._pace(len(piece))
            await self._write(piece)

    async def _pace(self, count: int) -> None:
        now = asyncio.get_running_loop().time()
        delay = max((throttle.reserve(count, now) for throttle in self.throttles), default=0.0)
        if delay > 0:
            await asyncio.sleep(delay)

    async def _write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def _flushed(self) -> None:
        """Wait until the client's kernel has all bytes: a reset discards the send queue.

        Gives up after a second if the client does not read.
        """
        for _ in range(1000):
            if self.writer.is_closing() or not self._unacknowledged():
                return
            await asyncio.sleep(0.001)

    def _unacknowledged(self) -> int:
        """Return the bytes in the send queue (SIOCOUTQ, which has the number of TIOCOUTQ)."""
        answer = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        return int.from_bytes(answer, sys.byteorder)

    @property
    def _encrypted(self) -> bool:
        return self.writer.transport.get_extra_info("ssl_object") is not None

    @property
    def _socket(self) -> socket.socket:
        connection: socket.socket = self.writer.transport.get_extra_info("socket")
        return connection
