"""Keeps artifacts in memory by the loader: one check after the other, on a thread, so that the disk reads one model at a time.

A thread, and no process: the loader maps files and never touches the mapped pages, so nothing can crash but the kernel, and a
second interpreter would cost 20 MiB. The kernel releases what is locked when the agent ends, however it ends.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.agent.notices import Notices
from cluster.agent.states import Problem, Wanted, Warmth
from cluster.agent.warming import EXCEEDED
from cluster.together import is_set_within
from fetcher.errors import FetchError
from fetcher.events import Event, Warned
from fetcher.uncancelled import Stopped, run_uncancelled
from loader.errors import TooLarge
from loader.residency.holding import Hold

_THREADS = 4
"""A disk is fast only with several requests in flight."""
_RETRY = 60.0
"""Seconds until a model that cannot be kept is tried again: somebody may have repaired what we cannot see."""
_LONGEST = 1000
"""Characters of a message in a status."""


@dataclass(slots=True)
class _Held:
    """One artifact while it is kept. `due`: of its next check, by the monotonic clock."""

    wanted: Wanted
    hold: Hold
    stopping: threading.Event
    warnings: dict[str, Problem]
    due: float = 0.0
    whole: bool = False
    refusal: Problem | None = None

    @property
    def warmth(self) -> Warmth:
        state = self.hold.state  # replaced by the thread of a check, never changed
        resident = min(state.resident or 0, state.total)
        return Warmth(
            state.total, resident, state.locked, state.rewarmed, self.whole, self.problem, idle=self.refusal is not None
        )

    @property
    def problem(self) -> Problem | None:
        if self.refusal is not None:
            return self.refusal
        if (sentence := self.hold.state.problem) is not None:
            reason, _, message = sentence.partition(": ")
            return Problem(reason, message[:_LONGEST])
        return next(iter(self.warnings.values()), None)


class Keeper:
    """Keeps what it is told. `on_change` is called after a check that found something new."""

    def __init__(self, root: Path, *, interval: float, notices: Notices, on_change: Callable[[], None]) -> None:
        self._root = root
        self._interval = interval
        self._notices = notices
        self._on_change = on_change
        self._wanted: tuple[Wanted, ...] = ()
        self._held: dict[str, _Held] = {}
        self._reread = 0
        self._changed = asyncio.Event()

    @property
    def warmth(self) -> Mapping[str, Warmth]:
        """How warm everything is that is kept, by key."""
        return {key: each.warmth for key, each in self._held.items()}

    @property
    def reread(self) -> int:
        """Bytes that were reclaimed and read again, of all models since the start."""
        return self._reread + sum(each.hold.state.rewarmed for each in self._held.values())

    def keep(self, wanted: tuple[Wanted, ...] | None) -> None:
        """Keep these, the first one first, and release the others. None: what is kept now."""
        if wanted is None or wanted == self._wanted:
            return
        self._wanted = wanted
        for each in self._held.values():
            if self._is_superseded(each):
                each.stopping.set()
        self._changed.set()

    async def run(self) -> None:
        """Work until cancelled. Then all is released; a check under way ends within a window of 64 MiB."""
        try:
            while True:
                self._changed.clear()
                if (superseded := self._superseded()) is not None:
                    await self._release(superseded)
                    continue
                self._adopt()
                now = time.monotonic()
                held = next((each for each in self._held.values() if each.due <= now), None)
                if held is not None:
                    await self._check(held)
                else:
                    await self._wait(min((each.due for each in self._held.values()), default=None))
        finally:
            for each in self._held.values():
                each.hold.close()

    def _superseded(self) -> _Held | None:
        return next(filter(self._is_superseded, self._held.values()), None)

    def _is_superseded(self, held: _Held) -> bool:
        return not any(_same(held.wanted, each) for each in self._wanted)

    async def _release(self, held: _Held) -> None:
        await run_uncancelled(held.hold.close)
        self._reread += held.hold.state.rewarmed
        del self._held[held.wanted.key]
        self._notices.note(held.wanted.key, "no longer kept in memory")
        self._on_change()

    def _adopt(self) -> None:
        """Begin with what is new, in the order in which it is wanted."""
        self._held = {each.key: self._held.get(each.key) or self._begun(each) for each in self._wanted}

    def _begun(self, wanted: Wanted) -> _Held:
        stopping, warnings = threading.Event(), dict[str, Problem]()

        def heard(event: Event) -> None:
            """Called by the threads of a check: it may only store."""
            if isinstance(event, Warned):
                warnings[event.reason] = Problem(event.reason, event.message[:_LONGEST])

        path, lock = str(self._root / wanted.key), wanted.warm == "Locked"
        hold = Hold([path], threads=_THREADS, on_event=heard, lock=lock, stopped=stopping.is_set)
        return _Held(wanted, hold, stopping, warnings)

    async def _check(self, held: _Held) -> None:
        before = held.warmth
        try:
            state = await run_uncancelled(held.hold.check, stop=held.stopping.set)
        except Stopped:
            return
        except FetchError as error:
            reason = EXCEEDED if isinstance(error, TooLarge) else error.reason
            held.refusal = Problem(reason, error.message[:_LONGEST])
            held.due = time.monotonic() + _RETRY
        else:
            held.refusal = None
            held.whole = held.whole or state.ready
            held.due = time.monotonic() + held.hold.pause(self._interval)
        after = held.warmth
        self._notices.problem(f"warmth of {held.wanted.key}", after.problem)
        if after.whole and not before.whole:
            self._notices.note(held.wanted.key, f"in memory: {after.resident} bytes, {after.locked} of them locked")
        if after != before:
            self._on_change()

    async def _wait(self, due: float | None) -> None:
        await is_set_within(self._changed, None if due is None else max(0.0, due - time.monotonic()))


def _same(one: Wanted, other: Wanted) -> bool:
    """Whether both entries mean the same bytes, kept in the same way."""
    return _meant(one) == _meant(other)


def _meant(wanted: Wanted) -> tuple[object, ...]:
    return wanted.key, wanted.revision, wanted.listing_digest, wanted.warm
