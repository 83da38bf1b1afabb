"""One bucket of Google Cloud Storage: its requests."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from fetcher.artifact import ByteRange
from fetcher.errors import ContentChanged, FetchError, NotFound, RateLimited, Refused, Transient
from fetcher.sources.gcs.listing import FIELDS, is_encoded, loaded, page, stored
from fetcher.sources.objects import Page, StoredObject
from fetcher.sources.tokens import Token, Tokens
from fetcher.transport.client import Answer, Credentials, HttpTransport
from fetcher.transport.ranges import range_header
from fetcher.transport.statuses import retry_after
from fetcher.transport.urls import origin_of

_LIMIT = 16 * 1024 * 1024
"""Bytes of a page at most: 1,000 objects with names of 1,024 bytes take 2 MB."""


class GcsBucket:
    """A bucket as one caller sees it. `payer` is the project that pays for the requests, if it is not the bucket's own."""

    def __init__(self, name: str, transport: HttpTransport, *, endpoint: str, tokens: Tokens, payer: str | None = None) -> None:
        self._name = name
        self._transport = transport
        self._objects = f"{endpoint}/storage/v1/b/{quote(name, safe='')}/o"
        self._origin = origin_of(endpoint)
        self._tokens = tokens
        self._payer = payer
        self._encoded: set[str] = set()

    @property
    def uri(self) -> str:
        return f"gs://{self._name}"

    @property
    def authenticated(self) -> bool:
        return self._tokens.present is not None

    async def find(self, key: str, version: str | None) -> StoredObject | None:
        what = f"{self.uri}/{key}"
        answer = await self._ask(self._address(key, fields=FIELDS, generation=version))
        try:
            if answer.status == 404:
                return None
            item = loaded(await self._document(answer, what), what=what)
        finally:
            answer.close()
        found = stored(item, what=what)
        if is_encoded(item):
            self._encoded.add(found.key)
        return found

    async def page(self, prefix: str, token: str | None) -> Page:
        what = f"{self.uri}/{prefix}"
        fields = f"items({FIELDS}),nextPageToken"
        answer = await self._ask(self._address(None, prefix=prefix or None, pageToken=token, fields=fields))
        try:
            if answer.status == 404:
                raise NotFound(f"there is no bucket {self.uri}; check its name")
            listed, encoded = page(await self._document(answer, what), what=what)
        finally:
            answer.close()
        self._encoded |= encoded
        return listed

    async def described(self, stored: StoredObject) -> StoredObject:
        """Everything is in the listing. Refuses an object whose bytes are not those of the file."""
        if stored.key in self._encoded:
            raise Refused(
                f"{self.uri}/{stored.key} is stored with a Content-Encoding, so its size and checksums are not those of the "
                "file; upload it again without (no `-z`, no `gzip`), or leave it out with --exclude"
            )
        return stored

    async def read(self, stored: StoredObject, byte_range: ByteRange | None) -> Answer:
        headers = {"Range": range_header(byte_range)} if byte_range else {}
        answer = await self._ask(self._address(stored.key, alt="media", generation=stored.version), headers)
        served = answer.headers.get("X-Goog-Generation", stored.version)
        if answer.status == 404 or (answer.status < 300 and served != stored.version):
            answer.close()
            raise ContentChanged(f"{self.uri}/{stored.key} was replaced or deleted while it was fetched")
        return answer

    async def refusal(self, answer: Answer, *, what: str) -> FetchError:
        error = await answer.refusal(what=what)
        if answer.status == 503 and isinstance(error, Transient):
            return RateLimited(error.message, retry_after=retry_after(answer.headers))
        if answer.status == 400 and "requester pays" in error.message.lower():
            return Refused(f"{error.message}; name the project that pays in GOOGLE_CLOUD_QUOTA_PROJECT")
        return error

    async def aclose(self) -> None:
        await self._transport.aclose()

    def _address(self, key: str | None, **query: str | None) -> str:
        path = self._objects if key is None else f"{self._objects}/{quote(key, safe='')}"
        given = {name: value for name, value in {**query, "userProject": self._payer}.items() if value is not None}
        return f"{path}?{urlencode(given, quote_via=quote)}"

    async def _document(self, answer: Answer, what: str) -> bytes:
        if answer.status != 200:
            raise await self.refusal(answer, what=what)
        return await answer.read(_LIMIT, what=what)

    async def _ask(self, url: str, headers: dict[str, str] | None = None) -> Answer:
        """The answer, with any status. A refused token is renewed once."""
        token = await self._tokens.current()
        answer = await self._transport.open(url, headers=headers, credentials=self._credentials(token))
        if answer.status == 401 and token is not None:
            renewed = await self._tokens.current(refused=token)
            if renewed is not None and renewed.text != token.text:
                answer.close()
                return await self._transport.open(url, headers=headers, credentials=self._credentials(renewed))
        return answer

    def _credentials(self, token: Token | None) -> Credentials | None:
        headers = {"Authorization": f"Bearer {token.text}"} if token is not None else {}
        return Credentials(self._origin, headers, self._tokens.given_by) if headers else None
