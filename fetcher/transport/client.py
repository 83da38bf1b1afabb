"""Requests and their heads: one session, our own redirects, and credentials that never leave their origin.

This module decides every hop of a redirect. `Credentials` are sent only to the scheme, host and port that they belong to. A
redirect from https to http is followed only if the caller can verify the content (`allow_downgrade`).
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress

import yarl

from fetcher.errors import (
    BadResponse,
    ConfigurationError,
    FetchError,
    Stalled,
    Transient,
    Untrusted,
)
from fetcher.reach import Reach
from fetcher.transport.body import ResponseBody, receiving
from fetcher.transport.complaints import BODY_LIMIT, complaint
from fetcher.transport.connector import Connector
from fetcher.transport.encodings import decoded
from fetcher.transport.failures import TlsAdvice, classified
from fetcher.transport.gate import Gate
from fetcher.transport.http_library import aiohttp
from fetcher.transport.proxies import Proxy, proxy_for
from fetcher.transport.statuses import Refusal, error_for, is_temporary
from fetcher.transport.trust import tls_context
from fetcher.transport.urls import address_from, host_of, normal, origin_of
from fetcher.values import dataclass
from fetcher.version import VERSION

REDIRECTS = 10
"""Redirects of one request at most. The Hub needs one or two, a mirror one more."""
COMPLAINT_TIMEOUT = 2.0
"""Seconds to wait for the text of an error or of a redirect: it usually arrives with the head."""
_REACHED = 1000
"""Addresses at most whose redirects are remembered: more than can fail at the same time."""
_REDIRECT_STATUSES = (301, 302, 303, 307, 308)
_HEAD_LIMIT = 32 * 1024
_READ = 64 * 1024
Onward = Callable[[str, str], str]
"""Called with the address of an answer and its Location; returns the next address. May raise BadResponse."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Headers for one origin only. `given_by` names where they come from (a variable, a file, the address), never a value."""

    origin: str
    headers: Mapping[str, str]
    given_by: str = "the environment"

    @property
    def secrets(self) -> tuple[str, ...]:
        """Text that a message must not repeat: the values, the token in a value, and the user and password in a value."""
        words = [word for value in self.headers.values() for word in (value, value.rpartition(" ")[2])]
        for value in self.headers.values():
            scheme, _, encoded = value.partition(" ")
            if scheme.lower() == "basic":
                with suppress(ValueError):
                    pair = base64.b64decode(encoded).decode("utf-8", "replace")
                    words += [pair, *pair.split(":", 1)]
        return tuple(sorted({word for word in words if word}, key=len, reverse=True))

    def __repr__(self) -> str:
        return f"<Credentials for {self.origin}>"


class Answer:
    """A response whose head has arrived. `url` is its final address, `sent` the credentials that were sent there."""

    def __init__(self, response: aiohttp.ClientResponse, url: str, *, stall: float, sent: Credentials | None = None) -> None:
        self._response = response
        self._stall = stall
        self._sent = sent
        self._body: ResponseBody | None = None
        self._began: bytes | None = None
        self.url = url
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    def body(self, *, length: int | None, what: str) -> ResponseBody:
        """The body, see `transport.body.receiving`. Call this once."""
        self._body = receiving(self._response, length=length, what=what, stall=self._stall)
        return self._body

    async def read(self, limit: int, *, what: str) -> bytes:
        """Read a small body whole and decompress it. Raises SourceError, BadResponse if it exceeds `limit` bytes."""
        body, buffer, content = self.body(length=None, what=what), memoryview(bytearray(_READ)), bytearray()
        while count := await body.readinto(buffer):
            content += buffer[:count]
            if len(content) > limit:
                raise BadResponse(f"the server sends more than {limit:,} bytes for {what}")
        return decoded(bytes(content), self.headers.get("Content-Encoding", ""), limit=limit, what=what)

    async def refusal(self, *, what: str) -> FetchError:
        """The error that this answer means, with the server's own text. `what` completes "for ..."."""
        sent = self._sent
        text = complaint(self.headers, await self.beginning(), secrets=sent.secrets if sent else ())
        return error_for(Refusal(self.status, self.headers, text, sent.given_by if sent else ""), what=what)

    async def beginning(self) -> bytes:
        """The beginning of an error's body, as far as it arrives within COMPLAINT_TIMEOUT. Later calls return the same."""
        if self._began is None:
            self._began = await self._read_beginning()
        return self._began

    async def _read_beginning(self) -> bytes:
        buffer, content = memoryview(bytearray(BODY_LIMIT)), bytearray()
        with suppress(FetchError, TimeoutError):
            async with asyncio.timeout(COMPLAINT_TIMEOUT):
                body = self.body(length=None, what="an error")
                while len(content) < BODY_LIMIT and (count := await body.readinto(buffer)):
                    content += buffer[:count]
        return bytes(content[:BODY_LIMIT])

    async def dismiss(self) -> None:
        """Drop the body of a redirect and close the answer. The connection stays usable if a short body comes soon."""
        await _dismissed(self._response)

    def close(self) -> None:
        """Return the connection to the pool if the body has ended; otherwise drop it at once."""
        if self._body is not None:
            self._body.close()
        elif self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


class HttpTransport:
    """One pool of connections. Sizes in bytes, times in seconds."""

    def __init__(
        self,
        *,
        connections: int,
        timeout_stall: float,
        read_buffer: int,
        environ: Mapping[str, str] = os.environ,
        context: Callable[[], ssl.SSLContext] | None = None,
        advice: TlsAdvice | None = None,
        server_names: Mapping[str, str] | None = None,
        reach: Reach | None = None,
    ) -> None:
        """`context` returns the TLS context for a request, if it is not the one of `environ`; `advice` is for its errors.

        `server_names`: the name in the certificate of an origin, if it is not its host. `reach`: where connections may lead, if
        not everywhere; behind a proxy, which resolves names itself, only written IP addresses are judged.
        """
        self._connections = connections
        self._stall = timeout_stall
        self._read_buffer = read_buffer
        self._environ = environ
        self._session: aiohttp.ClientSession | None = None
        self._proxies: dict[str, Proxy | None] = {}
        self._context: ssl.SSLContext | None = None
        self._given_context = context
        self._advice = advice or TlsAdvice()
        self._server_names = server_names if server_names is not None else {}
        self._reached: dict[tuple[str, str, bool], str] = {}
        self._gate = Gate(reach) if reach is not None else None

    @asynccontextmanager
    async def request(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        credentials: Credentials | None = None,
        allow_downgrade: bool = False,
        redirects: int = REDIRECTS,
        onward: Onward = address_from,
        content: bytes | None = None,
    ) -> AsyncIterator[Answer]:
        """Yield the answer to a request, after redirects. It may have any status. Raises SourceError, ConfigurationError.

        `content` is the body to send; a redirect would send it to another address, so give it with `redirects=0` only.
        """
        answer = await self.open(
            url,
            method=method,
            headers=headers,
            credentials=credentials,
            allow_downgrade=allow_downgrade,
            redirects=redirects,
            onward=onward,
            content=content,
        )
        try:
            yield answer
        finally:
            answer.close()

    async def open(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        credentials: Credentials | None = None,
        allow_downgrade: bool = False,
        redirects: int = REDIRECTS,
        onward: Onward = address_from,
        content: bytes | None = None,
    ) -> Answer:
        """Like `request`, but the caller closes the answer.

        If an address behind a redirect fails for a moment, the next request starts there. Otherwise every failure would
        repeat the whole chain of redirects. If it fails again, the request starts at its first address, which may redirect
        elsewhere by now.
        """
        url = _normal_address(url)
        if self._gate is not None:
            self._gate.begin(url)
        requested = (method, url, allow_downgrade)
        resumed = self._reached.pop(requested, None)
        began = url = resumed or url
        for _ in range(redirects + 1):
            sent = credentials if credentials is not None and credentials.origin == origin_of(url) else None
            try:
                response = await self._head(method, url, {**(headers or {}), **(sent.headers if sent else {})}, content)
            except Transient:
                self._remember(requested, url, began)
                raise
            if response.status in (401, 403, 404, 410) and url == resumed:
                response.close()
                url, resumed = requested[1], None
                continue
            location = response.headers.get("Location")
            if response.status not in _REDIRECT_STATUSES or not location or redirects == 0:
                if is_temporary(response.status):
                    self._remember(requested, url, began)
                return Answer(response, url, stall=self._stall, sent=sent)
            await _dismissed(response)
            url = _next_hop(url, onward(url, location), allow_downgrade=allow_downgrade)
        raise BadResponse(f"more than {redirects} redirects from {host_of(url)}")

    def _remember(self, requested: tuple[str, str, bool], url: str, began: str) -> None:
        if url != began and len(self._reached) < _REACHED:
            self._reached[requested] = url

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def _head(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None) -> aiohttp.ClientResponse:
        proxy, scope = self._proxy(url), asyncio.timeout(self._stall)
        if self._gate is not None:
            self._gate.check(url)
        try:
            async with scope:
                # encoded=True: quoting a signed address again would break its signature.
                return await self._opened().request(
                    method,
                    yarl.URL(url, encoded=True),
                    headers={**headers, **_for_proxy(proxy, url)},
                    data=content,
                    allow_redirects=False,
                    ssl=self._tls(url),
                    server_hostname=self._server_names.get(origin_of(url)) if self._server_names else None,
                    proxy=proxy.url if proxy else None,
                    proxy_headers=_for_tunnel(proxy),
                )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Ask the scope: a socket's own ETIMEDOUT is a TimeoutError too.
            if scope.expired():
                raise Stalled(
                    f"connection timed out: no answer from {host_of(url)} within {self._stall:.0f} s (--timeout-stall)"
                ) from None
            raise classified(error, url, self._advice) from error

    def _proxy(self, url: str) -> Proxy | None:
        """The proxy for `url`, decided once for each origin. Raises ConfigurationError."""
        origin = origin_of(url)
        if origin not in self._proxies:
            self._proxies[origin] = proxy = proxy_for(url, self._environ)
            if proxy is not None and self._gate is not None:
                self._gate.trust(proxy.url)
        return self._proxies[origin]

    def _tls(self, url: str) -> ssl.SSLContext | bool:
        """The TLS context, created at first use: reading a CA bundle takes 0.04 s. True, aiohttp's default, for plain HTTP."""
        if not url.startswith("https://"):
            return True
        if self._given_context is not None:
            return self._given_context()
        if self._context is None:
            self._context = tls_context(self._environ)
        return self._context

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = Connector(limit=self._connections + 4, ttl_dns_cache=60, resolver=self._gate)
            self._session = aiohttp.ClientSession(
                connector=connector,
                # Heads and bodies have their own deadlines: aiohttp's timer would keep running while a sink receives.
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None, sock_read=None),
                auto_decompress=False,
                # True would read proxies, and also ~/.netrc: passwords that are not meant for us.
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=self._read_buffer,
                max_line_size=_HEAD_LIMIT,
                max_field_size=_HEAD_LIMIT,
                headers={"User-Agent": f"weightlift/{VERSION}", "Accept-Encoding": "identity"},
            )
        return self._session


async def _dismissed(response: aiohttp.ClientResponse) -> None:
    """Read and drop a short body, so that the connection can be used again; then close the response, also if cancelled."""
    try:
        with suppress(TimeoutError, aiohttp.ClientError, OSError, ValueError):
            if not response.content.is_eof():
                seen = 0
                async with asyncio.timeout(COMPLAINT_TIMEOUT):
                    while seen <= _READ and (piece := await response.content.readany()):
                        seen += len(piece)
    finally:
        response.close()


def _normal_address(url: str) -> str:
    try:
        return normal(url)
    except ValueError:
        raise ConfigurationError(f"the address on {host_of(url)} is malformed; check its host and port") from None


def _next_hop(url: str, target: str, *, allow_downgrade: bool) -> str:
    if is_downgrade(url, target) and not allow_downgrade:
        raise Untrusted(
            f"{host_of(url)} redirects from https to http, where anyone on the way could change a file without a published "
            "digest; pin it with #sha256= or --expect"
        )
    return target


def is_downgrade(url: str, target: str) -> bool:
    """Whether a redirect from `url` to `target`, both in their normal spelling, gives up TLS."""
    return url.startswith("https://") and target.startswith("http://")


def _for_proxy(proxy: Proxy | None, url: str) -> dict[str, str]:
    """Headers for a proxy that receives the request itself: plain HTTP uses no tunnel."""
    return {"Proxy-Authorization": proxy.authorization} if proxy and proxy.authorization and url.startswith("http://") else {}


def _for_tunnel(proxy: Proxy | None) -> dict[str, str] | None:
    return {"Proxy-Authorization": proxy.authorization} if proxy and proxy.authorization else None
