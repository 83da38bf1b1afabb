"""Which of several controllers acts: the holder of a Lease of Kubernetes.

Clocks of machines differ, so the time in the Lease is never compared with ours: a lease has expired when we have seen no change
of it for its duration, by our own clock. A leader counts from before it sent the renewal that succeeded, so it stops before
anybody else can begin.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from cluster.client.api import Api
from cluster.client.endpoints import LEASES
from cluster.client.errors import ApiError, Conflict, Missing, NotLeading
from cluster.resources.moments import now_precisely


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. `deadline`: without a renewal for so long, the leader stops. The time from there to the end of `duration` is for
    requests on their way."""

    duration: int = 15
    """Without a change until others take the lease, as in Kubernetes' own controllers."""
    deadline: float = 10.0
    retry: float = 2.0
    """Between two looks."""

    @property
    def step(self) -> float:
        """The longest that one look and its write may take."""
        return self.duration - self.deadline


TIMING = Timing()
_MOMENT = 0.05
"""Seconds after the end of a Lease, which is over when more than its duration has passed."""

Step = Literal["create", "take", "renew", "wait"]


@dataclass(frozen=True, slots=True)
class Seen:
    """A Lease as it was seen. `record` is all that a holder changes, `since` our clock when it was first seen so."""

    holder: str
    duration: float
    record: tuple[str, str, int]
    since: float


def observed(document: Mapping[str, Any], before: Seen | None, now: float, *, duration: float = TIMING.duration) -> Seen:
    """Return what a Lease says at `now`; an unchanged one has been so since `before`. `duration` is that of one without."""
    spec = document.get("spec") or {}
    holder, renewed = str(spec.get("holderIdentity") or ""), str(spec.get("renewTime") or "")
    record = (holder, renewed, int(spec.get("leaseTransitions") or 0))
    since = before.since if before is not None and before.record == record else now
    return Seen(holder, float(spec.get("leaseDurationSeconds") or duration), record, since)


def decide(seen: Seen | None, me: str, now: float, *, exists: bool = True) -> Step:
    """Return what the candidate `me` does about a Lease. `seen` is its last sight, also if it does not exist any more.

    Somebody may delete the Lease of a leader, which learns of it at its next look: the others wait as if it were there.
    """
    if seen is None:
        return "create"
    mine, over = seen.holder == me, not seen.holder or now - seen.since > seen.duration
    if not exists:
        return "create" if mine or over else "wait"
    if mine:
        return "renew"
    return "take" if over else "wait"


def wait_of(seen: Seen | None, now: float, *, retry: float) -> float:
    """Return the seconds until a candidate looks again: when the Lease that it has `seen` is over, if that is sooner."""
    left = seen.since + seen.duration - now if seen is not None and seen.holder else retry
    return min(retry, left + _MOMENT) if left > 0 else retry


def boottime() -> float:
    """Seconds on a clock that goes on while the machine is suspended: a leader that wakes up knows that its time is over."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _ignored(_: ApiError) -> None:
    """Tell nobody."""


class Leadership:
    """One candidate for a Lease. `check` is the guard of writes: it raises unless this process leads for certain.

    `identity` names the process for people; a random part is added, so that a process never takes the lease of another one,
    or of its own predecessor, for its own. `on_problem` is told why the lease cannot be had, at each look.
    """

    def __init__(
        self,
        api: Api,
        *,
        name: str,
        namespace: str,
        identity: str,
        timing: Timing = TIMING,
        clock: Callable[[], float] = boottime,
        on_problem: Callable[[ApiError], None] = _ignored,
    ) -> None:
        self._api = api.unguarded()
        self._name, self._namespace = name, namespace
        self.identity = f"{identity}_{uuid.uuid4().hex[:12]}"
        self._timing = timing
        self._clock = clock
        self._on_problem = on_problem
        self._seen: Seen | None = None
        self._renewed: float | None = None

    def leads(self) -> bool:
        return self._left(self._timing.deadline) > 0

    def check(self) -> float:
        """Return the seconds until another process may lead. Raises NotLeading unless this one leads."""
        if not self.leads():
            raise NotLeading(f"lease {self._namespace}/{self._name}: {self.identity} is not the leader; nothing is written")
        return self._left(self._timing.duration)

    async def acquire(self) -> None:
        """Wait until this process leads. An API server that does not answer is waited for."""
        while not self.leads():
            await self._step(self._timing.step)
            if not self.leads():
                await asyncio.sleep(wait_of(self._seen, self._clock(), retry=self._timing.retry))

    async def keep(self) -> None:
        """Renew the lease until it is lost. Raises NotLeading then: the process shall end, since others may act."""
        while True:
            await asyncio.sleep(min(self._timing.retry, max(0.0, self._left(self._timing.deadline))))
            self.check()  # before the step: a process that was stopped for long knows an old cluster, also if nobody took over
            await self._step(min(self._timing.step, self._left(self._timing.deadline)))

    async def release(self) -> None:
        """Give the lease away, so that another candidate need not wait. Failing is harmless.

        The Lease itself tells whether it is ours: the answer to a request that a signal cut off was not seen.
        """
        self._renewed = None
        try:
            async with asyncio.timeout(self._timing.step):
                while not await self._given_away():
                    pass
        except (ApiError, TimeoutError):
            return

    async def _given_away(self) -> bool:
        """Give the lease away if it is ours. Return whether that is settled; a renewal on its way may change it meanwhile."""
        document = await self._read()
        if document is None or observed(document, None, 0.0).holder != self.identity:
            return True
        try:
            await self._write(document, holder="")
        except Conflict:
            return False
        return True

    def _left(self, seconds: float) -> float:
        """Return how much is left of so many seconds since the last renewal."""
        return seconds - (self._clock() - self._renewed) if self._renewed is not None else 0.0

    async def _step(self, within: float) -> None:
        """Look once, and create, take or renew the Lease if it is ours to do so."""
        try:
            async with asyncio.timeout(within):
                try:
                    await self._look()
                except Conflict:  # somebody was faster, so look at what that made of it
                    await self._look()
        except Conflict:
            return
        except ApiError as error:
            self._on_problem(error)
        except TimeoutError:
            self._on_problem(ApiError(f"lease {self._namespace}/{self._name}: no answer in {within:.1f} s"))

    async def _look(self) -> None:
        began = self._clock()
        document = await self._read()
        if document is not None:
            self._seen = observed(document, self._seen, began, duration=self._timing.duration)
        step = decide(self._seen, self.identity, began, exists=document is not None)
        if step == "wait":
            self._renewed = None
            return
        written = await self._write(document, holder=self.identity, taken=step == "take")
        self._seen = replace(observed(written, None, began, duration=self._timing.duration), since=began)
        self._renewed = began

    async def _read(self) -> dict[str, Any] | None:
        try:
            return await self._api.get(LEASES, self._name, self._namespace)
        except Missing:
            return None

    async def _write(self, document: dict[str, Any] | None, *, holder: str, taken: bool = False) -> dict[str, Any]:
        moment = now_precisely()
        before = (document or {}).get("spec") or {}
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": self._timing.duration if holder else 1,
            "renewTime": moment,
            "acquireTime": before.get("acquireTime", moment) if not taken else moment,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (1 if taken else 0),
        }
        if document is None:
            metadata = {"name": self._name, "namespace": self._namespace}
            document = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata}
            return await self._api.create(LEASES, {**document, "spec": spec})
        return await self._api.replace(LEASES, {**document, "spec": spec})
