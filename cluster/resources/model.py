"""ModelCache: which model a namespace wants, on which nodes, and how far that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from cluster.resources.conditions import Condition
from cluster.resources.kinds import Column, Kind
from cluster.resources.schema import IMMUTABLE, Rule, Schema

Name = Annotated[str, Schema(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", least=1, most=253)]
Pattern = Annotated[str, Schema(least=1, most=512)]


@dataclass(frozen=True, slots=True)
class Origin:
    """What is fetched: the words of `fetcher fetch`."""

    uri: Annotated[str, Schema(pattern=r"^[a-z0-9]+://[^\s?#@]+(@[^\s?#@/]+)?$", least=6, most=1024, rules=(IMMUTABLE,))]
    revision: Annotated[str | None, Schema("A branch, a tag or a commit.", least=1, most=256)] = None
    include: Annotated[tuple[Pattern, ...], Schema("Only files that match one of these.", most=64)] = ()
    exclude: Annotated[tuple[Pattern, ...], Schema("No files that match one of these.", most=64)] = ()


@dataclass(frozen=True, slots=True)
class SecretKey:
    """One key of a Secret in the ModelCache's namespace."""

    name: Name
    key: Annotated[str, Schema(pattern=r"^[-._a-zA-Z0-9]+$", least=1, most=253)]


@dataclass(frozen=True, slots=True)
class SecretName:
    """A Secret in the ModelCache's namespace, whose keys have the names of the environment variables of its store."""

    name: Name


@dataclass(frozen=True, slots=True)
class Auth:
    """The credential of a source: one key, which is a token, a Secret of several, or the identity of a service account, as
    which the Job of a claim runs. Without it, the source is asked anonymously."""

    secret_key_ref: SecretKey | None = None
    secret_ref: SecretName | None = None
    service_account_name: Name | None = None

    RULES: ClassVar = (
        Rule(
            "[has(self.secretKeyRef), has(self.secretRef), has(self.serviceAccountName)].filter(each, each).size() == 1",
            "give one of secretKeyRef, secretRef and serviceAccountName",
        ),
    )


@dataclass(frozen=True, slots=True)
class PoolPlacement:
    """Copies in one pool: on all of its nodes, or on `replicas` of them."""

    name: Name
    mode: Literal["AllNodes", "Count"] = "AllNodes"
    replicas: Annotated[int | None, Schema(least=1, most=100_000)] = None

    RULES: ClassVar = (
        Rule("(self.mode == 'Count') == has(self.replicas)", "mode Count needs replicas, and mode AllNodes takes none"),
    )


Parts = Annotated[int, Schema("How many pods fetch the model together, each a part of it.", least=1, most=64)]


@dataclass(frozen=True, slots=True)
class ClaimPlacement:
    """One copy in a claim of the user's, which is never made, changed or deleted."""

    name: Name
    parts: Parts = 1


@dataclass(frozen=True, slots=True)
class ClaimTemplate:
    """One copy in a claim that is made with the name of the ModelCache, and that several nodes can mount."""

    storage_class_name: Name | None = None
    retention: Annotated[
        Literal["Retain", "Delete"], Schema("Whether the claim stays when the ModelCache is deleted. Its volume always does.")
    ] = "Retain"
    parts: Parts = 1


@dataclass(frozen=True, slots=True)
class Placement:
    """Where copies lie: on the nodes of a pool, or in one claim."""

    pools: Annotated[tuple[PoolPlacement, ...], Schema(keys=("name",), least=1, most=1)] = ()
    claim: ClaimPlacement | None = None
    claim_template: ClaimTemplate | None = None

    RULES: ClassVar = (
        Rule(
            "[has(self.pools), has(self.claim), has(self.claimTemplate)].filter(each, each).size() == 1",
            "give one of pools, claim and claimTemplate",
        ),
    )


@dataclass(frozen=True, slots=True)
class Verification:
    """What must be known of each file: nothing, at least a checksum of its store, or a digest."""

    require: Literal["None", "Checksum", "Digest"] = "None"


@dataclass(frozen=True, slots=True)
class ModelCacheSpec:
    """A model that shall lie on nodes before pods ask for it."""

    source: Origin
    placement: Placement
    auth: Auth | None = None
    verification: Verification | None = None
    size: Annotated[
        str | None,
        Schema(
            "What a claimTemplate requests, such as 140Gi. Without it, what the source lists and a tenth of it.",
            pattern=r"^[1-9][0-9]{0,17}(\.[0-9]{1,6})?([kMGTPE]|[KMGTPE]i)?$",
            most=32,
        ),
    ] = None
    min_ready: Annotated[int, Schema("How many copies make the model Ready.", least=1, most=100_000)] = 1
    retain: Annotated[
        Literal["Always", "WhenPossible", "WhileUsed"], Schema("When a copy may make room for another model.")
    ] = "WhenPossible"
    warm: Annotated[
        Literal["None", "PageCache", "Locked"],
        Schema(
            "Whether copies are kept in memory too, within memory.budget of the pool: read again when reclaimed, or locked."
        ),
    ] = "None"
    refresh_policy: Annotated[
        Literal["IfNotPresent", "OnChange"], Schema("Whether what a branch or a tag becomes later replaces the copies.")
    ] = "IfNotPresent"
    refresh_interval: Annotated[
        str, Schema("How often OnChange asks the source.", pattern=r"^[1-9][0-9]{0,5}(s|m|h|d)$", most=7)
    ] = "1h"

    RULES: ClassVar = (
        Rule(
            "!self.source.uri.startsWith('pvc://') || has(self.placement.pools)",
            "a pvc:// source is a claim already; mount it",
        ),
        Rule(
            "!has(self.auth) || !has(self.auth.serviceAccountName) || !has(self.placement.pools)",
            "serviceAccountName is for a claim, whose Job runs as it; agents run as their pool's account",
        ),
        Rule(
            "has(self.placement.pools) == has(oldSelf.placement.pools) "
            "&& has(self.placement.claim) == has(oldSelf.placement.claim)",
            "a model does not move between a pool, a claim and a claimTemplate; delete the object and create it anew",
        ),
        Rule(
            "has(self.placement.pools) || self.minReady == 1",
            "a claim is one copy, so minReady is 1",
        ),
        Rule(
            "has(self.placement.pools) || self.warm == 'None'",
            "a claim is no memory of a node; warm is for pools",
        ),
    )


@dataclass(frozen=True, slots=True)
class Found:
    """What the source answered: the listing that every node fetches."""

    key: str
    bytes: int
    files: int
    revision: str | None = None
    listing_digest: Annotated[str, Schema("SHA-256 of paths, sizes and published digests.")] = ""


@dataclass(frozen=True, slots=True)
class Copies:
    """`ready` copies can be used, `warm` of them are in memory as the model wants it.

    `bytes_from_origin`, `bytes_from_peers`: what was fetched for the ready copies, where peers are on.
    """

    desired: int = 0
    ready: int = 0
    failed: int = 0
    warm: int = 0
    bytes_from_origin: int | None = None
    bytes_from_peers: int | None = None


@dataclass(frozen=True, slots=True)
class FailedNode:
    node: str
    reason: str


MOST_FAILED = 10
"""Failed nodes that a status names. A list of all would make each status as large as the cluster."""


@dataclass(frozen=True, slots=True)
class ModelCacheStatus:
    """`claim_name`: what pods mount. `command`: what is answered from this copy without fetching; of a claim, where it is
    mounted at /models. `artifact`: what the source lists; of a claim, what lies in it once that is something."""

    claim_name: str | None = None
    command: str | None = None
    artifact: Found | None = None
    copies: Copies | None = None
    progress: Annotated[str | None, Schema("Ready copies of desired ones, such as 11/12.")] = None
    size: Annotated[str | None, Schema("artifact.bytes as people read them, such as 130.4Gi.")] = None
    revision: Annotated[str | None, Schema("The beginning of artifact.revision.")] = None
    hydrated: Annotated[str | None, Schema("What was fetched into the claim, as the digest in its Job's name.", most=63)] = None
    failed_nodes: Annotated[tuple[FailedNode, ...], Schema(keys=("node",), most=MOST_FAILED)] = ()
    conditions: Annotated[tuple[Condition, ...], Schema(keys=("type",), most=16)] = ()


MODEL_CACHE = Kind(
    name="ModelCache",
    plural="modelcaches",
    namespaced=True,
    spec=ModelCacheSpec,
    status=ModelCacheStatus,
    columns=(
        Column("Ready", ".status.progress"),
        Column("Size", ".status.size"),
        Column("Revision", ".status.revision"),
        Column("Reason", ".status.conditions[?(@.type=='Ready')].reason"),
        Column("Warm", ".status.copies.warm", "integer", wide=True),
        Column("Claim", ".status.claimName", wide=True),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
