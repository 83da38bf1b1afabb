"""The root-wide lease of one decision, and the time by the clock of the volume."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fetcher.errors import NotFound
from fetcher.filesystem import storing
from fetcher.store.contender import short_lease
from fetcher.store.layout import Root
from fetcher.store.lease import Lease, default_stale_time
from fetcher.store.occupancy import ROOM


@contextmanager
def ruling(root: Path, *, dry_run: bool) -> Iterator[tuple[float, Lease | None]]:
    """Hold the root-wide lease during the block, and yield the time in seconds since 1970. A dry run writes nothing and has no
    lease. Raises NotFound, StoreError, LeaseTimeout."""
    if not root.is_dir():
        raise NotFound(f"there is no cache at {root}; pass the cache root with --cache-dir")
    if dry_run:
        yield time.time(), None
        return
    with storing("use the cache"):
        stale = default_stale_time(root)
        with short_lease(Root(root).staging, ROOM, stale=stale, stopped=lambda: False) as lease:
            yield lease.moment(), lease
