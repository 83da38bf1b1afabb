"""The loop of a server: accepts, greets, reads requests, and keeps idle connections. It never blocks.

A complete request goes to a thread, which has the connection until it is answered. Every other connection has a deadline, so a
client that sends a byte now and then holds one for seconds. At the bound on connections the oldest idle one ends.
"""

from __future__ import annotations

import errno
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import compress
from typing import Literal

from fetcher.certificates import Certificates
from fetcher.serving.answering import Answerer, Outcome
from fetcher.serving.limits import Times
from fetcher.serving.requests import END, LARGEST_HEAD, BadRequest, Request, parse
from fetcher.serving.sending import prepare

_AT_ONCE = 64
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)

State = Literal["greeting", "reading", "busy", "waiting", "leaving"]
_UNANSWERED = ("greeting", "reading", "leaving")
"""The states of who is not answered: a connection that may end at any time."""


@dataclass(slots=True, eq=False)
class Connection:
    """One client. `deadline` by the monotonic clock; `request`: the one that waits for a change."""

    peer: socket.socket
    state: State
    deadline: float
    received: bytearray = field(default_factory=bytearray)
    request: Request | None = None


class Connections:
    """The connections of one server, at most `most`. `answers` are the threads."""

    def __init__(
        self,
        listener: socket.socket,
        answerer: Answerer,
        answers: ThreadPoolExecutor,
        *,
        most: int,
        times: Times,
        certificates: Certificates | None,
    ) -> None:
        self._listener = listener
        self._answerer = answerer
        self._counts = answerer.counts
        self._answers = answers
        self._most = most
        self._times = times
        self._certificates = certificates
        self._selector = selectors.DefaultSelector()
        self._all: dict[Connection, None] = {}
        self._returned: deque[tuple[Connection, Outcome]] = deque()
        self._due: deque[Connection] = deque()
        self._comparing = False
        self._compare_at = float("-inf")
        self._pause = times.tick
        self._woken, self._waker = socket.socketpair()
        self._draining = threading.Event()
        self._accepting = False

    def run(self) -> None:
        """Serve until `drain` was called and the last answer is sent."""
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._accept(True)
        while not (self._draining.is_set() and not self._all):
            for key, _ in self._selector.select(self._pause):
                self._ready(key.fileobj)
            self._take_back()
            self._look_after()
        self._accept(False)
        self._listener.close()
        self._selector.close()
        self._woken.close()
        self._waker.close()

    def drain(self) -> None:
        """End what is idle, answer who waits, and let `run` return when the last answer is sent. For any thread."""
        self._draining.set()
        self._wake()

    def cut(self) -> None:
        """End every connection, also in the middle of an answer. For any thread."""
        for connection in list(self._all):
            with suppress(OSError):
                # Not the method of SSLSocket, which takes TLS away first: a thread would go on without it.
                socket.socket.shutdown(connection.peer, socket.SHUT_RDWR)

    def _wake(self) -> None:
        with suppress(OSError):
            self._waker.send(b".", socket.MSG_DONTWAIT)

    def _ready(self, source: object) -> None:
        if source is self._listener:
            self._welcome()
        elif source is self._woken:
            with suppress(OSError):
                self._woken.recv(4096)
        elif isinstance(source, socket.socket):
            self._advance(self._selector.get_key(source).data)

    # Accepting

    def _accept(self, wanted: bool) -> None:
        if wanted and not self._accepting:
            self._selector.register(self._listener, selectors.EVENT_READ)
        elif self._accepting and not wanted:
            self._selector.unregister(self._listener)
        self._accepting = wanted

    def _welcome(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                peer, _ = self._listener.accept()
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._accept(False)  # until the next tick: otherwise the loop would spin
                return
            if len(self._all) >= self._most and not self._make_room():
                peer.close()
            else:
                self._greet(peer)

    def _make_room(self) -> bool:
        """End the oldest connection that waits for its client, else one that waits for a change. Return whether there is one.

        In this order strangers, who wait for nothing that is here, take each other's places first.
        """
        for states in (_UNANSWERED, ("waiting",)):
            for connection in self._all:
                if connection.state in states:
                    self._end(connection)
                    return True
        return False

    def _greet(self, peer: socket.socket) -> None:
        state: State = "reading"
        try:
            peer.setblocking(False)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._certificates is not None:
                context = self._certificates.context()
                peer = context.wrap_socket(peer, server_side=True, do_handshake_on_connect=False)
                state = "greeting"
        except OSError:
            peer.close()
            return
        connection = Connection(peer, state, time.monotonic() + self._times.first)
        self._all[connection] = None
        self._selector.register(peer, selectors.EVENT_READ, connection)
        self._advance(connection)

    # Reading

    def _advance(self, connection: Connection) -> None:
        """Go as far as the bytes that are there allow."""
        try:
            if connection.state == "greeting":
                self._shake_hands(connection)
            if connection.state == "reading":
                self._read(connection)
            if connection.state == "leaving" and not socket.socket.recv(connection.peer, LARGEST_HEAD):
                self._end(connection)
        except (BlockingIOError, ssl.SSLWantReadError):
            self._expect(connection, selectors.EVENT_READ)
        except ssl.SSLWantWriteError:
            self._expect(connection, selectors.EVENT_WRITE)
        except ssl.SSLError:
            self._turn_away(connection)
        except (OSError, ValueError):  # ValueError: a server name that the handshake cannot decode
            self._end(connection)

    def _shake_hands(self, connection: Connection) -> None:
        assert isinstance(connection.peer, ssl.SSLSocket)  # noqa: S101 - for the type: others do not greet
        connection.peer.do_handshake()
        connection.state = "reading"
        connection.deadline = time.monotonic() + self._times.first

    def _turn_away(self, connection: Connection) -> None:
        """Let the client see TLS's alert: bytes that nobody reads would make the kernel reset the connection."""
        connection.state = "leaving"
        try:
            socket.socket.shutdown(connection.peer, socket.SHUT_WR)
            self._expect(connection, selectors.EVENT_READ)
        except OSError:
            self._end(connection)

    def _read(self, connection: Connection) -> None:
        """Read up to the end of a request and hand it over. Raises BlockingIOError and its like if it is not complete."""
        while True:
            end = connection.received.find(END)
            if end >= 0:
                head = bytes(connection.received[:end])
                del connection.received[: end + len(END)]
                self._hand_over(connection, head)
                return
            if len(connection.received) >= LARGEST_HEAD:
                self._submit(connection, lambda: self._refused(connection, 431, "the request is too long"))
                return
            data = connection.peer.recv(LARGEST_HEAD - len(connection.received))
            if not data:
                self._end(connection)
                return
            if not connection.received:
                connection.deadline = min(connection.deadline, time.monotonic() + self._times.first)
            connection.received += data

    def _hand_over(self, connection: Connection, head: bytes) -> None:
        try:
            request = parse(head)
        except BadRequest as bad:
            status, why = bad.status, bad.why
            self._submit(connection, lambda: self._refused(connection, status, why))
            return
        connection.request = request
        self._submit(connection, lambda: self._answerer.answer(connection.peer, request, due=False))

    def _refused(self, connection: Connection, status: int, why: str) -> Outcome:
        self._answerer.refuse(connection.peer, None, status, why)
        # Bytes that nobody has read would make the kernel reset the connection, and the client would not see the answer.
        with suppress(OSError):
            connection.peer.shutdown(socket.SHUT_WR)
            socket.socket.recv(connection.peer, 4 * LARGEST_HEAD, socket.MSG_DONTWAIT)
        return "close"

    def _expect(self, connection: Connection, events: int) -> None:
        with suppress(KeyError):
            self._selector.modify(connection.peer, events, connection)
            return
        self._selector.register(connection.peer, events, connection)

    # Answering

    def _submit(self, connection: Connection, work: Callable[[], Outcome]) -> None:
        """Give the connection to a thread until `work` is done."""
        connection.state = "busy"
        with suppress(KeyError):
            self._selector.unregister(connection.peer)
        try:
            self._answers.submit(self._answered, connection, work)
        except RuntimeError:  # the threads are shut down: what is left is cut
            self._end(connection)

    def _answered(self, connection: Connection, work: Callable[[], Outcome]) -> None:
        outcome: Outcome = "close"
        try:
            prepare(connection.peer)
            outcome = work()
            connection.peer.setblocking(False)
        except OSError:
            self._counts.cut("gone")
        finally:
            self._returned.append((connection, outcome))
            self._wake()

    def _take_back(self) -> None:
        while self._returned:
            connection, outcome = self._returned.popleft()
            if outcome == "wait":
                connection.state, connection.deadline = "waiting", time.monotonic() + self._patience(connection)
            elif outcome == "close" or self._draining.is_set():
                self._end(connection)
            else:
                connection.state, connection.request = "reading", None
                connection.deadline = time.monotonic() + (self._times.first if connection.received else self._times.idle)
                self._advance(connection)
        while self._due:
            self._answer_now(self._due.popleft())

    def _patience(self, connection: Connection) -> float:
        """Seconds that a request waits for a change."""
        asked = self._answerer.patience(connection.request) if connection.request is not None else None
        return self._times.poll if asked is None else min(self._times.poll, asked)

    def _answer_now(self, connection: Connection) -> None:
        request = connection.request
        if connection.state == "waiting" and request is not None:
            self._submit(connection, lambda: self._answerer.answer(connection.peer, request, due=True))

    # Deadlines

    def _look_after(self) -> None:
        """End what has had its time, and see to those who wait for a change."""
        draining, now = self._draining.is_set(), time.monotonic()
        self._accept(not draining)
        if draining:
            self._listener.close()
        waiting = {each: each.request for each in self._all if each.state == "waiting" and each.request is not None}
        for connection in list(self._all):
            over = draining or now >= connection.deadline
            if over and connection.state in _UNANSWERED:
                self._end(connection)
            elif over and connection.state == "waiting":
                self._answer_now(connection)
        self._counts.connections, self._counts.polls = len(self._all), len(waiting)
        if waiting and not self._comparing and now >= self._compare_at:
            self._comparing, self._compare_at = True, now + self._times.look
            self._answers.submit(self._compare, waiting)
        self._pause = self._times.look if waiting else self._times.tick

    def _compare(self, waiting: Mapping[Connection, Request]) -> None:
        """On a thread: find those for whom something has changed."""
        try:
            changed = self._answerer.changed([*waiting.values()])
            self._due.extend(compress(waiting, changed))
            if any(changed):
                self._wake()
        finally:
            self._comparing = False

    def _end(self, connection: Connection) -> None:
        with suppress(KeyError, ValueError):
            self._selector.unregister(connection.peer)
        self._all.pop(connection, None)
        with suppress(OSError):
            connection.peer.close()
