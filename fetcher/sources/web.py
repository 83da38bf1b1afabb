"""The source for `http(s)://`: one file at one address. The first range shows its size and whether ranges work.

`resolve` requests the first range and keeps the answer open. The first `open` at the file's start continues with it. So a file
that fits into one range costs one request, and no HEAD is sent, which some servers answer wrongly.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import SplitResult, unquote, urlsplit

from fetcher.artifact import CHUNK_SIZE, ArtifactRef, ByteRange, Listing, RemoteFile
from fetcher.errors import BadResponse, ContentChanged, RangesUnsupported, Unauthorized, UsageError
from fetcher.sources.access import HttpAccess
from fetcher.sources.addresses import pins_of
from fetcher.sources.base import Asking, Body, DirectBody, Remote, once
from fetcher.sources.locations import Location, expiry, is_signed
from fetcher.transport.client import Answer, Credentials, HttpTransport
from fetcher.transport.headers import given_headers, variable_for
from fetcher.transport.ranges import (
    check_part,
    check_whole,
    content_length,
    parse_content_range,
    parts_differ,
    range_header,
    refuse_encoded,
    sent_part,
    validator,
)
from fetcher.transport.urls import basic_authorization, normal, origin_of

_PROBE = 4 * CHUNK_SIZE
"""Bytes of the first range: the size of a range while the rate is unknown (`engine.concurrency`)."""
_PROBE_LIFE = 20.0
"""Seconds that an unread answer is kept: servers drop slow readers after 30 to 60."""
_PAGES = ("text/html", "application/xhtml+xml")
_PAGE_NAMES = (".html", ".htm", ".xhtml")


class WebSource(Remote):
    """The source of one file at a web address."""

    def __init__(
        self, ref: ArtifactRef, transport: HttpTransport, environ: Mapping[str, str], *, access: HttpAccess | None = None
    ) -> None:
        """`access` replaces the credentials of the address and of the environment."""
        parts = urlsplit(ref.uri)
        if not parts.hostname:
            raise UsageError("the address has no host")
        if ref.revision:
            raise UsageError("--revision is for the Hub; a web address has no revision")
        self._transport = transport
        self._url = _address(ref.uri)
        self._name = _file_name(parts.path)
        self._digests = pins_of(parts.fragment)
        self._credentials = _credentials(parts, self._url, environ) if access is None else _given(access, self._url)
        self._location: Location | None = None
        self._probe: tuple[Answer, ByteRange | None, float] | None = None
        self._file: RemoteFile | None = None

    async def aclose(self) -> None:
        self._drop_probe()
        await self._transport.aclose()

    async def resolve(self, ask: Asking = once) -> str | None:
        """A strong ETag, else modification time and size, else None. If the server's parts are useless, asks for the whole."""
        return await ask(self._probed)

    async def _probed(self) -> str | None:
        self._drop_probe()
        wanted = ByteRange(0, _PROBE)
        answer, file, sent = await self._first_answer(wanted)
        if answer.status == 206 and sent is None:
            answer.close()
            answer, file, sent = await self._first_answer(None)
        self._file = file
        self._location = Location(answer.url, expiry(answer.url), answer.url == self._url, validator(answer.headers))
        if file.size == 0:
            answer.close()
        else:
            self._probe = (answer, sent, time.monotonic())
        return f"{file.validator} {file.size}" if file.validator else None

    async def list(self, revision: str | None, ask: Asking = once) -> Listing:
        if self._file is None:
            await self.resolve(ask)
        if self._file is None:
            raise BadResponse("the server does not describe the file")
        authenticated = self._credentials is not None or is_signed(self._url)
        return Listing(revision, (self._file,), authenticated=authenticated)

    def address(self, file: RemoteFile) -> str | None:
        """The address as the user gave it; None if it has a query, where a secret can have any name."""
        return None if urlsplit(self._url).query else self._url

    @asynccontextmanager
    async def open(self, file: RemoteFile, byte_range: ByteRange | None) -> AsyncIterator[Body]:
        answer, length = self._from_probe(byte_range) or await self._request_range(file, byte_range)
        try:
            body = answer.body(length=length, what=file.path)
            yield body if byte_range is None or length == len(byte_range) else Beginning(body, len(byte_range))
        finally:
            answer.close()

    # The first range

    async def _first_answer(self, wanted: ByteRange | None) -> tuple[Answer, RemoteFile, ByteRange | None]:
        """The first answer, the file that it describes, and the range that it sends; None for all of it."""
        answer = await self._ask(self._url, wanted)
        try:
            await self._refuse_error(answer, self._name)
            return answer, *self._described(answer, wanted)
        except BaseException:
            answer.close()
            raise

    def _described(self, answer: Answer, wanted: ByteRange | None) -> tuple[RemoteFile, ByteRange | None]:
        """The file that the first answer describes, and the range that it sends; None for all of it."""
        headers = answer.headers
        mark = validator(headers)
        if answer.status == 416 and parse_content_range(headers.get("Content-Range", "bytes */0"))[1] == 0:
            return RemoteFile(self._name, 0, self._digests, mark), None
        if answer.status not in (200, 206):
            raise BadResponse(f"the server answers with status {answer.status} for {self._name}")
        refuse_encoded(headers)
        self._refuse_page(headers)
        if answer.status == 200 or wanted is None:
            check_whole(answer.status, headers, size=None)
            return RemoteFile(self._name, content_length(headers), self._digests, mark, ranges=False), None
        try:
            sent, total = sent_part(headers, wanted=wanted)
        except RangesUnsupported:
            sent, total = wanted, None
        if total is None:
            return RemoteFile(self._name, None, self._digests, mark, ranges=False), None
        return RemoteFile(self._name, total, self._digests, mark), sent

    async def _refuse_error(self, answer: Answer, what: str) -> None:
        """Raise the error that the status means. The caller handles 416, because it knows the file's size."""
        if answer.status >= 400 and answer.status != 416:
            raise await answer.refusal(what=what)

    def _refuse_page(self, headers: Mapping[str, str]) -> None:
        """Raise Unauthorized for a login page, which a server or a proxy sends with a status of success."""
        content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if content_type in _PAGES and not self._name.lower().endswith(_PAGE_NAMES) and not self._digests:
            raise Unauthorized(
                f"the server sent a web page instead of {self._name}: the server, or a proxy on the way, may require a login; "
                "if this page is the file you want, pin it with #sha256="
            )

    def _from_probe(self, byte_range: ByteRange | None) -> tuple[Answer, int | None] | None:
        """The answer kept from `resolve` if it fits `byte_range`, and its length in bytes; None otherwise."""
        if self._probe is None or self._file is None:
            return None
        if byte_range is not None and byte_range.start != 0:
            return None  # keep the probe for the first range
        answer, sent, since = self._probe
        if byte_range is None:
            fits = sent is None or sent.stop == self._file.size
        else:
            fits = sent is not None and byte_range.stop <= sent.stop
        if not fits or time.monotonic() - since > _PROBE_LIFE:
            self._drop_probe()
            return None
        self._probe = None
        return answer, len(sent) if sent is not None else self._file.size

    def _drop_probe(self) -> None:
        if self._probe is not None:
            self._probe[0].close()
            self._probe = None

    # Later ranges

    async def _request_range(self, file: RemoteFile, byte_range: ByteRange | None) -> tuple[Answer, int | None]:
        location = self._location
        known = location is not None and not location.direct and not location.stale()
        answer = await self._ask(location.url if known and location else self._url, byte_range)
        if known and answer.status in (401, 403, 404, 410):
            # The address behind the redirect has expired: use the user's address again.
            answer.close()
            self._location = None
            answer = await self._ask(self._url, byte_range)
        try:
            await self._refuse_error(answer, file.path)
            length = self._check_head(answer, file, byte_range)
        except BaseException:
            answer.close()
            raise
        self._location = Location(answer.url, expiry(answer.url), answer.url == self._url)
        return answer, length

    def _check_head(self, answer: Answer, file: RemoteFile, byte_range: ByteRange | None) -> int | None:
        if answer.status == 416:
            raise ContentChanged("the file is shorter now than at the first request", path=file.path)
        if parts_differ(file, file.validator, validator(answer.headers)):
            raise ContentChanged(f"{file.path} was replaced at the server while it was fetched", path=file.path)
        if byte_range is not None:
            return check_part(answer.status, answer.headers, wanted=byte_range, size=file.size)
        return check_whole(answer.status, answer.headers, size=file.size) or file.size

    async def _ask(self, url: str, byte_range: ByteRange | None) -> Answer:
        headers = {"Range": range_header(byte_range)} if byte_range else {}
        return await self._transport.open(
            url, headers=headers, credentials=self._credentials, allow_downgrade=bool(self._digests)
        )


class Beginning:
    """The first `count` bytes of a body that may be longer. The rest is dropped: other connections fetch it."""

    def __init__(self, body: Body, count: int) -> None:
        self.body = body
        self._left = count

    @property
    def direct(self) -> DirectBody | None:
        return self if self.body.direct is not None else None

    async def readable(self, room: int) -> bool:
        direct = self.body.direct
        return self._left > 0 and direct is not None and await direct.readable(min(room, self._left))

    def read(self, buffer: memoryview) -> int:
        direct = self.body.direct
        count = direct.read(buffer[: self._left]) if direct is not None else 0
        self._left -= count
        return count

    async def readinto(self, buffer: memoryview) -> int:
        count = await self.body.readinto(buffer[: self._left]) if self._left else 0
        self._left -= count
        return count


def _file_name(path: str) -> str:
    name = unquote(path.rpartition("/")[2])
    if not name:
        raise UsageError("the address does not name a file: its path ends in /")
    return name


def _address(uri: str) -> str:
    try:
        return normal(uri)
    except ValueError:
        raise UsageError("the address is malformed; check its host and port") from None


def _given(access: HttpAccess, url: str) -> Credentials | None:
    return Credentials(origin_of(url), access.headers, access.given_by) if access.headers else None


def _credentials(parts: SplitResult, url: str, environ: Mapping[str, str]) -> Credentials | None:
    """The credentials from the address itself and from the environment, for its origin."""
    headers, origins = {}, list[str]()
    if authorization := basic_authorization(parts):
        headers["Authorization"] = authorization
        origins.append("the address")
    if extra := given_headers(url, environ):
        headers |= extra
        origins.append(variable_for(url))
    return Credentials(origin_of(url), headers, " and ".join(origins)) if headers else None
