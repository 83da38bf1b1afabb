"""Removes a directory of a root that is no artifact of ours."""

from __future__ import annotations

from pathlib import Path

from fetcher.filesystem import storing
from fetcher.store import discarding
from fetcher.store.lease import default_stale_time


def discard(root: Path, name: str) -> bool:
    """Move the directory `name` of a root away, to be deleted after the grace period; False if there is none. Blocks.

    `name` is a cache key. Raises CannotWrite if it is none or the directory is an artifact, InUse if a process has a file of it
    open or fetches that key, StoreError, NewerFormat.
    """
    with storing("remove the directory"):
        return discarding.discard(root, name, stale=default_stale_time(root))
