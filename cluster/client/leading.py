"""Which of several controllers acts: the holder of a Lease of Kubernetes.

Clocks of machines differ, so the time in the Lease is never compared with ours: a lease has expired when we have seen no change
of it for its duration, by our own monotonic clock. A leader counts from before it sent the renewal that succeeded, so it stops
before anybody else can begin.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from cluster.client.api import Api
from cluster.client.endpoints import LEASES
from cluster.client.errors import ApiError, Conflict, Missing, NotLeading

DURATION = 15
"""Seconds without a change until others take the lease, as in Kubernetes' own controllers."""
DEADLINE = 10.0
"""Seconds without a renewal until the leader stops. The five seconds between the two are for requests on their way."""
RETRY = 2.0
"""Seconds between two looks."""

Step = Literal["create", "take", "renew", "wait"]


@dataclass(frozen=True, slots=True)
class Seen:
    """A Lease as it was seen. `record` is all that a holder changes, `since` our monotonic clock when it was first seen so."""

    holder: str
    duration: float
    record: tuple[str, str, int]
    since: float


def observed(document: Mapping[str, Any], before: Seen | None, now: float) -> Seen:
    """Return what a Lease says at the monotonic time `now`; an unchanged one has been so since `before`."""
    spec = document.get("spec") or {}
    holder, renewed = str(spec.get("holderIdentity") or ""), str(spec.get("renewTime") or "")
    record = (holder, renewed, int(spec.get("leaseTransitions") or 0))
    since = before.since if before is not None and before.record == record else now
    return Seen(holder, float(spec.get("leaseDurationSeconds") or DURATION), record, since)


def decide(seen: Seen | None, me: str, now: float) -> Step:
    """Return what the candidate `me` does about a Lease; None means that there is none."""
    if seen is None:
        return "create"
    if seen.holder == me:
        return "renew"
    return "take" if not seen.holder or now - seen.since > seen.duration else "wait"


class Leadership:
    """One candidate for a Lease. `check` is the guard of writes: it raises unless this process leads for certain."""

    def __init__(self, api: Api, *, name: str, namespace: str, identity: str) -> None:
        self._api = api
        self._name, self._namespace, self._identity = name, namespace, identity
        self._seen: Seen | None = None
        self._renewed: float | None = None

    def leads(self) -> bool:
        return self._renewed is not None and time.monotonic() - self._renewed < DEADLINE

    def check(self) -> None:
        """Raise NotLeading unless this process leads."""
        if not self.leads():
            raise NotLeading(f"lease {self._namespace}/{self._name}: {self._identity} is not the leader; nothing is written")

    async def acquire(self) -> None:
        """Wait until this process leads. An API server that does not answer is waited for."""
        while not self.leads():
            await self._step()
            if not self.leads():
                await asyncio.sleep(RETRY)

    async def keep(self) -> None:
        """Renew the lease until it is lost. Raises NotLeading then: the process shall end, since others may act."""
        while True:
            await asyncio.sleep(RETRY)
            self.check()  # before the step: a process that was stopped for long knows an old cluster, also if nobody took over
            await self._step()

    async def release(self) -> None:
        """Give the lease away, so that another candidate need not wait. Failing is harmless."""
        if self._seen is None or self._seen.holder != self._identity:
            return
        self._renewed = None
        try:
            await self._write(await self._api.get(LEASES, self._name, self._namespace), holder="")
        except ApiError:
            return

    async def _step(self) -> None:
        began = time.monotonic()
        try:
            document = await self._read()
            self._seen = None if document is None else observed(document, self._seen, began)
            if (step := decide(self._seen, self._identity, began)) == "wait":
                self._renewed = None
                return
            written = await self._write(document, holder=self._identity, taken=step == "take")
            self._seen = replace(observed(written, None, began), since=began)
            self._renewed = began
        except Conflict:  # another candidate was faster; the next look tells
            return
        except ApiError:
            return

    async def _read(self) -> dict[str, Any] | None:
        try:
            return await self._api.get(LEASES, self._name, self._namespace)
        except Missing:
            return None

    async def _write(self, document: dict[str, Any] | None, *, holder: str, taken: bool = False) -> dict[str, Any]:
        moment = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        before = (document or {}).get("spec") or {}
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": DURATION if holder else 1,
            "renewTime": moment,
            "acquireTime": before.get("acquireTime", moment) if not taken else moment,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (1 if taken else 0),
        }
        if document is None:
            metadata = {"name": self._name, "namespace": self._namespace}
            document = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata}
            return await self._api.create(LEASES, {**document, "spec": spec})
        return await self._api.replace(LEASES, {**document, "spec": spec})
