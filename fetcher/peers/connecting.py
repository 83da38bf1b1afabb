"""Connections to peers: directly, never through a proxy, and with the TLS of peers, which trusts nobody else."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

from fetcher.errors import ConfigurationError
from fetcher.filesystem import mark
from fetcher.transport.client import HttpTransport
from fetcher.transport.failures import TlsAdvice
from fetcher.values import dataclass

_READ_BUFFER = 64 * 1024
_ADVICE = TlsAdvice("name its CA by --mirror-ca", "show it one by --mirror-cert and --mirror-key")


@dataclass(frozen=True, slots=True)
class PeerTls:
    """`ca`: PEM file of the authorities of peers, None for those of the system. `certificate`, `key`: what they are shown."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ConfigurationError("--mirror-cert and --mirror-key belong together; give both")

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(each for each in (self.ca, self.certificate, self.key) if each is not None)


class PeerContext:
    """The TLS context of `tls`, made again when one of its files changes. Raises ConfigurationError at the first use only."""

    def __init__(self, tls: PeerTls) -> None:
        self._tls = tls
        self._marks: list[str] | None = None
        self._context: ssl.SSLContext | None = None

    def __call__(self) -> ssl.SSLContext:
        try:
            marks = [mark(each.stat()) for each in self._tls.files]
            if self._context is None or marks != self._marks:
                self._context, self._marks = self._made(), marks
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            if self._context is None:
                names = ", ".join(map(str, self._tls.files))
                raise ConfigurationError(f"cannot use {names} for mirrors: {error}; give PEM files") from error
        return self._context

    def _made(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._tls.ca)
        if self._tls.certificate is not None and self._tls.key is not None:
            context.load_cert_chain(self._tls.certificate, self._tls.key, password=_no_password)
        return context


def _no_password() -> str:
    raise ValueError("the key has a password")


def connected(
    *, connections: int, stall: float, environ: Mapping[str, str], tls: PeerTls | None, names: Mapping[str, str] | None = None
) -> HttpTransport:
    """Return a transport for peers. `stall` in seconds. `names`: the name in the certificate of a peer, by its base URL."""
    direct = {name: value for name, value in environ.items() if not name.lower().endswith("_proxy")}
    return HttpTransport(
        connections=connections,
        timeout_stall=stall,
        read_buffer=_READ_BUFFER,
        environ=direct,
        context=PeerContext(tls) if tls is not None else None,
        advice=_ADVICE,
        server_names=names,
    )
