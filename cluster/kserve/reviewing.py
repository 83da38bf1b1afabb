"""What is answered when the API server asks about a cache or a service before it is stored. Pure.

Whatever cannot be read is admitted: KServe's own parts judge it, and a webhook that denies what it does not understand would
stop a cluster that is newer than it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cluster.kserve.admission import Patch, patch_of_service, refuse_deletion, refuse_source, storage_uri
from cluster.kserve.kinds import LOCAL_MODEL_CACHE, LOCAL_MODEL_NAMESPACE_CACHE
from cluster.kserve.reading import read_service
from cluster.kserve.world import Cache, World, id_of

Document = Mapping[str, Any]
_CACHES = {each.name: each for each in (LOCAL_MODEL_CACHE, LOCAL_MODEL_NAMESPACE_CACHE)}
_SERVICES = ("InferenceService", "LLMInferenceService")
_LONGEST = 200
"""Characters of a warning: the API server cuts longer ones."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`denied`: why it must not be. `patch`: what changes of it. `warning`: what the person who asked is told."""

    denied: str = ""
    patch: Patch | tuple[()] = ()
    warning: str = ""


def verdict(request: Document, world: World) -> Verdict:
    """Judge the request of an AdmissionReview."""
    kind, operation = _kind(request), request.get("operation")
    judge: Callable[[Document, World], Verdict] | None = None
    if kind in _CACHES:
        judge = {"CREATE": _written, "UPDATE": _written, "DELETE": _deleted}.get(str(operation))
    elif kind in _SERVICES and operation in ("CREATE", "UPDATE"):
        judge = _served
    if judge is None:
        return Verdict()
    try:
        return judge(request, world)
    except Exception as error:  # noqa: BLE001 - whatever it is, this object is the reason, and others are judged all the same
        return Verdict(warning=f"weightlift cannot read this {kind}: {type(error).__name__}: {error}"[:_LONGEST])


def answered(review: Document, found: Verdict) -> dict[str, Any]:
    """Return the AdmissionReview that answers `review`."""
    response: dict[str, Any] = {"uid": review["request"]["uid"], "allowed": not found.denied}
    if found.denied:
        response["status"] = {"code": 403, "reason": "Forbidden", "message": found.denied}
    elif found.patch:
        patch = base64.b64encode(json.dumps(found.patch).encode()).decode()
        response |= {"patchType": "JSONPatch", "patch": patch}
    if found.warning:
        response["warnings"] = [found.warning]
    return {"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response}


def _deleted(request: Document, world: World) -> Verdict:
    return Verdict(refuse_deletion(_cache(request, "oldObject"), world.services) or "")


def _written(request: Document, world: World) -> Verdict:
    cache = _cache(request, "object")
    # What cannot be read has the URI that it had when it could.
    others = (each for key, each in world.caches.items() if key != id_of(cache.metadata))
    return Verdict(refuse_source(cache, others) or "")


def _served(request: Document, world: World) -> Verdict:
    document = _object(request, "object")
    kind = _kind(request)
    caches = [each for key, each in world.caches.items() if key not in world.unreadable.caches]
    uri = storage_uri({**document, "kind": kind})
    return Verdict(patch=patch_of_service(read_service(kind, document), uri, caches))


def _cache(request: Document, field: str) -> Cache:
    found = _CACHES[_kind(request)].read(_object(request, field))
    return replace(found, metadata=replace(found.metadata, namespace=str(request.get("namespace") or "")))


def _object(request: Document, field: str) -> Document:
    """The object of a request, with the names that it will have: one that is being created may lack them."""
    found = request[field]
    names = {name: str(request.get(name) or "") for name in ("name", "namespace")}
    return {**found, "metadata": {**names, **found["metadata"]}}


def _kind(request: Document) -> str:
    kind = request.get("kind")
    return str(kind.get("kind")) if isinstance(kind, Mapping) else ""
