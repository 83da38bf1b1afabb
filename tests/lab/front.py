"""A server in front of a real one: it forwards requests as they are, answers itself what that cannot be made to, and fails."""

from __future__ import annotations

import asyncio
import http.client
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from fetcher.testing.content import Content, Slice, body_of
from fetcher.testing.exchange import Request, Response
from fetcher.testing.faults import Faults
from fetcher.testing.listener import Listener, Rates
from fetcher.testing.throttle import Throttle

Reply = tuple[int, Mapping[str, str], bytes]
Rule = Callable[[Request], Reply | None]

_HOP = {"connection", "content-length", "transfer-encoding", "keep-alive"}
_AT_ONCE = 32
"""Requests that are answered at the same time: a rule may hold some back while others go on."""


class Part(Content):
    """The content behind an answer to a range. What was not sent is asked for only if a fault needs it."""

    def __init__(self, start: int, data: bytes, size: int, whole: Callable[[], bytes]) -> None:
        self.size = size
        self._start, self._data = start, data
        self._whole = whole

    def read(self, start: int, stop: int) -> bytes:
        if start < self._start or stop > self._start + len(self._data):
            self._start, self._data = 0, self._whole()
        return self._data[start - self._start : stop - self._start]


class Announced(Content):
    """The content of an answer to HEAD: its size alone."""

    def __init__(self, size: int) -> None:
        self.size = size


@dataclass
class Front:
    """The front of the server at `host`:`port`. `rule` answers a request, or returns None: then the server does.

    `requests` are those that came. `faults` hit what is sent, whoever answers.
    """

    host: str
    port: int
    faults: Faults = field(default_factory=Faults)
    requests: list[Request] = field(default_factory=list)
    own_port: int = 0
    rule: Rule = lambda request: None
    scheme: str = "http"

    @property
    def endpoint(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.own_port}"

    def answer(self, request: Request) -> Response:
        """Answer a request, on a thread of its own."""
        reply = self.rule(request)
        if reply is None:
            return self.forwarded(request)
        status, headers, body = reply
        return Response(status, tuple(headers.items()), body_of(body))

    def forwarded(self, request: Request) -> Response:
        """The answer of the server behind."""
        status, headers, data = self._asked(request, request.headers)
        told = http.client.HTTPMessage()
        for name, value in headers:
            told[name] = value
        kept = tuple((name, value) for name, value in headers if name.lower() not in _HOP)
        if request.method == "HEAD":
            size = int(told.get("Content-Length") or 0)
            return Response(status, kept, Slice(Announced(size), 0, size))
        part = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", told.get("Content-Range", ""))
        if status != 206 or part is None:
            body = body_of(data)
            return Response(status, kept, body, body.content if status == 200 and request.method == "GET" else None)
        unranged = {name: value for name, value in request.headers.items() if name != "range"}
        content = Part(int(part[1]), data, int(part[3]), lambda: self._asked(request, unranged)[2])
        return Response(status, kept, Slice(content, int(part[1]), int(part[2]) + 1), content)

    def _asked(self, request: Request, headers: Mapping[str, str]) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        try:
            connection.request(request.method, request.target, body=request.body or None, headers=dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


@contextmanager
def in_front_of(
    host: str, port: int, front: Front | None = None, *, tls: ssl.SSLContext | None = None, rule: Rule | None = None
) -> Iterator[Front]:
    """Start `front`, or a plain one with `rule`, on a free port, with `tls` over TLS. It stops at the end of the block."""
    front = front or Front(host, port)
    front.rule = rule or front.rule
    front.scheme = "https" if tls else "http"
    ready, loop = threading.Event(), asyncio.new_event_loop()
    stopping = asyncio.Event()

    async def serve(threads: ThreadPoolExecutor) -> None:
        listener = Listener(
            name="cdn",
            answer=lambda request: loop.run_in_executor(threads, front.answer, request),
            faults=front.faults,
            log=front.requests.append,
            rates=Rates,
            total=Throttle(None),
            tls=tls,
        )
        front.own_port = await listener.listen(0)
        ready.set()
        await stopping.wait()
        await listener.close()

    def run() -> None:
        with ThreadPoolExecutor(_AT_ONCE, "front") as threads:
            loop.run_until_complete(serve(threads))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield front
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()
        loop.close()


def in_front_of_nothing(rule: Rule | None = None, *, tls: ssl.SSLContext | None = None) -> AbstractContextManager[Front]:
    """A front that answers by its rule alone."""
    return in_front_of("127.0.0.1", 9, rule=rule, tls=tls)
