"""The bytes of a file, from the page cache to a socket. Both ways block their thread, for a bounded time.

Without TLS, `sendfile` moves them in the kernel, and the thread sleeps in one call for each `STEP` bytes. An event loop would
be woken for each filling of the socket's buffer, and would stand still while a disk is read.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import struct
import threading
import time
from contextlib import suppress

from fetcher.artifact import ByteRange
from fetcher.serving.counts import Counts, Cut
from fetcher.serving.pace import Rate, Reader
from fetcher.values import dataclass

BUFFER = 256 * 1024
"""Bytes that a TLS upload reads at once: 16 records."""
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
            return self._each(part, _Encrypted(peer, descriptor))
        return self._each(part, _Plain(peer, descriptor))

    def _each(self, part: ByteRange, way: _Plain | _Encrypted) -> bool:
        reader, position = Reader(), part.start
        while position < part.stop:
            count = min(self.rate.step, part.stop - position, way.most)
            if self.stopped.wait(self.rate.take(count)):
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


class _Encrypted:
    """The same through a buffer that TLS encrypts from."""

    most = BUFFER

    def __init__(self, peer: ssl.SSLSocket, descriptor: int) -> None:
        self._peer = peer
        self._descriptor = descriptor
        self._buffer = memoryview(bytearray(BUFFER))
        self._held = ByteRange(0, 0)

    def send(self, position: int, count: int) -> int:
        if not self._held.start <= position < self._held.stop:
            try:
                read = os.preadv(self._descriptor, [self._buffer[:count]], position)
            except OSError as error:
                raise EOFError from error
            if read == 0:
                raise EOFError
            self._held = ByteRange(position, position + read)
        start = position - self._held.start
        stop = min(start + count, len(self._held))
        done = start
        with suppress(TimeoutError):
            while done < stop:
                done += self._peer.send(self._buffer[done:stop])  # OpenSSL returns after each record of 16 KiB
        return done - start


def prepare(peer: socket.socket) -> None:
    """Make a socket of the loop one that blocks, with a limit on each call."""
    if isinstance(peer, ssl.SSLSocket):
        peer.settimeout(WAIT)
        return
    peer.setblocking(True)
    # The kernel's own limit: Python's would make the socket one that does not block, and `sendfile` is called without Python.
    seconds = int(WAIT)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", seconds, int((WAIT - seconds) * 1e6)))
