"""One request and its answer, over HTTP. Nothing is retried, every answer and every wait has a bound, and whatever goes wrong
is an ApiError."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from cluster.client.access import ApiAccess
from cluster.client.bounds import Bounds
from cluster.client.errors import TooLarge, Unavailable, refusal
from fetcher.errors import ConfigurationError
from fetcher.version import VERSION

Document = dict[str, Any]

JSON = "application/json"
_BLOCK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """A request. `what` says for messages what it is for, `kind` is the media type of `body`."""

    method: str
    path: str
    what: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    kind: str = JSON


class Connection:
    """The connections to one API server."""

    def __init__(self, access: ApiAccess, *, program: str, bounds: Bounds) -> None:
        self._access = access
        self._program = program
        self._bounds = bounds
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Begin, inside a running event loop."""
        # No cookies, no proxy of the environment: what speaks for the cluster goes to its API server alone.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=32),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"{self._program}/{VERSION}", "Accept": JSON},
            trust_env=False,
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(self, request: Request, *, within: float | None = None) -> Document:
        """Return the JSON of the answer, which is there `within` seconds if that is given. Raises ApiError."""
        total = self._bounds.answer if within is None else min(within, self._bounds.answer)
        patience = aiohttp.ClientTimeout(total=total, sock_connect=self._bounds.connect)
        async with self._opened(request, patience) as response:
            return parsed(await _whole(response, request.what, self._bounds.largest), request.what)

    async def lines(self, request: Request, *, seconds: float) -> AsyncGenerator[bytes]:
        """Yield the lines of an answer that takes `seconds`. Raises ApiError.

        What stands behind the last line break is no line: the connection ended in the middle of it.
        """
        silence, total = seconds + self._bounds.silence, seconds + self._bounds.silence + self._bounds.answer
        patience = aiohttp.ClientTimeout(total=total, sock_connect=self._bounds.connect, sock_read=silence)
        async with self._opened(request, patience) as response:
            found = split(response.content.iter_any(), request.what, self._bounds.longest_line)
            async with aclosing(found):
                async for line in found:
                    yield line

    @asynccontextmanager
    async def _opened(self, request: Request, patience: aiohttp.ClientTimeout) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request; what fails in the block is an ApiError."""
        if self._session is None:
            raise RuntimeError("the API is used outside of its block")
        body = None if request.body is None else json.dumps(request.body).encode()
        try:
            sent = self._session.request(
                request.method,
                self._access.server + request.path,
                params=request.query,
                data=body,
                headers={**self._access.headers(), **({} if body is None else {"Content-Type": request.kind})},
                timeout=patience,
                ssl=self._access.tls or True,
                server_hostname=self._access.server_name,
                allow_redirects=False,  # a redirect would carry the token elsewhere
            )
            async with sent as response:
                if response.status >= 300:
                    message = _message(await _whole(response, request.what, self._bounds.largest))
                    raise refusal(response.status, request.what, message, retry_after=_seconds(response))
                yield response
        except ConfigurationError as error:  # the token of a running process: the kubelet may be about to write a new one
            raise Unavailable(f"{request.what}: {error.message}") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            problem = str(error) or type(error).__name__
            raise Unavailable(
                f"{request.what}: {problem}; the API server at {self._access.server} does not answer as it should"
            ) from error


async def split(blocks: AsyncIterator[bytes], what: str, longest: int) -> AsyncGenerator[bytes]:
    """Yield the lines of a text that comes in `blocks`, without their line breaks. Raises TooLarge."""
    rest = bytearray()
    async for block in blocks:
        *lines, last = block.split(b"\n")
        for line in lines:
            yield bytes(rest + line)
            rest.clear()
        rest += last
        if len(rest) > longest:
            raise TooLarge(f"{what}: a change is larger than {longest} bytes")


def parsed(text: bytes, what: str) -> Document:
    """Return a JSON object. Raises Unavailable if `text` is none."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Unavailable(f"{what}: the answer is no JSON object; is there an API server at this address?")
    return document


async def _whole(response: aiohttp.ClientResponse, what: str, largest: int) -> bytes:
    body = bytearray()
    async for block in response.content.iter_chunked(_BLOCK):
        body += block
        if len(body) > largest:
            raise TooLarge(f"{what}: the answer is larger than {largest} bytes")
    return bytes(body)


def _message(text: bytes) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return text[:200].decode(errors="replace")


def _seconds(response: aiohttp.ClientResponse) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else None
