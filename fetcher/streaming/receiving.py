"""Receives one range of a file into memory, and asks again for what is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from fetcher.artifact import ByteRange, RemoteFile
from fetcher.engine.retry import Patience, Violations
from fetcher.errors import BadResponse, RangesUnsupported, Transient, UsageError
from fetcher.events import Retrying, Subscriber
from fetcher.sources.base import Body, DirectBody, Source

Turn = Callable[[Callable[[], int]], Awaitable[int]]
"""Runs work on the thread that waits for the range, and returns its count of bytes."""

TURN = 8 * 1024 * 1024
"""The most bytes of a turn: as many as one waits for in the kernel."""


@dataclass(slots=True)
class Range:
    """Bytes `start` to `stop` of `file` on their way into `buffer`, which has room for them. `filled` of them have come.

    `seen` is called with each piece in order, on the thread that received it.
    """

    file: RemoteFile
    start: int
    stop: int
    buffer: memoryview
    seen: Callable[[memoryview], object]
    filled: int = 0

    @property
    def missing(self) -> ByteRange:
        return ByteRange(self.start + self.filled, self.stop)

    def room(self, most: int) -> memoryview:
        """Return the memory of the next bytes, at most `most`."""
        return self.buffer[self.filled : min(self.filled + most, self.stop - self.start)]

    def came(self, piece: memoryview) -> int:
        """Record the next bytes, which are in the buffer now. Returns their number."""
        if piece.nbytes:
            self.seen(piece)
            self.filled += piece.nbytes
        return piece.nbytes


async def receive(wanted: Range, source: Source, patience: Patience, turn: Turn, on_event: Subscriber) -> None:
    """Fill the range. Retries while the error is transient and `patience` allows. Raises SourceError.

    Bytes that came before an error are kept: the next request is for the rest.
    """
    failures, violations = 0, Violations(patience.clock)
    while wanted.missing:
        before = wanted.filled
        try:
            await _receive_once(wanted, source, turn)
            if wanted.filled == before:
                raise BadResponse(f"the server sends nothing of {wanted.file.path}", path=wanted.file.path)
        except RangesUnsupported as error:
            raise no_parts(wanted.file.path) from error
        except Transient as error:
            if wanted.filled > before:
                failures = 0
                patience.progressed()
                violations.answered()
            failures += 1
            violations.failed(error)
            delay = patience.delay(error, failures)
            on_event(Retrying(error.reason, error.message, wanted.file.path, failures, delay))
            await asyncio.sleep(delay)


def no_parts(path: str) -> UsageError:
    """Return the error for a file that its source only sends as a whole."""
    return UsageError(
        f"{path}: the server cannot send a part of a file, which reading without a disk needs; run `fetcher fetch`, and give "
        "the path that it prints"
    )


async def _receive_once(wanted: Range, source: Source, turn: Turn) -> None:
    whole = wanted.filled == 0 and wanted.missing == ByteRange(0, wanted.file.size or 0)
    async with source.open(wanted.file, None if whole else wanted.missing) as body:
        await _drain(body, wanted, turn)


async def _drain(body: Body, wanted: Range, turn: Turn) -> None:
    """Receive what the body has. At its end it is asked once more: only then does it release its connection."""
    direct = body.direct
    while True:
        room = wanted.room(TURN)
        if direct is None:
            count = await body.readinto(room) if room else 0
            if count == 0:
                return
            await turn(partial(wanted.came, room[:count]))
        else:
            if not await direct.readable(len(room)):
                return
            await turn(partial(_read, direct, room, wanted))


def _read(body: DirectBody, room: memoryview, wanted: Range) -> int:
    return wanted.came(room[: body.read(room)])
