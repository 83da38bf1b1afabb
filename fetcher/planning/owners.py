"""Which nodes have a share of the origin, and who takes over from one that brings nothing. Pure; times are in seconds.

An owner is a peer that told its map within the last `SILENCE`, and whose share progresses. The share of another is divided
among the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import field

from fetcher.planning.bits import lowest
from fetcher.planning.ownership import BLOCK_CHUNKS, Layout, rank, shares, takes
from fetcher.planning.peer import Peer
from fetcher.quantities import median
from fetcher.values import dataclass

PATIENCE = 5.0
"""Seconds without a chunk of its share after which an owner may be taken over, and at least `BLOCK_TIMES` of its blocks."""
BLOCK_TIMES = 3.0
AHEAD = 2
"""Chunks of its share by which a node may be ahead of others before it leaves the origin to them: what it had from there it
sends to all. Of eight nodes three had their shares after 31 s, the others after 48. Until then the links of the three carried
what everybody waited for and those of the others little, 31 of 45 chunks a second, and afterwards it was the other way."""

MUCH = 2
"""Chunks that are left to an owner by those that have their shares: as many as it has under way. Of eight nodes one had nine
chunks to bring when the others were done; it sent each of them to all, for six seconds, while their links had nothing to do."""


@dataclass(slots=True)
class Owners:
    """The division of `layout`. `members`: the nodes that have a share."""

    layout: Layout
    members: frozenset[str] = frozenset()
    _shares: dict[str, int] = field(default_factory=dict)
    _late: int | None = None

    def share(self, node: str) -> int:
        """The chunks that a node asks the origin for."""
        return self._shares.get(node, 0)

    def divide(self, members: frozenset[str], peers: Collection[Peer], now: float) -> None:
        """Divide the origin among `members`, to which some of `peers` belong."""
        before, self.members = self.members, members
        if members != before:
            self._shares = shares(self.layout, members) if members else {}
        for peer in peers:
            peer.late = peer.node not in members
            if peer.node in members and peer.node not in before:
                peer.progress = now  # it has owed this share from now on

    def among(self, peers: Sequence[Peer], missing: int, now: float, *, unheard: float) -> frozenset[str]:
        """Return those of `peers` that bring what they owe. `missing`: chunks that are not here, and not surely there.

        `unheard`: seconds without a map that mean nothing.
        """
        times = sorted(time for peer in peers if (time := peer.block_time) is not None)
        usual = times[len(times) // 2] if times else None
        return frozenset(peer.node for peer in peers if not (peer.late or self._stalled(peer, usual, missing, now, unheard)))

    def _stalled(self, peer: Peer, usual: float | None, missing: int, now: float, unheard: float) -> bool:
        """Whether an owner owes something, and brings nothing. Before anybody has brought a block only those are late who say
        that they have what they owe, and do not bring it."""
        block_time = peer.block_time or usual or (None if peer.brings else 0.0)
        if block_time is None or not self.share(peer.node) & missing & ~(peer.has if peer.brings else 0):
            return False
        return now - peer.progress > max(PATIENCE, unheard, BLOCK_TIMES * block_time)

    def ahead(self, me: str | None, peers: Collection[Peer], nowhere: int, now: float) -> bool:
        """Whether of the share of `me` more has come than of others' that still progress. `nowhere`: chunks that nobody has."""
        if me is None:
            return False
        owed = [self.share(peer.node) for peer in peers if peer.node in self.members and now - peer.progress <= PATIENCE]
        brought = [(share & ~nowhere).bit_count() for share in owed if share & nowhere]
        return bool(brought) and (self.share(me) & ~nowhere).bit_count() >= median(brought) + AHEAD

    def relieved(self, me: str | None, peers: Collection[Peer], nowhere: int, wanted: int) -> int | None:
        """For a node that has its share: a chunk that is `wanted` of an owner that has much of its own left. `nowhere`: chunks
        that nobody has. The owner begins with the first ones; each of the last has one node that brings it instead."""
        if me is None or self.share(me) & nowhere:
            return None
        free = [me, *(peer.node for peer in peers if peer.node in self.members and not self.share(peer.node) & nowhere)]
        for peer in peers:
            left = self.share(peer.node) & nowhere if peer.block_time is not None else 0
            for _ in range(MUCH):
                left &= left - 1
            while chunk := left & wanted:
                last = chunk.bit_length() - 1
                if takes(self.layout, last, free) == me:
                    return last
                left ^= 1 << last
        return None

    def taken_over(self, me: str | None, peers: Collection[Peer], left: int, now: float) -> int | None:
        """At the end, when only `left` is missing: a chunk of a block that its owner has not brought for longer than it usually
        takes, by the next in line."""
        if not left or left.bit_count() > len(self.members) * BLOCK_CHUNKS:
            return None
        for peer in sorted(peers, key=lambda each: each.node):
            owed = self.share(peer.node) & left
            if not owed or peer.block_time is None or now - peer.progress <= max(PATIENCE / 2, 1.5 * peer.block_time):
                continue
            chunk = lowest(owed)
            block = chunk // BLOCK_CHUNKS
            others = sorted(self.members - {peer.node})
            if self._late in (None, block) and rank(self.layout, chunk, others)[0] == me:
                self._late = block
                return chunk
        return None
