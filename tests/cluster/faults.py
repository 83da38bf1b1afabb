"""The API server of the tests behind a proxy that fails on demand. Agent and controller speak with it instead of the server.

    with faulty_api() as front:
        async with Api(front.access(), manager="test") as api:
            front.fail(Refuse(503, retry_after=1), watch=False, times=2)   # the next two requests that are no watch
            front.fail(Silent(), path="/leases/")                           # all that concern leases, until `heal`
            front.mute_watches()       # open watches send nothing any more, and are not closed
            with front.away(): ...     # every connection is cut, and none is accepted
            front.demand_token("new")  # 401 for all others
            front.count(method="PATCH", path="nodecaches")

The proxy speaks plain HTTP, and has the rights of the kubeconfig. A request with a token is passed on with that token and
without those rights, unless the proxy itself demands one. It runs in a thread with an event loop of its own.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import aiohttp
from aiohttp import web

from cluster.client import ApiAccess, of_kubeconfig
from fetcher.transport.connector import Connector
from tests.cluster.api import cluster

T = TypeVar("T")


@dataclass(slots=True)
class Asked:
    """A request that came. `received` and `sent` are bytes of bodies; a watch that is open still grows."""

    method: str
    path: str
    query: dict[str, str]
    agent: str = ""
    peer: tuple[str, int] | None = None
    received: int = 0
    sent: int = 0
    status: int = 0
    open: bool = False
    """Whether it is a watch that lasts."""
    muted: bool = False

    @property
    def watch(self) -> bool:
        return self.query.get("watch") == "true"


class Fault(Protocol):
    async def answer(self, request: web.Request, forwarded: Forwarded) -> web.StreamResponse: ...


class Forwarded(Protocol):
    """Asks the real API server, and returns its answer as it is."""

    async def __call__(self) -> web.StreamResponse: ...


@dataclass(frozen=True, slots=True)
class Refuse:
    """An HTTP status, as the API server words it."""

    status: int
    retry_after: int | None = None
    message: str = "the proxy refuses"

    async def answer(self, request: web.Request, forwarded: Forwarded) -> web.StreamResponse:
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": self.message, "code": self.status}
        return web.json_response(body, status=self.status, headers=headers)


@dataclass(frozen=True, slots=True)
class Redirect:
    """The answer is elsewhere: at this path."""

    to: str

    async def answer(self, request: web.Request, forwarded: Forwarded) -> web.StreamResponse:
        return web.json_response({"message": "elsewhere"}, status=307, headers={"Location": self.to})


@dataclass(frozen=True, slots=True)
class Silent:
    """No answer, and no end of the connection. The request is not passed on."""

    async def answer(self, request: web.Request, forwarded: Forwarded) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError


@dataclass(frozen=True, slots=True)
class Slow:
    """The answer comes so many seconds later."""

    seconds: float

    async def answer(self, request: web.Request, forwarded: Forwarded) -> web.StreamResponse:
        await asyncio.sleep(self.seconds)
        return await forwarded()


@dataclass(frozen=True, slots=True)
class Drop:
    """The connection is reset instead of an answer; `after`: the server has acted on the request all the same."""

    after: bool = False

    async def answer(self, request: web.Request, forwarded: Forwarded) -> web.StreamResponse:
        if self.after:
            await forwarded()
        _reset(request)
        return web.Response()


@dataclass(frozen=True, slots=True)
class Send:
    """These bytes as the body of a 200, and then an end, a reset, or silence."""

    pieces: Sequence[bytes]
    then: Literal["end", "reset", "silence"] = "end"

    async def answer(self, request: web.Request, forwarded: Forwarded) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for piece in self.pieces:
            await response.write(piece)
        if self.then == "silence":
            await asyncio.Event().wait()
        if self.then == "reset":
            _reset(request)
        return response


def told(kind: str, found: dict[str, Any]) -> bytes:
    """A line of a watch."""
    return json.dumps({"type": kind, "object": found}).encode() + b"\n"


EXPIRED = Send([told("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"})])
"""410 as an event in a watch, which is how the API server says it after the watch has begun. `Refuse(410)` is the other way."""


@dataclass(frozen=True, slots=True)
class Endless:
    """A list without an end: each page says that there is another one."""

    async def answer(self, request: web.Request, forwarded: Forwarded) -> web.StreamResponse:
        answer = await forwarded()
        assert isinstance(answer, web.Response)
        assert isinstance(answer.body, bytes)
        page = json.loads(answer.body)
        page["metadata"]["continue"] = f"more-{len(request.query.get('continue', ''))}"
        return web.json_response(page)


def _reset(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()


@dataclass(slots=True)
class _Rule:
    fault: Fault
    method: str
    path: str
    watch: bool | None
    left: int | None

    def matches(self, asked: Asked) -> bool:
        return (
            self.left != 0
            and self.method in ("", asked.method)
            and self.path in asked.path
            and self.watch in (None, asked.watch)
        )


@dataclass
class Front:
    """The proxy. All methods can be called by any thread."""

    behind: ApiAccess
    loop: asyncio.AbstractEventLoop
    asked: list[Asked] = field(default_factory=list)
    port: int = 0
    _rules: list[_Rule] = field(default_factory=list)
    _token: str | None = None
    _runner: web.AppRunner | None = None
    _site: web.TCPSite | None = None
    _sessions: dict[bool, aiohttp.ClientSession] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def access(self, *, token: str | None = None, token_file: Path | None = None, namespace: str = "default") -> ApiAccess:
        return ApiAccess(self.url, None, namespace, token, token_file)

    def kubeconfig(self, path: Path, *, token: str | None = None) -> Path:
        """Write a kubeconfig for commands that are processes of their own."""
        user = {} if token is None else {"token": token}
        document = {
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path.write_text(json.dumps(document))
        return path

    def fail(
        self, fault: Fault, *, method: str = "", path: str = "", watch: bool | None = None, times: int | None = None
    ) -> None:
        """Fail requests from now on. `path` is a part of it. The first rule that fits counts; `times`: how often."""
        self._rules.append(_Rule(fault, method, path, watch, times))

    def heal(self) -> None:
        """Forget all rules and the demanded token. What hangs goes on hanging."""
        self._rules = []
        self._token = None

    def demand_token(self, token: str) -> None:
        """Answer 401 to requests with another token or none. The token is the proxy's own, and is not passed on."""
        self._token = token

    def mute_watches(self) -> None:
        """Keep the watches that are open now, and send nothing more in them. New ones are not concerned."""
        self._do(self._mute())

    def cut(self) -> None:
        """Reset all connections. New ones are accepted."""
        self._do(self._cut())

    @contextmanager
    def away(self) -> Iterator[None]:
        """No API server: all connections are reset, and new ones refused."""
        self._do(self._close())
        try:
            yield
        finally:
            self._do(self._listen())

    def count(self, *, method: str = "", path: str = "", watch: bool | None = None) -> int:
        """How many requests came."""
        return len(self.which(method=method, path=path, watch=watch))

    def which(self, *, method: str = "", path: str = "", watch: bool | None = None) -> list[Asked]:
        rule = _Rule(Silent(), method, path, watch, None)
        return [each for each in list(self.asked) if rule.matches(each)]

    @property
    def sent(self) -> int:
        """Bytes of all answers."""
        return sum(each.sent for each in list(self.asked))

    @property
    def received(self) -> int:
        """Bytes of all bodies of requests."""
        return sum(each.received for each in list(self.asked))

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    async def _mute(self) -> None:
        for each in self.asked:
            each.muted = each.muted or each.open

    async def _cut(self) -> None:
        assert self._runner is not None
        assert self._runner.server is not None
        for connection in list(self._runner.server.connections):
            if connection.transport is not None:
                connection.transport.abort()

    async def _listen(self) -> None:
        assert self._runner is not None
        self._site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await self._site.start()
        self.port = self._runner.addresses[0][1]

    async def _close(self) -> None:
        assert self._site is not None
        await self._site.stop()
        await self._cut()

    async def start(self) -> None:
        for with_rights in (True, False):
            tls = self.behind.tls if with_rights else _without_certificate(self.behind)
            connector = Connector(limit=0, ssl=True if tls is None else tls)  # a watch that is cut leaves no socket behind
            self._sessions[with_rights] = aiohttp.ClientSession(self.behind.server, connector=connector, auto_decompress=False)
        application = web.Application(client_max_size=64 * 1024 * 1024)
        application.router.add_route("*", "/{rest:.*}", self._answer)
        # Without `handler_cancellation` a watch would go on until its end after its client is gone.
        self._runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        await self._listen()

    async def stop(self) -> None:
        assert self._runner is not None
        await self._cut()
        await self._runner.cleanup()
        for session in self._sessions.values():
            await session.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        agent, peer = request.headers.get("User-Agent", ""), request.transport.get_extra_info("peername")
        asked = Asked(request.method, request.path, dict(request.query), agent, peer)
        self.asked.append(asked)
        body = await request.read()
        asked.received = len(body)

        async def forwarded() -> web.StreamResponse:
            return await self._forward(request, asked, body)

        response = await self._behaved(request, asked, forwarded)
        asked.status = response.status
        if isinstance(response, web.Response) and isinstance(response.body, bytes):
            asked.sent = len(response.body)
        return response

    async def _behaved(self, request: web.Request, asked: Asked, forwarded: Forwarded) -> web.StreamResponse:
        for rule in self._rules:
            if rule.matches(asked):
                if rule.left is not None:
                    rule.left -= 1
                return await rule.fault.answer(request, forwarded)
        if self._token is not None and request.headers.get("Authorization") != f"Bearer {self._token}":
            return await Refuse(401, message="Unauthorized").answer(request, forwarded)
        return await forwarded()

    async def _forward(self, request: web.Request, asked: Asked, body: bytes) -> web.StreamResponse:
        own = self._token is not None or "Authorization" not in request.headers
        names = ("Accept", "Content-Type", "User-Agent") if own else ("Accept", "Content-Type", "User-Agent", "Authorization")
        headers = {name: request.headers[name] for name in names if name in request.headers}
        headers["Accept-Encoding"] = "identity"  # so that the bytes that are counted are those of objects
        sent = self._sessions[own].request(
            request.method, request.rel_url, data=body or None, headers=headers, timeout=aiohttp.ClientTimeout(total=None)
        )
        async with sent as answer:
            kind = {"Content-Type": answer.headers.get("Content-Type", "application/json")}
            if not asked.watch or answer.status != 200:
                return web.Response(body=await answer.read(), status=answer.status, headers=kind)
            response = web.StreamResponse(headers=kind)
            await response.prepare(request)
            asked.open = True
            try:
                async for block in answer.content.iter_any():
                    await _until_heard(asked)
                    await response.write(block)
                    asked.sent += len(block)
                await _until_heard(asked)
            finally:
                asked.open = False
            return response


async def _until_heard(asked: Asked) -> None:
    """Wait for ever in a watch that is muted."""
    if asked.muted:
        await asyncio.Event().wait()


def _without_certificate(access: ApiAccess) -> ssl.SSLContext | None:
    """The TLS of the API server for who has only a token."""
    if access.tls is None:
        return None
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for authority in access.tls.get_ca_certs(binary_form=True):
        tls.load_verify_locations(cadata=authority)
    return tls


@contextmanager
def faulty_api() -> Iterator[Front]:
    """Run the proxy on a free port of loopback until the block ends. Skips without a cluster."""
    behind = of_kubeconfig(Path(cluster().kubeconfig))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True, name="proxy of the API server")
    thread.start()
    front = Front(behind, loop)
    try:
        asyncio.run_coroutine_threadsafe(front.start(), loop).result(20)
        yield front
    finally:
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(front.stop(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()
