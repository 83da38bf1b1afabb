"""KServe's kinds of `serving.kserve.io`, as far as they are read or written here.

They belong to KServe, whose later versions may add fields: what is unknown is ignored when it is read, and kept in the object,
because only differences are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cluster.resources import Condition, Kind

GROUP = "serving.kserve.io"

NodeStatus = Literal["", "NodeNotReady", "NodeDownloadPending", "NodeDownloading", "NodeDownloaded", "NodeDownloadError"]
ModelStatus = Literal["", "ModelDownloadPending", "ModelDownloading", "ModelDownloaded", "ModelDownloadError"]
Quantity = Any
"""A number or a text such as 10Gi: `amounts.bytes_of` reads it."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Which entry of the storage Secret is the credential, and what it overrides."""

    key: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LocalModelCacheSpec:
    """Which model lies on the nodes of which groups. `pvc_ref`: the claim in which it lies instead, of a namespace's cache."""

    source_model_uri: str
    model_size: Quantity = None
    node_groups: tuple[str, ...] = ()
    service_account_name: str | None = None
    storage: Storage | None = None
    pvc_ref: str | None = None


@dataclass(frozen=True, slots=True)
class CopyCounts:
    available: int = 0
    total: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True, order=True)
class User:
    """A service that uses a cache."""

    namespace: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class LocalModelCacheStatus:
    """How far each node is, and who uses the model."""

    node_status: Mapping[str, NodeStatus] = field(default_factory=dict)
    copies: CopyCounts | None = None
    inference_services: tuple[User, ...] = ()
    llm_inference_services: tuple[User, ...] = ()
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class LocalModelNodeGroupSpec:
    """Nodes, by the affinity of a volume, and the directory in which their models lie."""

    persistent_volume_spec: Mapping[str, Any]
    persistent_volume_claim_spec: Mapping[str, Any] = field(default_factory=dict)
    storage_limit: Quantity = None


@dataclass(frozen=True, slots=True)
class LocalModelNodeGroupStatus:
    """`used` and `available`: nobody writes them, and the kind has no status subresource."""


@dataclass(frozen=True, slots=True)
class LocalModel:
    """One model that the node shall have. `namespace` is empty for a cache of the whole cluster."""

    source_model_uri: str
    model_name: str
    namespace: str | None = None
    node_group: str | None = None
    service_account_name: str | None = None
    storage: Storage | None = None

    @property
    def cache(self) -> tuple[str, str]:
        """The namespace and the name of the cache that wants it."""
        return self.namespace or "", self.model_name

    @property
    def status_key(self) -> str:
        """The name of the model in the node's status."""
        return f"{self.namespace}/{self.model_name}" if self.namespace else self.model_name


@dataclass(frozen=True, slots=True)
class LocalModelNodeSpec:
    local_models: tuple[LocalModel, ...] = ()


@dataclass(frozen=True, slots=True)
class LocalModelNodeStatus:
    model_status: Mapping[str, ModelStatus] = field(default_factory=dict)


LOCAL_MODEL_CACHE = Kind(
    "LocalModelCache", "localmodelcaches", False, LocalModelCacheSpec, LocalModelCacheStatus, group=GROUP
)  # fmt: skip
LOCAL_MODEL_NAMESPACE_CACHE = Kind(
    "LocalModelNamespaceCache", "localmodelnamespacecaches", True, LocalModelCacheSpec, LocalModelCacheStatus, group=GROUP
)  # fmt: skip
LOCAL_MODEL_NODE_GROUP = Kind(
    "LocalModelNodeGroup", "localmodelnodegroups", False, LocalModelNodeGroupSpec, LocalModelNodeGroupStatus, group=GROUP
)  # fmt: skip
LOCAL_MODEL_NODE = Kind(
    "LocalModelNode", "localmodelnodes", False, LocalModelNodeSpec, LocalModelNodeStatus, group=GROUP
)  # fmt: skip
