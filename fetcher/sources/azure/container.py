"""One container of Azure Blob Storage: its requests."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlencode

from fetcher.artifact import ByteRange
from fetcher.errors import FetchError, NotFound, Refused
from fetcher.sources.azure.access import AzureAccess
from fetcher.sources.azure.complaints import meaning
from fetcher.sources.azure.listing import Blob, headed, page
from fetcher.sources.azure.place import Place
from fetcher.sources.azure.signing import API, signed
from fetcher.sources.objects import Page, StoredObject
from fetcher.sources.tokens import Token, Tokens
from fetcher.transport.client import Answer, Credentials, HttpTransport
from fetcher.transport.ranges import range_header
from fetcher.transport.urls import origin_of

_LIMIT = 64 * 1024 * 1024
"""Bytes of a page at most: 5,000 blobs with names of 1,024 characters and 8 KiB of metadata each are 45 MB."""


class AzureContainer:
    """A container as one caller sees it. A SAS is added to each address, and a key signs each request."""

    def __init__(self, name: str, transport: HttpTransport, *, place: Place, access: AzureAccess, tokens: Tokens) -> None:
        self._name = name
        self._transport = transport
        self._place = place
        self._access = access
        self._tokens = tokens
        self._origin = origin_of(place.service)
        self._unusable: dict[str, FetchError] = {}

    @property
    def uri(self) -> str:
        return f"{self._place.service}/{self._name}"

    @property
    def authenticated(self) -> bool:
        return bool(self._access.sas or self._access.key or self._tokens.present)

    async def find(self, key: str, version: str | None) -> StoredObject | None:
        what = f"{self.uri}/{key}"
        answer = await self._ask("HEAD", self._address(key, versionid=version))
        try:
            if answer.status == 404:
                return None
            if answer.status != 200:
                raise await self.refusal(answer, what=what)
            blob = headed(key, answer.headers, version=version, what=what)
        finally:
            answer.close()
        return None if blob.directory else self._noted(blob)

    async def page(self, prefix: str, token: str | None) -> Page:
        what = f"{self.uri}/{prefix}"
        query = {"restype": "container", "comp": "list", "include": "metadata", "prefix": prefix or None, "marker": token}
        answer = await self._ask("GET", self._address(None, **query))
        try:
            if answer.status != 200:
                raise await self.refusal(answer, what=what)
            blobs, marker = page(await answer.read(_LIMIT, what=what), what=what)
        finally:
            answer.close()
        return Page(tuple(self._noted(blob) for blob in blobs if not blob.directory), marker)

    async def described(self, stored: StoredObject) -> StoredObject:
        """Everything is in the listing. Refuses a blob whose bytes cannot be read, or are not those of the file."""
        if stored.key in self._unusable:
            raise self._unusable[stored.key]
        return stored

    async def read(self, stored: StoredObject, byte_range: ByteRange | None) -> Answer:
        headers = {"If-Match": f'"{stored.etag}"'} | ({"Range": range_header(byte_range)} if byte_range else {})
        return await self._ask("GET", self._address(stored.key, versionid=stored.version), headers)

    async def refusal(self, answer: Answer, *, what: str) -> FetchError:
        return meaning(await answer.refusal(what=what), answer.status, answer.headers, sas=self._access.sas)

    async def aclose(self) -> None:
        await self._transport.aclose()

    def _noted(self, blob: Blob) -> StoredObject:
        """The blob's object. Remembers why it cannot be fetched: the selection may leave it out."""
        name = f"{self.uri}/{blob.stored.key}"
        if blob.archived:
            self._unusable[blob.stored.key] = NotFound(f"{name} is archived; restore it first (set its tier to Hot or Cool)")
        elif blob.encoding.strip().lower() not in ("", "identity"):
            self._unusable[blob.stored.key] = Refused(
                f"{name} is stored with Content-Encoding {blob.encoding[:20]}, so its bytes are not those of the file; upload "
                "it again without, or leave it out with --exclude"
            )
        return blob.stored

    def _address(self, key: str | None, **query: str | None) -> str:
        path = f"{self._place.service}/{quote(self._name)}" + (f"/{quote(key)}" if key is not None else "")
        given = urlencode({name: value for name, value in query.items() if value is not None}, quote_via=quote)
        together = "&".join(each for each in (given, self._access.sas) if each)
        return f"{path}?{together}" if together else path

    async def _ask(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """The answer, with any status. A refused token is renewed once. Redirects are not followed: the service has none."""
        told = {"x-ms-version": API, **(headers or {})}
        token = await self._tokens.current()
        answer = await self._send(method, url, told, token)
        if answer.status == 401 and token is not None:
            renewed = await self._tokens.current(refused=token)
            if renewed is not None and renewed.text != token.text:
                answer.close()
                return await self._send(method, url, told, renewed)
        return answer

    async def _send(self, method: str, url: str, headers: Mapping[str, str], token: Token | None) -> Answer:
        entry = self._entry(method, url, headers, token)
        given_by = self._tokens.given_by if token is not None else self._access.given_by
        credentials = Credentials(self._origin, entry, given_by) if entry is not None else None
        return await self._transport.open(url, method=method, headers=headers, credentials=credentials, redirects=0)

    def _entry(self, method: str, url: str, headers: Mapping[str, str], token: Token | None) -> dict[str, str] | None:
        """The headers that let the request in: none with a SAS, which is in the address; None for an anonymous request."""
        if self._access.sas is not None:
            return {}
        if self._access.key is not None:
            return signed(method, url, headers, account=self._place.account, key=self._access.key)
        return {"Authorization": f"Bearer {token.text}"} if token is not None else None
