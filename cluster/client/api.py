"""One API server: get, list, create, replace, apply, delete, review, and the changes of a watch. Objects are JSON as it comes.

Nothing is retried here. Every answer and every wait has a bound.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from copy import copy
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from cluster.client.access import ApiAccess
from cluster.client.asking import JSON, Connection, Document, Request, parsed
from cluster.client.bounds import BOUNDS, Bounds
from cluster.client.endpoints import Endpoint
from cluster.client.errors import TooLarge, Unavailable, refusal
from fetcher.steps import Step, no_step

Guard = Callable[[], float | None]
"""Is called before each write. Raises if this process must not write any more, and returns the seconds in which a write must
be over; None leaves them to the bounds."""


@dataclass(frozen=True, slots=True)
class Page:
    """Objects of a collection at one resource version: all of them, or those of one page."""

    items: list[Document]
    resource_version: str


def _always() -> None:
    """Allow every write."""


class Api:
    """An API server. `manager` is the name under which the server keeps what this program writes. Each write is a step."""

    def __init__(
        self, access: ApiAccess, *, manager: str, guard: Guard = _always, bounds: Bounds = BOUNDS, step: Step = no_step
    ) -> None:
        self._access = access
        self.manager = manager
        self._bounds = bounds
        self._connection = Connection(access, program=manager, bounds=bounds)
        self.guard = guard
        self._step = step

    async def __aenter__(self) -> Self:
        self._connection.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.close()

    @property
    def namespace(self) -> str:
        """The namespace of this process."""
        return self._access.namespace

    def unguarded(self) -> Api:
        """Return the same API server, with the same connections, without the guard: who gives permission needs none."""
        same = copy(self)
        same.guard = _always
        return same

    async def get(self, endpoint: Endpoint, name: str, namespace: str = "", *, cached: bool = False) -> Document:
        """Return an object. Raises Missing and other ApiErrors.

        `cached`: as the server has it in memory, which may be seconds behind and costs its database nothing.
        """
        what, query = f"get {endpoint.named(name, namespace)}", {"resourceVersion": "0"} if cached else {}
        return await self._connection.ask(Request("GET", endpoint.path(namespace, name), what, query=query))

    async def list(self, endpoint: Endpoint, namespace: str = "", *, labels: str = "", fields: str = "") -> Page:
        """Return all objects of a collection. Raises Gone if it changed too much meanwhile, ApiError."""
        items, version = list[Document](), ""
        async for page in self.pages(endpoint, namespace, labels=labels, fields=fields):
            items += page.items
            version = page.resource_version
        return Page(items, version)

    async def pages(
        self, endpoint: Endpoint, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> AsyncGenerator[Page]:
        """Yield all objects of a collection page by page, so that a caller can keep little of each. Raises as `list`."""
        what, query, limit = f"list {endpoint.named('', namespace)}", _selected(labels, fields), self._bounds.page
        for _ in range(self._bounds.pages):
            request = Request("GET", endpoint.path(namespace), what, query={**query, "limit": str(limit)})
            try:
                answer = await self._connection.ask(request)
            except TooLarge:
                if limit == 1:
                    raise
                limit //= 2
                continue
            items, metadata = _items(answer, endpoint, what), answer["metadata"]
            yield Page(items, str(metadata.get("resourceVersion") or ""))
            if not metadata.get("continue"):
                return
            query["continue"] = str(metadata["continue"])
        raise Unavailable(f"{what}: the list does not end after {self._bounds.pages} pages")

    async def watch(
        self, endpoint: Endpoint, namespace: str = "", *, since: str, seconds: int, labels: str = "", fields: str = ""
    ) -> AsyncGenerator[tuple[str, Document]]:
        """Yield (type, object) of each change after the resource version `since`, for `seconds`. Bookmarks come too.

        Raises Gone, ApiError. A server that is silent for longer than `seconds` is Unavailable.
        """
        what = f"watch {endpoint.named('', namespace)}"
        query = {**_selected(labels, fields), "watch": "true", "allowWatchBookmarks": "true", "resourceVersion": since}
        query["timeoutSeconds"] = str(seconds)
        lines = self._connection.lines(Request("GET", endpoint.path(namespace), what, query=query), seconds=seconds)
        async with aclosing(lines):  # who stops reading ends the request then, not some time later
            async for line in lines:
                yield _change(parsed(line, what), what)

    async def review(self, endpoint: Endpoint, question: Mapping[str, Any]) -> Document:
        """Return the answer to a question that has the form of an object. The server keeps nothing of it. Raises ApiError."""
        what = f"create {endpoint.named()}"
        return await self._connection.ask(Request("POST", endpoint.path(), what, body=question))

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
        path, what = endpoint.path(namespace, name, subresource), f"apply {endpoint.named(name, namespace)}"
        query = {"force": "true" if force else "false"}
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
        what = f"delete {endpoint.named(name, namespace)}"
        within = self.guard()
        await self._connection.ask(Request("DELETE", endpoint.path(namespace, name), what, body=options), within=within)
        self._step(what)

    async def _write(
        self,
        method: str,
        path: str,
        what: str,
        document: Mapping[str, Any],
        *,
        query: Mapping[str, str] | None = None,
        kind: str = JSON,
    ) -> Document:
        within = self.guard()
        query = {**(query or {}), "fieldManager": self.manager}
        written = await self._connection.ask(Request(method, path, what, query=query, body=document, kind=kind), within=within)
        self._step(what)
        return written


def _selected(labels: str, fields: str) -> dict[str, str]:
    return {name: value for name, value in (("labelSelector", labels), ("fieldSelector", fields)) if value}


def _names(document: Mapping[str, Any]) -> tuple[str, str]:
    return document["metadata"]["name"], document["metadata"].get("namespace", "")


def _items(answer: Document, endpoint: Endpoint, what: str) -> list[Document]:
    """Return the objects of a page. Kubernetes leaves the kind of each out in lists of its own kinds."""
    items = answer.get("items") or ()
    if not isinstance(items, list | tuple) or not isinstance(answer.get("metadata"), dict):
        raise Unavailable(f"{what}: the answer is no list")
    for each in items:
        _require_metadata(each, what)
    return [{"apiVersion": endpoint.api_version, "kind": endpoint.kind, **each} for each in items]


def _change(event: Document, what: str) -> tuple[str, Document]:
    kind, found = event.get("type"), event.get("object")
    if not isinstance(kind, str) or not isinstance(found, dict):
        raise Unavailable(f"{what}: the server sent something that is no change")
    if kind == "ERROR":
        code = found.get("code")
        raise refusal(code if isinstance(code, int) else 500, what, str(found.get("message", "")))
    _require_metadata(found, what)
    return kind, found


def _require_metadata(found: Any, what: str) -> None:
    if not isinstance(found, dict) or not isinstance(found.get("metadata"), dict):
        raise Unavailable(f"{what}: the server sent something that is no object")
