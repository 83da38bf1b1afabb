"""What a refusal of S3 means, and what to do about it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from fetcher.errors import ConfigurationError, FetchError, NotFound, RateLimited, Unauthorized, Unreachable
from fetcher.sources.s3.access import S3Access
from fetcher.transport.statuses import retry_after

_MISSING = {"NoSuchBucket", "NoSuchKey", "NoSuchVersion"}
_DENIED = {"AccessDenied", "AllAccessDisabled", "SignatureDoesNotMatch", "InvalidAccessKeyId", "InvalidToken"}
EXPIRED = frozenset({"ExpiredToken", "TokenRefreshRequired"})
"""Codes of a refusal that newer keys may get past."""
_ELSEWHERE = {"PermanentRedirect", "AuthorizationHeaderMalformed", "TemporaryRedirect", "IllegalLocationConstraintException"}


def meaning(
    error: FetchError, code: str, status: int, headers: Mapping[str, str], *, what: str, access: S3Access | None
) -> FetchError:
    """Return the error for a refused request, given the one that its status alone means, and the `code` in its document."""
    said = error.message
    match code:
        case "InvalidObjectState":
            return archived(what)
        case "RequestTimeTooSkewed":
            return ConfigurationError(f"{said}; this machine's clock is wrong; synchronize it")
        case "RequestTimeout":
            return Unreachable(said)
        case "SlowDown":
            return RateLimited(said, retry_after=retry_after(headers))
    if code in _MISSING or (status == 404 and not code):
        return NotFound(f"{said}; check bucket and key")
    if code in EXPIRED:
        return Unauthorized(f"{said}; the temporary credentials expired; get new ones")
    if code in _ELSEWHERE or status in (301, 307):
        return ConfigurationError(f"{what}: the bucket is in another region or at another endpoint; set AWS_REGION")
    if code in _DENIED or status in (401, 403):
        return Unauthorized(f"{said}{_advice(code, access)}")
    return error


def archived(what: str) -> NotFound:
    """The error for an object in an archive."""
    return NotFound(f"{what} is archived; restore it in the store first, then run the command again")


def _advice(code: str, access: S3Access | None) -> str:
    advice = "; without the right to list, a missing key is refused like this too"
    if access is None or access.keys is None:
        advice = f"; no credentials were found: set AWS_ACCESS_KEY_ID, or install weightlift[s3]{advice}"
    if code == "AccessDenied" and access is not None and not access.requester_pays:
        advice += "; if the requester pays for this bucket, set AWS_REQUEST_PAYER=requester"
    return advice
