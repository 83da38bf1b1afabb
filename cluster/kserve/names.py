"""The names that KServe gives to things, and which URI a cache serves. Pure."""

from __future__ import annotations

from fetcher.artifact import ArtifactRef

FINALIZER = "localmodel.kserve.io/finalizer"
NAMESPACE_FINALIZER = "localmodelnamespacecache.kserve.io/finalizer"

MODEL_LABEL = "internal.serving.kserve.io/localmodel"
"""On a service: the name of its cache."""
NAMESPACE_LABEL = "internal.serving.kserve.io/localmodel-namespace"
"""On a service: the namespace of its cache, if that is a LocalModelNamespaceCache."""
SOURCE_ANNOTATION = "internal.serving.kserve.io/localmodel-sourceuri"
CLAIM_ANNOTATION = "internal.serving.kserve.io/localmodel-pvc-name"
ADAPTERS_ANNOTATION = "internal.serving.kserve.io/localmodel-lora"
"""On a service for language models: the caches of its LoRA adapters, as JSON."""
GROUP_ANNOTATION = "serving.kserve.io/nodegroup"
"""On a service: the node group that it runs on, chosen by its user."""
DISABLE_ANNOTATION = "serving.kserve.io/disable-localmodel"

SYSTEM_NAMESPACE = "kserve"
CONFIG_MAP = "inferenceservice-config"
LEADER_LEASE = "kserve-local-model-manager-leader-lock"
"""The Lease of KServe's own manager of local models: whoever holds it acts."""
AGENT = "kserve-localmodelnode-agent"
"""KServe's own agent, a DaemonSet. It deletes whatever it does not know below `models/`."""

MODELS = "models"
"""The directory of the models below the path of a node group."""


def key_of(uri: str) -> str:
    """Return the name of the directory of a model: 16 hex digits."""
    return ArtifactRef(uri).key


def download_names(name: str, namespace: str, group: str) -> tuple[str, str]:
    """Return the volume and the claim, in the namespace of downloads, of a cache on a node group."""
    if namespace:
        return f"{name}-{group}-{namespace}-download", f"{name}-{group}-{namespace}-download"
    return f"{name}-{group}-download", serving_claim(name, group)


def serving_claim(name: str, group: str) -> str:
    """Return the claim that pods of services mount, in each of their namespaces."""
    return f"{name}-{group}"


def serving_volume(name: str, group: str, users_namespace: str) -> str:
    return f"{name}-{group}-{users_namespace}"


def serves(source: str, uri: str) -> bool:
    """Whether a cache of `source` has what a service wants by `uri`: the same, or something below it.

    A trailing slash makes no difference. A prefix that ends within a name is not enough.
    """
    return _below(source, uri) is not None


def local_uri(source: str, claim: str, uri: str) -> str:
    """Return where the model of `uri` lies in the `claim` of the cache of `source`. Raises ValueError if it is not there."""
    below = _below(source, uri)
    if below is None:
        raise ValueError(f"a cache of {source} does not have {uri}")
    return f"pvc://{claim}/{MODELS}/{key_of(source)}/{below}"


def _below(source: str, uri: str) -> str | None:
    """The path of `uri` below `source`, empty for the same; None if it is not below."""
    bare = source.removesuffix("/")
    if uri.removesuffix("/") == bare:
        return ""
    if not uri.startswith(f"{bare}/"):
        return None
    path = uri.removeprefix(f"{bare}/")
    return None if ".." in path.split("/") else path  # it would leave the model's directory
