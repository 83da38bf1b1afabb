"""One bucket of S3, asked by signed requests."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from email.utils import parsedate_to_datetime
from urllib.parse import quote, urlencode

from fetcher.artifact import ByteRange
from fetcher.errors import ConfigurationError, FetchError, NotFound, RateLimited, Unauthorized, Unreachable
from fetcher.sources.objects import Page, StoredObject
from fetcher.sources.s3.access import DEFAULT_REGION, S3Access, S3Keys
from fetcher.sources.s3.documents import checksum_of, digest_of, error_code, is_composite, parse_page
from fetcher.sources.s3.signing import signed_headers
from fetcher.sources.tokens import on_daemon_thread
from fetcher.transport.client import Answer, Credentials, HttpTransport
from fetcher.transport.ranges import content_length, range_header
from fetcher.transport.statuses import retry_after
from fetcher.transport.urls import normal, origin_of

_PAGE_LIMIT = 16 * 1024 * 1024
"""Bytes of one page at most: 1,000 entries with keys of 1,024 bytes, each quoted threefold, are 4 MB."""
_MARGIN = 60.0
"""Seconds before their expiry when temporary keys are renewed."""
_FINDING = 30.0
"""Seconds to wait for credentials: web identity and metadata services answer within a few."""
_MISSING = {"NoSuchBucket", "NoSuchKey", "NoSuchVersion", "InvalidObjectState"}
_DENIED = {"AccessDenied", "AllAccessDisabled", "SignatureDoesNotMatch", "InvalidAccessKeyId", "InvalidToken"}
_EXPIRED = {"ExpiredToken", "TokenRefreshRequired"}
_ELSEWHERE = {"PermanentRedirect", "AuthorizationHeaderMalformed", "TemporaryRedirect", "IllegalLocationConstraintException"}


class S3Bucket:
    """The bucket `name`. Without `access`, `find` finds it at the first request, on a thread."""

    def __init__(self, name: str, transport: HttpTransport, *, access: S3Access | None, find: Callable[[], S3Access]) -> None:
        self._name = name
        self._transport = transport
        self._access = access and _at_home(access)
        self._find = find
        self._finding = asyncio.Lock()
        self._region: str | None = None
        self._skew = 0.0

    def __repr__(self) -> str:
        return f"<S3Bucket {self._name}>"

    @property
    def uri(self) -> str:
        return f"s3://{self._name}"

    @property
    def authenticated(self) -> bool:
        return self._access is not None and self._access.keys is not None

    async def aclose(self) -> None:
        await self._transport.aclose()

    # What the source asks

    async def find(self, key: str, version: str | None) -> StoredObject | None:
        answer = await self._head(key, version)
        try:
            if answer.status == 404:
                return None
            if answer.status != 200:
                raise await self.refusal(answer, what=f"{self.uri}/{key}")
            etag = answer.headers.get("ETag", "").strip('"')
            size = content_length(answer.headers) or 0
            served = answer.headers.get("x-amz-version-id")
            if version is not None and served != version:
                return None  # a store without versions ignores what was asked for
            stored = StoredObject(key, size, etag, served)
            headers = answer.headers
        finally:
            answer.close()
        first = await self._first_part(stored) if is_composite(headers, etag) else None
        digest, checksum = digest_of(headers), checksum_of(headers, etag, size, first)
        return replace(stored, digests=(digest,) if digest else (), checksums=(checksum,) if checksum and not digest else ())

    async def page(self, prefix: str, token: str | None) -> Page:
        query = {"list-type": "2", "encoding-type": "url", "prefix": prefix, **({"continuation-token": token} if token else {})}
        answer = await self._answer("GET", "", query)
        try:
            if answer.status != 200:
                raise await self.refusal(answer, what=f"the objects below {self.uri}/{prefix}")
            return parse_page(await answer.read(_PAGE_LIMIT, what=f"the listing of {self.uri}"), where=f"{self.uri}/{prefix}")
        finally:
            answer.close()

    async def described(self, stored: StoredObject) -> StoredObject:
        if stored.digests or stored.checksums:
            return stored
        found = await self.find(stored.key, stored.version)
        if found is None:
            raise NotFound(f"{self.uri}/{stored.key} was removed while it was listed; run the command again", path=stored.key)
        return found if found.etag == stored.etag else stored  # replaced meanwhile: its range will say so

    async def read(self, stored: StoredObject, byte_range: ByteRange | None) -> Answer:
        # Neither field is signed, so one signature serves all ranges.
        unsigned = {"If-Match": f'"{stored.etag}"'} if stored.etag else {}
        if byte_range is not None:
            unsigned["Range"] = range_header(byte_range)
        return await self._answer("GET", stored.key, {"versionId": _named(stored.version)}, unsigned=unsigned)

    async def refusal(self, answer: Answer, *, what: str) -> FetchError:
        code = error_code(await answer.beginning())
        error = await answer.refusal(what=what)
        if code == "InvalidObjectState":
            return NotFound(f"{what} is archived; restore it in the store first, then run the command again")
        if code in _MISSING or (answer.status == 404 and not code):
            return NotFound(f"{error.message}; check bucket and key")
        if code in _EXPIRED:
            return Unauthorized(f"{error.message}; the temporary credentials expired; get new ones")
        if code in _DENIED or answer.status in (401, 403):
            if code == "RequestTimeTooSkewed":
                return ConfigurationError(f"{error.message}; this machine's clock is wrong; synchronize it")
            advice = (
                "" if self.authenticated else "; no credentials were found: set AWS_ACCESS_KEY_ID, or install weightlift[s3]"
            )
            return Unauthorized(f"{error.message}{advice}; without the right to list, a missing key is refused like this too")
        if code in _ELSEWHERE or answer.status in (301, 307):
            return ConfigurationError(f"{what}: the bucket is in another region or at another endpoint; set AWS_REGION")
        if code == "RequestTimeout":
            return Unreachable(error.message)
        if code == "SlowDown":
            return RateLimited(error.message, retry_after=retry_after(answer.headers))
        return error

    # Requests

    async def _head(self, key: str, version: str | None, part: int | None = None) -> Answer:
        query = {
            **({"partNumber": str(part)} if part else {}),
            **({"versionId": version} if version not in (None, "null") else {}),
        }
        return await self._answer("HEAD", key, query, signed={"x-amz-checksum-mode": "ENABLED"})

    async def _first_part(self, stored: StoredObject) -> int | None:
        """The size of the first part of an upload in parts; None if the store does not tell."""
        answer = await self._head(stored.key, stored.version, part=1)
        try:
            return content_length(answer.headers) if answer.status == 206 else None
        finally:
            answer.close()

    async def _answer(
        self,
        method: str,
        key: str,
        query: Mapping[str, str | None],
        *,
        signed: Mapping[str, str] | None = None,
        unsigned: Mapping[str, str] | None = None,
    ) -> Answer:
        """The answer to a request. A refusal that this bucket can act upon is answered by one more request."""
        access = await self._present()
        answer = await self._ask(method, key, query, access, signed or {}, unsigned or {})
        if method == "HEAD" and answer.status in (400, 403):
            answer = await self._explained(answer, key, query, access)
        if answer.status in (301, 307, 400, 403) and await self._corrected(answer):
            answer.close()
            access = await self._present()
            answer = await self._ask(method, key, query, access, signed or {}, unsigned or {})
        return answer

    async def _explained(self, answer: Answer, key: str, query: Mapping[str, str | None], access: S3Access) -> Answer:
        """The answer to a GET of one byte in the place of a refused HEAD, which has no document that says why."""
        answer.close()
        explained = await self._ask("GET", key, query, access, {}, {"Range": "bytes=0-0"})
        if explained.status < 300:
            explained.close()
            raise Unauthorized(f"the store refuses HEAD of {self.uri}/{key}, and not GET; allow both")
        return explained

    async def _ask(
        self,
        method: str,
        key: str,
        query: Mapping[str, str | None],
        access: S3Access,
        signed: Mapping[str, str],
        unsigned: Mapping[str, str],
    ) -> Answer:
        url = self._address(access, key, query)
        fields = {**signed, **({"x-amz-request-payer": "requester"} if access.requester_pays else {})}
        if access.keys is not None:
            now, region = time.time() + self._skew, self._region_of(access)
            fields = signed_headers(method, url, access.keys, region=region, now=now, headers=fields)
        return await self._transport.open(
            url,
            method=method,
            headers=unsigned,
            credentials=Credentials(origin_of(url), fields, access.given_by) if fields else None,
            redirects=0,
        )

    def _address(self, access: S3Access, key: str, query: Mapping[str, str | None]) -> str:
        path = quote(key, safe="-_.~/")
        words = urlencode({name: value for name, value in query.items() if value is not None}, quote_via=quote, safe="-_.~")
        if access.endpoint is not None:
            try:
                base = normal(access.endpoint).rstrip("/")
            except ValueError:
                raise ConfigurationError("the endpoint of S3 is not a web address; write it as https://host") from None
            scheme, _, host = base.partition("://")
            base = f"{scheme}://{self._name}.{host}" if access.virtual_hosts else f"{base}/{self._name}"
        else:
            region = self._region_of(access)
            host = f"s3.{region}.amazonaws.com" + (".cn" if region.startswith("cn-") else "")
            virtual = access.virtual_hosts is not False and "." not in self._name
            base = f"https://{self._name}.{host}" if virtual else f"https://{host}/{self._name}"
        return f"{base}/{path}" + (f"?{words}" if words else "")

    def _region_of(self, access: S3Access) -> str:
        return self._region or access.region or DEFAULT_REGION

    # Credentials

    async def _present(self) -> S3Access:
        """The access with keys that are valid for a while. Concurrent requests wait for the first."""
        async with self._finding:
            if self._access is None:
                self._access = _at_home(await on_daemon_thread(self._find, what="credentials of S3", longest=_FINDING))
            keys = self._access.keys
            if keys is not None and keys.expires is not None and time.time() > keys.expires - _MARGIN:
                await self._renewed(keys)
            return self._access

    async def _renewed(self, old: S3Keys) -> bool:
        """Renew the keys if they still are `old`. Returns whether there are other ones now."""
        access = self._access
        if access is None or access.renew is None or access.keys != old:
            return access is not None and access.keys != old
        keys = await on_daemon_thread(access.renew, what="new credentials of S3", longest=_FINDING)
        self._access = replace(access, keys=keys)
        return keys != old

    async def _corrected(self, answer: Answer) -> bool:
        """Whether the reason of a refusal was removed: the region, the clock, or expired keys."""
        code = error_code(await answer.beginning())
        region = answer.headers.get("x-amz-bucket-region", "")
        access = self._access
        # It becomes a part of a host name.
        if (
            re.fullmatch(r"[a-z0-9-]{1,32}", region)
            and access is not None
            and access.endpoint is None
            and region != self._region_of(access)
            and _in_china(region) == _in_china(self._region_of(access))
        ):
            self._region = region
            return True
        if code == "RequestTimeTooSkewed" and not self._skew and (moment := _date(answer.headers)) is not None:
            self._skew = moment - time.time()
            return True
        if code in _EXPIRED and access is not None and access.keys is not None:
            async with self._finding:
                return await self._renewed(access.keys)
        return False


def _in_china(region: str) -> bool:
    """Whether the region belongs to Amazon's cloud in China: another cloud, which gets no signature of this one."""
    return region.startswith("cn-")


def _at_home(access: S3Access) -> S3Access:
    """The access without an endpoint that is Amazon's own, which knows no regions."""
    amazon = (access.endpoint or "").rstrip("/").lower() in ("https://s3.amazonaws.com", "http://s3.amazonaws.com")
    return replace(access, endpoint=None) if amazon else access


def _named(version: str | None) -> str | None:
    """The version to ask for. A bucket without versions calls its only one `null`."""
    return None if version == "null" else version


def _date(headers: Mapping[str, str]) -> float | None:
    try:
        return parsedate_to_datetime(headers.get("Date", "")).timestamp()
    except (ValueError, TypeError):
        return None
