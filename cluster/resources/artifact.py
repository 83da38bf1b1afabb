"""CacheArtifact: what an artifact of a pool is, said once for all its nodes.

It never changes: its name has the mark of all that it says, and something else has another mark. So whoever has read one never
reads it again, and a NodeCache says by a mark what would take hundreds of bytes in each of its entries.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Annotated, ClassVar

from cluster.resources.kinds import Column, Kind
from cluster.resources.schema import IMMUTABLE, Schema
from cluster.resources.wire import encoded

Mark = Annotated[str, Schema("The end of a CacheArtifact's name.", pattern="^[0-9a-f]{16}$", most=16)]
Key = Annotated[str, Schema("A cache key.", pattern="^[0-9a-f]{16}$", most=16)]


@dataclass(frozen=True, slots=True)
class CacheArtifactSpec:
    """An artifact of the pool `pool`. The ModelCache `model` of `namespace` says how it is asked for.

    `revision` and `listing_digest` are those that its source answered, `bytes` is the size of all files.
    """

    pool: Annotated[str, Schema(most=253)]
    key: Key
    namespace: Annotated[str, Schema(most=63)]
    model: Annotated[str, Schema(most=253)]
    bytes: Annotated[int, Schema(least=0)]
    revision: Annotated[str | None, Schema(most=256)] = None
    listing_digest: Annotated[str, Schema(most=64)] = ""

    RULES: ClassVar = (IMMUTABLE,)


@dataclass(frozen=True, slots=True)
class CacheArtifactStatus:
    """Nothing: nodes report in their NodeCaches."""


CACHE_ARTIFACT = Kind(
    name="CacheArtifact",
    plural="cacheartifacts",
    namespaced=False,
    spec=CacheArtifactSpec,
    status=CacheArtifactStatus,
    columns=(
        Column("Pool", ".spec.pool"),
        Column("Namespace", ".spec.namespace"),
        Column("Model", ".spec.model"),
        Column("Bytes", ".spec.bytes", "integer"),
        Column("Revision", ".spec.revision", wide=True),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)


def mark_of(spec: CacheArtifactSpec) -> str:
    """Return the mark of everything that an artifact is."""
    return _digest(encoded(spec), 16)


def name_of(key: str, mark: str) -> str:
    """Return the name of the CacheArtifact of a NodeCache's entry."""
    return f"{key}.{mark}"


def content_of(revision: str | None, listing_digest: str) -> str:
    """Return the mark of a revision and a listing, by which a node says what it has compared its copy with."""
    return _digest([revision, listing_digest], 12)


def _digest(value: object, digits: int) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:digits]
