"""Requests and their heads: one session, our own redirects, credentials that never leave their origin.

Every hop of a redirect is decided here: `Credentials` are attached only while scheme, host and port are those they were given
for, and a step from https to http is taken only by callers that can verify what they get (`allow_downgrade`).
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import aiohttp
import yarl

from fetcher.errors import (
    BadResponse,
    ConfigurationError,
    FetchError,
    Stalled,
    Transient,
    Untrusted,
)
from fetcher.transport.body import ResponseBody, receiving
from fetcher.transport.complaints import BODY_LIMIT, complaint
from fetcher.transport.encodings import decoded
from fetcher.transport.failures import classified
from fetcher.transport.proxies import Proxy, proxy_for
from fetcher.transport.statuses import Refusal, error_for, passes_by
from fetcher.transport.trust import tls_context
from fetcher.transport.urls import address_from, host_of, normal, origin_of
from fetcher.version import VERSION

REDIRECTS = 10
"""The Hub needs one or two, a mirror one more."""
COMPLAINT_TIMEOUT = 2.0
"""Seconds for the text of an error, which comes with its head or is not worth waiting for."""
_REACHED = 1000
"""Addresses at most whose redirects are remembered: more than fail at once."""
_REDIRECT_STATUSES = (301, 302, 303, 307, 308)
_HEAD_LIMIT = 32 * 1024
_READ = 64 * 1024
Onward = Callable[[str, str], str]
"""The address that a Location (the second) in an answer from an address (the first) means. May raise BadResponse."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Headers for one origin only. `given_by` says where they come from: a variable, a file, the address; never a value."""

    origin: str
    headers: Mapping[str, str]
    given_by: str = "the environment"

    @property
    def secrets(self) -> tuple[str, ...]:
        """All that a message must not repeat: values, the token in one, user and password in one (a token may be either)."""
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
    """A response whose head has arrived. `url` is where it finally came from, `sent` the credentials that went there."""

    def __init__(self, response: aiohttp.ClientResponse, url: str, *, stall: float, sent: Credentials | None = None) -> None:
        self._response = response
        self._stall = stall
        self._sent = sent
        self._body: ResponseBody | None = None
        self.url = url
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    def body(self, *, length: int | None, what: str) -> ResponseBody:
        """The body, to be asked for once; see `transport.body.receiving`."""
        self._body = receiving(self._response, length=length, what=what, stall=self._stall)
        return self._body

    async def read(self, limit: int, *, what: str) -> bytes:
        """The whole of a small body, decompressed. Raises BadResponse when it is longer than `limit` bytes."""
        body, buffer, content = self.body(length=None, what=what), memoryview(bytearray(_READ)), bytearray()
        while count := await body.readinto(buffer):
            content += buffer[:count]
            if len(content) > limit:
                raise BadResponse(f"more than {limit:,} bytes for {what}")
        return decoded(bytes(content), self.headers.get("Content-Encoding", ""), limit=limit, what=what)

    async def refusal(self, *, what: str) -> FetchError:
        """The error that this answer is, with the server's own words; `what` completes "for ..."."""
        sent = self._sent
        said = complaint(self.headers, await self._beginning(), secrets=sent.secrets if sent else ())
        return error_for(Refusal(self.status, self.headers, said, sent.given_by if sent else ""), what=what)

    async def _beginning(self) -> bytes:
        """What comes of an error's body within a moment."""
        buffer, content = memoryview(bytearray(BODY_LIMIT)), bytearray()
        with suppress(FetchError, TimeoutError):
            async with asyncio.timeout(COMPLAINT_TIMEOUT):
                body = self.body(length=None, what="an error")
                while len(content) < BODY_LIMIT and (count := await body.readinto(buffer)):
                    content += buffer[:count]
        return bytes(content[:BODY_LIMIT])

    def close(self) -> None:
        """Give the connection back if the body has ended, else drop it at once."""
        if self._body is not None:
            self._body.close()
        elif self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


class HttpTransport:
    """One pool of connections. Sizes in bytes, times in seconds."""

    def __init__(
        self, *, connections: int, timeout_stall: float, read_buffer: int, environ: Mapping[str, str] = os.environ
    ) -> None:
        self._connections = connections
        self._stall = timeout_stall
        self._read_buffer = read_buffer
        self._environ = environ
        self._session: aiohttp.ClientSession | None = None
        self._context: ssl.SSLContext | None = None
        self._reached: dict[tuple[str, str, bool], str] = {}

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
    ) -> AsyncIterator[Answer]:
        """The answer to a request after its redirects. Raises SourceError, ConfigurationError; statuses are not judged."""
        answer = await self.open(
            url,
            method=method,
            headers=headers,
            credentials=credentials,
            allow_downgrade=allow_downgrade,
            redirects=redirects,
            onward=onward,
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
    ) -> Answer:
        """As `request`; the caller closes the answer.

        Where an address that a redirect led to fails for a moment, the next request begins there: else a chain of redirects
        would begin anew with each failure. If that fails too it begins at its first address, which may lead elsewhere by now.
        """
        url = _asked(url)
        asked = (method, url, allow_downgrade)
        resumed = self._reached.pop(asked, None)
        began = url = resumed or url
        for _ in range(redirects + 1):
            sent = credentials if credentials is not None and credentials.origin == origin_of(url) else None
            try:
                response = await self._head(method, url, {**(headers or {}), **(sent.headers if sent else {})})
            except Transient:
                self._remember(asked, url, began)
                raise
            if response.status in (401, 403, 404, 410) and url == resumed:
                response.close()
                url, resumed = asked[1], None
                continue
            location = response.headers.get("Location")
            if response.status not in _REDIRECT_STATUSES or not location or redirects == 0:
                if passes_by(response.status):
                    self._remember(asked, url, began)
                return Answer(response, url, stall=self._stall, sent=sent)
            response.close()
            url = _next_hop(url, onward(url, location), allow_downgrade=allow_downgrade)
        raise BadResponse(f"more than {redirects} redirects from {host_of(url)}")

    def _remember(self, asked: tuple[str, str, bool], url: str, began: str) -> None:
        if url != began and len(self._reached) < _REACHED:
            self._reached[asked] = url

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def _head(self, method: str, url: str, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        proxy, scope = proxy_for(url, self._environ), asyncio.timeout(self._stall)
        try:
            async with scope:
                # encoded=True: quoting a signed address anew would break its signature.
                return await self._opened().request(
                    method,
                    yarl.URL(url, encoded=True),
                    headers={**headers, **_for_proxy(proxy, url)},
                    allow_redirects=False,
                    ssl=self._tls(url),
                    proxy=proxy.url if proxy else None,
                    proxy_headers=_for_tunnel(proxy),
                )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # A socket's own ETIMEDOUT is a TimeoutError too.
            if scope.expired():
                raise Stalled(
                    f"connection timed out: no answer from {host_of(url)} within {self._stall:.0f} s (--timeout-stall)"
                ) from None
            raise classified(error, url) from error

    def _tls(self, url: str) -> ssl.SSLContext | bool:
        """Made when first needed: reading the authorities takes 0.04 s a bundle. True is aiohttp's own, for plain HTTP."""
        if not url.startswith("https://"):
            return True
        if self._context is None:
            self._context = tls_context(self._environ)
        return self._context

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=self._connections + 4, ttl_dns_cache=60)
            self._session = aiohttp.ClientSession(
                connector=connector,
                # Heads and bodies have deadlines of their own: aiohttp's timer would go on running while a sink receives.
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None, sock_read=None),
                auto_decompress=False,
                # It would read proxies, and ~/.netrc too: passwords that nobody meant for us.
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=self._read_buffer,
                max_line_size=_HEAD_LIMIT,
                max_field_size=_HEAD_LIMIT,
                headers={"User-Agent": f"weightlift/{VERSION}", "Accept-Encoding": "identity"},
            )
        return self._session


def _asked(url: str) -> str:
    try:
        return normal(url)
    except ValueError:
        raise ConfigurationError(f"the address on {host_of(url)} can't be read; check its host and port") from None


def _next_hop(url: str, target: str, *, allow_downgrade: bool) -> str:
    if is_downgrade(url, target) and not allow_downgrade:
        raise Untrusted(
            f"{host_of(url)} redirects from https to http, where anyone on the way could change a file that has no published "
            "digest; pin it with #sha256= or --expect"
        )
    return target


def is_downgrade(url: str, target: str) -> bool:
    """Whether the step from `url` to `target`, both in their normal spelling, gives up TLS."""
    return url.startswith("https://") and target.startswith("http://")


def _for_proxy(proxy: Proxy | None, url: str) -> dict[str, str]:
    """Headers for a proxy that reads the request itself: without TLS there is no tunnel."""
    return {"Proxy-Authorization": proxy.authorization} if proxy and proxy.authorization and url.startswith("http://") else {}


def _for_tunnel(proxy: Proxy | None) -> dict[str, str] | None:
    return {"Proxy-Authorization": proxy.authorization} if proxy and proxy.authorization else None
