"""What a node of a swarm asks for next, and whom: its share of the origin, the rest of its peers. Pure; times are passed in.

Sets of chunks are numbers: bit `i` is chunk `i` of the artifact (`ownership.Layout`). A peer tells which chunks it passes on,
which are those that it had from the origin itself, and all of a file that it has verified.

A node does not ask the origin for what peers say they have. But if it gets nothing from them now, it believes only what two of
them say, or one who had a part in a verified file: a single peer that lies keeps nobody from the origin.

An owner is a peer that told its map within the last `SILENCE`, and whose share progresses. The share of another is divided
among the rest. Whatever goes wrong, a node that gets nothing for `STARVED` asks the origin. A node that passes nothing on owns
nothing: it asks its peers first, and then the origin.

A peer has two names: the one that it is asked by, its address, and the identity of its node, by which shares are divided. All
nodes know the same identities, whatever addresses they use.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Collection
from dataclasses import field
from functools import partial
from random import Random

from fetcher.planning.ownership import BLOCK_CHUNKS, Layout, rank, shares
from fetcher.quantities import doubled, median
from fetcher.values import dataclass

SILENCE = 10.0
"""Seconds without an answer after which a peer owns nothing: twice as long as one waits for a change (`peers.asking.WAIT`)."""
_EVERY = 0.5
"""Seconds between two maps of a peer, at least: a map of 1,024 chunks that changes all the time is told 1 % late."""
_MAPS_A_SECOND = 128
"""Maps that a node asks for at most, of all peers together, and so about the maps that it tells: 1,000 peers asked twice a
second would be 2,000 requests each way at every node. Each is asked every 16 seconds then."""
_MAPS = 2.5
"""Maps of a peer that may be missing before its silence means something."""
PATIENCE = 5.0
"""Seconds without a chunk of its share after which an owner may be taken over, and at least `BLOCK_TIMES` of its blocks."""
BLOCK_TIMES = 3.0
STARVED = 30.0
"""Seconds without any chunk after which a node asks the origin, whoever else should."""
WINDOW = 16
"""Chunks behind the verified beginning of a file that are asked for first: 2 % slower, and hashing keeps up."""
SETTLE = 1.0
"""Seconds that a node waits for the maps of the peers that it knows of, before it asks the origin for what could be theirs."""
AWAITED = 5.0
"""Seconds in which peers that have nothing yet may begin: nodes that are told of a model together do. Until then they count at
the origin. Eight nodes, of which the first one opened all its requests there, took 1.49 of the time of one alone."""
SPREAD = 32
"""The part of all chunks that nodes ask the origin for at a time, together: what is under way has not been passed on."""
FEW = 8
"""Requests to the origin that are not too many, however few chunks there are."""
MANY = 16
"""Requests of a node to peers. They ask each other, so each has as many to answer, and 32 at most (`serving.limits`). With 8,
all were always under way while links were not full: some connections are much slower than others."""
LATE, LEAST_LATE = 5.0, 2.0
"""How many times longer than others a chunk of a peer may take, and seconds that are never too long. Connections that share a
link are not alike: of 1,800 chunks of 1 MiB between 8 nodes, which took 1.5 s, some took 24 s, and a node that had several of
them at a time came to half of the others' rate."""
COMPARED = 8
"""Chunks that must have come before another one can be late."""
_FILES = 4
"""Files that are asked for first: a verified file is passed on whole, which is what late and slow nodes wait for."""
_LOOK = 0.5
"""Seconds between two looks at who owns what."""
_FAILURES = 2
"""Failures in a row after which a peer is left alone and owns nothing, for `SILENCE`, and twice as long each time after."""
_LONGEST = 64 * SILENCE
_ORIGIN_PAUSE = 1.0
"""Seconds that the origin is left alone after a failure, so that peers are asked meanwhile. The engine decides on retries."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask `supplier` for `count` chunks of one file from `chunk` on; None is the origin."""

    chunk: int
    supplier: str | None
    count: int = 1

    @property
    def chunks(self) -> int:
        return ((1 << self.count) - 1) << self.chunk


@dataclass(slots=True)
class Peer:
    """What is known of a peer. `has`: what it passes on; times in seconds. `brought`: chunks of its share since `since`.

    `node`: its identity. `avoided_until`: it is not asked. `left_until`: it does not count either. `asked`: what it is asked
    for now.
    """

    node: str
    has: int
    heard: float
    since: float
    progress: float
    brought: int = 0
    avoided_until: float = 0.0
    left_until: float = 0.0
    failures: int = 0
    asked: int = 0
    late: bool = False
    proven: bool = False

    @property
    def block_time(self) -> float | None:
        """The mean seconds for a block of its share; None while it has brought none."""
        return (self.progress - self.since) * BLOCK_CHUNKS / self.brought if self.brought >= BLOCK_CHUNKS else None


@dataclass(slots=True)
class Swarm:
    """The view of the node `me`; None if it passes nothing on. `connections`: what it has under way at most. `mine`: chunks
    that are here. `awaited`: peers that answer, and have nothing yet.

    Suspicion and bans belong to an address: a peer that goes and comes, or tells another identity, does not escape them.
    """

    me: str | None
    layout: Layout
    connections: int
    random: Random
    began: float
    settle: float = SETTLE
    mine: int = 0
    awaited: int = 0
    peers: dict[str, Peer] = field(default_factory=dict)
    _suspected: Counter[str] = field(default_factory=Counter)
    _banned: set[str] = field(default_factory=set)
    _asked: dict[int, Ask] = field(default_factory=dict)
    _since: dict[int, float] = field(default_factory=dict)
    _times: deque[float] = field(default_factory=partial(deque, maxlen=2 * COMPARED))
    _under_way: int = 0
    _at_origin: int = 0
    _for_origin: int = 0
    _held: int = 0
    _sure: int = 0
    _usable: list[tuple[str, Peer]] = field(default_factory=list)
    _share: int = 0
    _shares: dict[str, int] = field(default_factory=dict)
    _members: frozenset[str] = frozenset()
    _looked: float = float("-inf")
    _starts: list[int] = field(default_factory=list)
    _moved: float = 0.0
    _starved: bool = False
    _late: int | None = None
    _origin_at: float = float("-inf")

    def __post_init__(self) -> None:
        self._moved = self.began
        self._starts = [start for start, stop in self.layout.spans() if stop > start]

    @property
    def missing(self) -> int:
        return ~self.mine & ((1 << self.layout.chunks) - 1)

    # What is learnt

    def heard(self, name: str, has: int, now: float, node: str = "") -> None:
        """A peer has told its map, and perhaps the identity of its node."""
        peer, node = self.peers.get(name), node or name
        if peer is None or peer.node != node:
            self.peers[name] = Peer(node, has, now, now, now)
            self._looked = float("-inf")
            return
        peer.heard = now
        if has == peer.has:
            return
        if gained := has & ~peer.has & self._owed_by(peer):
            peer.progress, peer.brought = now, peer.brought + gained.bit_count()
        if has & ~peer.has:
            peer.late = False
        if peer.has & ~has:
            self._looked = float("-inf")
        peer.has = has
        if name not in self._banned:
            self._held |= has

    def gone(self, name: str) -> None:
        """A peer is no longer one."""
        self.peers.pop(name, None)
        self._looked = float("-inf")

    def joined(self, me: str) -> None:
        """What this node has from the origin is passed on from now on, by a server with the identity `me`."""
        self.me = me
        self._looked = float("-inf")

    def left(self, chunk: int, count: int, chunks: int) -> None:
        """Of a file, the `count` chunks from `chunk` on, `chunks` are to be asked for; others are here or come already."""
        file = ((1 << count) - 1) << chunk
        self.mine = (self.mine & ~file) | (file & ~chunks & ~self._under_way)

    def instead(self, ask: Ask, now: float) -> Ask:
        """Ask the origin for the first chunk of `ask`, and nobody for the rest."""
        self._end(ask)
        return self._begun(Ask(ask.chunk, None), now)

    def done(self, ask: Ask, now: float) -> None:
        """Chunks have come."""
        since = self._end(ask)
        self.mine |= ask.chunks
        self._moved = now
        if ask.supplier is not None and (peer := self.peers.get(ask.supplier)) is not None:
            peer.failures = 0
            if since is not None:
                self._times.append((now - since) / ask.count)

    def overdue(self, ask: Ask, now: float) -> bool:
        """Whether chunks of a peer take much longer than others did. They are asked for again then, over another connection."""
        since = self._since.get(ask.chunk)
        if ask.supplier is None or since is None or len(self._times) < COMPARED:
            return False
        return now - since > max(LEAST_LATE, LATE * median(self._times) * ask.count)

    def ended(self, ask: Ask) -> None:
        """Chunks are not asked for any longer, and nobody is to blame."""
        self._end(ask)

    def busy(self, ask: Ask, until: float) -> None:
        """The supplier wants to be asked later."""
        self._end(ask)
        if ask.supplier is None:
            self._origin_at = until
        elif (peer := self.peers.get(ask.supplier)) is not None:
            peer.avoided_until = until

    def failed(self, ask: Ask, now: float) -> bool:
        """Chunks have not come: the supplier is silent, much slower than others, or gone. Returns whether that is news: several
        requests that fail together are one failure."""
        self._end(ask)
        if ask.supplier is None:
            if now >= self._origin_at:
                self._origin_at = now + _ORIGIN_PAUSE
                return True
            return False
        peer = self.peers.get(ask.supplier)
        if peer is None or now < peer.avoided_until:
            return False
        peer.failures += 1
        peer.avoided_until = now + _pause(peer.failures)
        if peer.failures >= _FAILURES:
            self.leave(ask.supplier, peer.avoided_until)
        self._looked = float("-inf")
        return True

    def leave(self, name: str, until: float) -> None:
        """Leave a peer alone: it fails again and again, or is much slower than the origin."""
        if (peer := self.peers.get(name)) is not None:
            peer.late, peer.proven = True, False
            peer.avoided_until = peer.left_until = until
        self._looked = float("-inf")

    def verified(self, suppliers: Collection[str]) -> None:
        """A file with chunks of these peers has the digest that the origin publishes."""
        for name in suppliers:
            if (peer := self.peers.get(name)) is not None:
                peer.proven = True

    def disputed(self, chunks: int, name: str) -> None:
        """The file `chunks` is wrong. It comes from the origin from now on, and its supplier `name` is asked for nothing."""
        self._for_origin |= chunks
        self._suspected[name] += 1
        self._looked = float("-inf")

    def cleared(self, name: str) -> None:
        """A file is right for which `name` was disputed."""
        self._suspected[name] = max(0, self._suspected[name] - 1)
        self._looked = float("-inf")

    def banned(self, name: str) -> None:
        """A peer is proven to have sent other bytes."""
        self._banned.add(name)
        self._looked = float("-inf")

    # What is decided

    def alone(self, now: float) -> bool:
        """Whether there is no peer that counts."""
        return (
            now >= self.began + self.settle
            and not self._awaits(now)
            and not any(self._counts(name, peer, now) for name, peer in self.peers.items())
        )

    def _awaits(self, now: float) -> int:
        return self.awaited if now < self.began + AWAITED else 0

    def next(self, now: float, *, among: int = -1, most: int = 1) -> Ask | None:
        """Return what to ask for now, None for nothing: up to `most` chunks `among` those that are missing.

        The answer counts as under way until it is done, busy, failed or ended.
        """
        settled = self._looked < self.began + self.settle <= now
        if settled or now - self._looked >= max(_LOOK, every(len(self.peers)) / 4):
            self._look(now)
        wanted = self.missing & ~self._under_way & among
        chosen = self._chosen(wanted & self._for_origin, wanted & ~self._for_origin, now) if wanted else None
        if chosen is None:
            return None
        return self._begun(self._extended(chosen, wanted, most), now)

    def _chosen(self, disputed: int, wanted: int, now: float) -> Ask | None:
        if self.me is None:
            return self._of_a_peer(wanted, now) or self._of_the_origin(disputed | (wanted & ~self._sure), now)
        return (
            self._of_the_origin(disputed | (wanted & self._share & ~(0 if self._starved else self._held)), now)
            or self._of_a_peer(wanted, now)
            or self._of_the_origin(wanted & self._share & ~self._sure, now)
            or self._of_a_late_owner(wanted, now)
        )

    def owners(self, now: float) -> frozenset[str]:
        """Return the nodes that have a share of the origin: this one, and each peer that answers and brings what it owes."""
        alive = [peer for name, peer in self.peers.items() if self._counts(name, peer, now)]
        times = sorted(time for peer in alive if (time := peer.block_time) is not None)
        usual = times[len(times) // 2] if times else None
        owners = {peer.node for peer in alive if not (peer.late or self._stalled(peer, usual, now))}
        return frozenset(owners if self.me is None else {*owners, self.me})

    def _counts(self, name: str, peer: Peer, now: float) -> bool:
        return name not in self._banned and now >= peer.left_until and now - peer.heard <= max(SILENCE, self._unheard)

    @property
    def _unheard(self) -> float:
        """Seconds without a map of a peer that mean nothing."""
        return _MAPS * every(len(self.peers))

    def _stalled(self, peer: Peer, usual: float | None, now: float) -> bool:
        """Whether an owner owes something, and brings nothing. Nobody is late before anybody has brought a block."""
        block_time = peer.block_time or usual
        if block_time is None or not self._owed_by(peer) & ~peer.has & ~self._sure & self.missing:
            return False
        return now - peer.progress > max(PATIENCE, self._unheard, BLOCK_TIMES * block_time)

    def _owed_by(self, peer: Peer) -> int:
        return self._shares.get(peer.node, 0)

    def _look(self, now: float) -> None:
        """Look at who owns what, and at what peers have."""
        self._looked = now
        self._held = self._sure = 0
        self._usable = [
            (name, peer) for name, peer in self.peers.items() if self._counts(name, peer, now) and not self._suspected[name]
        ]
        for _, peer in self._usable:
            self._sure |= peer.has if peer.proven else peer.has & self._held
            self._held |= peer.has
        if now >= self.began + self.settle:
            self._divide(now)
        self._starved = now - self._moved > STARVED
        if self._starved:
            self._share = self.missing

    def _divide(self, now: float) -> None:
        """Divide the origin among the owners. Not before the first maps are heard: each of 1,000 would divide it anew."""
        before, self._members = self._members, self.owners(now)
        if self._members != before:
            self._shares = shares(self.layout, self._members)
        for _, peer in self._usable:
            peer.late = peer.node not in self._members
            if peer.node in self._members and peer.node not in before:
                peer.progress = now  # it has owed this share from now on
        self._share = self._shares[self.me] if self.me is not None else 0

    def _of_the_origin(self, wanted: int, now: float) -> Ask | None:
        """A chunk of the origin, in the order of the files: the first ones are verified and passed on early."""
        if not wanted or now < max(self.began + self.settle, self._origin_at):
            return None
        if self._at_origin >= self._part(now):
            return None
        # Those who do not know each other yet would all begin with the first chunk.
        return Ask(self._one_of(wanted) if self._awaits(now) else _lowest(wanted), None)

    def _part(self, now: float) -> int:
        """The requests to the origin that this node may have.

        All of them bring chunks at the same time, so the more there are, the later the first one is whole and can be passed
        on: four nodes, of which two had four times as many as the others, waited 5 s of 12 for a chunk. But a node that has
        few among many to peers brings its share too late: eight nodes waited 20 s of 68 for the last chunks of one.
        """
        together, at_peers = self._together(now), len(self._asked) - self._at_origin
        most = min(self.connections, MANY, max(FEW, self.layout.chunks // SPREAD))
        return max(-(-most // together), at_peers // max(1, together - 1))

    def _together(self, now: float) -> int:
        return max(1, len(self._members) + self._awaits(now))

    def _of_a_peer(self, wanted: int, now: float) -> Ask | None:
        """A chunk that a peer has, of one of them at random: so their uploads are used evenly."""
        wanted &= self._held
        if not wanted or not self._usable:
            return None
        if len(self._asked) - self._at_origin >= max(FEW, min(MANY, 2 * len(self._usable))):
            return None
        for chunks in (wanted & self._near(), wanted):
            if chunks and (found := self._least_asked(chunks, now)) is not None:
                name, has = found
                return Ask(self._one_of(has), name)
        return None

    def _least_asked(self, chunks: int, now: float) -> tuple[str, int] | None:
        """The peer with some of `chunks` of which least is under way, and which it has. One of several at random."""
        number, found = len(self._usable), None
        least, first = max(2, -(-2 * min(MANY, self.connections) // number)), self.random.randrange(number)
        for place in range(first, first + number):
            name, peer = self._usable[place % number]
            if peer.asked < least and peer.avoided_until <= now and (has := peer.has & chunks):
                found, least = (name, has), peer.asked
                if not least:
                    break
        return found

    def _one_of(self, chunks: int) -> int:
        """One of the chunks, at random: the first behind a random place."""
        behind = self.random.randrange(self.layout.chunks)
        after = chunks >> behind
        return behind + _lowest(after) if after else _lowest(chunks)

    def _of_a_late_owner(self, wanted: int, now: float) -> Ask | None:
        """At the end: one block that its owner has not brought for longer than it usually takes, by the next in line."""
        left = wanted & ~self._sure
        if not left or self._share & left or left.bit_count() > len(self._members) * BLOCK_CHUNKS:
            return None
        for _, peer in sorted(self._usable, key=lambda each: each[1].node):
            owed = self._owed_by(peer) & left
            if not owed or peer.block_time is None or now - peer.progress <= max(PATIENCE / 2, 1.5 * peer.block_time):
                continue
            chunk = _lowest(owed)
            block = chunk // BLOCK_CHUNKS
            others = sorted(self._members - {peer.node})
            if self._late in (None, block) and rank(self.layout, chunk, others)[0] == self.me:
                self._late = block
                return Ask(chunk, None)
        return None

    def _extended(self, ask: Ask, wanted: int, most: int) -> Ask:
        """The same with the chunks behind it that the same supplier is to be asked for: requests are not free."""
        if ask.supplier is None:
            wanted &= self._for_origin | (self._share & ~self._sure if self.me is not None else ~self._sure)
        else:
            wanted &= self.peers[ask.supplier].has & ~self._for_origin
        # Whoever joins takes over what is not under way. So that is little, and at the end every connection has something.
        most = min(most, wanted.bit_count() // (4 * self.connections))
        number = bisect_right(self._starts, ask.chunk)
        stop = self._starts[number] if number < len(self._starts) else self.layout.chunks
        run = wanted >> ask.chunk
        length = _lowest(~run)
        return Ask(ask.chunk, ask.supplier, max(1, min(length, most, stop - ask.chunk)))

    def _end(self, ask: Ask) -> float | None:
        """Chunks are not under way any more. Returns since when they were; None if they were not."""
        if self._asked.pop(ask.chunk, None) is None:
            return None
        self._under_way &= ~ask.chunks
        if ask.supplier is None:
            self._at_origin -= 1
        elif (peer := self.peers.get(ask.supplier)) is not None:
            peer.asked = max(0, peer.asked - 1)
        return self._since.pop(ask.chunk)

    def _begun(self, ask: Ask, now: float) -> Ask:
        self._asked[ask.chunk] = ask
        self._since[ask.chunk] = now
        self._under_way |= ask.chunks
        if ask.supplier is None:
            self._at_origin += 1
        else:
            self.peers[ask.supplier].asked += 1
        return ask

    def _near(self) -> int:
        """The first chunks of the first files that are not complete."""
        near, left = 0, self.missing
        for _ in range(_FILES):
            if not left:
                break
            first = _lowest(left)
            number = bisect_right(self._starts, first)
            stop = self._starts[number] if number < len(self._starts) else self.layout.chunks
            near |= left & (((1 << min(WINDOW, stop - first)) - 1) << first)
            left = left >> stop << stop
        return near


def every(peers: int) -> float:
    """Return the seconds between two maps of each of so many peers."""
    return max(_EVERY, peers / _MAPS_A_SECOND)


def _pause(failures: int) -> float:
    """Seconds to leave somebody alone after so many failures in a row."""
    return 1.0 if failures < _FAILURES else doubled(SILENCE, failures - _FAILURES + 1, _LONGEST)


def _lowest(chunks: int) -> int:
    return (chunks & -chunks).bit_length() - 1
