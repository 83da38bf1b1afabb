"""NodeCache: what one node shall have, written by the controller, and what it has, written by its agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from cluster.resources.artifact import Mark
from cluster.resources.conditions import Condition
from cluster.resources.kinds import Column, Kind
from cluster.resources.schema import Rule, Schema

Phase = Literal["Queued", "Fetching", "Waiting", "Warming", "Ready", "Failed", "Damaged", "Evicting", "Evicted"]
COPIES: frozenset[Phase] = frozenset({"Ready", "Warming"})
"""The phases of a complete copy that pods may use."""
Medium = Literal["Disk", "Memory"]
Warm = Literal["PageCache", "Locked"]
"""How an artifact stays in memory: read again when it is reclaimed, or locked."""
Retain = Literal["Always", "WhenPossible", "WhileUsed"]
_KEYS = Rule("self.all(key, key.matches('^[0-9a-f]{16}$'))", "each name is a cache key: 16 digits of 0-9a-f")


@dataclass(frozen=True, slots=True)
class Entry:
    """One artifact that the node shall have: what it is says the CacheArtifact of this `mark`, once for all nodes.

    `turn`: the node may fetch it now. `held`: a pod uses it, so it is never evicted. Both are true or absent, and a usual
    `retain` is absent too: a thousand nodes with hundreds of entries repeat whatever stands here.
    """

    mark: Mark
    retain: Retain | None = None
    held: bool | None = None
    turn: bool | None = None
    warm: Warm | None = None


_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_PORT = "(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})"
_Address = Annotated[str, Schema(pattern=rf"^https://({_OCTET}(\.{_OCTET}){{3}}|\[[0-9a-f:]{{2,39}}\]):{_PORT}$", most=64)]
_Pem = Annotated[str, Schema(most=8192)]
MOST_PEERS = 16
"""Peers that a node is told for one artifact. They ask each other all the time, so each more costs every one of them."""


@dataclass(frozen=True, slots=True)
class Peers:
    """How the node meets others that fetch the same, in a pool where peers are on.

    `authority`: the certificate of who vouches for all nodes. `certificate`: that of the node, for the key and the address in
    its status; absent until it is issued. `addresses`: who has, or fetches too, an artifact that the node fetches.
    """

    authority: _Pem
    certificate: _Pem | None = None
    addresses: Annotated[
        Mapping[str, Annotated[tuple[_Address, ...], Schema(most=MOST_PEERS)]],
        Schema("By cache key.", most=2000, whole=True, rules=(_KEYS,)),
    ] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeCacheSpec:
    """What the node shall have. A NodeCache that is missing says nothing: the node then keeps what it has."""

    pool: Annotated[str, Schema(most=253)]
    limit: Annotated[str | None, Schema(most=32)] = None
    min_free: Annotated[str | None, Schema(most=32)] = None
    allow_root_filesystem: bool = False
    medium: Medium = "Disk"
    memory_budget: Annotated[int, Schema("Bytes of models that the agent may keep in memory.", least=0)] = 0
    allowed_sources: Annotated[tuple[Annotated[str, Schema(most=512)], ...], Schema(most=64)] = ()
    status_interval: Annotated[
        int | None, Schema("Seconds between two statuses of the node at least, in a large cluster.", least=1, most=3600)
    ] = None
    artifacts: Annotated[Mapping[str, Entry], Schema("By cache key.", most=2000, whole=True, rules=(_KEYS,))] = field(
        default_factory=dict
    )
    peers: Peers | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """One artifact as the node has it. `reason` is the reason word of an error, or why it waits.

    `content`, of a complete copy: the revision and the listing that it was compared with, as `content_of` marks them. `warm`:
    how it is kept in memory. `from_origin`, `from_peers`: bytes that were fetched for a copy, where peers are on.
    """

    phase: Phase
    reason: Annotated[str | None, Schema(most=64)] = None
    message: Annotated[str | None, Schema(most=1024)] = None
    content: Annotated[str | None, Schema(most=16)] = None
    warm: Warm | None = None
    from_origin: Annotated[int | None, Schema(least=0)] = None
    from_peers: Annotated[int | None, Schema(least=0)] = None


@dataclass(frozen=True, slots=True)
class NodeCacheStatus:
    """`capacity` and `used` are in bytes: what models may occupy, and what they occupy.

    `peer_address`: where the node serves its peers, once it has a certificate for the public key `peer_key`.
    """

    capacity: int = 0
    used: int = 0
    artifacts: Annotated[Mapping[str, Observed], Schema("By cache key.", most=4000, whole=True)] = field(default_factory=dict)
    conditions: Annotated[tuple[Condition, ...], Schema(keys=("type",), most=16)] = ()
    peer_address: _Address | None = None
    peer_key: Annotated[str | None, Schema("In DER and base64.", pattern="^[A-Za-z0-9+/]+=*$", most=512)] = None


NODE_CACHE = Kind(
    name="NodeCache",
    plural="nodecaches",
    namespaced=False,
    spec=NodeCacheSpec,
    status=NodeCacheStatus,
    columns=(
        Column("Pool", ".spec.pool"),
        Column("Used", ".status.used", "integer"),
        Column("Capacity", ".status.capacity", "integer"),
        Column("Reason", ".status.conditions[?(@.type=='Ready')].reason"),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
