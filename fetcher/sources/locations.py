"""The present address of a file's bytes, and when that address expires."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

from fetcher.errors import UsageError

EXPIRY_MARGIN = 30.0
"""Seconds before its expiry when a signed address is no longer used: clocks differ, and a request takes time."""

_RIGHTS = r"(?i)(.*[-_])?(sig|signature|token|accesstoken|key|apikey|secret|password|credential|auth)"
"""Query parameters that grant access: S3, GCS and CloudFront sign addresses, Azure uses `sig`, others pass a token."""


@dataclass(slots=True)
class Location:
    """A resolved address. `expires` is Unix time, None if the address does not tell. `validator` comes from the first answer
    of this location: ETags of two locations cannot be compared."""

    url: str
    expires: float | None
    direct: bool
    """The source serves the file itself, without a redirect."""
    validator: str | None = None

    def stale(self, now: float | None = None) -> bool:
        """Whether the address expires within EXPIRY_MARGIN. `now` is Unix time."""
        return self.expires is not None and (time.time() if now is None else now) > self.expires - EXPIRY_MARGIN


def is_signed(url: str) -> bool:
    """Whether the query of `url` carries a credential."""
    return any(re.fullmatch(_RIGHTS, name) for name in parse_qs(urlsplit(url).query, keep_blank_values=True))


def refuse_signed(uri: str) -> None:
    """Raise UsageError for an address of a store with a credential in its query, where it would be a part of the key."""
    if is_signed(uri):
        scheme = uri.partition(":")[0].lower()
        raise UsageError(
            f"{scheme}:// takes no signature and no token; write a signed address as https://, and set credentials as variables"
        )


def expiry(url: str) -> float | None:
    """The Unix time when a signed address expires, by `X-Amz-Date` + `X-Amz-Expires`, or CloudFront's `Expires`."""
    if "?" not in url:
        return None
    query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    lifetime, began = query.get("X-Amz-Expires", ""), query.get("X-Amz-Date", "")
    if re.fullmatch(r"[0-9]{1,9}", lifetime) and re.fullmatch(r"[0-9]{8}T[0-9]{6}Z", began):
        with suppress(ValueError):  # no such day
            moment = datetime.strptime(began, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            return moment.timestamp() + min(int(lifetime), 7 * 86400)
    if re.fullmatch(r"[0-9]{9,11}", query.get("Expires", "")):
        return float(query["Expires"])
    return None
