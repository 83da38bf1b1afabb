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

from collections import Counter
from collections.abc import Collection
from dataclasses import field
from random import Random

from fetcher.planning.asks import Ask, UnderWay
from fetcher.planning.bits import Files, lowest, span
from fetcher.planning.owners import Owners
from fetcher.planning.ownership import Layout
from fetcher.planning.peer import Peer, every, judge, unheard
from fetcher.values import dataclass

STARVED = 30.0
"""Seconds without any chunk after which a node asks the origin, whoever else should, until a peer brings something."""
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
_FILES = 4
"""Files that are asked for first: a verified file is passed on whole, which is what late and slow nodes wait for."""
_LOOK = 0.5
"""Seconds between two looks at who owns what."""
_ORIGIN_PAUSE = 1.0
"""Seconds that the origin is left alone after a failure, so that peers are asked meanwhile. The engine decides on retries."""


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
    _under_way: UnderWay = field(default_factory=UnderWay)
    _for_origin: int = 0
    _claimed: int = 0
    _held: int = 0
    _sure: int = 0
    _usable: list[tuple[str, Peer]] = field(default_factory=list)
    _share: int = 0
    _ahead: bool = False
    _owners: Owners = field(init=False)
    _files: Files = field(init=False)
    _looked: float = float("-inf")
    _moved: float = 0.0
    _starved: bool = False
    _origin_at: float = float("-inf")

    def __post_init__(self) -> None:
        self._moved = self.began
        self._owners, self._files = Owners(self.layout), Files.of(self.layout)

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
        changed = has != peer.has
        if peer.told(has, self._owners.share(peer.node), now):
            self._looked = float("-inf")
        if changed and any(each is peer for _, each in self._usable):
            self._claimed |= has
            self._held |= has if peer.brings else 0

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
        file = span(chunk, count)
        self.mine = (self.mine & ~file) | (file & ~chunks & ~self._under_way.chunks)

    def instead(self, ask: Ask, now: float) -> Ask:
        """Ask the origin for the first chunk of `ask`, and nobody for the rest."""
        self._end(ask)
        return self._begun(Ask(ask.chunk, None), now)

    def done(self, ask: Ask, now: float) -> None:
        """Chunks have come."""
        since = self._end(ask)
        self.mine |= ask.chunks
        self._moved = now
        if ask.supplier is not None:
            self._starved = False
            if (peer := self.peers.get(ask.supplier)) is not None:
                peer.brought_some(ask.chunks.bit_count())
        if since is not None:
            self._under_way.came(ask, now - since)

    def overdue(self, ask: Ask, now: float) -> bool:
        """Whether chunks take much longer than others of the origin, or of peers, did."""
        return self._under_way.overdue(ask, now)

    def late(self, ask: Ask, now: float) -> None:
        """Chunks that are overdue are given up. What is left of them is asked for again, over another connection."""
        since = self._end(ask)
        if since is not None:
            self._under_way.came(ask, now - since)  # the rest alone would make the usual time look short

    def ended(self, ask: Ask) -> None:
        """Chunks are not asked for any longer, and nobody is to blame."""
        self._end(ask)

    def busy(self, ask: Ask, now: float, until: float) -> None:
        """The supplier wants to be asked later."""
        self._end(ask)
        if ask.supplier is None:
            self._origin_at = until
        elif (peer := self.peers.get(ask.supplier)) is not None:
            peer.later(now, until)

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
        if peer.failed(now):
            self.leave(ask.supplier, peer.avoided_until)
        self._looked = float("-inf")
        return True

    def leave(self, name: str, until: float) -> None:
        """Leave a peer alone: it fails again and again, or is much slower than the origin."""
        if (peer := self.peers.get(name)) is not None:
            peer.left(until)
        self._looked = float("-inf")

    def verified(self, suppliers: Collection[str]) -> None:
        """A file with chunks of these peers has the digest that the origin publishes."""
        for name in suppliers:
            if (peer := self.peers.get(name)) is not None:
                peer.proven = True

    def disputed(self, chunks: int, suspects: Collection[str]) -> None:
        """The file `chunks` is wrong. It comes from the origin from now on, and `suspects` are asked for nothing."""
        self._for_origin |= chunks
        self._suspected.update(suspects)
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
        wanted = self.missing & ~self._under_way.chunks & among
        chosen = self._chosen(wanted & self._for_origin, wanted & ~self._for_origin, now) if wanted else None
        if chosen is None:
            return None
        return self._begun(self._extended(chosen, wanted, most), now)

    def _chosen(self, disputed: int, wanted: int, now: float) -> Ask | None:
        if self.me is None:
            return self._of_a_peer(wanted, now) or self._of_the_origin(wanted & ~self._sure, now, disputed)
        return (
            self._of_the_origin(wanted & self._share & ~(0 if self._starved else self._held), now, disputed)
            or self._of_a_peer(wanted, now)
            or self._of_the_origin(0 if self._busy_with_peers else wanted & self._share & ~self._sure, now)
            or self._of_another_owner(wanted & ~self._sure, now)
        )

    def owners(self, now: float) -> frozenset[str]:
        """Return the nodes that have a share of the origin: this one, and each peer that answers and brings what it owes."""
        alive = [peer for name, peer in self.peers.items() if self._counts(name, peer, now)]
        owners = self._owners.among(alive, self.missing & ~self._sure, now, unheard=unheard(len(self.peers)))
        return owners if self.me is None else owners | {self.me}

    def _counts(self, name: str, peer: Peer, now: float) -> bool:
        return name not in self._banned and now >= peer.left_until and not peer.silent(len(self.peers), now)

    def _look(self, now: float) -> None:
        """Look at who owns what, and at what peers have."""
        self._looked = now
        self._claimed = self._held = self._sure = 0
        self._usable = [
            (name, peer) for name, peer in self.peers.items() if self._counts(name, peer, now) and not self._suspected[name]
        ]
        judge([peer for _, peer in self._usable], self._turn)
        for _, peer in self._usable:
            self._claimed |= peer.has
        for peer in self._good:
            self._sure |= peer.has if peer.proven else peer.has & self._held
            self._held |= peer.has
        if now >= self.began + self.settle:
            self._divide(now)
        self._starved |= now - self._moved > STARVED
        if self._starved:
            self._share = self.missing
        self._ahead = not self._starved and self._owners.ahead(self.me, self._good, self._nowhere, now)

    @property
    def _good(self) -> list[Peer]:
        """The peers that count, bring what they say that they have, and are not suspected."""
        return [peer for _, peer in self._usable if peer.brings]

    @property
    def _turn(self) -> float:
        """The seconds in which each peer brings one chunk, if as many come at a time as there are connections for."""
        return len(self._usable) * self._under_way.usual_of_peers / min(MANY, self.connections)

    @property
    def _nowhere(self) -> int:
        """The chunks that no such peer has, nor this node."""
        return self.missing & ~self._held

    def _divide(self, now: float) -> None:
        """Divide the origin among the owners. Not before the first maps are heard: each of 1,000 would divide it anew."""
        self._owners.divide(self.owners(now), [peer for _, peer in self._usable], now)
        self._share = self._owners.share(self.me) if self.me is not None else 0

    def _of_the_origin(self, wanted: int, now: float, disputed: int = 0) -> Ask | None:
        """A chunk of the origin, in the order of the files: the first ones are verified and passed on early.

        What is `disputed` nobody else brings, so it is not divided among owners, and waits for none of them.
        """
        if self._ahead or self._under_way.at_origin >= self._part(now):
            wanted = 0
        wanted |= disputed
        if not wanted or now < max(self.began + self.settle, self._origin_at) or self._under_way.at_origin >= self._most:
            return None
        # Those who do not know each other yet would all begin with the first chunk.
        return Ask(self._files.one_of(wanted, self.random) if self._awaits(now) else lowest(wanted), None)

    def _part(self, now: float) -> int:
        """The requests to the origin that this node may have.

        All of them bring chunks at the same time, so the more there are, the later the first one is whole and can be passed
        on: four nodes, of which two had four times as many as the others, waited 5 s of 12 for a chunk. But a node that has
        few among many to peers brings its share too late: eight nodes waited 20 s of 68 for the last chunks of one. One to
        which peers bring nothing has them all.
        """
        if self._starved:
            return self._most
        together = max(1, len(self._owners.members) + self._awaits(now))
        return max(-(-self._most // together), self._under_way.at_peers // max(1, together - 1))

    @property
    def _most(self) -> int:
        """The requests to the origin of all nodes together, and of one that asks for what it does not share."""
        return min(self.connections, MANY, max(FEW, self.layout.chunks // SPREAD))

    def _of_a_peer(self, wanted: int, now: float) -> Ask | None:
        """A chunk that a peer has, of the one that is asked for least: so their uploads are used evenly."""
        wanted &= self._claimed
        if not wanted or not self._usable:
            return None
        if self._busy_with_peers:
            return None
        for chunks in (wanted & self._files.near(self.missing, files=_FILES, window=WINDOW), wanted):
            if chunks and (found := self._least_asked(chunks, now)) is not None:
                name, has = found
                return Ask(self._files.one_of(has, self.random), name)
        return None

    @property
    def _busy_with_peers(self) -> bool:
        """Whether peers are asked for as much as is of use: then it is no fault of theirs that they give no more."""
        return self._under_way.at_peers >= max(FEW, min(MANY, 2 * len(self._usable)))

    def _least_asked(self, chunks: int, now: float) -> tuple[str, int] | None:
        """The peer with some of `chunks` of which least is under way, and which it has. One of several at random. A peer that
        did not bring what it has is asked for one thing at a time: it may have been busy, and the only one that has it."""
        number, found = len(self._usable), None
        least, first = max(2, -(-2 * min(MANY, self.connections) // number)), self.random.randrange(number)
        for place in range(first, first + number):
            name, peer = self._usable[place % number]
            may = least if peer.brings else min(1, least)
            if peer.asked < may and peer.avoided_until <= now and (has := peer.has & chunks):
                found, least = (name, has), peer.asked
                if not least:
                    break
        return found

    def _of_another_owner(self, left: int, now: float) -> Ask | None:
        """A chunk of an owner that is late, or has much more to bring than this node, which has its share."""
        if self._share & left:
            return None
        chunk = self._owners.taken_over(self.me, self._good, left, now)
        if chunk is None and not self._under_way.at_origin:
            chunk = self._owners.relieved(self.me, self._good, self._nowhere, left & ~self._held)
        return None if chunk is None else Ask(chunk, None)

    def _extended(self, ask: Ask, wanted: int, most: int) -> Ask:
        """The same with the chunks behind it that the same supplier is to be asked for: requests are not free."""
        if ask.supplier is None:
            wanted &= self._for_origin | (self._share & ~self._sure if self.me is not None else ~self._sure)
        else:
            wanted &= self.peers[ask.supplier].has & ~self._for_origin
        # Whoever joins takes over what is not under way. So that is little, and at the end every connection has something.
        most = min(most, wanted.bit_count() // (4 * self.connections))
        return Ask(ask.chunk, ask.supplier, self._files.run(wanted, ask.chunk, most))

    def _end(self, ask: Ask) -> float | None:
        """Chunks are not under way any more. Returns since when they were; None if they were not."""
        since = self._under_way.end(ask)
        if since is not None and ask.supplier is not None and (peer := self.peers.get(ask.supplier)) is not None:
            peer.asked = max(0, peer.asked - 1)
        return since

    def _begun(self, ask: Ask, now: float) -> Ask:
        self._under_way.begin(ask, now)
        if ask.supplier is not None:
            self.peers[ask.supplier].asked += 1
        return ask
