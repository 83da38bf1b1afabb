"""The sentences that bar and log share."""

from __future__ import annotations

from fetcher.artifact import ORIGIN
from fetcher.events import (
    Committing,
    Copied,
    Disputed,
    Event,
    Evicted,
    FileRepaired,
    Finished,
    LeaseWaiting,
    Linked,
    Listening,
    LoadPlanned,
    MirrorAvoided,
    MirrorBanned,
    Mismatched,
    Noted,
    PeersFound,
    Pinned,
    Planned,
    Rechecked,
    Resolved,
    Retrying,
    TakenOver,
    Unpacked,
    Warmed,
    Warned,
)
from fetcher.quantities import size
from fetcher.telemetry.tally import Tally


def duration(seconds: float) -> str:
    """Return `46 ms`, `0.4 s`, `29 s`, `3 min 5 s` or `2 h 10 min`."""
    if seconds < 0.095:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def progress(tally: Tally) -> str:
    """Return the present progress: `3.2 GiB of 15.1 GiB (21 %), 412.0 MiB/s, 29 s left, 16 connections`."""
    match tally.phase:
        case "fetching":
            return f"{_position(tally)}, {_pace(tally)}, {counted(tally.connections, 'connection')}"
        case "verifying":
            files = f"{tally.verified} of {counted(tally.files, 'file')} verified"
            return f"checked {_position(tally)}, {_pace(tally)}, {files}"
        case "warming" | "loading" | "copying":
            return f"{tally.phase}: {_position(tally)}, {_pace(tally)}"
        case _:
            return _WITHOUT_MEASURE[tally.phase]


_WITHOUT_MEASURE = {
    "starting": "starting",
    "resolving": "asking the source",
    "waiting": "waiting for another process",
    "preparing": "checking files that are already present",
    "committing": "moving files into place",
    "done": "done",
}


def _position(tally: Tally) -> str:
    # A source that does not give sizes may send more than planned.
    if tally.position > tally.total or not tally.total:
        return size(tally.position)
    return f"{size(tally.position)} of {size(tally.total)} ({100 * tally.position // tally.total} %)"


def _pace(tally: Tally) -> str:
    rate, left = tally.rate(), tally.seconds_left()
    if rate <= 0:
        return "no data arriving" if tally.phase == "fetching" else "reading"
    return f"{size(rate)}/s, {duration(left)} left" if left is not None else f"{size(rate)}/s"


def counted(count: int, noun: str) -> str:
    """Return `1 file` or `2 files`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def notable(event: Event) -> str | None:
    """Return a line for an event that a person wants to see at once; None for an event that is only counted."""
    match event:
        case Resolved():
            at = f" at {event.revision}" if event.revision else ""
            return f"{event.uri}{at}: {counted(event.files, 'file')}, {size(event.bytes)}"
        case Planned() if event.held:
            return f"{size(event.held)} of {size(event.total)} already present and checked"
        case Rechecked() if event.good < event.bytes:
            return f"{event.path}: {size(event.good)} of {size(event.bytes)} from an earlier attempt are intact"
        case TakenOver():
            into = "" if event.trusted else " in new files"
            return f"continuing the unfinished fetch of {event.holder}{into}"
        case Retrying():
            where = f"{event.path}: " if event.path else ""
            return f"{event.reason}: {where}{event.message}; retrying in {duration(event.delay)}"
        case Mismatched():
            return (
                f"DigestMismatch: {event.path}: expected {event.expected}, got {event.actual}; "
                f"fetching it again (attempt {event.attempt} of {event.limit})"
            )
        case Warned():
            return f"warning: {event.reason}: {event.message}"
        case Committing():
            return f"moving files into {event.path}"
        case Finished():
            return summary(event)
    return _notable_of_mirrors(event)


def _notable_of_mirrors(event: Event) -> str | None:
    match event:
        case PeersFound():
            whose = "what this node has is passed on" if event.passed_on else "no server here passes on what this node has"
            return f"found {event.peers} of {event.asked} peers with this artifact; {whose}"
        case MirrorAvoided():
            return f"MirrorFailed: {event.mirror}: {event.message}; its ranges come from elsewhere for a while"
        case Disputed():
            whose = f"that came from {event.supplier}" if event.supplier else "that an earlier attempt brought"
            return f"DigestMismatch: {event.path}: fetching again {size(event.bytes)} {whose}"
        case MirrorBanned():
            return f"warning: MirrorBanned: {event.mirror} sent other bytes of {event.path}; it is asked for nothing more"
    return _notable_outside_the_fetch(event)


def _notable_outside_the_fetch(event: Event) -> str | None:
    match event:
        case LoadPlanned() if event.held:
            return f"{size(event.held)} of {size(event.total)} already present"
        case Warmed():
            return warmed(event)
        case Copied():
            return copied(event)
        case Pinned():
            return pinned(event)
        case Evicted():
            return f"evicted {event.key} to make room, {size(event.bytes)}"
        case FileRepaired():
            return f"{event.path}: repaired, {size(event.fetched)} of {size(event.size)} fetched"
        case Unpacked():
            return f"{event.path}: {counted(event.files, 'file')} unpacked, {size(event.bytes)}"
        case Linked():
            entries = f"{event.entries} entries" if event.entries != 1 else "1 entry"
            return f"{event.path}: linked to {entries} of {event.source}"
    return _notable_of_a_service(event)


def _notable_of_a_service(event: Event) -> str | None:
    match event:
        case Listening():
            return f"listening at {event.where}: {', '.join(event.paths)}"
        case Noted():
            return f"{event.subject}: {event.message}"
    return None


def waiting(event: LeaseWaiting) -> str:
    """Return the line of a process that waits for another one."""
    progress = f": {size(event.fetched)} of {size(event.total)} fetched" if event.fetched and event.total else ""
    return f"waiting for {event.holder}, which is fetching the same artifact{progress} (waited {duration(event.waited)})"


def summary(event: Finished) -> str:
    """Return the last line of a fetch: files, size, time, rate and how they were verified."""
    stale = " (could not ask the source for a newer version)" if event.stale else ""
    if event.cached:
        return f"already complete: {counted(event.files, 'file')}, {size(event.bytes)}{stale}"
    reused = f", {size(event.bytes_reused)} reused" if event.bytes_reused else ""
    checks = "every digest verified" if event.verified else f"not every file has a published digest: {_checks(event)}"
    return (
        f"done: {counted(event.files, 'file')}, {size(event.bytes)} in {duration(event.seconds)}: "
        f"{size(event.bytes_fetched)} fetched{_sources(event)}{rate(event.bytes_fetched, event.seconds)}{reused}; {checks}"
    )


def _sources(event: Finished) -> str:
    """Who sent the bytes, if not the origin alone: ` (1.0 GiB from origin, 3.0 GiB from http://node:8650)`."""
    if event.bytes_from.keys() <= {ORIGIN}:
        return ""
    return f" ({', '.join(f'{size(count)} from {supplier}' for supplier, count in sorted(event.bytes_from.items()))})"


def _checks(event: Finished) -> str:
    """The number of files by what each was compared with."""
    ways = {name: "only by size and transfer" if name == "size" else f"by {name}" for name in event.verified_by}
    return "verified " + ", ".join(f"{event.verified_by[name]} {way}" for name, way in ways.items())


def warmed(event: Warmed) -> str:
    """Return the last line of a fetch with --warm."""
    read = f"{size(event.read)} read" if event.read else "nothing had to be read"
    return f"warm: {share(event.resident, event.bytes)} of {size(event.bytes)} in memory; {read}"


def copied(event: Copied) -> str:
    """Return the last line of a copy."""
    extent = f"{counted(event.files, 'file')}, {size(event.bytes)}"
    if event.cached:
        return f"already complete: {extent}"
    checks = "every chunk verified" if event.verified else "not verified: no manifest, so only sizes were compared"
    return f"done: {extent} in {duration(event.seconds)}{rate(event.bytes, event.seconds)}; {checks}"


def pinned(event: Pinned) -> str:
    """Return the state of the files that are kept in memory."""
    known = share(event.resident, event.total)
    how = f"{size(event.locked)} locked" if event.locked else "not locked"
    again = f", {size(event.rewarmed)} read again" if event.rewarmed else ""
    return f"{'ready' if event.ready else 'not ready'}: {known} of {size(event.total)} resident, {how}{again}"


def share(part: int | None, total: int) -> str:
    """Return `100 %`, `99.9 %`, `0 %` or `unknown`. 100 % means all of it, 0 % means none of it."""
    if part is None:
        return "unknown"
    if part >= total:
        return "100 %"
    return f"{min(max(100 * part / total, 0.1), 99.9):.1f} %" if part else "0 %"


def rate(count: int, seconds: float) -> str:
    """Return `, 1.3 GiB/s`, or an empty string if nothing was moved."""
    return f", {size(count / seconds)}/s" if count and seconds > 0 else ""
