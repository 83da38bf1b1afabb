"""A mirror with placeholders in its address: a cache in front of the source, or another endpoint with the same paths, such as
a mirror of the Hub. It is trusted for nothing.

No redirect is followed to another origin, and no credential of the source is sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote, urlsplit

from fetcher.artifact import ByteRange, RemoteFile
from fetcher.errors import BadResponse
from fetcher.transport.body import ResponseBody
from fetcher.transport.client import Credentials, HttpTransport
from fetcher.transport.ranges import check_part, range_header
from fetcher.transport.urls import address_from, host_of, origin_of
from fetcher.values import dataclass

_REDIRECTS = 3
"""Redirects of a mirror at most, all to itself."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """The mirror at `url`, which is its name too."""

    url: str

    def address(self, published: str | None) -> str | None:
        """Where it has the file that is `published` at an address; None if it cannot have it."""
        if published is None:
            return None
        parts = urlsplit(published)
        values = {"{url}": quote(published, safe=""), "{host}": parts.netloc, "{path}": parts.path.lstrip("/")}
        address = self.url
        for name, value in values.items():
            address = address.replace(name, value)
        return address


@asynccontextmanager
async def opened(
    transport: HttpTransport, address: str, file: RemoteFile, wanted: ByteRange, credentials: Credentials | None = None
) -> AsyncIterator[ResponseBody]:
    """Open the bytes `wanted` of `file` at an `address` that is trusted for nothing, as `Source.open` does. Raises
    SourceError."""
    async with transport.request(
        address,
        headers={"Range": range_header(wanted)},
        credentials=credentials,
        redirects=_REDIRECTS,
        onward=_onward,
    ) as answer:
        if answer.status >= 400:
            raise await answer.refusal(what=file.path)
        length = check_part(answer.status, answer.headers, wanted=wanted, size=file.size)
        yield answer.body(length=length, what=file.path)


def _onward(url: str, reference: str) -> str:
    target = address_from(url, reference)
    if origin_of(target) != origin_of(url):
        raise BadResponse(f"it redirects to {host_of(target)}, and no mirror is followed to another place")
    return target
