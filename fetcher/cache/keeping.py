"""Limits of a root, pins and holds: what keeps artifacts in a cache."""

from __future__ import annotations

import time
from pathlib import Path

from fetcher.filesystem import make_directory, storing
from fetcher.store import ballast
from fetcher.store.catalog import Entry, find
from fetcher.store.claims import Claim, claim, claims, unclaim
from fetcher.store.limits import CacheLimits, read_limits, write_limits
from fetcher.values import dataclass


@dataclass(frozen=True, slots=True)
class Standing:
    """The pins and holds of one artifact that last."""

    entry: Entry
    claims: tuple[Claim, ...]


def init(root: Path, limits: CacheLimits) -> CacheLimits:
    """Create `root` if it is missing, and set its limits. Return all of its limits: those that are not given stay.

    Raises UsageError, NewerFormat, StoreError.
    """
    with storing("initialize the cache"):
        make_directory(root)
        before = read_limits(root)
        merged = CacheLimits(
            limits.max_size if limits.max_size is not None else before.max_size,
            limits.min_free if limits.min_free is not None else before.min_free,
            limits.min_idle if limits.min_idle is not None else before.min_idle,
        )
        write_limits(root, merged)
        ballast.load(root)
    return merged


def pin(root: Path, what: str, *, seconds: float | None) -> Standing:
    """Keep the artifact with the key or URI `what` for `seconds`, or for good. Raises NotFound, NewerFormat, StoreError."""
    entry = find(root, what)
    return _claimed(root, entry, Claim(entry.key, "pin", _until(seconds)))


def unpin(root: Path, what: str) -> Standing:
    """Remove the pin of an artifact. Without a pin nothing happens. Raises NotFound, NewerFormat, StoreError."""
    return _unclaimed(root, find(root, what), "pin", "")


def hold(root: Path, what: str, *, holder: str, seconds: float | None) -> Standing:
    """Keep an artifact for the pod `holder`, for `seconds` or until `release`. Raises as `pin`, and UsageError."""
    entry = find(root, what)
    return _claimed(root, entry, Claim(entry.key, "hold", _until(seconds), holder))


def release(root: Path, what: str, *, holder: str | None) -> Standing:
    """Remove the hold of the pod `holder`; of all pods if it is None. Raises NotFound, NewerFormat, StoreError."""
    return _unclaimed(root, find(root, what), "hold", holder)


def standing(root: Path, entry: Entry) -> Standing:
    """Return the pins and holds of `entry` that last. Raises OSError."""
    now = time.time()
    return Standing(entry, tuple(each for each in claims(root, entry.key).get(entry.key, ()) if each.lasts(now)))


def _claimed(root: Path, entry: Entry, record: Claim) -> Standing:
    with storing(f"record the {record.kind}"):
        claim(root, record)
        return standing(root, entry)


def _unclaimed(root: Path, entry: Entry, kind: str, holder: str | None) -> Standing:
    with storing(f"remove the {kind}"):
        for each in claims(root, entry.key).get(entry.key, ()):
            if each.kind == kind and holder in (None, each.holder):
                unclaim(root, each)
        return standing(root, entry)


def _until(seconds: float | None) -> float | None:
    return None if seconds is None else time.time() + seconds
