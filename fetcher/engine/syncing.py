"""Syncs to disk: finished chunks periodically, a complete file before its entry in the manifest.

After a failed fsync the kernel may have dropped the pages, and it reports that only once: a second fsync would succeed falsely.
So the file is fetched again into a new inode, once.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor

from fetcher.engine.incoming import Incoming
from fetcher.engine.states import State
from fetcher.errors import FetchError, LeaseLost, from_os_error
from fetcher.events import Retrying, Subscriber
from fetcher.filesystem import storing
from fetcher.manifest import ManifestFile
from fetcher.store.journal import Journal
from fetcher.store.lease import Lease

SYNC_EVERY = 32
"""Finished chunks (512 MiB) between two syncs of data and journal: the maximum loss at a power failure. About one fsync a
second."""

Spawn = Callable[[Coroutine[None, None, None]], None]
"""Starts a task that ends with the transfer."""


class Syncing:
    """Syncs the `begun` files on its own thread. Calls `fetch_again` with each file whose first sync failed."""

    def __init__(
        self,
        begun: Mapping[str, Incoming],
        *,
        lease: Lease,
        journal: Journal,
        spawn: Spawn,
        fetch_again: Callable[[Incoming], None],
        on_event: Subscriber,
    ) -> None:
        self._begun = begun
        self._lease = lease
        self._journal = journal
        self._spawn = spawn
        self._fetch_again = fetch_again
        self._emit = on_event
        self._unsynced = 0
        self._thread = ThreadPoolExecutor(1, "sync")

    def written(self, chunks: int) -> None:
        """Record `chunks` finished chunks. Syncs data and journal after every SYNC_EVERY."""
        self._unsynced += chunks
        if self._unsynced >= SYNC_EVERY:
            self._unsynced = 0
            self._spawn(self._sync())

    async def _sync(self) -> None:
        """Sync the data first, then the journal that refers to it."""
        loop = asyncio.get_running_loop()
        for incoming in [each for each in self._begun.values() if each.state is not State.SEALING]:
            try:
                await loop.run_in_executor(self._thread, incoming.sync)
            except OSError as error:
                self.failed(incoming, error)
        with storing("sync the journal"):
            await loop.run_in_executor(self._thread, self._journal.sync)

    async def seal(self, incoming: Incoming) -> ManifestFile | None:
        """Truncate to size, sync and close. Returns the manifest entry; None if the file is refetched. Raises FetchError."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(
                self._thread, lambda: incoming.staged.seal(checksums=incoming.checksums, drop_pages=incoming.drops_pages)
            )
        except OSError as error:
            self.failed(incoming, error)
            return None

    def failed(self, incoming: Incoming, error: OSError) -> None:
        """Fetch the file again after its first failed sync. Raises FetchError after the second one."""
        incoming.sync_failures += 1
        if incoming.sync_failures > 1:
            raise disk_error(self._lease, error, doing="sync the staged file", path=incoming.path) from error
        self._emit(Retrying("IOError", f"sync failed, fetching the file again: {error}", incoming.path, 1, 0.0))
        self._fetch_again(incoming)

    def close(self) -> None:
        """Stop without waiting: a sync can take many seconds, and uses no buffer."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def disk_error(lease: Lease, error: OSError, *, doing: str, path: str | None) -> FetchError:
    """Return the error to raise for `error`. A missing staged file means LeaseLost if a new owner renamed the directory."""
    if error.errno == errno.ENOENT:
        try:
            lease.renew()
        except LeaseLost as lost:
            return lost
        except OSError:
            pass
    return from_os_error(error, doing=doing, path=path)
