"""What a status means, in the words of `fetcher.errors`; how long a server asks to wait."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from fetcher.errors import (
    BadResponse,
    ConfigurationError,
    FetchError,
    GatedRepo,
    NotFound,
    RateLimited,
    Unauthorized,
    Unreachable,
)

LONGEST_WAIT = 3600.0
"""Seconds. The Hub's windows are five minutes; what asks for more than an hour is a mistake or malice."""


def retry_after(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """Seconds the server asks to wait: `Retry-After` (seconds or a date), else the Hub's `RateLimit: ...;r=0;t=55`."""
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", text):
        return min(float(text), LONGEST_WAIT)
    if text:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        wait = (moment - (now or datetime.now(UTC))).total_seconds()
        return min(max(wait, 0.0), LONGEST_WAIT)
    limit = re.search(r";\s*r=0\s*;\s*t=(\d{1,9})", headers.get("RateLimit", ""))
    return min(float(limit[1]) + 1.0, LONGEST_WAIT) if limit else None


def error_for(status: int, headers: Mapping[str, str], *, what: str) -> FetchError:
    """The error that `status` (400 and above) means for `what`, which completes "for ..."."""
    code = headers.get("X-Error-Code", "")
    answered = f"the server returned error: {status} for {what}"
    match status:
        case 401 | 403 if code == "GatedRepo":
            return GatedRepo(
                f"{answered}: access has to be granted first; ask for it on the repository's page, then set HF_TOKEN"
            )
        case 404 | 410:
            return NotFound(f"{answered}; {_missing(code)}")
        case 401 if code in ("RepoNotFound", "RevisionNotFound", "EntryNotFound") or code == "":
            return Unauthorized(f"{answered}: it does not exist, or is private; check the name, and set HF_TOKEN")
        case 401 | 403:
            return Unauthorized(f"{answered}: the credentials are missing, wrong, or lack the right to read it")
        case 407:
            return ConfigurationError(f"{answered}: the proxy asks for credentials; put them into HTTPS_PROXY")
        case 429:
            return RateLimited(f"{answered}: too many requests", retry_after=retry_after(headers))
        case 408 | 425:
            return Unreachable(answered, retry_after=retry_after(headers))
        case _ if status >= 500:
            return Unreachable(answered, retry_after=retry_after(headers))
        case _:
            return BadResponse(answered)


def _missing(code: str) -> str:
    match code:
        case "RepoNotFound":
            return "there is no such repository (or it is private: set HF_TOKEN); check owner and name"
        case "RevisionNotFound":
            return "the repository has no such revision; check branch, tag or commit"
        case "EntryNotFound":
            return "the repository has no such file at this revision"
    return "there is nothing at this address; check it"
