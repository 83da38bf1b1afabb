"""Removes artifacts: those that are named, or those that a rule chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fetcher.artifact import ArtifactRef, redact
from fetcher.cache.ruling import ruling
from fetcher.errors import CannotWrite, InUse, InUseUnknown, PinnedArtifact, StoreError
from fetcher.manifest import Manifest
from fetcher.planning.eviction import Kept, Resident, freed, least_recently_used
from fetcher.quantities import Amount
from fetcher.store.catalog import Entry, find
from fetcher.store.eviction import Doomed, Keeping, closed, doom, restore
from fetcher.store.limits import CacheLimits, read_limits, refuse_without_idle_time
from fetcher.store.occupancy import Occupancy, name_of, occupancy
from fetcher.store.room import idle_time
from fetcher.values import dataclass


@dataclass(frozen=True, slots=True)
class Removed:
    """An artifact that was removed, or would be. `bytes`: allocated by it. `last_used`: seconds since 1970."""

    key: str
    uri: str
    bytes: int
    last_used: float
    why: str


@dataclass(frozen=True, slots=True)
class Rule:
    """Remove least recently used artifacts until the root occupies at most `to`, and all that were unused `unused_for`
    seconds. None: not asked for."""

    to: Amount | None
    unused_for: float | None


@dataclass(frozen=True, slots=True)
class Pruned:
    """The result of a rule. `used`: bytes that the root occupies afterwards. `kept`: key → what kept an idle artifact.

    `short`: bytes that are still above the aim.
    """

    removed: tuple[Removed, ...]
    kept: dict[str, Kept]
    used: int
    short: int


def remove(root: Path, names: Sequence[str], *, force: bool, dry_run: bool) -> tuple[Removed, ...]:
    """Remove the artifacts with these keys or URIs, all or none.

    `force`: also if they were used recently and the filesystem does not tell who reads them.
    Raises NotFound, PinnedArtifact, InUse, InUseUnknown, StoreError, NewerFormat.
    """
    doomed: list[Doomed] = []
    with ruling(root, dry_run=dry_run) as (now, lease):
        entries = list({entry.key: entry for entry in (find(root, name) for name in names)}.values())
        seen = occupancy(root, now=now, min_idle=0.0)
        residents = {each.key: each for each in seen.residents}
        keeping = Keeping(root, now, None, force=force, ref_of=_ref_of)
        for entry in entries:
            found = residents.get(name_of(root, entry))  # none: the name is a directory elsewhere
            in_hub = entry.summary.snapshot is not None
            foreign = found is None or (found.kept == "foreign" and not in_hub)
            if reason := "foreign" if foreign else keeping.reason(entry):
                raise _refusal(root, entry, reason)
        if lease is not None:
            doomed, kept = doom(root, entries, keeping, stale=lease.stale, keep=lease.keep)
            if kept:
                restore(doomed)
                raise _refusal(root, *next((each, kept[each.key]) for each in entries if each.key in kept))
    for each in doomed:
        each.delete()
    return tuple(_removed(residents[name_of(root, entry)], seen, "named") for entry in entries)


def prune(root: Path, rule: Rule, *, min_idle: float | None, dry_run: bool) -> Pruned:
    """Remove the artifacts that `rule` chooses.

    What is pinned, held, leased, open, or used within `min_idle` seconds stays. Raises UsageError, StoreError.
    """
    doomed: list[Doomed] = []
    with ruling(root, dry_run=dry_run) as (now, lease):
        idle = _idle_time(root, min_idle)
        seen = occupancy(root, now=now, min_idle=idle)
        aim = CacheLimits(max_size=rule.to).bounds(root).max_size
        victims, kept = _chosen(root, seen, aim=aim, unused_since=None if rule.unused_for is None else now - rule.unused_for)
        if lease is not None:
            entries = [seen.artifacts[each.key] for each in victims]
            doomed, found = doom(root, entries, Keeping(root, now, idle), stale=lease.stale, keep=lease.keep)
            kept |= found
            victims = [each for each in victims if each.key not in found]
    for each in doomed:
        each.delete()
    used = seen.used - freed(victims, seen.residents)
    why = "least recently used" if rule.unused_for is None else "unused for too long"
    removed = tuple(_removed(each, seen, why) for each in victims)
    return Pruned(removed, kept, used, max(0, used - aim) if aim is not None else 0)


def _chosen(
    root: Path, seen: Occupancy, *, aim: int | None, unused_since: float | None
) -> tuple[list[Resident], dict[str, Kept]]:
    """Return the victims, and the idle artifacts that are open: key → reason."""
    kept: dict[str, Kept] = {}

    def choose(known: Mapping[str, Kept]) -> list[Resident]:
        residents = [replace(each, kept=known.get(each.key, each.kept)) for each in seen.residents]
        return _victims(residents, seen.used, aim=aim, unused_since=unused_since)

    return list(closed(root, seen.artifacts, choose, kept)), kept


def _victims(residents: Sequence[Resident], used: int, *, aim: int | None, unused_since: float | None) -> list[Resident]:
    movable = [each for each in residents if each.kept is None]
    chosen = [each for each in movable if unused_since is not None and each.last_used <= unused_since]
    if aim is None or used - freed(chosen, residents) <= aim:
        return chosen
    more = least_recently_used(residents, lambda made: used - made <= aim)
    return list(more) if more is not None else movable


def _idle_time(root: Path, min_idle: float | None) -> float:
    limits = read_limits(root)
    refuse_without_idle_time(root, limits.min_idle if min_idle is None else min_idle)
    return idle_time(limits, CacheLimits(min_idle=min_idle))


def _ref_of(manifest: Manifest) -> str:
    """Return the ref that a fetch of this manifest writes in the Hub's cache."""
    from fetcher.sources.addresses import hub_folder

    ref = ArtifactRef(manifest.uri, manifest.requested_revision, manifest.include, manifest.exclude)
    return hub_folder(ref)[1] or "main"


def _removed(resident: Resident, seen: Occupancy, why: str) -> Removed:
    uri = redact(seen.artifacts[resident.key].summary.uri)
    return Removed(resident.key, uri, sum(resident.blocks.values()), resident.last_used, why)


def _refusal(root: Path, entry: Entry, reason: Kept) -> StoreError:
    uri = redact(entry.summary.uri)
    named = f"{entry.key} ({uri})"
    match reason:
        case "pinned":
            return PinnedArtifact(f"{named} is pinned; run fetcher unpin {entry.key} first")
        case "foreign" if entry.summary.snapshot is not None:
            return CannotWrite(
                f"{named} shares its snapshot in the Hub's cache with another tool, by a ref or by files; remove it with "
                "hf cache rm"
            )
        case "foreign":
            return CannotWrite(
                f"{entry.path} also holds files that weightlift did not place, or is a mount point; remove it by hand"
            )
        case "unknown":
            return InUseUnknown(f"{named} was used within the last hour, and {root} does not tell who reads it; add --force")
        case "held":
            return InUse(f"{named} is held by a pod; run fetcher release {entry.key} once the pod is gone")
        case "leased":
            return InUse(f"{named} is being fetched or removed by another process; try again later")
        case _:
            return InUse(f"{named} is open in a process; stop that process, or try again later")
