"""Hands out ranges to connections, takes them back, and replaces slow connections.

Everything in this module runs on the event loop. The rules are in `schedule`, `concurrency` and `pace`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from fetcher.artifact import CHUNK_SIZE, ByteRange
from fetcher.engine.concurrency import Concurrency
from fetcher.engine.guided import GuidedSchedule
from fetcher.engine.incoming import Cursor, Incoming
from fetcher.engine.pace import SlowConnectionDetector
from fetcher.engine.pull import Pull
from fetcher.engine.schedule import Assignment, Progress, Schedule
from fetcher.engine.states import State
from fetcher.events import BytesDiscarded, ConnectionsActive, Subscriber
from fetcher.planning.ranges import LONGEST_RANGE
from fetcher.quantities import ceil_div
from fetcher.sources.base import Guide

AHEAD = 512 * 1024 * 1024
"""Bytes ready to be hashed, above which no range is begun: receiving takes processor time from hashing, which finishes last.
Of 12.9 s for one file of 3 GiB the hashing thread ran 8.8 and waited 3.6 for a processor. These bytes are a second's work or
more, so a short pause of the link does not stop hashing."""


class Handout:
    """The ranges of `files` for at most `connections`, with at most `open_files` begun and not sealed. `hash_lag`: bytes that
    wait at most to be hashed. `guide` decides which range comes next, if the source does.

    `changed` is called when a file is sealed, and when a pull begins or ends.
    """

    def __init__(
        self,
        files: Mapping[str, Incoming],
        *,
        connections: int,
        open_files: int,
        hash_lag: int,
        judge: SlowConnectionDetector,
        guide: Guide | None,
        on_event: Subscriber,
        changed: Callable[[], None],
    ) -> None:
        self._files = files
        self._open_files = open_files
        self._hash_lag = hash_lag
        self._emit = on_event
        self._changed = changed
        self._schedule = Schedule() if guide is None else GuidedSchedule(guide)
        self._most = connections
        self._concurrency = Concurrency(connections, clock=time.monotonic)
        self._judge = judge
        self._unsealed = len(files)
        self._out = 0
        self._dry = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.begun: dict[str, Incoming] = {}
        self.pulls: set[Pull] = set()
        if guide is not None:
            guide.watched(self.wake)

    # What to pull

    def refill(self, incoming: Incoming) -> None:
        """Make all missing ranges of `incoming` pending."""
        self.clear(incoming)
        self._schedule.add(incoming.path, incoming.missing(), size=incoming.size or 0)
        self.wake()

    def clear(self, incoming: Incoming) -> None:
        """Remove the pending ranges of `incoming`."""
        self._schedule.clear(incoming.path)

    def wake(self) -> None:
        """Make waiting connections look for a range again."""
        self._dry = False
        self._wake_one()

    def _wake_one(self) -> None:
        """Wake one of the connections that wait. It wakes the next if there was something for it: there may be 64."""
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
                return

    async def claim(self) -> Assignment | None:
        """Wait for the next assignment and return it; None when all files are sealed."""
        while self._unsealed:
            if self._out < self._allowed and not self._dry and (assignment := self._next()):
                self._out += 1
                self.begun[assignment.path] = incoming = self._files[assignment.path]
                incoming.staged.keep_open()
                self._wake_one()
                return assignment
            self._dry = True  # for every connection, until something changes
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await waiting
        self.wake()
        return None

    @property
    def _allowed(self) -> int:
        """The ranges that may be under way now."""
        return max(self._concurrency.connections, min(self._most, self._schedule.least))

    def _next(self) -> Assignment | None:
        # What is being sealed is hashed, or still in memory: of small files a whole batch.
        filling = [each for each in self.begun.values() if each.state is not State.SEALING]
        lag = sum(each.lag for each in filling)
        most = min(AHEAD, self._hash_lag)
        if lag > most and sum(each.ready for each in filling) > most:  # no more is ready than lags
            return None  # progress of the hashing threads wakes the connections
        # Several connections on one file leave gaps as long as their ranges, and the hash frontier waits at a gap.
        connections_per_file = ceil_div(self._concurrency.connections, max(1, self._schedule.open_files))
        longest = self._concurrency.range_length(
            self._schedule.missing, shortest=CHUNK_SIZE, longest=LONGEST_RANGE // connections_per_file
        )
        among = None if len(self.begun) < self._open_files else self.begun
        self._schedule.look(self._progress(), connections=self._allowed)
        return self._schedule.assign(longest=longest, lagging=lag > self._hash_lag, among=among) or self._schedule.steal(
            self._progress()
        )

    def _progress(self) -> Iterator[Progress]:
        """Yield the progress of all pulls that another connection may steal from."""
        for pull in self.pulls:
            rate = pull.received / max(pull.body_seconds, 1e-3) if pull.received else self._judge.typical
            if not self._files[pull.path].restarts_soon:
                yield Progress(pull.assignment, pull.position + pull.promised, rate)

    def give_back(self, assignment: Assignment) -> None:
        """Record that the connection of `assignment` is free again."""
        self._schedule.finish(assignment)
        self._out -= 1
        self._dry = False

    def return_rest(self, assignment: Assignment, incoming: Incoming, cursor: Cursor) -> None:
        """Make the missing rest of a range pending for another connection."""
        if assignment.stop is not None and cursor.position < assignment.stop:
            if dropped := incoming.park(cursor):
                self._emit(BytesDiscarded(incoming.path, dropped))
            rest = ByteRange(cursor.position, assignment.stop)
            self._schedule.add(incoming.path, [rest], size=incoming.size or 0)

    def active(self, incoming: Incoming) -> bool:
        """Whether a connection pulls a range of `incoming`."""
        return self._schedule.active(incoming.path) > 0

    def sealed(self, incoming: Incoming) -> None:
        """Record that `incoming` is complete: none of its ranges will be pulled again."""
        self._unsealed -= 1
        self.begun.pop(incoming.path, None)
        self._judge.sealed(incoming.path)
        self._changed()

    # How many connections

    def answered(self, pull: Pull) -> None:
        """Record that the source answered the pull. Who guides asks many suppliers, each as quick as it is."""
        if pull.assignment.turn is None:
            self._concurrency.answered(time.monotonic() - pull.asked_at)

    def received(self, count: int) -> None:
        """Record `count` received bytes."""
        before = self._concurrency.connections
        self._concurrency.received(count)
        if self._concurrency.connections > before:
            self.wake()

    def refused(self) -> None:
        """Record that the server wants fewer connections."""
        self._concurrency.refused()

    def failed(self) -> None:
        """Record that a connection broke."""
        self._concurrency.failed()

    # Connections that are too slow

    @contextmanager
    def pulling(self, pull: Pull) -> Iterator[None]:
        """Count the pull as active during the block."""
        self.pulls.add(pull)
        self._changed()
        self._emit(ConnectionsActive(len(self.pulls)))
        try:
            yield
        finally:
            self.pulls.discard(pull)
            self._changed()
            self._emit(ConnectionsActive(len(self.pulls)))

    def finished(self, pull: Pull) -> None:
        """Record the rate of a complete pull, to compare others with."""
        if pull.received:
            self._judge.finished(pull.path, pull.received / max(pull.body_seconds, 1e-3), pull.supplier)

    def replaced(self, pull: Pull) -> None:
        """Record that the pull was abandoned because it was slow; the next pull of its file gets more time."""
        self._judge.replaced(pull.path)

    def abandon(self, incoming: Incoming, why: str) -> None:
        """End all pulls of one file; `why` completes "a connection ..."."""
        for pull in self.pulls:
            if pull.path == incoming.path:
                pull.abandon(why)

    async def replace_tricklers(self) -> None:
        """Abandon connections that are nearly silent or far slower than the others. Other connections claim their ranges."""
        while True:
            await asyncio.sleep(self._judge.window / 4)
            self._compare()
            for pull in self.pulls:
                self._measure(pull)
            self.wake()  # an idle connection may steal from a slow one

    def _compare(self) -> None:
        window, judge = self._judge.window, self._judge
        rates = {pull: pull.since_compared.rate for pull in self.pulls if pull.since_compared.seconds >= window / 8}
        due = [pull for pull in rates if pull.since_compared.seconds >= window * judge.grace(pull.path)]
        for pull in due:
            # A mirror is nearer than the origin: that the other is slower is no fault.
            siblings = [rate for other, rate in rates.items() if other is not pull and other.supplier == pull.supplier]
            if judge.slow(rates[pull], [*siblings, *judge.alike(pull.path, pull.supplier)]):
                pull.abandon("far slower than the others was replaced")
            pull.compared()

    def _measure(self, pull: Pull) -> None:
        since = pull.since_measured
        if self._judge.dead(since.count, since.seconds, pull.path):
            pull.abandon(f"that received only {since.count:,} bytes in {since.seconds:.0f} s was replaced (--timeout-stall)")
        elif since.seconds >= self._judge.patience * self._judge.grace(pull.path):
            pull.measured()
