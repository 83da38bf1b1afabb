"""Who is a peer now, by what name servers have said. Pure; times are passed in.

A failed or empty answer says nothing: who was there stays. A name server may leave addresses out, in turn or because an answer
is full, and takes out a pod that is not ready for a moment. So a peer leaves only when later answers have not named it for a
while. Whether it still answers is another question, which its map decides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import field

import xxhash

from fetcher.peers.addresses import Addresses, Name
from fetcher.values import dataclass

ABSENT = 60.0
"""Seconds for which answers do not name a peer before it leaves: two periods of the usual 30 s for which answers are cached."""
MOST = 1024
"""Peers at a time, whatever a name server says. Each takes one connection."""


@dataclass(slots=True)
class Membership:
    """The peers of the node `me`, any text that other nodes do not have. `told`: those that are told from time to time."""

    given: Addresses
    me: str
    told: frozenset[str] = frozenset()
    _named: dict[Name, dict[str, float]] = field(default_factory=dict)
    _answered: dict[Name, float] = field(default_factory=dict)

    def answered(self, name: Name, addresses: Iterable[str], now: float) -> None:
        """A name server has answered with these IP addresses."""
        peers = {peer for address in addresses if (peer := name.peer(address)) is not None}
        if not peers:
            return
        named = self._named.setdefault(name, {})
        named.update(dict.fromkeys(peers, now))
        self._answered[name] = now
        self._named[name] = {peer: at for peer, at in named.items() if now - at <= ABSENT}

    def peers(self) -> frozenset[str]:
        """Return who is a peer now. Of more than `MOST`, each node has others."""
        found = {*self.given.fixed, *self.told, *(peer for named in self._named.values() for peer in named)} - {self.me}
        return frozenset(found if len(found) <= MOST else sorted(found, key=self._distance)[:MOST])

    def _distance(self, peer: str) -> int:
        return xxhash.xxh3_64_intdigest(f"{self.me}\0{peer}".encode())


def change(before: Collection[str], after: Collection[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return who joined and who left."""
    return frozenset(after) - frozenset(before), frozenset(before) - frozenset(after)
