"""Removes artifacts from a cache root: renamed away first, deleted after. A kill leaves the artifact or nothing.

Eviction and hit never miss each other. The evictor takes the key's own lease, whose heartbeat says `evicting`, then reads the
use record and the pins, then renames. A hit renews the use record, then looks for such a lease, then reads the manifest.
Whoever comes second sees the other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from fetcher.errors import StoreError
from fetcher.filesystem import network_filesystem, storing, sync_directory
from fetcher.manifest import Manifest
from fetcher.planning.eviction import Kept, Resident
from fetcher.store.beneath import make_directories, remove, rename
from fetcher.store.catalog import Entry
from fetcher.store.claims import claims
from fetcher.store.contender import Contender
from fetcher.store.hub_removal import Published, RefOf
from fetcher.store.in_use import Use, use_of
from fetcher.store.layout import Root
from fetcher.store.lease import Lease
from fetcher.store.limits import MIN_IDLE
from fetcher.store.placement import holds_others
from fetcher.store.superseded import is_a_snapshot
from fetcher.usage import last_used
from fetcher.values import dataclass

_NAME = "evicted"
"""The artifact's name in the lease's data. The next owner of an abandoned lease removes it as a file that is not listed."""


@dataclass(frozen=True, slots=True)
class Doomed:
    """An artifact that is renamed away and not deleted yet. `delete` or `restore` ends it."""

    root: Path
    entry: Entry
    lease: Lease

    def delete(self) -> None:
        """Delete the artifact, its record of use, and its lease. Blocks as long as the filesystem needs."""
        with suppress(OSError):
            remove(self.root, Root(self.root).usage / self.entry.key)
        self.lease.dissolve()

    def restore(self) -> None:
        """Make the artifact visible again, because removing it would not have been enough. Raises OSError, LeaseLost."""
        with self.lease.fenced():
            rename(self.root, self.lease.data / _NAME, self.root, self.entry.path)
        sync_directory(self.root)
        self.lease.dissolve()


@dataclass(frozen=True, slots=True)
class DoomedSnapshot(Doomed):
    """An artifact in the Hub's layout. Its lease says that it is being evicted, and nothing is renamed before `delete`."""

    published: Published

    def delete(self) -> None:
        """Remove what we placed, the record of use, and the lease. Raises StoreError; `fetcher gc` continues."""
        try:
            with storing("remove the artifact from the Hub's cache"):
                self.published.remove()
        except BaseException:
            self.lease.dissolve()
            raise
        Doomed.delete(self)

    def restore(self) -> None:
        self.lease.dissolve()


@dataclass(frozen=True, slots=True)
class Keeping:
    """What keeps an artifact at this moment. `now`: seconds since 1970 by the clock of the volume.

    `min_idle`: seconds without use before a rule may choose it; None if a person named it. `force`: also evict what was used
    recently where the filesystem does not tell who reads it. `ref_of` is needed for artifacts in the Hub's layout.
    """

    root: Path
    now: float
    min_idle: float | None
    force: bool = False
    ref_of: RefOf | None = None

    def published(self, entry: Entry, manifest: Manifest) -> Published | None:
        """Return the artifact if it is in the Hub's layout and may be removed from there."""
        if not is_a_snapshot(manifest.snapshot) or self.ref_of is None:
            return None
        return Published(self.root, entry.key, entry.record, manifest, self.ref_of)

    def reason(self, entry: Entry) -> Kept | None:
        """Return why `entry` is kept, None if nothing keeps it. Raises OSError, NewerFormat."""
        manifest = Manifest.read(entry.record)
        if manifest is None:
            return "foreign"  # or replaced just now
        published = self.published(entry, manifest)
        if published is None and (manifest.snapshot is not None or holds_others(entry.path, manifest)):
            return "foreign"
        if published is not None and published.of_others_too:
            return "foreign"
        lasting = {each.kind for each in claims(self.root, entry.key).get(entry.key, ()) if each.lasts(self.now)}
        if lasting:
            return "pinned" if "pin" in lasting else "held"
        used = last_used(self.root, entry.key)
        idle = self.now - used if used is not None else float("inf")
        if self.min_idle is not None and idle < self.min_idle:
            return "recent"
        use = use_of(self.root, published.blobs) if published is not None else open_files(self.root, entry)
        if use == "unknown":
            return "unknown" if self.min_idle is None and idle < MIN_IDLE and not self.force else None
        return "open" if use == "open" else None


def open_files(root: Path, entry: Entry) -> Use:
    """Return whether a process has a file of the artifact's directory open."""
    return use_of(root, (Path(above) / name for above, _, names in os.walk(entry.path) for name in names))


def closed(
    root: Path,
    artifacts: Mapping[str, Entry],
    choose: Callable[[Mapping[str, Kept]], Sequence[Resident]],
    kept: dict[str, Kept],
) -> Sequence[Resident]:
    """Return the victims that `choose` takes when it knows which of them are open. Adds those to `kept`.

    Only what is chosen is looked at. This takes no lease: usually it finds what is open, and nothing has to be undone.
    """
    while True:
        victims = choose(kept)
        opened = [each.key for each in victims if open_files(root, artifacts[each.key]) == "open"]
        if not opened:
            return victims
        kept |= dict.fromkeys(opened, "open")


def doom(
    root: Path, entries: Iterable[Entry], keeping: Keeping, *, stale: float, keep: Callable[[], None]
) -> tuple[list[Doomed], dict[str, Kept]]:
    """Rename artifacts away, except those that something keeps: key → reason. Blocks.

    On a network filesystem it waits until the clients of other nodes see that the artifacts are being evicted, then looks what
    keeps them. `keep` renews the caller's lease. Raises OSError, LeaseLost, NewerFormat, and then nothing is renamed.
    """
    marked: list[tuple[Entry, Contender, Lease]] = []
    kept: dict[str, Kept] = {}
    doomed: list[Doomed] = []
    try:
        for entry, contender, lease in _marked(root, entries, stale):
            if isinstance(lease, Lease):
                marked.append((entry, contender, lease))
            else:
                kept[entry.key] = "leased"
        if marked and network_filesystem(root) is not None:
            _wait(stale, [keep, *(lease.keep for _, _, lease in marked)])
        while marked:
            entry, contender, lease = marked[-1]
            reason = keeping.reason(entry)
            if reason is None:
                doomed.append(_doomed(root, entry, lease, keeping))
            else:
                kept[entry.key] = reason
                contender.give_back(lease)
            marked.pop()
            keep()
    except BaseException:
        for _, contender, lease in marked:
            contender.give_back(lease)
        restore(doomed)
        raise
    return doomed, kept


def restore(doomed: Iterable[Doomed]) -> None:
    """Make artifacts visible again, as far as possible."""
    for each in doomed:
        with suppress(OSError, StoreError):
            each.restore()


def _marked(root: Path, entries: Iterable[Entry], stale: float) -> Iterator[tuple[Entry, Contender, Lease | None]]:
    """Take the lease of each artifact, so that others see that it is being evicted. None: somebody else has the lease."""
    staging = Root(root).staging
    make_directories(root, staging)
    for entry in entries:
        contender = Contender(staging, entry.key, stale=stale, evicting=True)
        lease = contender.attempt()
        yield entry, contender, lease if isinstance(lease, Lease) else None


def _doomed(root: Path, entry: Entry, lease: Lease, keeping: Keeping) -> Doomed:
    """Rename the artifact away, unless it is in the Hub's layout."""
    if (published := keeping.published(entry, entry.manifest)) is not None:
        return DoomedSnapshot(root, entry, lease, published)
    _rename_away(root, entry, lease)
    return Doomed(root, entry, lease)


def _rename_away(root: Path, entry: Entry, lease: Lease) -> None:
    with lease.fenced():
        rename(root, entry.path, root, lease.data / _NAME)
    sync_directory(root)


def _wait(seconds: float, renewals: Iterable[Callable[[], None]]) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        for renew in renewals:
            renew()
        time.sleep(min(left, 1.0))
