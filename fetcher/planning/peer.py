"""What a node knows of one peer, and how often it asks it. Pure; times are passed in, in seconds."""

from __future__ import annotations

from collections.abc import Collection

from fetcher.planning.ownership import BLOCK_CHUNKS
from fetcher.quantities import doubled
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
FAILURES = 2
"""Failures in a row after which a peer is left alone and owns nothing, for `SILENCE`, and twice as long each time after."""
_LONGEST = 64 * SILENCE
_UNWILLING = 16.0
"""How many times as long as others, for each chunk, a peer may want to be asked later. In a swarm of 32, of which half have a
quarter of the link, all refuse many requests, some four times as many as others."""
_TURNS = 4.0
"""The same in times of what a chunk of each peer takes together. With 16, three nodes and three peers that gave each of them a
chunk in 9 s took 20 times the bound."""
_WILLING = 1.0
"""Seconds for each chunk that say nothing about a peer. Where most never refuse, one that does now and then is no worse."""


@dataclass(slots=True)
class Peer:
    """What is known of a peer. `has`: what it passes on; times in seconds. `brought`: chunks of its share since `since`.

    `node`: its identity. `avoided_until`: it is not asked. `left_until`: it does not count either. `asked`: what it is asked
    for now. `waited`: seconds for which it wanted to be asked later; `came`: chunks that it brought. `brings`: whether it
    brings what it says that it has, so that this keeps others from the origin.
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
    waited: float = 0.0
    came: int = 0
    brings: bool = True

    @property
    def wait(self) -> float:
        """The seconds for which it wanted to be asked later, for each chunk. Two count more than came: who has brought few may
        have been unlucky, as one of 32 peers is."""
        return self.waited / (self.came + 2)

    @property
    def block_time(self) -> float | None:
        """The mean seconds for a block of its share; None while it has brought none."""
        return (self.progress - self.since) * BLOCK_CHUNKS / self.brought if self.brought >= BLOCK_CHUNKS else None

    def told(self, has: int, owed: int, now: float) -> bool:
        """It has told its map, while it owed some chunks. Returns whether it has lost something."""
        self.heard = now
        if gained := has & ~self.has & owed:
            self.progress, self.brought = now, self.brought + gained.bit_count()
        if has & ~self.has:
            self.late = False
        lost = bool(self.has & ~has)
        self.has = has
        return lost

    def silent(self, peers: int, now: float) -> bool:
        """Whether it has not answered for too long, as one of so many peers."""
        return now - self.heard > max(SILENCE, unheard(peers))

    def brought_some(self, chunks: int) -> None:
        """It has brought chunks."""
        self.failures = 0
        self.came += chunks

    def later(self, now: float, until: float) -> None:
        """It wants to be asked later."""
        self.avoided_until = until
        self.waited += max(0.0, until - now)

    def failed(self, now: float) -> bool:
        """It has not brought what it was asked for, and is not asked for a while. Returns whether it is to be left alone."""
        self.failures += 1
        self.avoided_until = now + _pause(self.failures)
        return self.failures >= FAILURES

    def left(self, until: float) -> None:
        """It is left alone."""
        self.late, self.proven = True, False
        self.avoided_until = self.left_until = until


def judge(peers: Collection[Peer], turn: float) -> None:
    """Say of each of `peers` whether it brings what it says that it has: it may want to be asked later, as others do.

    `turn`: seconds in which each of them brings a chunk if the node is kept busy. Beyond some of these what others do is no
    excuse: they may be as bad.
    """
    waits = sorted(peer.wait for peer in peers)
    usual = waits[(len(waits) - 1) // 2] if waits else 0.0
    for peer in peers:
        peer.brings = peer.waited < SILENCE or peer.wait <= max(_WILLING, min(_UNWILLING * usual, _TURNS * turn))


def every(peers: int) -> float:
    """Return the seconds between two maps of each of so many peers."""
    return max(_EVERY, peers / _MAPS_A_SECOND)


def unheard(peers: int) -> float:
    """Return the seconds without a map of one of so many peers that mean nothing."""
    return _MAPS * every(peers)


def _pause(failures: int) -> float:
    """Seconds to leave somebody alone after so many failures in a row."""
    return 1.0 if failures < FAILURES else doubled(SILENCE, failures - FAILURES + 1, _LONGEST)
