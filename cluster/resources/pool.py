"""CachePool: on which nodes models lie, in which directory, within which bounds, and for whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from cluster.resources.conditions import Condition
from cluster.resources.kinds import Column, Kind
from cluster.resources.node import Medium
from cluster.resources.schema import IMMUTABLE, Rule, Schema
from cluster.resources.selectors import LabelSelector

Root = Annotated[
    str,
    Schema(
        "The directory on each node, which exists. The only place where it is written.",
        pattern=r"^(/[A-Za-z0-9._-]+)+$",
        most=1024,
        rules=(IMMUTABLE, Rule("!self.split('/').exists(part, part == '..' || part == '.')", "must not contain . or ..")),
    ),
]
_AMOUNT = r"^([0-9]{1,18}(\.[0-9]{1,6})?[kMGT]?i?|(100|[1-9]?[0-9])(\.[0-9]{1,6})?%)$"
"""A size in bytes, or a percentage of the filesystem, as `fetcher init --max-size` takes them."""
_QUANTITY = r"^[0-9]{1,15}(\.[0-9]{1,6})?([kMGT]|[KMGT]i)?$"
PREFIX = r"^((hf|s3|gs)://([^/?#]+/([^?#]+/)*)?|(https?|oci|az)://[^/?#@]+/([^?#]+/)*)$"
Prefix = Annotated[
    str,
    Schema(
        "The beginning of URIs, up to a /. Of a web server or registry it names the host, which no model may choose.",
        pattern=PREFIX,
        most=512,
    ),
]


@dataclass(frozen=True, slots=True)
class Memory:
    """What of a node's memory belongs to models: those on a medium in memory, and those that are warm."""

    budget: Annotated[
        str, Schema("Such as 200Gi. It is in the agents' memory request and limit from the start.", pattern=_QUANTITY, most=32)
    ] = "0"
    allow_locking: Annotated[
        bool, Schema("Whether agents get CAP_IPC_LOCK. They then start as root, to become their own user at once.")
    ] = False


@dataclass(frozen=True, slots=True)
class Peering:
    """Whether nodes of the pool take bytes from each other, by TLS with certificates of both, so that the source sends a model
    about once."""

    mode: Literal["Off", "On"] = "Off"


@dataclass(frozen=True, slots=True)
class CachePoolSpec:
    """Where models lie. A node that two pools select belongs to the older one."""

    root: Root
    node_selector: Annotated[LabelSelector, Schema("Which nodes. An empty selector selects all.")] = field(
        default_factory=LabelSelector
    )
    medium: Annotated[
        Medium, Schema("Memory: the root lies on a tmpfs that is mounted on the nodes, and memory.budget bounds it too.")
    ] = "Disk"
    memory: Memory = field(default_factory=Memory)
    limit: Annotated[
        str | None, Schema("What models may occupy on a node, such as 1700G or 80%.", pattern=_AMOUNT, most=32)
    ] = None
    min_free: Annotated[str | None, Schema("What stays free on the filesystem.", pattern=_AMOUNT, most=32)] = None
    allow_root_filesystem: Annotated[bool, Schema("Whether the root may lie on the node's root filesystem.")] = False
    namespace_selector: Annotated[LabelSelector | None, Schema("Whose ModelCaches may use the pool; none if it is absent.")] = (
        None
    )
    allowed_sources: Annotated[
        tuple[Prefix, ...], Schema("What may be fetched, and which hosts may have private addresses.", most=64)
    ] = ("hf://",)
    max_fetching: Annotated[int, Schema("How many nodes fetch one model at a time.", least=1, most=10_000)] = 8
    peers: Peering = field(default_factory=Peering)
    node_labels: Annotated[
        bool, Schema("Whether nodes are labelled ready.weightlift.dev/KEY=true. It needs the component node-labels.")
    ] = False
    tolerations: Annotated[tuple[Annotated[Mapping[str, Any], Schema(any_value=True)], ...], Schema(most=64)] = ()
    priority_class_name: Annotated[
        str | None,
        Schema(
            "Of the agents' pods. With system-node-critical they stay when the node runs short, and displace other pods.",
            pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$",
            most=253,
        ),
    ] = None
    resources: Annotated[
        Mapping[str, Any] | None, Schema("Of the agent's container, to which memory.budget is added.", any_value=True)
    ] = None

    RULES: ClassVar = (
        Rule(
            "self.medium != 'Memory' || (has(self.memory) && !self.memory.budget.matches('^[0.]+[A-Za-z]*$'))",
            "medium Memory needs memory.budget: what models may occupy there",
        ),
    )


@dataclass(frozen=True, slots=True)
class CachePoolStatus:
    """`nodes` belong to the pool, `ready` of them have an agent that reports."""

    nodes: int = 0
    ready: int = 0
    used: Annotated[int, Schema("Bytes on all nodes.")] = 0
    conditions: Annotated[tuple[Condition, ...], Schema(keys=("type",), most=16)] = ()


CACHE_POOL = Kind(
    name="CachePool",
    plural="cachepools",
    namespaced=False,
    spec=CachePoolSpec,
    status=CachePoolStatus,
    columns=(
        Column("Root", ".spec.root"),
        Column("Nodes", ".status.nodes", "integer"),
        Column("Ready", ".status.ready", "integer"),
        Column("Limit", ".spec.limit"),
        Column("Medium", ".spec.medium", wide=True),
        Column("Budget", ".spec.memory.budget", wide=True),
        Column("Reason", ".status.conditions[?(@.type=='Ready')].reason"),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
