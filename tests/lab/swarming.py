"""A swarm in simulated time: nodes with links, an origin, and what goes wrong. No clock, no thread, no network.

A transfer between peers has a rate from its beginning to its end: a `SLOTS`th of the slower link, or the half of that and more
if one of them has no more left. In reality it would speed up when others end. The origin's rate is shared equally by all that
ask it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import count
from random import Random

from fetcher.artifact import CHUNK_SIZE
from fetcher.planning.asks import Ask
from fetcher.planning.ownership import Layout
from fetcher.planning.peer import every
from fetcher.planning.swarm import SETTLE, Swarm

SLOTS = 4
GBIT = 125e6
_TRIES = 32
_SILENT = 5.0
"""Seconds until a peer that does not answer is given up."""


@dataclass(frozen=True, slots=True)
class Member:
    """A node: links in bytes a second, when it comes and dies. `lies`: it claims everything and sends other bytes.
    `whole`: it has everything when it comes. `busy`: it has everything, and wants to be asked so many seconds later, but
    for a chunk each `gives` seconds for each node.

    `cut`: from when on it reaches only those that were cut off at that moment too, and the origin.
    """

    name: str
    up: float = GBIT
    down: float = GBIT
    joins: float = 0.0
    dies: float = float("inf")
    lies: bool = False
    whole: bool = False
    busy: float = 0.0
    gives: float = float("inf")
    cut: float = float("inf")


@dataclass(frozen=True, slots=True)
class Outcome:
    """`finished`: seconds from each node's own start to its end; without those that died. `origin`, `wrong`: chunks."""

    finished: dict[str, float]
    ended: dict[str, float]
    origin: int
    wrong: int
    banned: frozenset[str]


@dataclass(slots=True, eq=False)
class Node:
    member: Member
    swarm: Swarm
    passes_on: int = 0
    told: int = 0
    uploading: float = 0.0
    downloading: float = 0.0
    suppliers: dict[int, str | None] = field(default_factory=dict)
    given: dict[str, float] = field(default_factory=dict)
    finished: float | None = None
    waking: bool = False


class Simulation:
    """One artifact that `members` fetch. `rate`: the origin's bytes a second, 0 if it is gone. `refresh`: seconds a map,
    by default as seldom as nodes ask so many peers."""

    def __init__(
        self, layout: Layout, members: Collection[Member], *, rate: float, refresh: float | None = None, seed: int = 1
    ) -> None:
        self._layout = layout
        self._random = Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._now = 0.0
        self._nodes: dict[str, Node] = {}
        self._members = members
        self._refresh = refresh or every(len(members))
        self._origin = Origin(rate, self)
        self._banned: set[str] = set()
        self.wrong = 0

    def run(self, *, until: float) -> Outcome:
        """Run to the end, or to `until`."""
        for member in self._members:
            self.at(member.joins, lambda member=member: self._join(member))  # type: ignore[misc]
        self.at(self._refresh, self._tell)
        while self._events and self._events[0][0] <= until and not self._over():
            self._now, _, event = heapq.heappop(self._events)
            event()
        done = {name: node for name, node in self._nodes.items() if node.finished is not None}
        return Outcome(
            {name: (node.finished or 0.0) - node.member.joins for name, node in done.items()},
            {name: node.finished or 0.0 for name, node in done.items()},
            self._origin.sent,
            self.wrong,
            frozenset(self._banned),
        )

    @property
    def now(self) -> float:
        return self._now

    def at(self, moment: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (moment, next(self._order), event))

    def _over(self) -> bool:
        waited_for = [each for each in self._members if each.dies == float("inf") and not (each.lies or each.busy)]
        return all(each.name in self._nodes and self._nodes[each.name].finished is not None for each in waited_for)

    def _join(self, member: Member) -> None:
        settle = SETTLE if len(self._members) > 1 else 0.0
        swarm = Swarm(member.name, self._layout, SLOTS, Random(self._random.random()), self._now, settle)
        node = self._nodes[member.name] = Node(member, swarm)
        if member.lies or member.whole or member.busy:
            node.passes_on = node.told = (1 << self._layout.chunks) - 1
            if member.whole:
                node.swarm.mine, node.finished = node.passes_on, self._now
            return
        for other in self._nodes.values():  # one round of asking, before the first block is chosen
            if other is not node and self._reach(node, other):
                swarm.heard(other.member.name, other.told, self._now)
        self._fill(node)

    def _tell(self) -> None:
        living = [node for node in self._nodes.values() if self._lives(node)]
        for node in living:
            node.told = node.passes_on
        for node in living:
            if not (node.member.lies or node.member.busy):
                for other in living:
                    if other is not node and self._reach(node, other):
                        node.swarm.heard(other.member.name, other.told, self._now)
                self._fill(node)
        self.at(self._now + self._refresh, self._tell)

    def _lives(self, node: Node) -> bool:
        return self._now < node.member.dies

    def _reach(self, one: Node, other: Node) -> bool:
        """Whether two nodes reach each other."""
        together = one.member.cut == other.member.cut or self._now < min(one.member.cut, other.member.cut)
        return self._lives(other) and together

    def _fill(self, node: Node) -> None:
        """Ask for as much as the link takes."""
        refused, down = 0, node.member.down
        while self._lives(node) and down - node.downloading >= down / SLOTS / 2 and refused < _TRIES and node.finished is None:
            ask = node.swarm.next(self._now)
            if ask is None:
                return
            if not self._begin(node, ask):
                refused += 1
        if refused == _TRIES and not node.waking:
            node.waking = True
            self.at(self._now + self._slot_time(node) / 8, lambda: self._wake(node))

    def _wake(self, node: Node) -> None:
        node.waking = False
        self._fill(node)

    def _slot_time(self, node: Node) -> float:
        return CHUNK_SIZE * SLOTS / node.member.down

    def _begin(self, node: Node, ask: Ask) -> bool:
        left, slot = node.member.down - node.downloading, node.member.down / SLOTS
        if ask.supplier is None and not self._origin.rate:
            node.downloading += slot / 2
            self.at(self._now + _SILENT, lambda: self._did_not_come(node, ask, slot / 2))
            return True
        if ask.supplier is None:
            rate = min(left, slot, self._origin.share)
            node.downloading += rate
            self._origin.begin(self._slot_time(node), lambda: self._came(node, ask, rate))
            return True
        supplier = self._nodes[ask.supplier]
        if not self._reach(node, supplier):
            node.downloading += slot / 2
            self.at(self._now + _SILENT, lambda: self._did_not_come(node, ask, slot / 2))
            return True
        if supplier.member.busy:
            given = supplier.given.get(node.member.name, self._now - supplier.member.gives)
            if self._now - given < supplier.member.gives:
                node.swarm.busy(ask, self._now, self._now + supplier.member.busy)
                return False
            supplier.given[node.member.name] = self._now
        least = min(slot, supplier.member.up / SLOTS)
        rate = min(least, left, supplier.member.up - supplier.uploading)
        if rate < least / 2:
            node.swarm.busy(ask, self._now, self._now + self._slot_time(node) * self._random.uniform(0.1, 0.3))
            return False
        self._send(node, supplier, ask, rate)
        return True

    def _send(self, node: Node, supplier: Node, ask: Ask, rate: float) -> None:
        """A connection that is much slower than it could be is given up, as the engine does."""
        node.downloading += rate
        supplier.uploading += rate
        seconds, limit = CHUNK_SIZE / rate, max(2.0, 8 * self._slot_time(node))

        def end() -> None:
            supplier.uploading -= rate
            alive = seconds <= limit and self._reach(node, supplier)
            (self._came if alive else self._did_not_come)(node, ask, rate)

        self.at(self._now + min(seconds, limit), end)

    def _did_not_come(self, node: Node, ask: Ask, rate: float) -> None:
        node.downloading -= rate
        node.swarm.failed(ask, self._now)
        self._fill(node)

    def _came(self, node: Node, ask: Ask, rate: float) -> None:
        node.downloading -= rate
        if not self._lives(node):
            return
        node.swarm.done(ask, self._now)
        node.suppliers[ask.chunk] = ask.supplier
        if ask.supplier is None:
            node.passes_on |= 1 << ask.chunk
        for start, stop in self._layout.spans():
            if start <= ask.chunk < stop:
                self._verify(node, start, stop)
        if not node.swarm.missing and node.finished is None:
            node.finished = self._now
        self._fill(node)

    def _verify(self, node: Node, start: int, stop: int) -> None:
        """A file is passed on once its digest was compared. A wrong chunk is found, and its supplier banned."""
        whole = ((1 << (stop - start)) - 1) << start
        if node.swarm.mine & whole != whole:
            return
        for chunk in range(start, stop):
            supplier = node.suppliers[chunk]
            if supplier is not None and self._nodes[supplier].member.lies:
                self.wrong += 1
                self._banned.add(supplier)
                node.swarm.left(chunk, 1, 1 << chunk)
                node.swarm.banned(supplier)
        if node.swarm.mine & whole == whole:
            node.passes_on |= whole
            node.swarm.verified({name for chunk in range(start, stop) if (name := node.suppliers[chunk]) is not None})


class Origin:
    """A server whose rate is shared equally by all transfers under way."""

    def __init__(self, rate: float, simulation: Simulation) -> None:
        self.rate = rate
        self._simulation = simulation
        self._flows: list[tuple[float, int, float, Callable[[], None]]] = []
        self._order = count()
        self._level = 0.0
        self._at = 0.0
        self._version = 0
        self.sent = 0

    @property
    def share(self) -> float:
        """The rate of one more transfer."""
        return self.rate / (len(self._flows) + 1)

    def begin(self, least: float, done: Callable[[], None]) -> None:
        """Send a chunk, in `least` seconds or more; then call `done`."""
        self._advance()
        earliest = self._simulation.now + least
        heapq.heappush(self._flows, (self._level + CHUNK_SIZE, next(self._order), earliest, done))
        self._plan()

    def _advance(self) -> None:
        now = self._simulation.now
        if self._flows:
            self._level += (now - self._at) * self.rate / len(self._flows)
        self._at = now

    def _plan(self) -> None:
        self._version += 1
        if self._flows:
            version = self._version
            left = max(0.0, self._flows[0][0] - self._level) * len(self._flows) / self.rate
            self._simulation.at(self._simulation.now + left, lambda: self._finish(version))

    def _finish(self, version: int) -> None:
        if version != self._version:
            return
        self._advance()
        _, _, earliest, done = heapq.heappop(self._flows)
        self.sent += 1
        self._plan()
        self._simulation.at(max(earliest, self._simulation.now), done)


def bound(layout: Layout, members: Collection[Member], rate: float) -> float:
    """Return the least seconds in which all members, starting together, can have everything (Kumar and Ross, 2006)."""
    size, number = layout.chunks * CHUNK_SIZE, len(members)
    slowest, uploads = min(each.down for each in members), sum(each.up for each in members)
    return max(size / rate, size / slowest, number * size / (rate + uploads))
