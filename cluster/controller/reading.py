"""Makes pruned values of the API server's JSON: a cluster of 1,000 nodes and 200 models has 400,000 entries in NodeCaches.

So equal entries are one object, and fields that nothing decides by are dropped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal

from cluster.controller.world import Cache, Described, Fetch, Lease, Name, Observation, Owned, Pod, Target, Told
from cluster.resources import CACHE_ARTIFACT, Entry, NodeCacheSpec, decoded
from cluster.resources.node import Observed

MANAGED_BY = "app.kubernetes.io/managed-by"
CONTROLLER = "weightlift-controller"
RENDERED = "weightlift.dev/rendered"
KEY = "weightlift.dev/key"
MODEL = "weightlift.dev/model"
MODEL_NAMESPACE = "weightlift.dev/model-namespace"
HYDRATION = "weightlift.dev/hydration"
"""Of a Job: the digest of what it fetches. The value of the label by which its pods and claims are found is `true`."""
ATTEMPT = "weightlift.dev/attempt"
RETENTION = "weightlift.dev/retention"
"""Of a claim that was made from a template."""
RETAINED = "weightlift.dev/retained"
"""A label of volumes that stay when their claims go."""

_NO_CLAIMS = Pod()
_ENDED = ("Succeeded", "Failed")


def labels_of(document: Mapping[str, Any]) -> Mapping[str, str]:
    """The labels of an object. Raises ValueError if they are none."""
    labels = document["metadata"].get("labels") or {}
    if not all(isinstance(each, str) for pair in labels.items() for each in pair):
        raise ValueError("metadata.labels: not a map of texts")
    return {sys.intern(name): sys.intern(value) for name, value in labels.items()}


def read_cache(document: Mapping[str, Any]) -> Cache:
    """Return a NodeCache. Raises ValueError."""
    metadata, spec, status = document["metadata"], document.get("spec") or {}, document.get("status") or {}
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    ready = conditions.get("Ready") or {}
    return Cache(
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        ours=(metadata.get("labels") or {}).get(MANAGED_BY) == CONTROLLER,
        spec=replace(
            decoded(NodeCacheSpec, {**spec, "artifacts": None}),
            artifacts={sys.intern(key): _entry(*sorted(each.items())) for key, each in (spec.get("artifacts") or {}).items()},
        ),
        observed={
            sys.intern(key): _observation(*sorted(each.items())) for key, each in (status.get("artifacts") or {}).items()
        },
        used=int(status.get("used") or 0),
        problem=(str(ready.get("reason")), str(ready.get("message", ""))) if ready.get("status") == "False" else None,
        peer_address=str(status.get("peerAddress") or ""),
        peer_key=str(status.get("peerKey") or ""),
    )


@lru_cache(maxsize=64 * 1024)
def _entry(*fields: tuple[str, Any]) -> Entry:
    return decoded(Entry, dict(fields))


@lru_cache(maxsize=64 * 1024)
def _observation(*fields: tuple[str, Any]) -> Observation:
    observed = decoded(Observed, dict(fields))
    return _one(
        observed.phase,
        observed.reason or "",
        observed.message or "",
        observed.content or "",
        observed.warm,
        observed.from_origin,
        observed.from_peers,
    )


@lru_cache(maxsize=16 * 1024)
def _one(*fields: Any) -> Observation:
    return Observation(*fields)


def read_artifact(document: Mapping[str, Any]) -> Described:
    """Return a CacheArtifact. Raises ValueError."""
    found = CACHE_ARTIFACT.read(document)
    return Described(found.metadata.uid, (found.metadata.labels or {}).get(MANAGED_BY) == CONTROLLER, found.spec)


def read_pod(document: Mapping[str, Any]) -> Pod:
    """Return a pod's claims; those of a pod that has ended are none. Raises ValueError."""
    spec, status = document.get("spec") or {}, document.get("status") or {}
    sources = (each.get("persistentVolumeClaim") for each in spec.get("volumes") or ())
    claims = tuple(sys.intern(str(each["claimName"])) for each in sources if each)
    if not claims or status.get("phase") in _ENDED:
        return _NO_CLAIMS
    return Pod(claims, sys.intern(str(spec.get("nodeName") or "")))


def read_owned(document: Mapping[str, Any]) -> Owned:
    """Return an object that the controller made. Raises ValueError."""
    metadata = document["metadata"]
    annotations = metadata.get("annotations") or {}
    return Owned(
        uid=metadata["uid"],
        rendered=annotations.get(RENDERED, ""),
        key=annotations.get(KEY, ""),
        model=(annotations.get(MODEL_NAMESPACE, ""), annotations.get(MODEL, "")),
        deleting=bool(metadata.get("deletionTimestamp")),
    )


def read_target(document: Mapping[str, Any]) -> Target:
    """Return a claim, whoever made it. Raises ValueError."""
    metadata, annotations = document["metadata"], document["metadata"].get("annotations") or {}
    ours = (metadata.get("labels") or {}).get(MANAGED_BY) == CONTROLLER and RETENTION in annotations
    bound = (document.get("status") or {}).get("phase") == "Bound"
    return Target(
        uid=metadata["uid"],
        made_for=(metadata["namespace"], annotations.get(MODEL, "")) if ours else None,
        goes=ours and annotations[RETENTION] == "Delete",
        volume=str((document.get("spec") or {}).get("volumeName") or "") if bound else "",
        deleting=bool(metadata.get("deletionTimestamp")),
    )


def read_fetch(document: Mapping[str, Any]) -> Fetch:
    """Return a Job that the controller made. Raises ValueError."""
    metadata = document["metadata"]
    annotations = metadata.get("annotations") or {}
    conditions = (document.get("status") or {}).get("conditions") or ()
    end: Mapping[str, Any] = next((each for each in conditions if each["type"] in _ENDS and each.get("status") == "True"), {})
    return Fetch(
        uid=metadata["uid"],
        model=(metadata["namespace"], annotations.get(MODEL, "")),
        hydration=annotations.get(HYDRATION, ""),
        attempt=int(annotations.get(ATTEMPT, "1")),
        state=_ENDS.get(end.get("type", ""), "Running"),
        ended=str(end.get("lastTransitionTime") or ""),
        message=f"{end.get('reason', '')}: {end.get('message', '')}".strip(": "),
        deleting=bool(metadata.get("deletionTimestamp")),
    )


_ENDS: Mapping[str, Literal["Complete", "Failed"]] = {"Complete": "Complete", "Failed": "Failed"}


def read_told(document: Mapping[str, Any]) -> Told | None:
    """Return what a pod of a Job tells; None as long as that is nothing. Raises ValueError."""
    metadata, status = document["metadata"], document.get("status") or {}
    job = (metadata["namespace"], str((metadata.get("labels") or {}).get("job-name", "")))
    since = str(metadata.get("creationTimestamp") or "")
    state = next((each.get("state") or {} for each in status.get("containerStatuses") or ()), {})
    if (ended := state.get("terminated")) is not None:
        return _end(job, since, ended)
    if (waiting := state.get("waiting")) is not None and waiting.get("reason") in _STUCK:
        return Told(job, since, waiting["reason"], str(waiting.get("message") or ""), ended=False)
    unscheduled = next((each for each in status.get("conditions") or () if each.get("reason") == "Unschedulable"), None)
    if unscheduled is not None:
        return Told(job, since, "Unschedulable", str(unscheduled.get("message") or ""), ended=False)
    return None


_STUCK = ("CreateContainerConfigError", "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerError")
"""Why a container does not start until a person acts."""


def _end(job: Name, since: str, ended: Mapping[str, Any]) -> Told:
    """Return what `fetcher` wrote into the termination message, or what Kubernetes says of a container that wrote nothing."""
    text = str(ended.get("message") or "")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        reason = str(ended.get("reason") or "Error")
        return Told(job, since, reason, text.strip()[-1024:] or f"the container ended with code {ended.get('exitCode')}")
    size = said.get("bytes")
    return Told(
        job,
        since,
        str(said.get("reason") or "Error"),
        str(said.get("message") or "")[:1024],
        retryable=bool(said.get("retryable", True)),
        revision=str(said.get("revision") or ""),
        key=str(said.get("path") or "").rpartition("/")[2],
        bytes=size if isinstance(size, int) else 0,
    )


def read_lease(document: Mapping[str, Any]) -> Lease:
    """Return the Lease of an agent. Raises ValueError."""
    return Lease(document["metadata"]["uid"], str((document.get("spec") or {}).get("renewTime") or ""))
