"""What shall be written, as values: documents to make, and objects to remove. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.controller.reading import CONTROLLER, MANAGED_BY, RENDERED


@dataclass(frozen=True, slots=True)
class Make:
    """Create an object, or change it to the document if it exists and is ours."""

    kind: str
    document: Mapping[str, Any]

    @property
    def place(self) -> tuple[str, str, str]:
        metadata = self.document["metadata"]
        return self.kind, metadata.get("namespace", ""), metadata["name"]

    @property
    def rendered(self) -> str:
        return str(self.document["metadata"]["annotations"][RENDERED])


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove the very object with this UID."""

    kind: str
    namespace: str
    name: str
    uid: str

    @property
    def place(self) -> tuple[str, str, str]:
        return self.kind, self.namespace, self.name


@dataclass(frozen=True, slots=True)
class Change:
    """Merge `patch` into an object that somebody else made. A field that is None is removed."""

    kind: str
    namespace: str
    name: str
    patch: Mapping[str, Any]

    @property
    def place(self) -> tuple[str, str, str]:
        return self.kind, self.namespace, self.name


Action = Make | Remove | Change


def rendered(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return `document` with the mark that it is ours, and the digest by which a change of it is noticed."""
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:32]
    metadata = document["metadata"]
    labels = {**(metadata.get("labels") or {}), MANAGED_BY: CONTROLLER}
    annotations = {**(metadata.get("annotations") or {}), RENDERED: digest}
    return {**document, "metadata": {**metadata, "labels": labels, "annotations": annotations}}
