"""Deletes what killed and finished processes left in a root: `fetcher gc`."""

from __future__ import annotations

from pathlib import Path

from fetcher.cache.ruling import ruling
from fetcher.filesystem import storing
from fetcher.store.garbage import Garbage, collect, garbage
from fetcher.store.keyed import finish_exchanges, finish_swaps


def gc(root: Path, *, unused_for: float, dry_run: bool) -> list[Garbage]:
    """Delete what nobody needs any more, and return it. A dry run writes nothing.

    `unused_for`: seconds that an abandoned fetch stays resumable. Raises NotFound, StoreError, NewerFormat.
    """
    with ruling(root, dry_run=dry_run) as (now, lease), storing("collect the garbage"):
        if lease is None:
            return garbage(root, now=now, unused_for=unused_for)
        finish_swaps(root)
        finish_exchanges(root)
        return [each for each in garbage(root, now=now, unused_for=unused_for) if collect(root, each)]
