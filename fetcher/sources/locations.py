"""Where a file's bytes can be had at the moment, and until when."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

EXPIRY_MARGIN = 30.0
"""Seconds before a signed address ends at which it is no longer begun: clocks differ, and a request takes a moment."""

_RIGHTS = re.compile(r"(?i)(.*[-_])?(sig|signature|token|accesstoken|key|apikey|secret|password|credential|auth)")
"""Parameters that carry a right to read: S3, GCS and CloudFront sign addresses, Azure's is `sig`, others pass a token."""


@dataclass(slots=True)
class Location:
    """A resolved address. `expires` is Unix time, None when the address does not tell. `validator` is that of the first
    answer from here: ETags of two locations have nothing to do with each other."""

    url: str
    expires: float | None
    direct: bool
    """Served by the source itself rather than by where it redirects to."""
    validator: str | None = None

    def stale(self, now: float | None = None) -> bool:
        return self.expires is not None and (time.time() if now is None else now) > self.expires - EXPIRY_MARGIN


def is_signed(url: str) -> bool:
    """Whether the address itself carries a credential in its query."""
    return any(_RIGHTS.fullmatch(name) for name in parse_qs(urlsplit(url).query, keep_blank_values=True))


def expiry(url: str) -> float | None:
    """When a signed address ends, by `X-Amz-Date` + `X-Amz-Expires`, or `Expires` (Unix time, as CloudFront writes it)."""
    query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    lifetime, began = query.get("X-Amz-Expires", ""), query.get("X-Amz-Date", "")
    if re.fullmatch(r"[0-9]{1,9}", lifetime) and re.fullmatch(r"[0-9]{8}T[0-9]{6}Z", began):
        with suppress(ValueError):  # no such day
            moment = datetime.strptime(began, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            return moment.timestamp() + min(int(lifetime), 7 * 86400)
    if re.fullmatch(r"[0-9]{9,11}", query.get("Expires", "")):
        return float(query["Expires"])
    return None
