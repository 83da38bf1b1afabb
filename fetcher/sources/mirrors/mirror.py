"""One mirror: where it has the files of a source, and how it is asked for a range. It is trusted for nothing.

There are two kinds. An address with placeholders is that of a cache in front of the source, or of another endpoint with the
same paths, such as a mirror of the Hub. An address without is that of another node's `fetcher serve`, which names artifacts by
their cache key and the digest of their listing.

No redirect is followed to another origin, and no credential of the source is sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

from fetcher.artifact import ByteRange, RemoteFile
from fetcher.errors import BadResponse, ConfigurationError
from fetcher.settings import is_served
from fetcher.transport.body import ResponseBody
from fetcher.transport.client import Credentials, HttpTransport
from fetcher.transport.ranges import check_part, range_header
from fetcher.transport.urls import address_from, host_of, origin_of
from fetcher.values import dataclass

_REDIRECTS = 3
"""Redirects of a mirror at most, all to itself."""
_LARGEST_SECRET = 4096


@dataclass(frozen=True, slots=True)
class Mirror:
    """The mirror at `url`, which is its name too. `key`: the cache key of the artifact. `secret` is for a `fetcher serve`."""

    url: str
    key: str
    secret: Credentials | None = None

    def address(self, file: RemoteFile, *, listing: str | None, published: str | None) -> str | None:
        """Where it has `file`, of the listing with this digest and `published` at this address; None if it cannot have it."""
        if is_served(self.url):
            return f"{self.url}/v1/{self.key}/{listing}/{quote(file.path)}" if listing is not None else None
        if published is None:
            return None
        parts = urlsplit(published)
        values = {"{url}": quote(published, safe=""), "{host}": parts.netloc, "{path}": parts.path.lstrip("/")}
        address = self.url
        for name, value in values.items():
            address = address.replace(name, value)
        return address

    @asynccontextmanager
    async def open(
        self, transport: HttpTransport, address: str, file: RemoteFile, wanted: ByteRange
    ) -> AsyncIterator[ResponseBody]:
        """Open the bytes `wanted` of `file` at `address`, as `Source.open` does. Raises SourceError."""
        async with transport.request(
            address,
            headers={"Range": range_header(wanted)},
            credentials=self.secret,
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


def read_secret(file: Path, url: str) -> Credentials:
    """The secret for the `fetcher serve` at `url`: the first line of `file`. Raises ConfigurationError."""
    try:
        with file.open(encoding="ascii") as lines:
            secret = lines.readline(_LARGEST_SECRET).strip()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read {file}, the secret for mirrors: it must hold one line of ASCII") from error
    if not secret or not secret.isprintable() or " " in secret:
        raise ConfigurationError(f"the first line of {file} is no secret; write the one that the mirrors' servers have")
    return Credentials(origin_of(url), {"Authorization": f"Bearer {secret}"}, str(file))
