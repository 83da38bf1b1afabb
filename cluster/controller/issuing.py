"""Vouches for the nodes of pools in which peers are on: an authority in a Secret, and a certificate for each node that asks.

The Secret is part of the installation and empty at first; its content is made here, or by cert-manager. No other process reads
it. If it is emptied, a new authority is made; nodes that have certificates of both meanwhile take everything from the source.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from cluster.certificates import Authority, new_authority, now
from cluster.client import Api, ApiError
from cluster.client.endpoints import SECRETS
from cluster.controller.world import Cache, Peering, World
from cluster.secrets import SecretForbidden, SecretMissing, secret_of
from fetcher.errors import ConfigurationError, FetchError

CERTIFICATE, KEY = "tls.crt", "tls.key"
MADE = "weightlift.dev/authority"
"""An annotation of the Secret whose authority was made here: only that one is replaced here when it ends."""
_EVERY = 300.0
"""Seconds between two looks at the Secret."""
_AGAIN = 15.0
"""The same after a failure."""


@dataclass(frozen=True, slots=True)
class _Issued:
    """A certificate, for whom it is, and until when it need not be looked at, by the monotonic clock."""

    wanted: tuple[str, str]
    certificate: str
    due: float


class Issuer:
    """The certificates of nodes. `secret`: the name of the Secret in `namespace`."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        account: str,
        secret: str,
        *,
        on_problem: Callable[[FetchError], None],
        clock: Callable[[], float] = time.monotonic,
        calendar: Callable[[], datetime] = now,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._account = account
        self._secret = secret
        self._on_problem = on_problem
        self._clock = clock
        self._calendar = calendar
        self._authority: Authority | None = None
        self._problem: tuple[str, str] | None = None
        self._due = 0.0
        self._issued: dict[str, _Issued] = {}

    async def look(self, world: World) -> Peering:
        """Return what nodes need now."""
        pools = {name for name, pool in world.pools.items() if pool.spec.peers.mode == "On"}
        if self._clock() >= self._due:
            await self._renew()
        if self._authority is None:
            return Peering(problem=self._problem)
        asking = {
            node: cache
            for node, cache in world.caches.items()
            if cache.ours and cache.spec.pool in pools and cache.peer_address and cache.peer_key
        }
        self._issued = {node: self._certificate(self._authority, node, cache) for node, cache in asking.items()}
        return Peering(self._authority.pem, {node: each.certificate for node, each in self._issued.items() if each.certificate})

    async def _renew(self) -> None:
        try:
            authority = await self._read()
        except (ApiError, ConfigurationError, SecretMissing, SecretForbidden) as error:
            self._due = self._clock() + _AGAIN
            self._on_problem(error)
            self._problem = error.reason, str(error)  # who vouched until now goes on
            return
        if self._authority is None or self._authority.pem != authority.pem:
            self._issued.clear()
        self._authority, self._problem, self._due = authority, None, self._clock() + _EVERY

    async def _read(self) -> Authority:
        """Read the authority, or make one where there is none. Raises FetchError."""
        found = await secret_of(self._api, self._namespace, self._secret, [(self._namespace, self._account)])
        certificate, key = found.values.get(CERTIFICATE, b""), found.values.get(KEY, b"")
        if certificate and key:
            try:
                authority = Authority(certificate, key)
            except ConfigurationError as error:
                raise ConfigurationError(f"Secret {self._namespace}/{self._secret}: {error.message}; empty it") from error
            if MADE not in found.annotations or not authority.ends_soon(self._calendar()):
                return authority
        certificate, key = new_authority(self._calendar())
        uid, _, version = found.version.partition("/")
        data = {name: base64.b64encode(each).decode() for name, each in ((CERTIFICATE, certificate), (KEY, key))}
        metadata = {"uid": uid, "resourceVersion": version, "annotations": {MADE: "made"}}  # of exactly what was read
        await self._api.merge(SECRETS, self._secret, self._namespace, {"metadata": metadata, "data": data})
        return Authority(certificate, key)

    def _certificate(self, authority: Authority, node: str, cache: Cache) -> _Issued:
        wanted, now = (cache.peer_address, cache.peer_key), self._clock()
        before = self._issued.get(node)
        if before is not None and before.wanted == wanted and now < before.due:
            return before
        there = cache.spec.peers.certificate if cache.spec.peers is not None else None
        moment, due = self._calendar(), now + 3600.0
        try:
            if before is not None and before.wanted == wanted and before.certificate:
                there = before.certificate
            if there is not None and authority.vouches(there, node, *wanted, moment):
                return _Issued(wanted, there, due)
            return _Issued(wanted, authority.issue(node, *wanted, moment), due)
        except ConfigurationError as error:  # an agent that reports nonsense harms its own node alone
            self._on_problem(ConfigurationError(f"NodeCache {node}: {error.message}"))
            return _Issued(wanted, "", due)
