"""A server in front of a real one: it forwards every request as it is, and can be told to fail."""

from __future__ import annotations

import asyncio
import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from fetcher.testing.content import Slice, body_of
from fetcher.testing.exchange import Request, Response, parse_range
from fetcher.testing.faults import Faults
from fetcher.testing.listener import Listener, Rates
from fetcher.testing.throttle import Throttle

_HOP = {"connection", "content-length", "transfer-encoding", "keep-alive"}


@dataclass
class Front:
    """The front of the server at `host`:`port`. `requests` are those that came."""

    host: str
    port: int
    faults: Faults = field(default_factory=Faults)
    requests: list[Request] = field(default_factory=list)
    own_port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.own_port}"

    def answer(self, request: Request) -> Response:
        """Forward a request. A range is cut out of the whole file here, since faults need the whole."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        try:
            headers = {name: value for name, value in request.headers.items() if name != "range"}
            connection.request(request.method, request.target, headers=headers)
            answer = connection.getresponse()
            body = body_of(answer.read())
            kept = tuple((name, value) for name, value in answer.getheaders() if name.lower() not in _HOP)
            if request.method == "HEAD":
                length = int(answer.getheader("Content-Length") or 0)
                return Response(answer.status, kept, body_of(bytes(length)))
        finally:
            connection.close()
        if answer.status != 200 or not request.range:
            return Response(answer.status, kept, body, body.content if request.method == "GET" else None)
        try:
            part = parse_range(request.range, len(body))
        except ValueError:
            return Response(416, (("Content-Range", f"bytes */{len(body)}"),))
        if part is None:
            return Response(200, kept, body, body.content)
        where = ("Content-Range", f"bytes {part.start}-{part.stop - 1}/{len(body)}")
        return Response(206, (*kept, where), Slice(body.content, part.start, part.stop), body.content)


@contextmanager
def in_front_of(host: str, port: int, front: Front | None = None) -> Iterator[Front]:
    """Start `front`, or a plain one, on a free port, and stop it at the end of the block."""
    front = front or Front(host, port)
    ready, loop = threading.Event(), asyncio.new_event_loop()
    stopping = asyncio.Event()

    async def serve() -> None:
        listener = Listener(
            name="cdn",
            answer=front.answer,
            faults=front.faults,
            log=front.requests.append,
            rates=Rates,
            total=Throttle(None),
            tls=None,
        )
        front.own_port = await listener.listen(0)
        ready.set()
        await stopping.wait()
        await listener.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield front
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()
        loop.close()
