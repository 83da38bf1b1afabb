"""Signed addresses like those of CDNs: they expire, and a change of one character makes them invalid.

The signature covers the raw text of the address, which contains `%2F`, `%27` and `%7E` on purpose: a client that decodes and
quotes it again gets 403.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections import Counter
from collections.abc import Callable
from urllib.parse import quote


class Signer:
    """Signs addresses that are valid for `lifetime` seconds of `clock`, and for `uses` requests each (None: no limit)."""

    def __init__(self, *, lifetime: float, uses: int | None, clock: Callable[[], float]) -> None:
        self.lifetime = lifetime
        self.uses = uses
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._used: Counter[str] = Counter()

    def sign(self, path: str, *, filename: str) -> str:
        """Return `path` with a signed query."""
        disposition = quote(f"inline; filename*=UTF-8''{filename}", safe="")
        expires = self._clock() + self.lifetime
        unsigned = f"{path}?Expires={expires:.3f}&Policy=v1%2F%7E&response-content-disposition={disposition}"
        return f"{unsigned}&Signature={self._signature(unsigned)}"

    def allows(self, target: str) -> bool:
        """Tell whether this raw request target has a valid signature. Counts as one use."""
        unsigned, separator, signature = target.partition("&Signature=")
        expires = re.search(r"[?&]Expires=([0-9.]+)", unsigned)
        if not separator or not expires or not hmac.compare_digest(signature, self._signature(unsigned)):
            return False
        self._used[signature] += 1
        fresh = self._clock() < float(expires[1])
        return fresh and (self.uses is None or self._used[signature] <= self.uses)

    def expire(self) -> None:
        """Make all signed addresses invalid."""
        self._key = secrets.token_bytes(32)

    def _signature(self, unsigned: str) -> str:
        digest = hmac.new(self._key, unsigned.encode("latin-1"), hashlib.sha256).digest()
        return base64.b64encode(digest).decode().replace("+", "-").replace("=", "%7E").replace("/", "%2F")
