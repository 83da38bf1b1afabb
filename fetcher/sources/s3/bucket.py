"""One bucket of S3: its objects, their checksums and their bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from fetcher.artifact import ByteRange
from fetcher.errors import FetchError, NotFound
from fetcher.sources.objects import Page, StoredObject
from fetcher.sources.s3.access import S3Access
from fetcher.sources.s3.address import named_version
from fetcher.sources.s3.documents import checksum_of, digest_of, error_code, is_archived, parse_page, parts_needed
from fetcher.sources.s3.parts import PartSizes
from fetcher.sources.s3.refusals import archived, meaning
from fetcher.sources.s3.requests import Request, S3Requests
from fetcher.transport.client import Answer, HttpTransport
from fetcher.transport.ranges import content_length, range_header

_PAGE_LIMIT = 16 * 1024 * 1024
"""Bytes of one page at most: 1,000 entries with keys of 1,024 bytes, each quoted threefold, are 4 MB."""


class S3Bucket:
    """The bucket `name`. Without `access`, `find` finds it at the first request, on a thread."""

    def __init__(self, name: str, transport: HttpTransport, *, access: S3Access | None, find: Callable[[], S3Access]) -> None:
        self._name = name
        self._requests = S3Requests(name, transport, access=access, find=find)
        self._parts = PartSizes(self._requests, self.refusal)
        self._archived: set[str] = set()

    def __repr__(self) -> str:
        return f"<S3Bucket {self._name}>"

    @property
    def uri(self) -> str:
        return f"s3://{self._name}"

    @property
    def authenticated(self) -> bool:
        access = self._requests.access
        return access is not None and access.keys is not None

    async def aclose(self) -> None:
        await self._requests.aclose()

    async def find(self, key: str, version: str | None) -> StoredObject | None:
        query = {"versionId": named_version(version)}
        answer = await self._requests.answer(Request("HEAD", key, query, {"x-amz-checksum-mode": "ENABLED"}))
        try:
            if answer.status == 404:
                return None
            if answer.status != 200:
                raise await self.refusal(answer, what=f"{self.uri}/{key}")
            headers = answer.headers
        finally:
            answer.close()
        served = headers.get("x-amz-version-id")
        if version is not None and served != version:
            return None  # a store without versions ignores what was asked for
        if is_archived(headers):
            self._archived.add(key)
        stored = StoredObject(key, content_length(headers) or 0, headers.get("ETag", "").strip('"'), served)
        return await self._with_checksums(stored, headers)

    async def page(self, prefix: str, token: str | None) -> Page:
        query = {"list-type": "2", "encoding-type": "url", "prefix": prefix, "continuation-token": token}
        answer = await self._requests.answer(Request("GET", query=query))
        try:
            if answer.status != 200:
                raise await self.refusal(answer, what=f"the objects below {self.uri}/{prefix}")
            return parse_page(await answer.read(_PAGE_LIMIT, what=f"the listing of {self.uri}"), where=f"{self.uri}/{prefix}")
        finally:
            answer.close()

    async def described(self, stored: StoredObject) -> StoredObject:
        where = f"{self.uri}/{stored.key}"
        if not stored.digests and not stored.checksums:
            found = await self.find(stored.key, stored.version)
            if found is None:
                raise NotFound(f"{where} was removed while it was listed; run the command again", path=stored.key)
            stored = found if found.etag == stored.etag else stored  # replaced meanwhile: its range will say so
        if stored.key in self._archived:
            raise archived(where)
        return stored

    async def read(self, stored: StoredObject, byte_range: ByteRange | None) -> Answer:
        unsigned = {"If-Match": f'"{stored.etag}"'} if stored.etag else {}
        if byte_range is not None:
            unsigned["Range"] = range_header(byte_range)
        query = {"versionId": named_version(stored.version)}
        return await self._requests.answer(Request("GET", stored.key, query, unsigned=unsigned))

    async def refusal(self, answer: Answer, *, what: str) -> FetchError:
        body = await answer.beginning()
        # The answer to HEAD has no document, and Amazon's 503 is one of these.
        code = error_code(body) or ("SlowDown" if answer.status == 503 and not body else "")
        error = await answer.refusal(what=what)
        return meaning(error, code, answer.status, answer.headers, what=what, access=self._requests.access)

    async def _with_checksums(self, stored: StoredObject, headers: Mapping[str, str]) -> StoredObject:
        """The object with what its header fields publish: a digest, else a checksum."""
        if digest := digest_of(headers):
            return replace(stored, digests=(digest,))
        count = parts_needed(headers, stored.etag)
        parts = await self._parts.of(stored, count) if count else ()
        checksum = checksum_of(headers, stored.etag, parts)
        return replace(stored, checksums=(checksum,) if checksum else ())
