"""Reads manifests and indexes of the OCI image specification, and their counterparts of docker. Pure."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

from fetcher.artifact import Digest
from fetcher.errors import BadResponse, NotFound, Refused
from fetcher.values import dataclass

LARGEST = 4 * 1024 * 1024
"""Bytes of a manifest at most: the limit that the distribution specification recommends to registries."""
INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
ACCEPT = ", ".join((*MANIFESTS, *INDEXES))
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_MOST_LAYERS = 20_000
"""As many as members of an archive: a model has some hundreds of files."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A descriptor: what a manifest says about a blob. `size` is in bytes."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The manifest of one artifact or image."""

    artifact_type: str
    config_type: str
    layers: tuple[Blob, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Index:
    """Manifests for several platforms, such as `linux/amd64`; "" without a platform."""

    entries: tuple[tuple[str, Blob], ...]

    def chosen(self, name: str) -> Blob:
        """The manifest for this machine, else for linux/amd64, else the only one without a platform. Raises NotFound.

        Weights are equal on all platforms, and an image of them is often built for one only.
        """
        machine = f"linux/{_ARCHITECTURES.get(platform.machine(), platform.machine())}"
        for wanted in (machine, "linux/amd64"):
            for kind, blob in self.entries:
                if kind == wanted:
                    return blob
        without = [blob for kind, blob in self.entries if not kind]
        if len(without) == 1:
            return without[0]
        there = ", ".join(sorted({kind or "no platform" for kind, _ in self.entries})) or "nothing"
        raise NotFound(f"{name} is an index without a manifest for {machine} or linux/amd64; it has {there}; give a digest")


def parse(content: bytes, name: str) -> Manifest | Index:
    """Read a manifest or an index. `name` is its address for messages. Raises BadResponse, Refused, NotFound."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise BadResponse(f"the registry's manifest of {name} is not JSON")
    if document.get("schemaVersion") == 1:
        raise Refused(f"{name} has a manifest of docker's first format, which has no digests of layers; push it again")
    if isinstance(document.get("manifests"), list):
        return Index(tuple(_entry(each, name) for each in document["manifests"] if not _is_attestation(each)))
    layers = document.get("layers")
    if not isinstance(layers, list):
        raise Refused(f"{name} is neither an image nor an artifact with layers, so it has no files; check tag or digest")
    if len(layers) > _MOST_LAYERS:
        raise Refused(f"{name} has {len(layers):,} layers, more than {_MOST_LAYERS:,}")
    config = document.get("config")
    return Manifest(
        artifact_type=_text(document, "artifactType"),
        config_type=_text(config if isinstance(config, dict) else {}, "mediaType"),
        layers=tuple(_blob(layer, name) for layer in layers),
        annotations=_annotations(document),
    )


def _entry(entry: Any, name: str) -> tuple[str, Blob]:
    where = entry.get("platform") if isinstance(entry, dict) else None
    kind = f"{_text(where, 'os')}/{_text(where, 'architecture')}" if isinstance(where, dict) else ""
    return kind, _blob(entry, name)


def _is_attestation(entry: Any) -> bool:
    """Whether an entry of an index is about another entry, as docker's provenance and SBOMs are."""
    return isinstance(entry, dict) and "vnd.docker.reference.type" in _annotations(entry)


def _blob(descriptor: Any, name: str) -> Blob:
    match descriptor:
        case {"urls": [_, *_]}:
            raise Refused(f"{name} has a foreign layer, whose content another server has; push it again with its layers")
        case {"mediaType": str(kind), "digest": str(digest), "size": int(size)} if size >= 0:
            if re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
                return Blob(kind, Digest.parse(digest), size, _annotations(descriptor))
            raise Refused(f"{name} has a layer whose digest is not a SHA-256: {digest[:40]!r}; push it again with SHA-256")
    raise BadResponse(f"the registry's manifest of {name} has an entry without type, digest or size")


def _annotations(document: Mapping[str, Any]) -> Mapping[str, str]:
    found = document.get("annotations")
    return {str(name): text for name, text in found.items() if isinstance(text, str)} if isinstance(found, dict) else {}


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""


def first_of(annotations: Mapping[str, str], names: Sequence[str]) -> str:
    """The first annotation of `names` that is there; "" without one."""
    return next((annotations[name] for name in names if annotations.get(name)), "")
