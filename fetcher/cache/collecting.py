"""Deletes what killed and finished processes left in a root: `fetcher gc`."""

from __future__ import annotations

from pathlib import Path

from fetcher.cache.pods import KubeletPods
from fetcher.cache.ruling import ruling
from fetcher.filesystem import storing
from fetcher.store.garbage import Garbage, garbage
from fetcher.store.keyed import finish_exchanges, finish_swaps


def gc(root: Path, *, unused_for: float, pods: KubeletPods | None, dry_run: bool) -> list[Garbage]:
    """Delete what nobody needs any more, and return it. A dry run writes nothing.

    `unused_for`: seconds that an abandoned fetch stays resumable. `pods`: the pods of this node; without it, a hold without an
    end stays until it is released. Raises NotFound, ConfigurationError, StoreError, NewerFormat.
    """
    gone = pods.gone() if pods is not None else _nobody
    with ruling(root, dry_run=dry_run) as (now, lease), storing("collect the garbage"):
        if lease is not None:
            finish_swaps(root)
            finish_exchanges(root)
        found = garbage(root, now=now, unused_for=unused_for, gone=gone)
        return found if lease is None else [each for each in found if each.delete()]


def _nobody(_: str) -> bool:
    return False
