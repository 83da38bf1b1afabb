"""Models and nodes: which copy is in which phase, and why, from the objects of the API server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.resources import ModelCacheSpec, ModelCacheStatus, NodeCacheSpec, NodeCacheStatus, Resource
from cluster.resources.conditions import Condition

_ORDER = ("Failed", "Damaged", "Waiting", "Unknown", "Evicting", "Evicted", "Fetching", "Queued", "Warming", "Ready")
"""The phases, those first that somebody should look at. `Unknown`: the node's agent has not reported."""

Model = Resource[ModelCacheSpec, ModelCacheStatus]
Node = Resource[NodeCacheSpec, NodeCacheStatus]


@dataclass(frozen=True, slots=True)
class Copy:
    """A model on a node. `reason` is a word, `message` a sentence."""

    node: str
    phase: str
    reason: str = ""
    message: str = ""

    @property
    def urgency(self) -> tuple[int, str]:
        """Sorts those first that somebody should look at."""
        return (_ORDER.index(self.phase) if self.phase in _ORDER else 0), self.node


@dataclass(frozen=True, slots=True)
class ModelState:
    """A ModelCache. `ready` is `copies of wanted copies`, as the controller counts them. `bytes` is None before its listing."""

    namespace: str
    name: str
    uri: str
    ready: str
    bytes: int | None
    revision: str
    reason: str
    message: str
    copies: tuple[Copy, ...]

    @property
    def title(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class NodeState:
    """A NodeCache. Sizes are in bytes. `reason` is empty if nothing is wrong with the node."""

    name: str
    pool: str
    capacity: int
    used: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything that is shown. `problems` are sentences about what could not be read."""

    models: tuple[ModelState, ...]
    nodes: tuple[NodeState, ...]
    problems: tuple[str, ...] = ()


def overview_of(models: Iterable[Model], nodes: Iterable[Node], problems: Iterable[str] = ()) -> Overview:
    """Return the overview, in the order of names."""
    caches = sorted(nodes, key=lambda node: node.metadata.name)
    states = sorted((_model(model, caches) for model in models), key=lambda state: state.title)
    return Overview(tuple(states), tuple(map(_node, caches)), tuple(problems))


def by_urgency(models: Sequence[ModelState]) -> list[str]:
    """Return the names of the nodes that have or want copies, those first that somebody should look at."""
    worst: dict[str, tuple[int, str]] = {}
    for copy in (copy for model in models for copy in model.copies):
        worst[copy.node] = min(worst.get(copy.node, copy.urgency), copy.urgency)
    return sorted(worst, key=lambda node: worst[node])


def _model(model: Model, nodes: Iterable[Node]) -> ModelState:
    found, ready = model.status.artifact, _condition(model.status.conditions, "Ready")
    return ModelState(
        namespace=model.metadata.namespace,
        name=model.metadata.name,
        uri=model.spec.source.uri,
        ready=model.status.progress or _counted(model.status),
        bytes=found.bytes if found else None,
        revision=(found.revision if found else None) or model.spec.source.revision or "",
        reason=ready.reason if ready else "",
        message=ready.message if ready else "",
        copies=tuple(copy for node in nodes if (copy := _copy(model, node)) is not None),
    )


def _counted(status: ModelCacheStatus) -> str:
    return f"{status.copies.ready}/{status.copies.desired}" if status.copies else ""


def _copy(model: Model, node: Node) -> Copy | None:
    """Return the copy that `node` has or shall have of `model`; None if the two have nothing to do with each other."""
    if model.status.artifact is None:
        return None
    key = model.status.artifact.key
    if (seen := node.status.artifacts.get(key)) is not None:
        return Copy(node.metadata.name, seen.phase, seen.reason or "", seen.message or "")
    wanted = key in node.spec.artifacts
    return Copy(node.metadata.name, "Unknown", message="the agent has not reported") if wanted else None


def _node(node: Node) -> NodeState:
    ready, status = _condition(node.status.conditions, "Ready"), node.status
    wrong = ready is not None and ready.status != "True"
    return NodeState(
        name=node.metadata.name,
        pool=node.spec.pool,
        capacity=status.capacity,
        used=status.used,
        reason=ready.reason if ready and wrong else "",
        message=ready.message if ready and wrong else "",
    )


def _condition(conditions: Iterable[Condition], kind: str) -> Condition | None:
    return next((each for each in conditions if each.type == kind), None)


def fields_of(overview: Overview) -> dict[str, Any]:
    """Return the overview as JSON: `models`, each with its `copies`, `nodes`, and `problems`."""
    from cluster.resources import encoded

    return {
        "models": [{**encoded(model), "copies": encoded(model.copies)} for model in overview.models],
        "nodes": encoded(overview.nodes),
        "problems": list(overview.problems),
    }
