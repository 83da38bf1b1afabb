"""The bytes of a file, to a socket. Each way blocks its thread, for a bounded time.

Those of a published file come from the page cache. Without TLS, `sendfile` moves them in the kernel, and the thread sleeps in
one call for each `STEP` bytes. An event loop would be woken for each filling of the socket's buffer, and would stand still
while a disk is read.

Those of a staged file are read, compared and sent from one buffer, a piece at a time: the file itself may change meanwhile.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from fetcher.artifact import CHUNK_SIZE, ByteRange
from fetcher.cache.open_chunk import PIECE, OpenChunk
from fetcher.serving.counts import Counts, Cut
from fetcher.serving.pace import Rate, Reader
from fetcher.values import dataclass

BUFFER = PIECE
"""Bytes that an upload without `sendfile` reads at once, and that OpenSSL sends in one call, without the interpreter's lock.
After each call uploads wait for that lock: 16 of them 7,000 times for each GB with 256 KiB, 1,400 times with this."""
WAIT = 5.0
"""Seconds after which a call returns although the reader took nothing, so that its patience is counted."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Sends parts of files, as fast as `rate` allows. `stopped`: set to end all of them."""

    rate: Rate
    counts: Counts
    stopped: threading.Event

    def send(self, peer: socket.socket, descriptor: int, part: ByteRange) -> bool:
        """Send `part` of an open file. Return whether all of it was sent; else the connection is of no more use.

        Raises OSError if the reader has hung up.
        """
        if isinstance(peer, ssl.SSLSocket):
            return self._each(part, Buffered(peer, ReadAhead(descriptor, min(BUFFER, len(part)))))
        return self._each(part, _Plain(peer, descriptor))

    def send_checked(self, way: Buffered, part: ByteRange) -> bool:
        """The same for a part that `way` has read the beginning of."""
        return self._each(part, way)

    def _each(self, part: ByteRange, way: _Plain | Buffered) -> bool:
        reader, position = Reader(), part.start
        while position < part.stop:
            count = min(self.rate.step, reader.step, part.stop - position, way.most)
            delay = self.rate.take(count)
            if delay > 0 and self.stopped.wait(delay):
                return False
            while count > 0:
                began = time.monotonic()
                try:
                    sent = way.send(position, count)
                except EOFError:
                    return self._cut("failed")
                self.counts.sent(sent)
                position, count = position + sent, count - sent
                if reader.took(sent, time.monotonic() - began):
                    return self._cut("slow")
                if self.stopped.is_set():
                    return False
        return True

    def _cut(self, why: Cut) -> bool:
        self.counts.cut(why)
        return False


class _Plain:
    """`sendfile`. Each `send` returns the number of bytes sent, 0 if the reader took none for `WAIT` seconds.

    Raises EOFError if the file cannot be read there, and OSError if the reader has hung up.
    """

    most = 1 << 30

    def __init__(self, peer: socket.socket, descriptor: int) -> None:
        self._peer = peer.fileno()
        self._descriptor = descriptor

    def send(self, position: int, count: int) -> int:
        try:
            sent = os.sendfile(self._peer, self._descriptor, position, count)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno == errno.EIO:  # the disk's, not the reader's
                raise EOFError from error
            raise
        if sent == 0:
            raise EOFError
        return sent


class Buffered:
    """The same from a buffer that `reading` fills: for TLS, which encrypts from it, and for bytes that are compared first."""

    most = BUFFER

    def __init__(self, peer: socket.socket, reading: ReadAhead | Compared) -> None:
        self._peer = peer
        self._reading = reading
        self._bytes = memoryview(b"")
        self._start = 0

    def load(self, position: int) -> None:
        """Read what is at `position`, unless it is read. Raises EOFError if that cannot be read."""
        if not self._start <= position < self._start + len(self._bytes):
            self._start, self._bytes = self._reading(position)

    def send(self, position: int, count: int) -> int:
        self.load(position)
        start = done = position - self._start
        stop = min(start + count, len(self._bytes))
        with suppress(TimeoutError, BlockingIOError):
            while done < stop:
                done += self._peer.send(self._bytes[done:stop])  # with TLS all of it, or TimeoutError: nobody knows how much
        return done - start


class ReadAhead:
    """Reads a published file, `most` bytes at a time. Returns them, and where they begin. Raises EOFError."""

    def __init__(self, descriptor: int, most: int) -> None:
        self._descriptor = descriptor
        self._buffer = memoryview(bytearray(most))

    def __call__(self, position: int) -> tuple[int, memoryview]:
        try:
            count = os.preadv(self._descriptor, [self._buffer], position)
        except OSError as error:
            raise EOFError from error
        if count == 0:
            raise EOFError
        return position, self._buffer[:count]


class Compared:
    """Reads a staged file of `size` bytes, a piece at a time. `chunk` opens one of its chunks if that is right."""

    def __init__(self, size: int, chunk: Callable[[int, memoryview], OpenChunk | None]) -> None:
        self._chunk = chunk
        self._open: OpenChunk | None = None
        self._buffer = memoryview(bytearray(min(size, BUFFER)))

    def __call__(self, position: int) -> tuple[int, memoryview]:
        if self._open is None or not self._open.part.start <= position < self._open.part.stop:
            self.close()
            self._open = self._chunk(position // CHUNK_SIZE, self._buffer)
        if self._open is None:
            raise EOFError
        return self._open.read(position, self._buffer)

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None


def prepare(peer: socket.socket) -> None:
    """Make a socket of the loop one that blocks, with a limit on each call."""
    if isinstance(peer, ssl.SSLSocket):
        peer.settimeout(WAIT)
        return
    peer.setblocking(True)
    # The kernel's own limit: Python's would make the socket one that does not block, and `sendfile` is called without Python.
    seconds = int(WAIT)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", seconds, int((WAIT - seconds) * 1e6)))
