"""What a status means, in the words of `fetcher.errors`; how long a server asks to wait.

::

    401 403                    Unauthorized, GatedRepo   77
    404 410                    NotFound                  66
    407 511                    ConfigurationError        78  the proxy, or the network, wants a login
    420 429                    RateLimited               75  worth another try
    408 409 421 423 425 499    Unreachable               69  worth another try
    500 and above              Unreachable               69  worth another try, but for 501, 505, 510
    any other from 400 on      Refused                   77  the same request would be refused again
    anything below 400         BadResponse               69  worth another try: no answer to what was asked for
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
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

LONGEST_WAIT = 3600.0
"""Seconds. The Hub's windows are five minutes; what asks for more than an hour is a mistake or malice."""

_TOO_MANY = {420, 429}
"""420 is what some mirrors and older gateways say in the place of 429."""
_PASSING = {408, 409, 421, 423, 425, 499}
"""A timeout, a conflict with another request, a connection to the wrong server, a lock, too early, a proxy's client gone."""
_NEVER = {501, 505, 510}
"""The server does not know the method, the version or the extension: it won't learn it by the next try."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is known of an answer that is an error. `said` is the server's own text, fit to be shown (`transport.complaints`).

    `sent` says where the credential that the request carried came from; "" when it carried none.
    """

    status: int
    headers: Mapping[str, str]
    said: str = ""
    sent: str = ""

    @property
    def code(self) -> str:
        return self.headers.get("X-Error-Code", "")


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


def passes_by(status: int) -> bool:
    """Whether the same request is worth another try."""
    return status in _TOO_MANY or status in _PASSING or (status >= 500 and status not in _NEVER and status != 511)


def error_for(refusal: Refusal, *, what: str) -> FetchError:
    """The error that a status means for `what`, which completes "for ..."."""
    status, wait = refusal.status, retry_after(refusal.headers)
    if status < 400:
        return BadResponse(f"the server answers with status {status} for {what}")
    said = f': the server says "{refusal.said}"' if refusal.said else ""
    answered = f"the server returned error: {status} for {what}{said}"
    match status:
        case 401 | 403:
            return _unauthorized(refusal, answered)
        case 404 | 410:
            return NotFound(f"{answered}; {_missing(refusal)}")
        case 407:
            return ConfigurationError(f"{answered}; {PROXY_ADVICE}")
        case 511:
            return ConfigurationError(f"{answered}; the network asks for a login before it lets anything through")
        case _ if status in _TOO_MANY:
            return RateLimited(f"{answered}; too many requests", retry_after=wait)
        case _ if passes_by(status):
            return Unreachable(answered, retry_after=wait)
    return Refused(f"{answered}; the same request would be refused again, so it is not repeated")


PROXY_ADVICE = "the proxy asks for credentials; put them into HTTPS_PROXY (for http:// addresses into HTTP_PROXY)"


def _unauthorized(refusal: Refusal, answered: str) -> Unauthorized:
    credentials = f"credentials were sent (from {refusal.sent})" if refusal.sent else "no credentials were sent"
    if refusal.code == "GatedRepo":
        advice = "ask for it on the repository's page" + ("" if refusal.sent else ", then set HF_TOKEN")
        return GatedRepo(f"{answered}; access has to be granted first; {advice}; {credentials}")
    if refusal.sent:
        return Unauthorized(f"{answered}; {credentials}: they are wrong, expired, or lack the right to read it")
    if refusal.status == 401 and refusal.code in ("RepoNotFound", "RevisionNotFound", "EntryNotFound", ""):
        advice = "it does not exist, or is private; check the name, and set HF_TOKEN"
        return Unauthorized(f"{answered}; {credentials}: {advice}")
    return Unauthorized(f"{answered}; {credentials}: they are missing, or this address may not be read by everybody")


def _missing(refusal: Refusal) -> str:
    match refusal.code:
        case "RepoNotFound":
            seen = f"credentials were sent, from {refusal.sent}" if refusal.sent else "set HF_TOKEN"
            return f"there is no such repository (or it is private: {seen}); check owner and name"
        case "RevisionNotFound":
            return "the repository has no such revision; check branch, tag or commit"
        case "EntryNotFound":
            return "the repository has no such file at this revision"
    return "there is nothing at this address; check it"
