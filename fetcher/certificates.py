"""TLS by certificate files, read again when they change: cert-manager renews them while the server runs."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from pathlib import Path

from fetcher.errors import ConfigurationError
from fetcher.filesystem import mark
from fetcher.values import dataclass

_CURVE = "prime256v1"
"""The only group for the exchange of keys: P-256, which every client of TLS 1.3 has (RFC 8446, 9.1). By default a stranger
may choose another one, before any certificate is seen: with ffdhe8192 a handshake took 127 ms of a processor instead of 2."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """The chain and the key in PEM. `client_ca`: a client must show a certificate of one of these authorities."""

    chain: Path
    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> list[Path]:
        return [self.chain, self.key, *([self.client_ca] if self.client_ca is not None else [])]


class Certificates:
    """The context for new connections. Used by one thread."""

    def __init__(self, files: CertificateFiles, warn: Callable[[str], None]) -> None:
        """Raises ConfigurationError if the files cannot be used. Later they are only warned of, and the former ones stay."""
        self._files = files
        self._warn = warn
        try:
            self._marks = self._look()
            self._context = self._load()
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise ConfigurationError(self._complaint(error)) from error

    def context(self) -> ssl.SSLContext:
        try:
            marks = self._look()
            if marks != self._marks:
                self._marks = marks
                self._context = self._load()
        except (OSError, ValueError) as error:
            self._warn(f"{self._complaint(error)}; the former certificate is used")
        return self._context

    def _look(self) -> list[str]:
        """What changes when a file is replaced, also if it is a link to one, as in a Secret's volume."""
        return [mark(os.stat(path)) for path in self._files.paths]

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ecdh_curve(_CURVE)
        context.load_cert_chain(self._files.chain, self._files.key, password=_no_password)
        if self._files.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self._files.client_ca)
        return context

    def _complaint(self, error: OSError | ValueError) -> str:
        names = ", ".join(map(str, self._files.paths))
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        return f"cannot use the certificate files {names}: {str(reason).lower().replace('_', ' ')}"


def _no_password() -> str:
    """A key that has a password fails to load; without this, OpenSSL asks for it on the terminal and waits."""
    return ""
