"""Finds peers, and learns which chunks they have. Decides nothing about a fetch: `planning.swarm` does.

Peers are told by addresses (`addresses`), some of them names that are resolved again and again (`membership`, `neighbours`).
Each of them is asked for its map of chunks by long poll (`asking`). Nothing that a peer says is believed: at worst it is asked
for chunks that it does not have, or sends wrong ones, and the digest that the origin publishes decides.
"""

from __future__ import annotations

from fetcher.peers.addresses import Addresses as Addresses
from fetcher.peers.addresses import addresses_of as addresses_of
from fetcher.peers.asking import ANSWER as ANSWER
from fetcher.peers.asking import Wanted as Wanted
from fetcher.peers.connecting import PeerTls as PeerTls
from fetcher.peers.connecting import connected as connected
from fetcher.peers.membership import MOST as MOST
from fetcher.peers.neighbours import Neighbours as Neighbours
from fetcher.peers.neighbours import Told as Told
from fetcher.peers.secret import Secret as Secret
