"""Caches in a shared claim (`pvcRef`): one Job imports the model, and its state is that of the cache. Pure.

The claim and what lies in it belong to the user: neither is changed or removed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from cluster.allowing import refuse_source
from cluster.amounts import bytes_of
from cluster.controller.fetch_pods import failure_policy, fetch_pod
from cluster.kserve.credentials import STORAGE_SECRET
from cluster.kserve.kinds import CopyCounts
from cluster.kserve.names import MODELS, key_of
from cluster.kserve.world import Cache, Id, Import, Stored, World, id_of, leaving, owner_of
from cluster.resources import Condition
from cluster.resources.conditions import merged
from fetcher.errors import SourceNotAllowed
from fetcher.quantities import size

AGAIN = 600.0
"""Seconds until an import that failed is tried again: its pods have tried for minutes, and a person may have to act."""
_UID, _KEY, _HASH = (f"serving.kserve.io/import-{each}" for each in ("pvc-uid", "storage-key", "spec-hash"))
_MOUNT = "/mnt/models"


@dataclass(frozen=True, slots=True)
class State:
    """How far an import is. `reason` is KServe's word; Ready is True with `available`."""

    reason: str
    message: str
    available: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Imports:
    """Jobs to create and to remove, and the state of each cache in a shared claim."""

    create: tuple[dict[str, Any], ...]
    remove: tuple[Import, ...]
    states: Mapping[Id, State]


def imports(world: World) -> Imports:
    """Decide for every cache in a shared claim."""
    create, remove, states = [], [], {}
    for cache in world.shared:
        job = world.imports.get((cache.metadata.namespace, import_name(cache.metadata.name)))
        own = job if job is not None and job.owner == cache.metadata.uid else None
        if leaving(cache):
            if own is not None and not own.leaving:
                remove.append(own)
            continue
        state, made, over = _one(world, cache, job, own)
        states[id_of(cache.metadata)] = state
        if made is not None:
            create.append(made)
        if over is not None:
            remove.append(over)
    return Imports(tuple(create), tuple(remove), states)


def is_over(cache: Cache, world: World) -> bool:
    """Whether no Job of a deleted cache is left, which could still write into the claim."""
    job = world.imports.get((cache.metadata.namespace, import_name(cache.metadata.name)))
    return job is None or job.owner != cache.metadata.uid


def copies_and_conditions(cache: Cache, state: State, moment: str) -> tuple[CopyCounts, tuple[Condition, ...]]:
    """Return what the status of a cache in a shared claim says besides its users."""
    status: Literal["True", "False"] = "True" if state.available else "False"
    ready = Condition("Ready", status, state.reason, state.message, cache.metadata.generation)
    counts = CopyCounts(available=state.available, total=1, failed=state.failed)
    return counts, merged(cache.status.conditions, (ready,), moment=moment)


def import_name(cache: str) -> str:
    """Return KServe's name of the Job, of 63 characters at most."""
    if len(name := f"{cache}-import") <= _LONGEST:
        return name
    digest = hashlib.sha256(cache.encode()).hexdigest()[:8]
    return f"{cache[: _LONGEST - len('--import') - len(digest)].rstrip('-')}-{digest}-import"


_LONGEST = 63


def _one(
    world: World, cache: Cache, job: Import | None, own: Import | None
) -> tuple[State, dict[str, Any] | None, Import | None]:
    """Return the state of a cache, and the Job to make or to remove for it."""
    claim = world.claims.get((cache.metadata.namespace, cache.spec.pvc_ref or ""))
    if (problem := _problem(world, cache, claim)) is not None or claim is None:
        return problem or _PENDING, None, None
    if job is not None and own is None:
        sentence = f"there is another Job {job.namespace}/{job.name}; delete it, or rename this cache"
        return State("ImportJobConflict", sentence), None, None
    if own is None:
        return _PENDING, _job(world, cache, claim), None
    if own.leaving:
        return _PENDING, None, None
    if _is_outdated(cache, claim, own):
        return _PENDING, None, own
    over = own if own.state == "Failed" and _seconds(own.ended, world.moment) >= AGAIN else None
    return _STATES[own.state], None, over


_PENDING = State(
    "ImportPending",
    "the import Job has not started; the namespace must allow it (kubectl create rolebinding weightlift-claims "
    "--clusterrole=weightlift-claims for the controller's account), and no other Job may have its name",
)
_STATES = {
    "Pending": _PENDING,
    "Running": State("ImportRunning", "the import Job runs"),
    "Complete": State("ImportSucceeded", "the model is complete, and verified as far as its source allows", available=1),
    "Failed": State("ImportFailed", "the import Job failed, its log says why; another one follows in ten minutes", failed=1),
}


def _problem(world: World, cache: Cache, claim: Stored | None) -> State | None:
    """Return why nothing can be imported."""
    spec, name = cache.spec, f"{cache.metadata.namespace}/{cache.spec.pvc_ref}"
    if claim is None or claim.leaving:
        return State("PVCNotFound", f"there is no PersistentVolumeClaim {name}; create it, or name another one")
    if claim.block:
        return State("UnsupportedVolumeMode", f"claim {name} is a block device; use one of volumeMode Filesystem")
    if "ReadWriteMany" not in claim.modes:
        return State("UnsupportedAccessMode", f"claim {name} is not ReadWriteMany; pods of several nodes read it")
    wanted = bytes_of(spec.model_size) if spec.model_size is not None else 0
    if claim.room is not None and claim.room < wanted:
        sentence = f"claim {name} has {size(claim.room)}, and the model needs {size(wanted)}; make it larger"
        return State("InsufficientCapacity", sentence)
    if (first := _first(world, cache)) is not cache:
        sentence = f"cache {'/'.join(id_of(first.metadata))} has this model in the same claim already; use that one"
        return State("DestinationConflict", sentence)
    if spec.storage is not None and spec.storage.parameters:
        # Whoever may write the cache would choose where a Secret goes that it may not read.
        return State("ImportCredentialError", "storage.parameters are not used for imports; put them into the Secret")
    assert world.importing is not None  # noqa: S101 - without it no cache is `shared`
    try:
        refuse_source(
            spec.source_model_uri,
            world.importing.sources,
            owner="the controller's --claim-sources",
            allow_loopback=world.importing.allow_loopback,
        )
    except SourceNotAllowed as error:
        return State(error.reason, error.message)
    return None


def _first(world: World, cache: Cache) -> Cache:
    """Return the oldest cache of the same model in the same claim."""
    same: Iterable[Cache] = (
        each
        for each in world.shared
        if each.metadata.namespace == cache.metadata.namespace
        and each.spec.pvc_ref == cache.spec.pvc_ref
        and key_of(each.spec.source_model_uri) == key_of(cache.spec.source_model_uri)
    )
    return min(same, key=lambda each: (each.age, each.metadata.name))


def _is_outdated(cache: Cache, claim: Stored, job: Import) -> bool:
    """Whether a Job is of another claim or model. What is complete stays when only the credential changes."""
    known = job.annotations
    if (known.get(_UID), known.get(_KEY)) != (claim.uid, key_of(cache.spec.source_model_uri)):
        return True
    return job.state != "Complete" and known.get(_HASH) != _hash(cache)


def _hash(cache: Cache) -> str:
    spec = cache.spec
    what = [spec.service_account_name or "", spec.storage.key or "" if spec.storage is not None else ""]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def _job(world: World, cache: Cache, claim: Stored) -> dict[str, Any]:
    """Return the Job: KServe's arguments and mounts, and the command that takes them."""
    means, spec = world.importing, cache.spec
    assert means is not None  # noqa: S101 - without it no cache is `shared`
    key = key_of(spec.source_model_uri)
    hub = [{"name": "HF_ENDPOINT", "value": means.hub_endpoint}] if means.hub_endpoint else []
    stored = spec.storage.key if spec.storage is not None else None
    secret = {"secretKeyRef": {"name": STORAGE_SECRET, "key": stored}}
    given = [{"name": "STORAGE_CONFIG", "valueFrom": secret}] if stored else []
    pod = fetch_pod(
        means.image,
        "storage-initializer",
        [spec.source_model_uri.replace("$", "$$"), _MOUNT],
        [*hub, *given],
        claim.name,
        {"mountPath": _MOUNT, "subPath": f"{MODELS}/{key}"},
        account=spec.service_account_name,
    )
    metadata = {
        "name": import_name(cache.metadata.name),
        "namespace": cache.metadata.namespace,
        "labels": {"app.kubernetes.io/name": "weightlift", "app.kubernetes.io/component": "import"},
        "annotations": {_UID: claim.uid, _KEY: key, _HASH: _hash(cache)},
        "ownerReferences": [owner_of(cache)],
    }
    # No time to live: the Job that succeeded says that the model is there.
    job = {"backoffLimit": 2, "podFailurePolicy": failure_policy(), "template": {"spec": pod}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job}


def _seconds(since: str, moment: str) -> float:
    if not since or not moment:
        return 0.0
    return (datetime.fromisoformat(moment) - datetime.fromisoformat(since)).total_seconds()
