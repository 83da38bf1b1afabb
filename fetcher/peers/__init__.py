"""Finds peers, and learns which chunks they have. Decides nothing about a fetch: `planning.swarm` does.

Peers are told by addresses (`addresses`), some of them names that are resolved again and again (`membership`, `neighbours`).
Each of them is asked for its map of chunks by long poll (`asking`). Nothing that a peer says is believed: at worst it is asked
for chunks that it does not have, or sends wrong ones, and the digest that the origin publishes decides.
"""

from __future__ import annotations

from fetcher.peers.addresses import Addresses as Addresses
from fetcher.peers.addresses import addresses_of as addresses_of
from fetcher.peers.asking import Wanted as Wanted
from fetcher.peers.neighbours import Neighbours as Neighbours
