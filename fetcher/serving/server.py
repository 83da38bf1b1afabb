"""A server of what one root has, on threads of its own, from its start until it is drained."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import field
from ipaddress import ip_address
from pathlib import Path

from fetcher.cache.offering import Offers, identity
from fetcher.certificates import CertificateFiles, Certificates
from fetcher.errors import ConfigurationError
from fetcher.serving.answering import Answerer
from fetcher.serving.authorization import Authorization, Caller, Verdict, anonymous
from fetcher.serving.connections import Connections
from fetcher.serving.counts import Counts
from fetcher.serving.limits import OTHER_ANSWERS, ServingLimits, Times
from fetcher.serving.maps import Maps
from fetcher.serving.pace import Rate
from fetcher.serving.places import Places
from fetcher.serving.sending import Sender
from fetcher.values import dataclass

_BACKLOG = 512
_LAST = 1.0
"""Seconds for threads to end after their connections were cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What is served where, to whom. `authorization` None: everybody, what is public, on loopback only.

    `named`: each caller has a certificate with a name of its own, by which it is told apart; else its address does that.
    """

    root: Path
    address: str = "127.0.0.1"
    port: int = 0
    authorization: Authorization | None = None
    certificates: CertificateFiles | None = None
    named: bool = False
    limits: ServingLimits = field(default_factory=ServingLimits)
    times: Times = field(default_factory=Times)

    @property
    def on_loopback(self) -> bool:
        with suppress(ValueError):
            return ip_address(self.address).is_loopback
        return False

    @property
    def mutual(self) -> bool:
        """Whether a client must show a certificate."""
        return self.certificates is not None and self.certificates.client_ca is not None

    def check(self) -> None:
        """Raises ConfigurationError if strangers could have what they should not."""
        if not self.on_loopback and self.authorization is None and not self.mutual:
            raise ConfigurationError(
                f"{self.address} is open to others: say who may fetch, with --auth-secret-file, --token-review or "
                "--tls-client-ca, or listen on 127.0.0.1"
            )


class Server:
    """Serves from its construction on, at the base URL `where`. `node`: the identity of its root, "" if it can have none."""

    def __init__(self, serving: Serving, *, warn: Callable[[str], None]) -> None:
        """Raises ConfigurationError. `warn` is called by threads, one at a time."""
        serving.check()
        self.counts = Counts()
        self.node = identity(serving.root)
        self._stopped = threading.Event()
        certificates = Certificates(serving.certificates, warn) if serving.certificates is not None else None
        limits, authorization = serving.limits, serving.authorization
        if authorization is None:
            authorization = _certified if serving.mutual else anonymous
        answerer = Answerer(
            offers=Offers(serving.root),
            maps=Maps(self.node),
            authorization=authorization,
            sender=Sender(Rate(limits.rate, time.monotonic), self.counts, self._stopped),
            counts=self.counts,
            places=Places(limits.uploads),
            private=certificates is not None or serving.on_loopback,
            named=serving.named,
        )
        most = limits.connections
        self._listener = _listening(serving)
        host, port = self._listener.getsockname()[:2]
        scheme = "https" if certificates is not None else "http"
        self.where = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        self._answers = ThreadPoolExecutor(limits.uploads + OTHER_ANSWERS, thread_name_prefix="answer")
        self._connections = Connections(
            self._listener, answerer, self._answers, most=most, times=serving.times, certificates=certificates
        )
        self._loop = threading.Thread(target=self._connections.run, name="serving", daemon=True)
        self._loop.start()

    def drain(self, seconds: float) -> bool:
        """Stop accepting, finish what is being sent within `seconds`, and cut the rest. Return whether nothing was cut."""
        self._connections.drain()
        self._loop.join(seconds)
        complete = not self._loop.is_alive() and not self._stopped.is_set()
        self.cut()
        self._loop.join(_LAST)
        self._answers.shutdown(wait=complete, cancel_futures=True)
        return complete

    def cut(self) -> None:
        """End every answer at once. For any thread."""
        self._stopped.set()
        self._connections.cut()


def _certified(caller: Caller, key: str) -> Verdict:  # noqa: ARG001 - an Authorization
    """Whoever could shake hands has shown a certificate."""
    return "granted"


def _listening(serving: Serving) -> socket.socket:
    family = socket.AF_INET6 if ":" in serving.address else socket.AF_INET
    try:
        listener = socket.create_server((serving.address, serving.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        problem = (error.strerror or str(error)).lower()
        where = f"{serving.address}, port {serving.port}"
        raise ConfigurationError(f"cannot listen on {where}: {problem}; choose another address or port") from error
    listener.setblocking(False)
    return listener
