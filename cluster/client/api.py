"""One API server: get, list, create, replace, apply, delete, and lines of a watch. Objects are JSON as it comes.

Nothing is retried here. Every answer and every wait has a bound.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp

from cluster.client.access import ApiAccess
from cluster.client.endpoints import Endpoint
from cluster.client.errors import Unavailable, refusal

Document = dict[str, Any]

_REQUEST = 30.0
"""Seconds for an answer."""
_LARGEST = 64 * 1024 * 1024
"""Bytes of an answer: a page of 500 objects, of at most 1.5 MiB each in etcd, is far smaller in practice."""
_PAGE = 500
_MOST_PAGES = 1000
_BLOCK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Page:
    """All objects of a collection at one resource version."""

    items: list[Document]
    resource_version: str


def _always() -> None:
    """Allow every write."""


class Api:
    """An API server. `guard` is called before each write, and raises if this process must not write any more."""

    def __init__(self, access: ApiAccess, *, manager: str, guard: Callable[[], None] = _always) -> None:
        self._access = access
        self._manager = manager
        self.guard = guard
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # No cookies, no proxy of the environment: what speaks for the cluster goes to its API server alone.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=32), cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def namespace(self) -> str:
        """The namespace of this process."""
        return self._access.namespace

    async def get(self, endpoint: Endpoint, name: str, namespace: str = "") -> Document:
        """Return an object. Raises Missing and other ApiErrors."""
        return await self._ask("GET", endpoint.path(namespace, name), f"get {endpoint.named(name, namespace)}")

    async def list(self, endpoint: Endpoint, namespace: str = "", *, labels: str = "", fields: str = "") -> Page:
        """Return all objects of a collection, read in pages. Raises Gone if it changed too much meanwhile, ApiError."""
        what, query, items = f"list {endpoint.named('', namespace)}", _selected(labels, fields), list[Document]()
        for _ in range(_MOST_PAGES):
            page = await self._ask("GET", endpoint.path(namespace), what, query={**query, "limit": str(_PAGE)})
            items += page.get("items") or ()
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return Page(items, str(metadata.get("resourceVersion", "")))
            query["continue"] = metadata["continue"]
        raise Unavailable(f"{what}: the list does not end")

    async def watch(
        self, endpoint: Endpoint, namespace: str = "", *, since: str, seconds: int, labels: str = "", fields: str = ""
    ) -> AsyncGenerator[tuple[str, Document]]:
        """Yield (type, object) of each change after the resource version `since`, for `seconds`. Bookmarks come too.

        Raises Gone, ApiError. A server that is silent for longer than `seconds` is Unavailable.
        """
        what = f"watch {endpoint.named('', namespace)}"
        query = {**_selected(labels, fields), "watch": "true", "allowWatchBookmarks": "true", "resourceVersion": since}
        query["timeoutSeconds"] = str(seconds)
        patience = aiohttp.ClientTimeout(total=seconds + _REQUEST, sock_connect=10, sock_read=seconds + 10)
        async with self._open("GET", endpoint.path(namespace), what, query=query, patience=patience) as response:
            async for line in _lines(response, what):
                event = _parsed(line, what)
                kind, found = event.get("type"), event.get("object")
                if not isinstance(kind, str) or not isinstance(found, dict):
                    raise Unavailable(f"{what}: the server sent something that is no change")
                if kind == "ERROR":
                    raise refusal(int(found.get("code") or 500), what, str(found.get("message", "")))
                yield kind, found

    async def create(self, endpoint: Endpoint, document: Mapping[str, Any]) -> Document:
        """Create an object. Raises Conflict if it exists, ApiError."""
        name, namespace = _names(document)
        return await self._write("POST", endpoint.path(namespace), f"create {endpoint.named(name, namespace)}", document)

    async def replace(self, endpoint: Endpoint, document: Mapping[str, Any], *, subresource: str = "") -> Document:
        """Replace an object of the resource version that `document` has. Raises Conflict if it was changed, ApiError."""
        name, namespace = _names(document)
        path = endpoint.path(namespace, name, subresource)
        return await self._write("PUT", path, f"replace {endpoint.named(name, namespace)}", document)

    async def apply(
        self, endpoint: Endpoint, document: Mapping[str, Any], *, subresource: str = "", force: bool = True
    ) -> Document:
        """Apply the fields of `document` on the server, as their manager. Raises Conflict without `force`, ApiError."""
        name, namespace = _names(document)
        query = {"fieldManager": self._manager, "force": "true" if force else "false"}
        path = endpoint.path(namespace, name, subresource)
        what = f"apply {endpoint.named(name, namespace)}"
        return await self._write("PATCH", path, what, document, query=query, kind="application/apply-patch+yaml")

    async def merge(
        self, endpoint: Endpoint, name: str, namespace: str, patch: Mapping[str, Any], *, subresource: str = ""
    ) -> Document:
        """Merge `patch` into an object; a field that is null is removed. Raises ApiError."""
        path, what = endpoint.path(namespace, name, subresource), f"patch {endpoint.named(name, namespace)}"
        return await self._write("PATCH", path, what, patch, kind="application/merge-patch+json")

    async def delete(
        self, endpoint: Endpoint, name: str, namespace: str = "", *, uid: str, resource_version: str | None = None
    ) -> None:
        """Delete the very object with this `uid`. Raises Missing, Conflict if it is another one by now, ApiError."""
        conditions = {"uid": uid} if resource_version is None else {"uid": uid, "resourceVersion": resource_version}
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": conditions, "propagationPolicy": "Background"}
        await self._write("DELETE", endpoint.path(namespace, name), f"delete {endpoint.named(name, namespace)}", options)

    async def _write(
        self,
        method: str,
        path: str,
        what: str,
        document: Mapping[str, Any],
        *,
        query: Mapping[str, str] | None = None,
        kind: str = "application/json",
    ) -> Document:
        self.guard()
        return await self._ask(method, path, what, query=query, body=json.dumps(document).encode(), kind=kind)

    async def _ask(
        self,
        method: str,
        path: str,
        what: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        kind: str = "application/json",
    ) -> Document:
        patience = aiohttp.ClientTimeout(total=_REQUEST, sock_connect=10)
        async with self._open(method, path, what, query=query, body=body, kind=kind, patience=patience) as response:
            return _parsed(await _whole(response, what), what)

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        what: str,
        *,
        patience: aiohttp.ClientTimeout,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        kind: str = "application/json",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request; what fails in the block is an ApiError."""
        if self._session is None:
            raise RuntimeError("the API is used outside of its block")
        headers = {**self._access.headers(), "Accept": "application/json", **({"Content-Type": kind} if body else {})}
        request = self._session.request(
            method,
            self._access.server + path,
            params=query,
            data=body,
            headers=headers,
            timeout=patience,
            ssl=self._access.tls or True,
            allow_redirects=False,  # a redirect would carry the token elsewhere
        )
        try:
            async with request as response:
                if response.status >= 300:
                    message = _message(await _whole(response, what))
                    raise refusal(response.status, what, message, retry_after=_seconds(response))
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            problem = str(error) or type(error).__name__
            raise Unavailable(f"{what}: {problem}; the API server at {self._access.server} does not answer") from error


def _selected(labels: str, fields: str) -> dict[str, str]:
    return {name: value for name, value in (("labelSelector", labels), ("fieldSelector", fields)) if value}


def _names(document: Mapping[str, Any]) -> tuple[str, str]:
    return document["metadata"]["name"], document["metadata"].get("namespace", "")


async def _whole(response: aiohttp.ClientResponse, what: str) -> bytes:
    body = bytearray()
    async for block in response.content.iter_chunked(_BLOCK):
        body += block
        if len(body) > _LARGEST:
            raise Unavailable(f"{what}: the answer is larger than {_LARGEST} bytes")
    return bytes(body)


async def _lines(response: aiohttp.ClientResponse, what: str) -> AsyncIterator[bytes]:
    rest = bytearray()
    async for block in response.content.iter_any():
        *lines, last = block.split(b"\n")
        for line in lines:
            yield bytes(rest + line)
            rest.clear()
        rest += last
        if len(rest) > _LARGEST:
            raise Unavailable(f"{what}: a change is larger than {_LARGEST} bytes")


def _parsed(text: bytes, what: str) -> Document:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Unavailable(f"{what}: the answer is no JSON object")
    return document


def _message(text: bytes) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return text[:200].decode(errors="replace")


def _seconds(response: aiohttp.ClientResponse) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else None
