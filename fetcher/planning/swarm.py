"""What a node of a swarm asks for next, and whom: its share of the origin, the rest of its peers. Pure; times are passed in.

Sets of chunks are numbers: bit `i` is chunk `i` of the artifact (`ownership.Layout`). A peer tells which chunks it passes on,
which are those that it had from the origin itself, and all of a file that it has verified.

A node does not ask the origin for what peers say they have. But if it gets nothing from them now, it believes only what two of
them say, or one who had a part in a verified file: a single peer that lies keeps nobody from the origin.

An owner is a peer that told its map within the last `SILENCE`, and whose share progresses. The share of another is divided
among the rest. Whatever goes wrong, a node that gets nothing for `STARVED` asks the origin.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import field
from random import Random

from fetcher.planning.ownership import BLOCK_CHUNKS, Layout, rank, shares
from fetcher.quantities import doubled
from fetcher.values import dataclass

SILENCE = 10.0
"""Seconds without an answer after which a peer owns nothing. A map is told every half second, and after 25 s at the latest only
if nothing changes: then there is nothing that it owes either."""
PATIENCE = 5.0
"""Seconds without a chunk of its share after which an owner may be taken over, and at least `BLOCK_TIMES` of its blocks."""
BLOCK_TIMES = 3.0
STARVED = 30.0
"""Seconds without any chunk after which a node asks the origin, whoever else should."""
WINDOW = 16
"""Chunks behind the verified beginning of a file that are asked for first: 2 % slower, and hashing keeps up."""
SETTLE = 1.0
"""Seconds that a node waits for the maps of the peers that it knows of, before it asks the origin for what could be theirs."""
_FILES = 4
"""Files that are asked for first: a verified file is passed on whole, which is what late and slow nodes wait for."""
_LOOK = 0.5
"""Seconds between two looks at who owns what."""
_FAILURES = 2
"""Failures in a row after which a peer is left alone and owns nothing, for `SILENCE`, and twice as long each time after."""
_LONGEST = 64 * SILENCE


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask `supplier` for a chunk; None is the origin."""

    chunk: int
    supplier: str | None


@dataclass(slots=True)
class Peer:
    """What is known of a peer. `has`: what it passes on; times in seconds. `brought`: chunks of its share since `since`."""

    has: int
    heard: float
    since: float
    progress: float
    brought: int = 0
    avoided_until: float = 0.0
    failures: int = 0
    late: bool = False
    proven: bool = False
    banned: bool = False

    @property
    def block_time(self) -> float | None:
        """The mean seconds for a block of its share; None while it has brought none."""
        return (self.progress - self.since) * BLOCK_CHUNKS / self.brought if self.brought >= BLOCK_CHUNKS else None


@dataclass(slots=True)
class Swarm:
    """The view of the node `me`. `connections`: what it has under way at most. `mine`: chunks that are here."""

    me: str
    layout: Layout
    connections: int
    random: Random
    began: float
    settle: float = SETTLE
    mine: int = 0
    peers: dict[str, Peer] = field(default_factory=dict)
    _asked: dict[int, str | None] = field(default_factory=dict)
    _under_way: int = 0
    _held: int = 0
    _sure: int = 0
    _usable: list[tuple[str, Peer]] = field(default_factory=list)
    _share: int = 0
    _members: frozenset[str] = frozenset()
    _looked: float = float("-inf")
    _windows: list[int] = field(default_factory=list)
    _moved: float = 0.0
    _starved: bool = False
    _late: int | None = None
    _origin_at: float = float("-inf")
    _origin_failures: int = 0

    def __post_init__(self) -> None:
        self._moved = self.began
        self._windows = [self._window(start, stop) for start, stop in self.layout.spans()]

    @property
    def missing(self) -> int:
        return ~self.mine & ((1 << self.layout.chunks) - 1)

    # What is learnt

    def heard(self, name: str, has: int, now: float) -> None:
        """A peer has told its map."""
        peer = self.peers.get(name)
        if peer is None:
            self.peers[name] = Peer(has, now, now, now)
            self._held |= has
            self._looked = float("-inf")
            return
        peer.heard = now
        if has == peer.has:
            return
        if gained := has & ~peer.has & self._owed_by(name):
            peer.progress, peer.brought = now, peer.brought + gained.bit_count()
        if has & ~peer.has:
            peer.late = False
        if peer.has & ~has:
            self._looked = float("-inf")
        peer.has = has
        if not peer.banned:
            self._held |= has

    def done(self, ask: Ask, now: float) -> None:
        """A chunk has come."""
        self._end(ask)
        self.mine |= 1 << ask.chunk
        self._moved = now
        if ask.supplier is None:
            self._origin_failures = 0
        else:
            self.peers[ask.supplier].failures = 0
        for number, (start, stop) in enumerate(self.layout.spans()):
            if start <= ask.chunk < stop:
                self._windows[number] = self._window(start, stop)

    def busy(self, ask: Ask, until: float) -> None:
        """The supplier wants to be asked later."""
        self._end(ask)
        if ask.supplier is not None:
            self.peers[ask.supplier].avoided_until = until

    def failed(self, ask: Ask, now: float) -> None:
        """A chunk has not come: the supplier is silent, much slower than others, or gone."""
        self._end(ask)
        if ask.supplier is None:
            self._origin_failures += 1
            self._origin_at = now + _pause(self._origin_failures)
            return
        peer = self.peers[ask.supplier]
        peer.failures += 1
        peer.avoided_until = now + _pause(peer.failures)
        if peer.failures >= _FAILURES:
            peer.late, peer.proven = True, False
        self._looked = float("-inf")

    def verified(self, suppliers: Collection[str]) -> None:
        """A file with chunks of these peers has the digest that the origin publishes."""
        for name in suppliers:
            self.peers[name].proven = True

    def drop(self, chunks: int, liar: str | None) -> None:
        """Chunks were wrong, and must come again. `liar`: who is proven to have sent other bytes."""
        self.mine &= ~chunks
        self._windows = [self._window(start, stop) for start, stop in self.layout.spans()]
        if liar is not None and liar in self.peers:
            self.peers[liar].banned = True
        self._looked = float("-inf")

    # What is decided

    def next(self, now: float) -> Ask | None:
        """Return what to ask for now, None for nothing. The answer counts as under way until it is done, busy or failed."""
        if now - self._looked >= _LOOK:
            self._look(now)
        chosen = (
            self._of_the_share(now, 0 if self._starved else self._held)
            or self._of_a_peer(now)
            or self._of_the_share(now, self._sure)
            or self._of_a_late_owner(now)
        )
        if chosen is not None:
            self._asked[chosen.chunk] = chosen.supplier
            self._under_way |= 1 << chosen.chunk
        return chosen

    def owners(self, now: float) -> frozenset[str]:
        """Return who has a share of the origin: this node, and each peer that answers and brings what it owes."""
        alive = [name for name, peer in self.peers.items() if self._counts(peer, now)]
        times = sorted(time for name in alive if (time := self.peers[name].block_time) is not None)
        usual = times[len(times) // 2] if times else None
        late = {name for name in alive if self.peers[name].late or self._stalled(name, usual, now)}
        return frozenset([self.me, *alive]) - late

    def _counts(self, peer: Peer, now: float) -> bool:
        left_alone = peer.failures >= _FAILURES and now < peer.avoided_until
        return not peer.banned and not left_alone and now - peer.heard <= SILENCE

    def _stalled(self, name: str, usual: float | None, now: float) -> bool:
        """Whether an owner owes something, and brings nothing. Nobody is late before anybody has brought a block."""
        peer = self.peers[name]
        block_time = peer.block_time or usual
        if block_time is None or not self._owed_by(name) & ~peer.has & ~self._sure & self.missing:
            return False
        return now - peer.progress > max(PATIENCE, BLOCK_TIMES * block_time)

    def _owed_by(self, name: str) -> int:
        return shares(self.layout, self._members).get(name, 0) if name in self._members else 0

    def _look(self, now: float) -> None:
        """Look at who owns what, and at what peers have."""
        self._looked = now
        self._held = self._sure = 0
        self._usable = [(name, peer) for name, peer in self.peers.items() if self._counts(peer, now)]
        for _, peer in self._usable:
            self._sure |= peer.has if peer.proven else peer.has & self._held
            self._held |= peer.has
        before, self._members = self._members, self.owners(now)
        for name, peer in self._usable:
            peer.late = name not in self._members
        for name in self._members - before - {self.me}:
            self.peers[name].progress = now  # it has owed this share from now on
        self._share = shares(self.layout, self._members)[self.me]
        self._starved = now - self._moved > STARVED
        if self._starved:
            self._share = self.missing

    def _of_the_share(self, now: float, elsewhere: int) -> Ask | None:
        """A chunk of the share that is not `elsewhere`, from the origin, in the order of the files: the first ones are verified
        and passed on early."""
        if now < max(self.began + self.settle, self._origin_at):
            return None
        width = max(1, -(-2 * self.connections // len(self._members)))
        if sum(supplier is None for supplier in self._asked.values()) >= width:
            return None
        wanted = self._share & self.missing & ~self._under_way & ~elsewhere
        return Ask(_lowest(wanted), None) if wanted else None

    def _of_a_peer(self, now: float) -> Ask | None:
        """A chunk that a peer has, of one of them at random: so their uploads are used evenly."""
        wanted = self.missing & ~self._under_way & self._held
        if not wanted or not self._usable:
            return None
        near = 0
        for window in [each for each in self._windows if each][:_FILES]:
            near |= window
        number = len(self._usable)
        first = self.random.randrange(number)
        for chunks in (wanted & near, wanted):
            for place in range(first, first + number) if chunks else ():
                name, peer = self._usable[place % number]
                has = peer.has & chunks
                if has and peer.avoided_until <= now and not peer.banned:
                    return Ask(self._one_of(has), name)
        return None

    def _one_of(self, chunks: int) -> int:
        """One of the chunks, at random: the first behind a random place."""
        behind = self.random.randrange(self.layout.chunks)
        after = chunks >> behind
        return behind + _lowest(after) if after else _lowest(chunks)

    def _of_a_late_owner(self, now: float) -> Ask | None:
        """At the end: one block that its owner has not brought for longer than it usually takes, by the next in line."""
        left = self.missing & ~self._sure & ~self._under_way
        if not left or self._share & left or left.bit_count() > len(self._members) * BLOCK_CHUNKS:
            return None
        for name in sorted(self._members - {self.me}):
            owed, peer = self._owed_by(name) & left, self.peers[name]
            if not owed or peer.block_time is None or now - peer.progress <= max(PATIENCE / 2, 1.5 * peer.block_time):
                continue
            chunk = _lowest(owed)
            block = chunk // BLOCK_CHUNKS
            others = sorted(self._members - {name})
            if self._late in (None, block) and rank(self.layout, chunk, others)[0] == self.me:
                self._late = block
                return Ask(chunk, None)
        return None

    def _end(self, ask: Ask) -> None:
        self._asked.pop(ask.chunk, None)
        self._under_way &= ~(1 << ask.chunk)

    def _window(self, start: int, stop: int) -> int:
        """The first chunks of a file that are missing."""
        left = self.missing >> start & ((1 << (stop - start)) - 1)
        if not left:
            return 0
        return (left & (((1 << WINDOW) - 1) << _lowest(left))) << start


def _pause(failures: int) -> float:
    """Seconds to leave somebody alone after so many failures in a row."""
    return 1.0 if failures < _FAILURES else doubled(SILENCE, failures - _FAILURES + 1, _LONGEST)


def _lowest(chunks: int) -> int:
    return (chunks & -chunks).bit_length() - 1
