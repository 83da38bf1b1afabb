"""Events on objects: what `kubectl describe` and `kubectl get events` tell people.

The same event of an object counts up instead of coming again. The API server forgets events after an hour or so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

from cluster.client.api import Api
from cluster.client.asking import Document
from cluster.client.endpoints import EVENTS
from cluster.client.errors import ApiError, Conflict, Missing
from cluster.resources.moments import now

_LONGEST = 1024
"""Bytes of a message, as Kubernetes bounds it."""
_LONGEST_NAME = 230
"""Characters of the object's name in that of the event, which may have 253."""

Type = Literal["Normal", "Warning"]


async def tell(api: Api, regarding: Mapping[str, Any], kind: Type, reason: str, message: str) -> ApiError | None:
    """Tell an event on the object `regarding`, which has its apiVersion, kind and metadata. `reason` is a word.

    Return what went wrong. No caller shall fail for it, and each call is one or two requests: tell what has changed.
    """
    event = event_of(regarding, kind, reason, message, component=api.manager, moment=now())
    try:
        try:
            await _count(api, event)
        except Missing:
            await api.create(EVENTS, event)
    except Conflict:  # the same event of another process, at the same time: told is told
        return None
    except ApiError as error:
        return error
    return None


def event_of(regarding: Mapping[str, Any], kind: Type, reason: str, message: str, *, component: str, moment: str) -> Document:
    """Return the event, told once. Its name says what is the same event. `moment` is in the form of RFC 3339."""
    metadata = regarding["metadata"]
    uid, message = metadata.get("uid", ""), _short(message)
    digest = hashlib.sha256(f"{uid}\n{component}\n{kind}\n{reason}\n{message}".encode()).hexdigest()[:16]
    # An event on an object of the whole cluster belongs to `default`: the API server refuses it elsewhere.
    namespace = metadata.get("namespace", "")
    involved = {
        "apiVersion": regarding["apiVersion"],
        "kind": regarding["kind"],
        "name": metadata["name"],
        "namespace": namespace,
        "uid": uid,
    }
    return {
        "apiVersion": EVENTS.api_version,
        "kind": EVENTS.kind,
        "metadata": {
            "name": f"{metadata['name'][:_LONGEST_NAME].rstrip('.-')}.{digest}",
            "namespace": namespace or "default",
        },
        "involvedObject": {name: value for name, value in involved.items() if value},
        "type": kind,
        "reason": reason,
        "message": message,
        "source": {"component": component},
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }


async def _count(api: Api, event: Document) -> None:
    """Count an event up. Raises Missing if it was not told before."""
    name, namespace = event["metadata"]["name"], event["metadata"]["namespace"]
    found = await api.get(EVENTS, name, namespace)
    before = found.get("count")
    patch = {"count": (before if isinstance(before, int) else 0) + 1, "lastTimestamp": event["lastTimestamp"]}
    await api.merge(EVENTS, name, namespace, patch)


def _short(message: str) -> str:
    text = " ".join("".join(each if each.isprintable() else " " for each in message).split())
    encoded = text.encode()
    return text if len(encoded) <= _LONGEST else encoded[: _LONGEST - 3].decode(errors="ignore") + "..."
