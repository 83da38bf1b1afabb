"""NodeCache: what one node shall have, written by the controller, and what it has, written by its agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from cluster.resources.conditions import Condition
from cluster.resources.kinds import Column, Kind
from cluster.resources.schema import Schema

Key = Annotated[str, Schema("A cache key.", pattern="^[0-9a-f]{16}$", most=16)]
Phase = Literal["Queued", "Fetching", "Waiting", "Warming", "Ready", "Failed", "Damaged", "Evicting", "Evicted"]
COPIES: frozenset[Phase] = frozenset({"Ready", "Warming"})
"""The phases of a complete copy that pods may use."""
Medium = Literal["Disk", "Memory"]
Warm = Literal["PageCache", "Locked"]
"""How an artifact stays in memory: read again when it is reclaimed, or locked."""
Retain = Literal["Always", "WhenPossible", "WhileUsed"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One artifact that the node shall have. What it is stands in the ModelCache `model` of `namespace`, once for all nodes.

    `listing_digest` is that of `Found`. `turn`: the node may fetch it now. `held`: a pod uses it, so it is never evicted.
    """

    key: Key
    namespace: Annotated[str, Schema(most=63)]
    model: Annotated[str, Schema(most=253)]
    bytes: Annotated[int, Schema(least=0)]
    revision: Annotated[str | None, Schema(most=256)] = None
    listing_digest: Annotated[str, Schema(most=64)] = ""
    retain: Retain = "WhenPossible"
    held: bool = False
    turn: bool = True
    warm: Warm | None = None


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
    artifacts: Annotated[tuple[Wanted, ...], Schema(keys=("key",), most=2000)] = ()


@dataclass(frozen=True, slots=True)
class Observed:
    """One artifact as the node has it. `reason` is the reason word of an error, or why it waits. `warm`: how it is kept in
    memory."""

    key: Key
    phase: Phase
    reason: Annotated[str | None, Schema(most=64)] = None
    message: Annotated[str | None, Schema(most=1024)] = None
    revision: Annotated[str | None, Schema(most=256)] = None
    warm: Warm | None = None


@dataclass(frozen=True, slots=True)
class NodeCacheStatus:
    """`capacity` and `used` are in bytes: what models may occupy, and what they occupy."""

    capacity: int = 0
    used: int = 0
    artifacts: Annotated[tuple[Observed, ...], Schema(keys=("key",), most=4000)] = ()
    conditions: Annotated[tuple[Condition, ...], Schema(keys=("type",), most=16)] = ()


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
