"""What all kinds share: their group, their names, and an object of one of them as it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from cluster.resources.wire import decoded

GROUP = "weightlift.dev"
VERSION = "v1alpha1"

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`. `wide`: only with `-o wide`."""

    name: str
    path: str
    type: Literal["string", "integer", "date"] = "string"
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Kind(Generic[S, T]):
    """One kind: its names, and the types of its specification and its status. `group` and `version` are ours, or KServe's."""

    name: str
    plural: str
    namespaced: bool
    spec: type[S]
    status: type[T]
    short_names: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    group: str = GROUP
    version: str = VERSION

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}"

    def read(self, document: Mapping[str, Any]) -> Resource[S, T]:
        """Return an object of this kind. Raises ValueError if a field cannot be read."""
        metadata = decoded(Metadata, document["metadata"])
        spec, status = decoded(self.spec, document.get("spec") or {}), decoded(self.status, document.get("status") or {})
        return Resource(metadata, spec, status)


@dataclass(frozen=True, slots=True)
class Metadata:
    """What we read of an object's metadata. `creation_timestamp` is in the form of RFC 3339, so texts compare as times."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str = ""
    deletion_timestamp: str = ""
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None
    finalizers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resource(Generic[S, T]):
    """An object as the API server has it."""

    metadata: Metadata
    spec: S
    status: T

    @property
    def age(self) -> tuple[str, str]:
        """Sorts older objects first; objects of one second by their names, so that all see one order."""
        return self.metadata.creation_timestamp, self.metadata.name
