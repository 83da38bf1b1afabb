"""What the agent remembers, and how each event changes it. Pure.

A NodeCache that is missing, or that this process has never seen, changes nothing: missing means unknown.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from cluster.agent.states import Attempt, Lying, Memory, Wanted
from cluster.mappings import only, without
from cluster.resources import Observed
from fetcher.errors import CacheBusy, FetchError, OutOfSpace
from fetcher.quantities import doubled

APART = 30.0
"""Seconds between two looks that must both miss an entry before its artifact counts as unwanted."""
FIRST_WAIT, LONGEST_WAIT = 30.0, 600.0
"""Seconds until a fetch that may succeed later is tried again: doubled each time."""
FINAL = 3600.0
"""Seconds until a fetch that failed for good is tried all the same: somebody may have repaired what we cannot see."""
_NO_ROOM = ("Capacity", "CapacityExceeded")
_LONGEST = 1000
"""Characters of a message in a status."""


def looked(memory: Memory, uid: str, wanted: Iterable[str], now: float) -> Memory:
    """Return the memory after a look at the NodeCache `uid` with entries of the keys `wanted`.

    A NodeCache with another UID is another intent: what was fetched for the former one is nobody's orphan.
    """
    keys = frozenset(wanted)
    if uid != memory.uid:
        attempts = {key: each for key, each in memory.attempts.items() if key in keys}
        return replace(memory, uid=uid, seen=keys, gone={}, unwanted={}, strays={}, fetched=frozenset(), attempts=attempts)
    missing = memory.seen - keys
    gone = {key: memory.gone.get(key, now) for key in missing}
    unwanted = {key: memory.unwanted.get(key, now) for key in missing if key in memory.unwanted or now - gone[key] >= APART}
    return replace(
        memory,
        seen=memory.seen | keys,
        gone=gone,
        unwanted=unwanted,
        evicted=memory.evicted & keys,
        damaged=only(memory.damaged, keys),
        attempts=only(memory.attempts, keys),
    )


def adopted(memory: Memory, observed: Mapping[str, Observed]) -> Memory:
    """Return the memory with what an earlier process of this node reported.

    What was evicted would be fetched by each restart otherwise, what is damaged would count as Ready until the next scrub, and
    nobody else knows who sent what lies there.
    """
    damaged = {key: each.message or "it was damaged" for key, each in observed.items() if each.phase == "Damaged"}
    brought = {
        key: (each.from_origin, each.from_peers)
        for key, each in observed.items()
        if each.from_origin is not None and each.from_peers is not None
    }
    return replace(
        memory,
        evicted=memory.evicted | {key for key, each in observed.items() if each.phase == "Evicted"},
        damaged={**damaged, **memory.damaged},
        brought={**brought, **memory.brought},
    )


def surveyed(memory: Memory, lying: Mapping[str, Lying], now: float) -> Memory:
    """Return the memory after a survey: what lies there again is not evicted, and what is gone is not damaged.

    What we hold without having seen an entry for it is of an earlier process: it saw the entry, and perhaps not its end.
    """
    keys = lying.keys()
    strays = [key for key, each in lying.items() if each.ours and key not in memory.seen]
    return replace(
        memory,
        strays={key: memory.strays.get(key, now) for key in strays},
        evicted=memory.evicted - keys,
        fetched=memory.fetched & keys,
        confirmed=only(memory.confirmed, keys),
        damaged=only(memory.damaged, keys),
        brought=only(memory.brought, keys),
    )


def completed(memory: Memory, wanted: Wanted, *, cached: bool, brought: tuple[int, int] | None = None) -> Memory:
    """Return the memory after `wanted` was fetched and compared with its listing, or was found complete (`cached`).

    `brought`: the bytes that its source and peers have sent, if peers were asked.
    """
    return replace(
        memory,
        brought={**memory.brought, wanted.key: brought} if brought is not None and not cached else memory.brought,
        fetched=memory.fetched if cached else memory.fetched | {wanted.key},
        evicted=memory.evicted - {wanted.key},
        confirmed={**memory.confirmed, wanted.key: (wanted.revision, wanted.listing_digest)},
        damaged=without(memory.damaged, wanted.key),
        attempts=without(memory.attempts, wanted.key),
    )


def evicted(memory: Memory, key: str) -> Memory:
    """Return the memory after the artifact `key` made room for another one."""
    return replace(memory, evicted=memory.evicted | {key})


def damaged(memory: Memory, key: str, problem: str) -> Memory:
    """Return the memory after a scrub found the artifact `key` damaged."""
    return replace(memory, damaged={**memory.damaged, key: problem[:_LONGEST]})


def failed(
    memory: Memory,
    wanted: Wanted,
    error: FetchError,
    versions: tuple[str, ...],
    *,
    now: float,
    jitter: float,
    bound: str = "",
) -> Memory:
    """Return the memory after a fetch or repair of `wanted` failed. `jitter` from 0 to 1 spreads the nodes' next tries.

    `bound`: what bounds the root besides the pool's limit, which a lack of room then names.
    """
    before = memory.attempts.get(wanted.key)
    failures = before.failures + 1 if before is not None else 1
    reason, final = _outcome(error)
    if final:
        wait = FINAL
    else:
        backoff = doubled(FIRST_WAIT, failures, LONGEST_WAIT)
        wait = max(float(getattr(error, "retry_after", None) or 0.0), backoff * (1 + jitter / 4))
    message = error.sentence().removeprefix(f"{error.reason}: ")
    if bound and reason in _NO_ROOM:
        message = f"{bound}: {message}"
    attempt = Attempt(wanted, reason, message[:_LONGEST], final, failures, now + wait, versions)
    return replace(memory, attempts={**memory.attempts, wanted.key: attempt})


def retried(memory: Memory, key: str) -> Memory:
    """Return the memory without the last failure of `key`: what it rested on has changed."""
    return replace(memory, attempts=without(memory.attempts, key))


def resized(memory: Memory) -> Memory:
    """Return the memory after the limits changed: what had no room may have it now."""
    return _untried(memory, _NO_ROOM)


def roomier(memory: Memory) -> Memory:
    """Return the memory after something may make room that was spared before: what waited for that is tried at once."""
    return _untried(memory, ("Capacity",))


def _untried(memory: Memory, reasons: Collection[str]) -> Memory:
    """Return the memory without the failures for these reasons."""
    return replace(memory, attempts={key: each for key, each in memory.attempts.items() if each.reason not in reasons})


def _outcome(error: FetchError) -> tuple[str, bool]:
    """Return the reason word of a failure, and whether trying again alone cannot help."""
    match error:
        case OutOfSpace():
            return "CapacityExceeded", True
        case CacheBusy():
            return "Capacity", False
        case _:
            return error.reason, not error.retryable
