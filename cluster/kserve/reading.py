"""Objects of Kubernetes as the manager keeps them: only what it decides with. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cluster.amounts import bytes_of
from cluster.kserve.names import ADAPTERS_ANNOTATION
from cluster.kserve.volumes import MANAGED_BY
from cluster.kserve.world import Id, Import, Node, Options, Service, Stored

Document = Mapping[str, Any]


def read_node(document: Document) -> Node:
    """Return a node. It is ready if its condition says so."""
    metadata, status = document["metadata"], document.get("status") or {}
    conditions = {each.get("type"): each.get("status") for each in status.get("conditions") or ()}
    return Node(metadata["name"], conditions.get("Ready") == "True", metadata.get("labels") or {})


def read_service(kind: str, document: Document) -> Service:
    """Return a service of a kind. The items of a list do not name theirs. Raises ValueError if its adapters cannot be read."""
    metadata = document["metadata"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    return Service(metadata["namespace"], metadata["name"], labels, annotations, kind, _adapters(annotations))  # type: ignore[arg-type]  # one of the two


def _adapters(annotations: Mapping[str, str]) -> frozenset[Id]:
    """Return the caches of adapters: name of the adapter → cache, namespace."""
    try:
        found = json.loads(annotations.get(ADAPTERS_ANNOTATION) or "{}")
        return frozenset((each.get("namespace") or "", each["cache"]) for each in found.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"annotation {ADAPTERS_ANNOTATION}: {error}") from None


def read_volume(document: Document) -> Stored:
    """Return a PersistentVolume. Its partner is the claim that it is bound to, or was."""
    spec, status = document.get("spec") or {}, document.get("status") or {}
    claim = spec.get("claimRef") or {}
    partner = (str(claim.get("namespace") or ""), str(claim["name"])) if claim.get("name") else None
    return _stored(document, partner, released=status.get("phase") in ("Released", "Failed"))


def read_claim(document: Document) -> Stored:
    """Return a PersistentVolumeClaim. Its partner is the volume that it names."""
    spec, status = document.get("spec") or {}, document.get("status") or {}
    volume = spec.get("volumeName")
    requested = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    has = (status.get("capacity") or {}).get("storage") if status.get("phase") == "Bound" else None
    rooms = [bytes_of(each) for each in (requested, has) if each is not None]
    return replace(
        _stored(document, ("", str(volume)) if volume else None, released=False),
        modes=tuple(map(str, spec.get("accessModes") or ())),
        block=spec.get("volumeMode") == "Block",
        room=min(rooms, default=None),
    )


def read_import(document: Document) -> Import:
    """Return a Job. The items of a list do not say more."""
    metadata, status = document["metadata"], document.get("status") or {}
    ends = {each.get("type"): each for each in status.get("conditions") or () if each.get("status") == "True"}
    end = next((each for each in ("Complete", "Failed") if each in ends), None)
    state = end or ("Running" if status.get("active") else "Pending")
    owner = next((each["uid"] for each in metadata.get("ownerReferences") or () if each.get("controller")), "")
    annotations = {name: str(each) for name, each in (metadata.get("annotations") or {}).items()}
    ended = str((ends.get("Failed") or {}).get("lastTransitionTime") or "")
    leaving = bool(metadata.get("deletionTimestamp"))
    return Import(metadata["namespace"], metadata["name"], metadata["uid"], owner, annotations, state, ended, leaving)  # type: ignore[arg-type]  # one of the four


def read_options(config_map: Document) -> Options:
    """Return KServe's configuration of local models. Raises ValueError if it has none, or it cannot be read."""
    text = (config_map.get("data") or {}).get("localModel")
    if not isinstance(text, str):
        raise ValueError("it has no localModel; enable local models in KServe first")
    try:
        found = json.loads(text)
        namespace = found["jobNamespace"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"localModel is no JSON object with a jobNamespace: {error}") from None
    if not isinstance(namespace, str) or not namespace:
        raise ValueError("localModel: jobNamespace is no name")
    return Options(namespace, disable_volume_management=found.get("disableVolumeManagement") is True)


def _stored(document: Document, partner: tuple[str, str] | None, *, released: bool) -> Stored:
    metadata = document["metadata"]
    owner = next((each["uid"] for each in metadata.get("ownerReferences") or () if each.get("controller")), "")
    labels = metadata.get("labels") or {}
    return Stored(
        metadata.get("namespace") or "",
        metadata["name"],
        metadata["uid"],
        owner,
        partner,
        ours=all(labels.get(name) == value for name, value in MANAGED_BY.items()),
        leaving=bool(metadata.get("deletionTimestamp")),
        released=released,
    )
