"""Files brought into the page cache: in windows, a bounded number at a time, in the order in which an engine reads them.

What is there already is skipped. What was read is looked at again, for a page that was read is not a page that stayed.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fetcher.events import BytesLoaded, LoadEnded, LoadPlanned, Subscriber, silent
from fetcher.host.memory import Bound
from fetcher.quantities import size
from loader.contents import Member
from loader.crew import OwnBuffer, each
from loader.dropping import refuse_dropped_pages
from loader.errors import NotResident, TooLarge
from loader.filesystems import filesystem_of
from loader.kernel import PAGE, cache_counts, tells_truth
from loader.paging import Stretch
from loader.residency import Residency, glance, measure, together
from loader.windows import Window, fitting, joined

Means = Literal["preadv", "populate"]
"""`preadv`: into a scratch buffer. `populate`: MADV_POPULATE_READ, which copies nothing."""

PASSES = 3
"""Where memory is tight the kernel may take early pages for late ones; what is missing is then read again, so often."""

_PIECE = 8 * 1024 * 1024
"""Bytes of one preadv. Large, as the kernel reads no further ahead than it is asked to where read-ahead is small (NFS)."""

_POPULATED = frozenset({"ext4", "xfs", "btrfs", "f2fs"})
"""Where page faults read ahead from a local disk as far as reads do. On a network they wait for one small read each."""

_SURE = ("memory", "mincore", "faults", "cachestat")
"""The ways of looking after which what is missing is missing."""


@dataclass(frozen=True, slots=True)
class Warmed:
    """`bytes` in `files` were to be warm, of which `read` were read, by `means`; in memory `before` and `after`."""

    files: int
    bytes: int
    read: int
    seconds: float
    before: Residency
    after: Residency
    means: tuple[Means, ...]


def what_fits(plan: Sequence[Window], left: Bound, *, partial: bool) -> tuple[Window, ...]:
    """The windows that memory has room for. Raises TooLarge unless these are all, or `partial` and there are any."""
    taken = fitting(plan, left.bytes)
    if len(taken) == len(plan) or (partial and taken):
        return taken
    wanted, fits = bytes_in(plan), bytes_in(taken)
    remedy = f"raise that, or `loader warm --partial` brings in the first {size(fits)}" if taken else "raise that"
    raise TooLarge(
        f"{size(wanted)} are to be in memory at once, and it has room for {size(left.bytes)} ({left.reason}); {remedy}"
    )


def warm(chosen: Sequence[Member], plan: Sequence[Window], *, threads: int, on_event: Subscriber) -> Warmed:
    """Bring in the windows of `plan`, which are parts of the files `chosen`, and wait until they are there.

    Raises NotResident when they are known not to stay, PagesDropped when that is the mount's doing, and NotFound, NotReadable,
    LocalIOError, FileReplaced.
    """
    began, files = time.monotonic(), len({window.number for window in plan})
    before = residency_of(chosen, plan, threads=threads, closely=False)
    after = residency_of(chosen, plan, threads=threads) if before.complete else before
    work = _Warming(chosen, on_event)
    on_event(LoadPlanned("warming", files, before.total, before.total if after.complete else 0))
    for attempt in range(PASSES):
        if after.complete:
            break
        each(plan, work.insist if attempt else work.bring_in, threads=threads)
        after = residency_of(chosen, plan, threads=threads)
        if not known_to_lack(after):
            break
    on_event(LoadEnded())
    if not after.complete:
        refuse_dropped_pages(chosen[number] for number in {window.number for window in plan})
    if known_to_lack(after):
        raise NotResident(
            f"{size(after.missing)} of {size(after.total)} did not stay in memory, though read {PASSES} times: something "
            "takes them away as they come, such as a memory limit or a DAMON scheme; `loader pin` locks them"
        )
    return Warmed(files, before.total, work.read, time.monotonic() - began, before, after, tuple(sorted(work.means)))


def bring_in(chosen: Sequence[Member], plan: Iterable[Window], *, threads: int) -> None:
    """Once, not looking whether it stays: ahead of somebody who reads it anyway. Raises what `warm` does but NotResident."""
    each(plan, _Warming(chosen, silent).bring_in, threads=threads)


def residency_of(chosen: Sequence[Member], plan: Sequence[Window], *, threads: int, closely: bool = True) -> Residency:
    """How much of these windows is in memory: measured, or at a glance. Several at a time: 15 ms a GiB are 12 s of 800."""
    seen: list[Residency] = []

    def look(stretch: Window) -> None:
        seen.append(chosen[stretch.number].residency(stretch.part, closely=closely))

    each(joined(plan), look, threads=threads)
    return together(seen)


def known_to_lack(seen: Residency) -> bool:
    """Whether something is missing for sure."""
    return seen.method in _SURE and not seen.complete


def bytes_in(plan: Sequence[Window]) -> int:
    return sum(window.size for window in plan)


class _Warming:
    """What the threads share: how much was read, and each one's buffer."""

    def __init__(self, chosen: Sequence[Member], on_event: Subscriber) -> None:
        self._chosen = chosen
        self._on_event = on_event
        self._one_at_a_time = threading.Lock()
        self._buffer = OwnBuffer(_PIECE)
        self._kinds: dict[int, str] = {}
        self.read = 0
        self.means: set[Means] = set()

    def bring_in(self, window: Window) -> None:
        """The first time. What is on its way already, by read-ahead or by another process, is left to arrive."""
        self._unless(window, _on_its_way)
        with self._one_at_a_time:
            self._on_event(BytesLoaded(self._chosen[window.number].path, window.size))

    def insist(self, window: Window) -> None:
        """What was on its way is waited for; what came and went is read again."""
        self._unless(window, _there)

    def _unless(self, window: Window, there: Callable[[int, Window], bool]) -> None:
        member = self._chosen[window.number]
        with member.opened() as descriptor:
            if there(descriptor, window):
                return
            means = self._populate(descriptor, window, member) or self._read(descriptor, window)
            member.identity.check(descriptor, path=member.path)
        with self._one_at_a_time:
            self.read += window.size
            self.means.add(means)

    def _populate(self, descriptor: int, window: Window, member: Member) -> Means | None:
        """None where that is not the way, or did not succeed: reading is, or says what is wrong."""
        if self._kind(member) not in _POPULATED:
            return None
        try:
            with Stretch(descriptor, window.part.start, window.size) as stretch:
                stretch.populate()
        except OSError:
            return None
        return "populate"

    def _read(self, descriptor: int, window: Window) -> Means:
        buffer = self._buffer.mine
        position = window.part.start
        while position < window.part.stop:
            count = os.preadv(descriptor, [buffer[: window.part.stop - position]], position)
            if count == 0:
                break  # it was cut off; its identity says so
            position += count
        return "preadv"

    def _kind(self, member: Member) -> str:
        """Asked once a filesystem: a node has thousands of mounts to look through."""
        device = member.identity.device
        if device not in self._kinds:
            self._kinds[device] = filesystem_of(Path(member.path)).kind
        return self._kinds[device]


def _on_its_way(descriptor: int, window: Window) -> bool:
    """Whoever has to sample would disturb a cold file more than reading a warm one costs."""
    cheap = cache_counts(descriptor, 0, PAGE) is not None or tells_truth(descriptor)
    return cheap and glance(descriptor, window.part).complete


def _there(descriptor: int, window: Window) -> bool:
    return tells_truth(descriptor) and measure(descriptor, window.part).complete
