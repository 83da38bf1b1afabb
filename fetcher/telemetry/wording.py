"""The sentences that bar and log share, so that both say the same in the same words."""

from __future__ import annotations

from fetcher.events import (
    Committing,
    Copied,
    Event,
    Finished,
    LeaseWaiting,
    Linked,
    Listening,
    LoadPlanned,
    Mismatched,
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
    """`46 ms`, `0.4 s`, `29 s`, `3 min 5 s`, `2 h 10 min`."""
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
    """What goes on now, and how far it is: `3.2 GiB of 15.1 GiB (21 %), 412.0 MiB/s, 29 s left, 16 connections`."""
    match tally.phase:
        case "fetching":
            return f"{_position(tally)}, {_pace(tally)}, {counted(tally.connections, 'connection')}"
        case "verifying":
            files = f"{tally.verified} of {counted(tally.files, 'file')} verified"
            return f"checked {_position(tally)}, {_pace(tally)}, {files}"
        case "warming" | "loading" | "copying":
            return f"{tally.phase}: {_position(tally)}, {_pace(tally)}"
        case _:
            return _ELSE[tally.phase]


_ELSE = {
    "starting": "starting",
    "resolving": "asking the source",
    "waiting": "waiting for another process",
    "preparing": "looking at what is here already",
    "committing": "publishing",
    "done": "done",
}


def _position(tally: Tally) -> str:
    # A source that does not tell sizes may send more than was planned.
    if tally.position > tally.total or not tally.total:
        return size(tally.position)
    return f"{size(tally.position)} of {size(tally.total)} ({100 * tally.position // tally.total} %)"


def _pace(tally: Tally) -> str:
    rate, left = tally.rate(), tally.seconds_left()
    if rate <= 0:
        return "nothing is coming in" if tally.phase == "fetching" else "reading"
    return f"{size(rate)}/s, {duration(left)} left" if left is not None else f"{size(rate)}/s"


def counted(count: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def notable(event: Event) -> str | None:
    """One line for what a person wants to know when it happens; None for what only counts."""
    match event:
        case Resolved():
            at = f" at {event.revision}" if event.revision else ""
            return f"{event.uri}{at}: {counted(event.files, 'file')}, {size(event.bytes)}"
        case Planned() if event.held:
            return f"{size(event.held)} of {size(event.total)} are here already, checked"
        case Rechecked() if event.good < event.bytes:
            return f"{event.path}: {size(event.good)} of {size(event.bytes)} of an earlier attempt are good"
        case TakenOver():
            how = "continuing" if event.trusted else "continuing in new files"
            return f"{how} what {event.holder} left unfinished"
        case Retrying():
            where = f"{event.path}: " if event.path else ""
            return f"{event.reason}: {where}{event.message}; trying again in {duration(event.delay)}"
        case Mismatched():
            return (
                f"DigestMismatch: {event.path}: expected {event.expected}, got {event.actual}; "
                f"fetching it again ({event.attempt} of {event.limit})"
            )
        case Warned():
            return f"warning: {event.reason}: {event.message}"
        case Committing():
            return f"publishing {event.path}"
        case Finished():
            return summary(event)
    return _beside_the_fetch(event)


def _beside_the_fetch(event: Event) -> str | None:
    match event:
        case LoadPlanned() if event.held:
            return f"{size(event.held)} of {size(event.total)} are there already"
        case Warmed():
            return warmed(event)
        case Copied():
            return copied(event)
        case Pinned():
            return pinned(event)
        case Listening():
            return f"listening at {event.where}: {', '.join(event.paths)}"
        case Unpacked():
            return f"{event.path}: {counted(event.files, 'file')} unpacked, {size(event.bytes)}"
        case Linked():
            entries = f"{event.entries} entries" if event.entries != 1 else "1 entry"
            return f"{event.path}: linked to {entries} of {event.source}"
    return None


def waiting(event: LeaseWaiting) -> str:
    """What a waiter shows of the one it waits for."""
    progress = f", {size(event.fetched)} of {size(event.total)} fetched" if event.fetched and event.total else ""
    return f"waiting for {event.holder}, which fetches the same artifact{progress} ({duration(event.waited)})"


def summary(event: Finished) -> str:
    """The last words: what, how much, how fast, how sure, where."""
    stale = " (the source could not be asked for a newer one)" if event.stale else ""
    if event.cached:
        return f"already complete: {counted(event.files, 'file')}, {size(event.bytes)}{stale}"
    reused = f", {size(event.bytes_reused)} were here" if event.bytes_reused else ""
    sure = "every digest verified" if event.verified else "no digest published for some files: sizes and transfer checked"
    return (
        f"done: {counted(event.files, 'file')}, {size(event.bytes)} in {duration(event.seconds)}: "
        f"{size(event.bytes_fetched)} fetched{rate(event.bytes_fetched, event.seconds)}{reused}; {sure}"
    )


def warmed(event: Warmed) -> str:
    """The last words of a fetch that warms."""
    again = f"{size(event.read)} had to be read" if event.read else "nothing had to be read"
    return f"warm: {share(event.resident, event.bytes)} of {size(event.bytes)} in memory; {again}"


def copied(event: Copied) -> str:
    """The last words of a copy."""
    what = f"{counted(event.files, 'file')}, {size(event.bytes)}"
    if event.cached:
        return f"already complete: {what}"
    sure = "every chunk verified" if event.verified else "not verified: there is no manifest, only sizes were compared"
    return f"done: {what} in {duration(event.seconds)}{rate(event.bytes, event.seconds)}; {sure}"


def pinned(event: Pinned) -> str:
    """How things stand with what is kept in memory."""
    known = share(event.resident, event.total)
    how = f"{size(event.locked)} locked" if event.locked else "not locked"
    again = f", {size(event.rewarmed)} were read again" if event.rewarmed else ""
    return f"{'ready' if event.ready else 'not ready'}: {known} of {size(event.total)} resident, {how}{again}"


def share(part: int | None, total: int) -> str:
    """`100 %`, `99.9 %`, `0 %`, or that nobody knows. Only all of it is 100 %, only nothing is 0 %."""
    if part is None:
        return "unknown"
    if part >= total:
        return "100 %"
    return f"{min(max(100 * part / total, 0.1), 99.9):.1f} %" if part else "0 %"


def rate(count: int, seconds: float) -> str:
    """`, 1.3 GiB/s`; nothing where nothing moved."""
    return f", {size(count / seconds)}/s" if count and seconds > 0 else ""
