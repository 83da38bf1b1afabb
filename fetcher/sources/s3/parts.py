"""The sizes of the parts in which an object was uploaded: a checksum of checksums can be compared only if they are known."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from fetcher.errors import BadResponse, FetchError, Unauthorized
from fetcher.sources.objects import StoredObject
from fetcher.sources.s3.address import named_version
from fetcher.sources.s3.documents import even_parts, fitting_parts, parse_parts
from fetcher.sources.s3.requests import Request, S3Requests
from fetcher.transport.client import Answer
from fetcher.transport.ranges import content_length
from fetcher.transport.statuses import is_temporary

_PAGES = 10
"""Pages of 1,000 parts. An object has 10,000 parts at most."""
_PAGE_LIMIT = 4 * 1024 * 1024
"""Bytes of such a page at most: a part with all its checksums takes 500."""
_ASKED = 100
"""Parts that are asked for one by one. An object of more parts was uploaded by a program that makes them equally large: it is
enough that the first, the middle and the last one say so."""


class Refusal(Protocol):
    """The error that a refused request means."""

    async def __call__(self, answer: Answer, *, what: str) -> FetchError: ...


class PartSizes:
    """Asks one bucket for parts. Remembers what it was told of an object until all is known, since any request can fail."""

    def __init__(self, requests: S3Requests, refusal: Refusal) -> None:
        self._requests = requests
        self._refusal = refusal
        self._listed = True
        self._lengths: dict[StoredObject, dict[int, int]] = {}

    async def of(self, stored: StoredObject, count: int) -> tuple[int, ...]:
        """The sizes in bytes of the `count` parts of an object; () if the store does not tell. Raises Transient."""
        if parts := fitting_parts(await self._listing(stored), stored.size, count):
            return parts
        every = count <= _ASKED
        lengths = await self._each(stored, range(1, count + 1) if every else (1, count // 2, count))
        parts = tuple(lengths.values()) if every else even_parts(lengths, stored.size, count)
        return fitting_parts(parts, stored.size, count)

    async def _listing(self, stored: StoredObject) -> tuple[int, ...]:
        """The parts by GetObjectAttributes. Some stores do not know it, and it wants a right of its own."""
        parts: tuple[int, ...] = ()
        marker: str | None = None
        for _ in range(_PAGES if self._listed else 0):
            fields = {"x-amz-object-attributes": "ObjectParts", **({"x-amz-part-number-marker": marker} if marker else {})}
            query = {"attributes": "", "versionId": named_version(stored.version)}
            more, marker = await self._page(Request("GET", stored.key, query, fields))
            parts += more
            if marker is None or not more:
                break
        return parts

    async def _page(self, request: Request) -> tuple[tuple[int, ...], str | None]:
        """The sizes on a page, and where the next one begins. A store that does not know the request may send the object."""
        answer = await self._answer(request)
        try:
            if answer.status != 200 or (content_length(answer.headers) or 0) > _PAGE_LIMIT:
                self._listed = False  # neither will it of other objects
                return (), None
            return parse_parts(await answer.read(_PAGE_LIMIT, what="the parts of an upload"))
        except BadResponse:
            return (), None
        finally:
            answer.close()

    async def _each(self, stored: StoredObject, numbers: Iterable[int]) -> dict[int, int]:
        """The lengths of parts by HEAD, up to the first that the store does not tell."""
        known = self._lengths.setdefault(stored, {})
        for number in numbers:
            if number not in known:
                length = await self._length(stored, number)
                if length is None:
                    break
                known[number] = length
        self._lengths.pop(stored, None)
        return known

    async def _length(self, stored: StoredObject, number: int) -> int | None:
        """The length of a part in bytes; None if the store does not know the request."""
        query = {"partNumber": str(number), "versionId": named_version(stored.version)}
        try:
            answer = await self._answer(Request("HEAD", stored.key, query))
        except Unauthorized:
            return None  # it refuses this HEAD only, and would read the object
        try:
            told = answer.status == 206 or (answer.status == 200 and "x-amz-mp-parts-count" in answer.headers)
            return content_length(answer.headers) if told else None
        finally:
            answer.close()

    async def _answer(self, request: Request) -> Answer:
        """The answer, unless the store refuses only for a moment: raises Transient then."""
        answer = await self._requests.answer(request)
        if not is_temporary(answer.status):
            return answer
        try:
            raise await self._refusal(answer, what=request.key)
        finally:
            answer.close()
