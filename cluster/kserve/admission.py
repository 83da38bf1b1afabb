"""What a webhook answers about caches and services: to deny with a sentence, or the patch of what is admitted. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cluster.kserve.names import (
    CLAIM_ANNOTATION,
    DISABLE_ANNOTATION,
    MODEL_LABEL,
    NAMESPACE_LABEL,
    SOURCE_ANNOTATION,
    local_uri,
    serves,
    serving_claim,
)
from cluster.kserve.users import group_of, users_of
from cluster.kserve.world import Cache, Service, id_of, kind_of, leaving
from fetcher.artifact import redact

Patch = list[dict[str, Any]]


def refuse_deletion(cache: Cache, services: Iterable[Service]) -> str | None:
    """Return why `cache` must not be deleted: a service uses it. None if it may be."""
    users = users_of(cache, services)
    if not users:
        return None
    name = "/".join(part for part in id_of(cache.metadata) if part)
    more = f" and {len(users) - 1} more" if len(users) > 1 else ""
    user = users[0]
    return f"{kind_of(cache).name} {name} is used by {user.kind} {user.namespace}/{user.name}{more}; delete what uses it first"


def refuse_source(cache: Cache, caches: Iterable[Cache]) -> str | None:
    """Return why `cache` must not have its URI: another LocalModelCache has it. None if it may.

    Caches of namespaces may share one. A cache that is being deleted may always be changed, or it could never lose its
    finalizer.
    """
    if cache.metadata.namespace or leaving(cache):
        return None
    for other in caches:
        same = other.spec.source_model_uri == cache.spec.source_model_uri
        if same and not other.metadata.namespace and other.metadata.name != cache.metadata.name:
            return f"LocalModelCache {other.metadata.name} already has {redact(other.spec.source_model_uri)}; use that one"
    return None


def storage_uri(document: Mapping[str, Any]) -> str | None:
    """Return the URI of the model that a service wants; None if it names none, or several."""
    spec = document.get("spec")
    if not isinstance(spec, Mapping):
        return None
    if document.get("kind") == "LLMInferenceService":
        return _text(spec.get("model"), "uri")
    predictor = spec.get("predictor")
    parts = predictor.values() if isinstance(predictor, Mapping) else ()
    found = {uri for part in parts if (uri := _text(part, "storageUri"))}
    return found.pop() if len(found) == 1 else None


def marks(service: Service, uri: str | None, caches: Iterable[Cache]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the labels and the annotations that name the cache of a service; none without one.

    A cache of the service's own namespace is preferred to one of the whole cluster, and the older one to others.
    """
    if uri is None or DISABLE_ANNOTATION in service.annotations:
        return {}, {}
    near = [each for each in caches if each.metadata.namespace in ("", service.namespace) and each.spec.pvc_ref is None]
    for cache in sorted(near, key=lambda each: (not each.metadata.namespace, each.age)):
        group = group_of(service, cache)
        if leaving(cache) or group is None or not serves(cache.spec.source_model_uri, uri):
            continue
        labels = {MODEL_LABEL: cache.metadata.name}
        if cache.metadata.namespace:
            labels[NAMESPACE_LABEL] = cache.metadata.namespace
        claim = serving_claim(cache.metadata.name, group)
        return labels, {SOURCE_ANNOTATION: cache.spec.source_model_uri, CLAIM_ANNOTATION: claim}
    return {}, {}


def patch_of_service(service: Service, uri: str | None, caches: Iterable[Cache]) -> Patch:
    """Return the JSON patch that gives a service its marks, and takes away those of a cache that it no longer matches."""
    labels, annotations = marks(service, uri, caches)
    return [
        *_changed("/metadata/labels", service.labels, labels, (MODEL_LABEL, NAMESPACE_LABEL)),
        *_changed("/metadata/annotations", service.annotations, annotations, (SOURCE_ANNOTATION, CLAIM_ANNOTATION)),
    ]


def pod_uri(labels: Mapping[str, str], annotations: Mapping[str, str], uri: str) -> str | None:
    """Return where a pod of a marked service finds its model: below its claim. None if it is not marked, or not for `uri`."""
    source, claim = annotations.get(SOURCE_ANNOTATION), annotations.get(CLAIM_ANNOTATION)
    if MODEL_LABEL not in labels or not source or not claim or not serves(source, uri):
        return None
    return local_uri(source, claim, uri)


def _changed(path: str, before: Mapping[str, str], now: Mapping[str, str], names: Iterable[str]) -> Patch:
    if not before:  # the place may be absent, and a patch cannot add below what is not there
        return [{"op": "add", "path": path, "value": dict(now)}] if now else []
    changes: Patch = []
    for name in names:
        place = f"{path}/{name.replace('~', '~0').replace('/', '~1')}"
        if name in now and before.get(name) != now[name]:
            changes.append({"op": "add", "path": place, "value": now[name]})
        elif name in before and name not in now:
            changes.append({"op": "remove", "path": place})
    return changes


def _text(part: object, name: str) -> str | None:
    value = part.get(name) if isinstance(part, Mapping) else None
    return value if isinstance(value, str) and value else None
