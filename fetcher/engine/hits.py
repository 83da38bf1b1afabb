"""Whether a complete artifact in the cache answers a request, and the record of its use.

A hit renews the record of use, then looks whether somebody evicts the artifact, then reads the manifest (`store.eviction`).
"""

from __future__ import annotations

import os
import re
import time

from fetcher.artifact import ArtifactRef
from fetcher.manifest import Manifest
from fetcher.settings import Settings
from fetcher.store.claims import Claim, claim
from fetcher.store.layout import Root
from fetcher.store.lease import being_evicted
from fetcher.store.placement import Placement
from fetcher.store.selector import matching_manifest
from fetcher.usage import renew
from fetcher.values import dataclass


@dataclass(frozen=True, slots=True)
class Hit:
    """A complete artifact. `recorded`: its use, and the hold if one is asked for, are recorded, so eviction knows of them."""

    manifest: Manifest
    recorded: bool


def find_hit(placement: Placement, ref: ArtifactRef, settings: Settings) -> Hit | None:
    """Return the artifact that satisfies the request; None if there is none, or if it is being evicted. Raises FetchError."""
    if settings.dest is not None or not renew(settings.cache_dir, ref.key):
        manifest = matching_manifest(placement, ref, settings)
        if manifest is None:
            return None  # a record of use would be one of nothing
        if settings.dest is not None or not Root(settings.cache_dir).touch_usage(ref.key):
            return Hit(manifest, recorded=False)  # eviction cannot know of this use anyway
    recorded = _hold(ref, settings)
    if being_evicted(Root(settings.cache_dir).staging / ref.key):
        return None
    manifest = matching_manifest(placement, ref, settings)
    return Hit(manifest, recorded) if manifest is not None else None


def record_use(ref: ArtifactRef, settings: Settings) -> bool:
    """Record that the artifact is used now, and the hold that the settings ask for. Return whether both are recorded.

    Raises UsageError if the pod's UID is no name. A root that cannot be written is no error: a hit works there too.
    """
    return settings.dest is None and Root(settings.cache_dir).touch_usage(ref.key) and _hold(ref, settings)


def _hold(ref: ArtifactRef, settings: Settings) -> bool:
    if settings.hold is None and settings.pod_uid is None:
        return True
    until = None if settings.hold is None else time.time() + settings.hold
    try:
        claim(settings.cache_dir, Claim(ref.key, "hold", until, settings.pod_uid or _this_host()))
    except OSError:
        return False
    return True


def _this_host() -> str:
    """A name for the holder: in a pod, the host's name is that of the pod."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", os.uname().nodename)[:63].lstrip("-_") or "host"
