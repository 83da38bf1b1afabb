"""Whether a complete artifact in the cache answers a request, and the record of its use.

A hit renews the record of use, then looks whether somebody evicts the artifact, then reads the manifest (`store.eviction`).
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass

from fetcher.artifact import ArtifactRef
from fetcher.filesystem import storing
from fetcher.manifest import Manifest
from fetcher.settings import Settings
from fetcher.store.claims import Claim, claim
from fetcher.store.layout import Root
from fetcher.store.lease import being_evicted
from fetcher.store.placement import Placement
from fetcher.store.selector import matching_manifest
from fetcher.usage import renew


@dataclass(frozen=True, slots=True)
class Hit:
    """A complete artifact. `recorded`: its use is recorded, so eviction knows of it."""

    manifest: Manifest
    recorded: bool


def find_hit(placement: Placement, ref: ArtifactRef, settings: Settings) -> Hit | None:
    """Return the artifact that satisfies the request; None if there is none, or if it is being evicted. Raises FetchError."""
    root, key = settings.cache_dir, ref.key
    if settings.dest is not None:
        manifest = matching_manifest(placement, ref, settings)
        return Hit(manifest, recorded=False) if manifest is not None else None
    recorded = renew(root, key)
    if not recorded and matching_manifest(placement, ref, settings) is None:
        return None  # nothing there: a record of use would be one of nothing
    recorded = record_use(ref, settings)
    if being_evicted(Root(root).staging / key):
        return None
    manifest = matching_manifest(placement, ref, settings)
    return Hit(manifest, recorded) if manifest is not None else None


def record_use(ref: ArtifactRef, settings: Settings) -> bool:
    """Record that the artifact is used now, and the hold that the settings ask for. Return whether the use is recorded.

    Raises StoreError if the hold cannot be written, UsageError if the pod's UID is no name.
    """
    if settings.dest is not None:
        return False
    recorded = Root(settings.cache_dir).touch_usage(ref.key)
    if settings.hold is not None or settings.pod_uid is not None:
        until = None if settings.hold is None else time.time() + settings.hold
        with storing("record the hold"):
            claim(settings.cache_dir, Claim(ref.key, "hold", until, settings.pod_uid or _this_host()))
    return recorded


def _this_host() -> str:
    """A name for the holder: in a pod, the host's name is that of the pod."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", os.uname().nodename)[:63].lstrip("-_") or "host"
