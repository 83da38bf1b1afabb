"""Which node asks the origin for which block, so that together they ask once. Pure: every node computes the same from the same.

Rendezvous hashing alone leaves one of 32 nodes twice the mean, and what a node has from the origin it sends to all others: the
last one decides when everybody is done. So no node gets more than its share: a block goes to the node with the highest hash
that has room. Nodes that know different members disagree on a few blocks, which costs the origin these blocks twice.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from operator import itemgetter

import xxhash

from fetcher.planning.bits import span
from fetcher.values import dataclass

BLOCK_CHUNKS = 4
"""Chunks (64 MiB) that one node asks for: few enough owners to agree on, and ranges that an origin sends well."""
_BLOCKS_PER_NODE = 4
"""With fewer blocks a node, blocks are smaller: otherwise some nodes would own none, and others would send for them."""
_CANDIDATES = 64
"""Members among which the highest hash decides: all of so many, else those that follow the block on a ring. 1,024 blocks among
1,000 members take 40 ms so, and 400 ms among all."""
_KNOWN = 64


@dataclass(frozen=True, slots=True)
class Layout:
    """The chunks of an artifact, numbered through in the order of its files. `files`: the number of chunks of each."""

    listing: str
    files: tuple[int, ...]

    @property
    def chunks(self) -> int:
        return sum(self.files)

    def spans(self) -> Iterator[tuple[int, int]]:
        """Yield the first chunk of each file and the one after its last."""
        start = 0
        for count in self.files:
            yield start, start + count
            start += count

    def block_size(self, nodes: int) -> int:
        """Return the chunks of a block for so many nodes."""
        return max(1, min(BLOCK_CHUNKS, self.chunks // (_BLOCKS_PER_NODE * nodes)))

    def blocks(self, size: int) -> list[range]:
        """Return the blocks of `size` chunks. None is in two files."""
        return [range(at, min(at + size, stop)) for start, stop in self.spans() for at in range(start, stop, size)]


@lru_cache(maxsize=_KNOWN)
def shares(layout: Layout, members: frozenset[str]) -> dict[str, int]:
    """Return the chunks that each member asks the origin for: bit `i` of its number is chunk `i`."""
    blocks = layout.blocks(layout.block_size(len(members)))
    room = len(blocks) // len(members)
    everyone = sorted((_hash(member), member) for member in members)
    found, count, ring = dict.fromkeys(members, 0), Counter[str](), everyone.copy() if room else []
    # The order is by hash too: in the order of the files, the last ones would all go to the few that still have room.
    for place, block in sorted(((_hash(f"{layout.listing}/{block.start}"), block) for block in blocks), key=itemgetter(0)):
        if not ring:
            ring, room = everyone.copy(), room + 1
        seed, owner = max(_from(ring, place), key=lambda each: _hash(f"{layout.listing}/{block.start}", each[0]))
        found[owner] |= span(block.start, len(block))
        count[owner] += 1
        if count[owner] == room:
            ring.remove((seed, owner))
    return found


def _from(ring: Sequence[tuple[int, str]], place: int) -> Sequence[tuple[int, str]]:
    """The candidates for a block: those from its place on, around the ring."""
    first = bisect_left(ring, (place, ""))
    return [*ring[first : first + _CANDIDATES], *ring[: max(0, min(first, first + _CANDIDATES - len(ring)))]]


def rank(layout: Layout, chunk: int, members: Sequence[str]) -> list[str]:
    """Return the members in the order in which they would ask for a chunk that its owner does not bring."""
    name = f"{layout.listing}/late/{chunk // BLOCK_CHUNKS}"
    return sorted(members, key=lambda member: _hash(name, _hash(member)))


def takes(layout: Layout, chunk: int, members: Iterable[str]) -> str:
    """Return which of the members asks for a chunk that its owner is to be spared."""
    name = f"{layout.listing}/spared/{chunk}"
    return max(members, key=lambda member: _hash(name, _hash(member)))


def _hash(text: str, seed: int = 0) -> int:
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogateescape"), seed)
