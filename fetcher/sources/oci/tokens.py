"""Authorization at a registry: its challenge, and the token that its token server gives for one repository."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from urllib.parse import urlencode

from fetcher.errors import BadResponse, Unauthorized
from fetcher.sources.oci.access import OciAccess
from fetcher.transport.client import Credentials, HttpTransport, is_downgrade
from fetcher.transport.urls import host_of, normal, origin_of
from fetcher.values import dataclass

_CLIENT = "weightlift"
_LARGEST = 1024 * 1024
_PARAMETER = re.compile(r'([A-Za-z]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


@dataclass(frozen=True, slots=True)
class Challenge:
    """What an answer 401 asks for: the `scheme` in lower case, and its parameters."""

    scheme: str
    parameters: Mapping[str, str]

    @classmethod
    def parse(cls, header: str) -> Challenge:
        """Parse a WWW-Authenticate header. An unreadable one has the scheme ""."""
        scheme, _, rest = header.strip().partition(" ")
        found = {match[1].lower(): match[2] if match[2] is not None else match[3] for match in _PARAMETER.finditer(rest)}
        return cls(scheme.lower(), found)


async def authorization(
    transport: HttpTransport, challenge: Challenge, access: OciAccess, *, endpoint: str, repository: str
) -> str | None:
    """The Authorization header that answers `challenge` for reading `repository`; None if nothing can answer it.

    Raises SourceError.
    """
    if challenge.scheme == "basic":
        return _basic(access)
    if challenge.scheme != "bearer":
        return None
    realm = challenge.parameters.get("realm", "")
    try:
        realm = normal(realm)
    except ValueError:
        raise BadResponse(f"the registry {host_of(endpoint)} names no token server") from None
    if is_downgrade(endpoint, realm):
        raise Unauthorized(f"the registry {host_of(endpoint)} names a token server without TLS, which gets no password")
    return await _token(transport, realm, challenge, access, scope=f"repository:{repository}:pull")


def _basic(access: OciAccess) -> str | None:
    if not access.user and not access.password:
        return None
    return "Basic " + base64.b64encode(f"{access.user}:{access.password}".encode()).decode()


async def _token(transport: HttpTransport, realm: str, challenge: Challenge, access: OciAccess, *, scope: str) -> str:
    asked = {"scope": scope, **({"service": challenge.parameters["service"]} if "service" in challenge.parameters else {})}
    if access.identity_token:
        # The token in the body: an address gets into logs.
        form = {"grant_type": "refresh_token", "refresh_token": access.identity_token, "client_id": _CLIENT, **asked}
        request = transport.request(
            realm,
            method="POST",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            content=urlencode(form).encode(),
            redirects=0,
        )
    else:
        basic = _basic(access)
        credentials = Credentials(origin_of(realm), {"Authorization": basic}, access.given_by) if basic else None
        joint = "&" if "?" in realm else "?"
        request = transport.request(f"{realm}{joint}{urlencode(asked)}", credentials=credentials)
    async with request as answer:
        if answer.status in (400, 401, 403):
            raise _refused(answer.status, realm, access)
        if answer.status != 200:
            raise await answer.refusal(what="a token of the registry")
        content = await answer.read(_LARGEST, what="a token of the registry")
    return f"Bearer {_token_in(content, realm)}"


def _refused(status: int, realm: str, access: OciAccess) -> Unauthorized:
    answered = f"the token server {host_of(realm)} returned error: {status}"
    if access.anonymous:
        return Unauthorized(f"{answered}; no credentials were sent; run docker login, or set DOCKER_CONFIG")
    return Unauthorized(f"{answered}; the credentials (from {access.given_by}) are wrong or expired; log in again")


def _token_in(content: bytes, realm: str) -> str:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    found = (document.get("token") or document.get("access_token")) if isinstance(document, dict) else None
    if not isinstance(found, str) or not re.fullmatch(r"[!-~]+", found):
        raise BadResponse(f"the token server {host_of(realm)} gives no token")
    return found
