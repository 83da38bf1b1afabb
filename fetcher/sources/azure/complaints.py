"""What a refusal of Azure means. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qs, quote, unquote

from fetcher.errors import ConfigurationError, FetchError, NotFound, RateLimited, Unauthorized
from fetcher.transport.statuses import retry_after

_SKEW = 15 * 60
"""Seconds that the service allows between its clock and the date of a request."""


def meaning(
    error: FetchError, status: int, headers: Mapping[str, str], *, sas: str | None = None, now: float | None = None
) -> FetchError:
    """Return the error for a refused request, given the one that its status alone means. `now` is Unix time."""
    code = headers.get("x-ms-error-code", "")[:80]
    said = _without(error.message if not code or code in error.message else f"{error.message} ({code})", sas)
    if status == 409 and code == "BlobArchived":
        return NotFound(f"{said}; the blob is archived: restore it first (set its tier to Hot or Cool)")
    if status == 409 and code == "PublicAccessNotPermitted":
        return Unauthorized(f"{said}; the account allows no anonymous access: set AZURE_STORAGE_SAS_TOKEN or a key, or log in")
    if status == 503:
        return RateLimited(said, retry_after=retry_after(headers))
    if status in (401, 403) and (skew := _skew(headers, now)):
        return ConfigurationError(
            f"{said}; the clock of this machine differs by {skew:,.0f} s from the service's; set the clock"
        )
    if status in (401, 403) and sas and (expired := _expired(sas, now)):
        return Unauthorized(f"{said}; the SAS expired at {expired}: get another")
    if status == 404 and "container" in code.lower():
        return NotFound(f"{said}; check the name of the container, and its account")
    return _same(error, said)


def _same(error: FetchError, message: str) -> FetchError:
    if message != error.message:
        error.message, error.args = message, (message,)
    return error


def _without(message: str, sas: str | None) -> str:
    """The message without the signature, however the service spells it."""
    for signature in parse_qs(sas or "").get("sig", []):
        for text in (signature, quote(signature, safe=""), unquote(signature)):
            message = message.replace(text, "...")
    return message


def _skew(headers: Mapping[str, str], now: float | None) -> float:
    """The seconds by which the clocks differ, if that is more than the service allows; else 0."""
    try:
        theirs = parsedate_to_datetime(headers.get("Date", "")).timestamp()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    skew = abs((time.time() if now is None else now) - theirs)
    return skew if skew > _SKEW else 0.0


def _expired(sas: str, now: float | None) -> str:
    """When the SAS expired; "" if it did not, or does not tell."""
    from datetime import UTC, datetime

    end = parse_qs(sas).get("se", [""])[0]
    try:
        moment = datetime.fromisoformat(end)
    except ValueError:
        return ""
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return end if moment.timestamp() < (time.time() if now is None else now) else ""
