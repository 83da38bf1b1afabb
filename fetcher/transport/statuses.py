"""Translates HTTP statuses into `fetcher.errors`, and reads how long a server asks to wait.

::

    401 403                    Unauthorized, GatedRepo   77
    404 410                    NotFound                  66
    407 511                    ConfigurationError        78  the proxy, or the network, requires a login
    420 429                    RateLimited               75  retried
    408 409 421 423 425 499    Unreachable               69  retried
    500 and above              Unreachable               69  retried, except 501, 505, 510
    any other from 400 on      Refused                   77  the same request would be refused again
    anything below 400         BadResponse               69  retried: the answer does not fit the request
"""

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
    Refused,
    Unauthorized,
    Unreachable,
)
from fetcher.values import dataclass

LONGEST_WAIT = 3600.0
"""Seconds. The Hub's windows are five minutes. A server that asks for more than an hour is wrong or malicious."""

_TOO_MANY = {420, 429}
"""Some mirrors and older gateways send 420 instead of 429."""
_PASSING = {408, 409, 421, 423, 425, 499}
"""Temporary: a timeout, a conflict with another request, the wrong server, a lock, too early, a proxy lost its client."""
_NEVER = {501, 505, 510}
"""Permanent: the server does not support the method, the version or the extension."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is an error. `said` is the server's own text, safe to show (`transport.complaints`).

    `sent` names the origin of the credentials in the request; "" if it had none.
    """

    status: int
    headers: Mapping[str, str]
    said: str = ""
    sent: str = ""

    @property
    def code(self) -> str:
        """The Hub's error code; "" if there is none."""
        return self.headers.get("X-Error-Code", "")


def retry_after(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """The seconds that the server asks to wait: `Retry-After` (seconds or a date), else the Hub's `RateLimit: ...;r=0;t=55`."""
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


def is_temporary(status: int) -> bool:
    """Whether the status is temporary, so that the same request may succeed later."""
    return status in _TOO_MANY or status in _PASSING or (status >= 500 and status not in _NEVER and status != 511)


def error_for(refusal: Refusal, *, what: str) -> FetchError:
    """The error for a refused request. `what` completes "for ..."."""
    status, wait = refusal.status, retry_after(refusal.headers)
    if status < 400:
        return BadResponse(f"the server answers with status {status} for {what}")
    explanation = f': the server says "{refusal.said}"' if refusal.said else ""
    answered = f"the server returned error: {status} for {what}{explanation}"
    match status:
        case 401 | 403:
            return _unauthorized(refusal, answered)
        case 404 | 410:
            return NotFound(f"{answered}; {_missing(refusal)}")
        case 407:
            return ConfigurationError(f"{answered}; {PROXY_ADVICE}")
        case 511:
            return ConfigurationError(f"{answered}; the network requires a login before it forwards requests")
        case _ if status in _TOO_MANY:
            return RateLimited(f"{answered}; too many requests", retry_after=wait)
        case _ if is_temporary(status):
            return Unreachable(answered, retry_after=wait)
    return Refused(f"{answered}; the same request would be refused again, so it is not repeated")


PROXY_ADVICE = "the proxy requires credentials; add them to HTTPS_PROXY (for http:// addresses to HTTP_PROXY)"


def _unauthorized(refusal: Refusal, answered: str) -> Unauthorized:
    credentials = f"credentials were sent (from {refusal.sent})" if refusal.sent else "no credentials were sent"
    if refusal.code == "GatedRepo":
        advice = "ask for it on the repository's page" + ("" if refusal.sent else ", then set HF_TOKEN")
        return GatedRepo(f"{answered}; access must be granted first; {advice}; {credentials}")
    if refusal.sent:
        return Unauthorized(f"{answered}; {credentials}: they are wrong, expired, or lack the right to read it")
    if refusal.status == 401 and refusal.code in ("RepoNotFound", "RevisionNotFound", "EntryNotFound", ""):
        advice = "it does not exist, or is private; check the name, and set HF_TOKEN"
        return Unauthorized(f"{answered}; {credentials}: {advice}")
    return Unauthorized(f"{answered}; {credentials}: this address may require them")


def _missing(refusal: Refusal) -> str:
    match refusal.code:
        case "RepoNotFound":
            advice = f"credentials were sent, from {refusal.sent}" if refusal.sent else "set HF_TOKEN"
            return f"there is no such repository (or it is private: {advice}); check owner and name"
        case "RevisionNotFound":
            return "the repository has no such revision; check branch, tag or commit"
        case "EntryNotFound":
            return "the repository has no such file at this revision"
    return "there is nothing at this address; check it"
