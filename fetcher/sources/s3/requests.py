"""Signed requests to one bucket of S3. What a refusal says that this caller can change at once is changed, and asked again."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from email.utils import parsedate_to_datetime

from fetcher.errors import Unauthorized
from fetcher.sources.s3.access import DEFAULT_REGION, S3Access
from fetcher.sources.s3.addressing import address_of, at_home, same_cloud
from fetcher.sources.s3.documents import error_code, named_region
from fetcher.sources.s3.refusals import EXPIRED
from fetcher.sources.s3.signing import signed_headers
from fetcher.sources.tokens import Renewed
from fetcher.transport.client import Answer, Credentials, HttpTransport
from fetcher.transport.urls import origin_of
from fetcher.values import dataclass

_CORRECTABLE = (301, 307, 400, 403)


@dataclass(frozen=True, slots=True)
class Request:
    """A request for `key`, or for the bucket if it is empty. Only the fields in `signed` are signed.

    `Range` and `If-Match` are not, so one signature serves all ranges.
    """

    method: str
    key: str = ""
    query: Mapping[str, str | None] | None = None
    signed: Mapping[str, str] | None = None
    unsigned: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class _Signer:
    """How a request is signed. `skew` is the server's clock minus ours, in seconds."""

    access: S3Access
    region: str
    skew: float


class S3Requests:
    """The requests of one caller to `bucket`. Without `access`, `find` finds it at the first request, on a thread."""

    def __init__(self, bucket: str, transport: HttpTransport, *, access: S3Access | None, find: Callable[[], S3Access]) -> None:
        self._bucket = bucket
        self._transport = transport
        self._accesses = Renewed(_Finding(access, find), "Amazon's chain of credentials")
        self._region: str | None = None
        self._skew = 0.0

    @property
    def access(self) -> S3Access | None:
        """What the last request used; None before the first one."""
        return self._accesses.present

    async def answer(self, request: Request) -> Answer:
        """The answer to a request, with any status. A refusal that can be acted upon is answered by one more request."""
        signer = await self._signer()
        answer = await self._explained(request, signer)
        if answer.status in _CORRECTABLE and await self._corrected(answer, signer):
            answer.close()
            answer = await self._explained(request, await self._signer())
        return answer

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def _signer(self) -> _Signer:
        access = await self._accesses.current() or S3Access()
        return _Signer(access, self._region or access.region or DEFAULT_REGION, self._skew)

    async def _explained(self, request: Request, signer: _Signer) -> Answer:
        """The answer. A refused HEAD has no document that says why, so a GET of one byte is answered in its place."""
        answer = await self._sent(request, signer)
        if request.method != "HEAD" or answer.status not in (400, 403):
            return answer
        answer.close()
        asked = Request("GET", request.key, request.query, unsigned={"Range": "bytes=0-0"})
        explained = await self._sent(asked, signer)
        if explained.status < 300:
            explained.close()
            raise Unauthorized(f"the store refuses HEAD of s3://{self._bucket}/{request.key}, and not GET; allow both")
        return explained

    async def _sent(self, request: Request, signer: _Signer) -> Answer:
        access = signer.access
        url = address_of(self._bucket, request.key, request.query or {}, access, signer.region)
        fields = {**(request.signed or {}), **({"x-amz-request-payer": "requester"} if access.requester_pays else {})}
        if access.keys is not None:
            now = time.time() + signer.skew
            fields = signed_headers(request.method, url, access.keys, region=signer.region, now=now, headers=fields)
        return await self._transport.open(
            url,
            method=request.method,
            headers=request.unsigned,
            credentials=Credentials(origin_of(url), fields, access.given_by) if fields else None,
            redirects=0,
        )

    async def _corrected(self, answer: Answer, used: _Signer) -> bool:
        """Whether the reason of a refusal was removed: the region, the clock, or expired keys."""
        body = await answer.beginning()
        code = error_code(body)
        region = answer.headers.get("x-amz-bucket-region", "") or named_region(body)
        if _is_elsewhere(region, code, used):
            self._region = region
            return True
        if code == "RequestTimeTooSkewed" and not used.skew and (moment := _date(answer.headers)) is not None:
            self._skew = moment - time.time()
            return True
        if code in EXPIRED and used.access.keys is not None:
            renewed = await self._accesses.current(refused=used.access)
            return renewed is not None and renewed.keys != used.access.keys
        return False


def _is_elsewhere(region: str, code: str, used: _Signer) -> bool:
    """Whether signing for `region` may help. It becomes a part of a host name; an endpoint has one, and asks for the other."""
    if not re.fullmatch(r"[a-z0-9-]{1,32}", region) or region == used.region or not same_cloud(region, used.region):
        return False
    return used.access.endpoint is None or code == "AuthorizationHeaderMalformed"


class _Finding:
    """Finds the access at the first call, and renews its keys at each later one. For `Renewed`, one call at a time."""

    def __init__(self, access: S3Access | None, find: Callable[[], S3Access]) -> None:
        self._access = access
        self._find = find
        self._called = False

    def __call__(self) -> S3Access:
        access = self._access or at_home(self._find())
        if access.renew is not None and (self._called or access.stale()):
            access = replace(access, keys=access.renew())
        self._called, self._access = True, at_home(access)
        return self._access


def _date(headers: Mapping[str, str]) -> float | None:
    try:
        return parsedate_to_datetime(headers.get("Date", "")).timestamp()
    except (ValueError, TypeError):
        return None
