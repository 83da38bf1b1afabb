"""Who may have what: everybody what is public, or only who shows a secret that both sides know."""

from __future__ import annotations

import hashlib
import hmac
import os
import threading
from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from typing import Literal

from fetcher.errors import ConfigurationError
from fetcher.filesystem import mark
from fetcher.values import dataclass

Verdict = Literal["granted", "anonymous", "denied", "unavailable"]
"""`anonymous`: nobody was asked, so only what is public. `unavailable`: whoever decides does not answer now."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the bearer token that was shown, and the names in the certificate that the handshake has verified."""

    token: str | None = field(default=None, repr=False)
    names: tuple[str, ...] = ()


Authorization = Callable[[Caller, str], Verdict]
"""Decides for a caller and the key of an artifact. It may block for seconds, on any thread."""

LEAST_SECRET = 16
"""Characters. 16 random letters and digits are 95 bits, which nobody guesses over a network."""
_LARGEST = 64 * 1024


def anonymous(caller: Caller, key: str) -> Verdict:  # noqa: ARG001 - an Authorization
    """Everybody may have what is public."""
    return "anonymous"


class SharedSecret:
    """Grants everything to a caller with one of the secrets in `file`, one a line, so that an old one stays valid for a while.

    The file is read again when it changes. While it cannot be read, or has a secret that is too short, nobody is granted
    anything.
    """

    def __init__(self, file: Path) -> None:
        """Raises ConfigurationError if the file has no secret, or one that is too short."""
        self._file = file
        self._lock = threading.Lock()
        self._mark: str | None = None
        self._secrets: list[bytes] = []
        try:
            self._renew()
        except OSError as error:
            problem = (error.strerror or str(error)).lower()
            raise ConfigurationError(f"cannot read {file}: {problem}; it must hold a secret, one a line") from error

    def __call__(self, caller: Caller, key: str) -> Verdict:
        with self._lock:
            try:
                self._renew()
            except (OSError, ConfigurationError):
                self._mark, self._secrets = None, []
            secrets = self._secrets
        shown = _digest((caller.token or "").encode())
        # Every secret is compared in constant time: the time tells neither how much of it is right nor which one.
        matches = [hmac.compare_digest(shown, secret) for secret in secrets]
        return "granted" if any(matches) else "denied"

    def _renew(self) -> None:
        present = mark(os.stat(self._file))  # Kubernetes replaces a Secret by a link to a new directory
        if present == self._mark:
            return
        with open(self._file, "rb") as stream:
            lines = [line.strip() for line in stream.read(_LARGEST).splitlines()]
        secrets = [line for line in lines if line]
        if not secrets or any(len(secret) < LEAST_SECRET for secret in secrets):
            raise ConfigurationError(f"{self._file} must hold a secret of at least {LEAST_SECRET} characters, one a line")
        self._mark, self._secrets = present, [_digest(secret) for secret in secrets]


def _digest(secret: bytes) -> bytes:
    """The secrets that are kept and compared have one length, and their memory shows none of them."""
    return hashlib.sha256(secret).digest()
