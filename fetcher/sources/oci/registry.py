"""Requests to one repository of a registry, by the distribution specification: manifests and blobs.

A blob is often in an object store behind a redirect. Its address is asked for once, and used by all ranges until it expires.
The token of the registry goes to the registry only.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

from fetcher.artifact import ByteRange
from fetcher.errors import BadResponse, FetchError, NotFound, Unauthorized
from fetcher.sources.locations import Location, expiry
from fetcher.sources.oci.access import OciAccess
from fetcher.sources.oci.address import OciAddress
from fetcher.sources.oci.documents import ACCEPT, LARGEST, Blob
from fetcher.sources.oci.tokens import Challenge, authorization
from fetcher.sources.tokens import on_daemon_thread
from fetcher.transport.client import Answer, Credentials, HttpTransport
from fetcher.transport.ranges import range_header
from fetcher.transport.urls import address_from, host_of, origin_of

_REDIRECTS = (301, 302, 303, 307, 308)
_TRIES = 3
"""Requests for one range at most: an expired token, an expired address, and the one that works."""


class Registry:
    """One repository as one caller sees it. `find` returns the credentials, on a thread, at the first request that needs some.

    Methods raise SourceError and retry nothing but what this caller can change at once: an expired token or address.
    """

    def __init__(
        self,
        address: OciAddress,
        endpoint: str,
        transport: HttpTransport,
        find: Callable[[], OciAccess],
        access: OciAccess | None,
    ) -> None:
        self._address = address
        self._endpoint = endpoint
        self._transport = transport
        self._find = find
        self._access = access
        self._credentials: Credentials | None = None
        self._asking = asyncio.Lock()
        self._locations: dict[str, Location] = {}

    @property
    def authenticated(self) -> bool:
        """Whether a credential is used."""
        return self._credentials is not None and self._access is not None and not self._access.anonymous

    async def manifest(self, reference: str) -> tuple[str, bytes]:
        """The digest and the content of the manifest with this tag or digest, which is compared with its digest."""
        what = f"{self._address.registry}/{self._address.repository}{'@' if ':' in reference else ':'}{reference}"
        answer = await self._asked(f"manifests/{reference}", {"Accept": ACCEPT})
        try:
            if answer.status != 200:
                raise await self._refusal(answer, what=what)
            content = await answer.read(LARGEST, what=what)
        finally:
            answer.close()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if ":" in reference and digest != reference:
            raise BadResponse(f"the registry sends another manifest for {what}: its digest is {digest}")
        return digest, content

    async def blob(self, blob: Blob, byte_range: ByteRange | None, *, what: str) -> Answer:
        """Ask for bytes of a blob. The answer has a status below 400, or 416; the caller closes it."""
        headers = {"Range": range_header(byte_range)} if byte_range is not None else {}
        for attempt in range(_TRIES):
            answer = await self._at_its_location(blob, headers)
            if answer.status < 400 or answer.status == 416:
                return answer
            try:
                # A signed address that expired is asked for anew; the registry's own answer is final, its token was renewed.
                expired = answer.status in (401, 403, 404, 410) and self._locations.pop(str(blob.digest), None) is not None
                if not expired or attempt + 1 == _TRIES:
                    raise await self._refusal(answer, what=what)
            finally:
                answer.close()
        raise AssertionError("unreachable")

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def _at_its_location(self, blob: Blob, headers: dict[str, str]) -> Answer:
        known = self._locations.get(str(blob.digest))
        if known is None or known.stale():
            answer = await self._asked(f"blobs/{blob.digest}", headers)
            target = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or not target:
                self._locations.pop(str(blob.digest), None)
                return answer
            answer.close()
            url = address_from(answer.url, target)
            known = self._locations[str(blob.digest)] = Location(url, expiry(url), direct=False)
        # The content has a digest, so TLS is not needed for its integrity.
        credentials = self._credentials if origin_of(known.url) == origin_of(self._endpoint) else None
        return await self._transport.open(known.url, headers=headers, credentials=credentials, allow_downgrade=True)

    async def _asked(self, path: str, headers: dict[str, str]) -> Answer:
        """The registry's answer to a request, with a new token if it asks for one."""
        url = f"{self._endpoint}/v2/{self._address.repository}/{path}"
        used = self._credentials
        answer = await self._transport.open(url, headers=headers, credentials=used, redirects=0)
        if answer.status != 401:
            return answer
        answer.close()
        challenge = Challenge.parse(answer.headers.get("WWW-Authenticate", ""))
        if not await self._renewed(challenge, used):
            raise Unauthorized(
                f"the registry {host_of(url)} returned error: 401 for {self._address.name}; no credentials were sent: it does "
                "not exist, or is private; check the name, then run docker login, or set DOCKER_CONFIG"
            )
        return await self._transport.open(url, headers=headers, credentials=self._credentials, redirects=0)

    async def _renewed(self, challenge: Challenge, used: Credentials | None) -> bool:
        """Get a token in the place of `used`, once for all requests that were refused. False if nothing can be sent."""
        async with self._asking:
            if self._credentials is not used:
                return True
            if self._access is None:
                self._access = await on_daemon_thread(self._find, what="the credentials of the registry")
            header = await authorization(
                self._transport, challenge, self._access, endpoint=self._endpoint, repository=self._address.repository
            )
            if header is None:
                return False
            self._credentials = Credentials(origin_of(self._endpoint), {"Authorization": header}, self._access.given_by)
            return True

    async def _refusal(self, answer: Answer, *, what: str) -> FetchError:
        """The error of an answer, with advice for a registry."""
        error = await answer.refusal(what=what)
        host = host_of(answer.url)
        if isinstance(error, Unauthorized):
            access = self._access or OciAccess()
            sent = "no credentials were sent" if access.anonymous else f"credentials were sent (from {access.given_by})"
            return Unauthorized(
                f"{host} returned error: {answer.status} for {what}; {sent}: it does not exist, or needs others; check the "
                "name, then run docker login, or set DOCKER_CONFIG"
            )
        if isinstance(error, NotFound):
            return NotFound(
                f"{host} returned error: {answer.status} for {what}: there is none; check repository, tag and digest"
            )
        return error
