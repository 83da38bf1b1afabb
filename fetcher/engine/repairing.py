"""Repairs a placed artifact: a fetch of its damaged files in which all good chunks are present already.

::

    lease        the one of every fetch of this artifact; room is made in a bounded cache before each file is staged
    list         the source, at the revision in the manifest, must still have each damaged file with the same identity
    peers        mirrors are asked as for a fetch: they know the artifact by the listing in the manifest
    each file    good chunks into a new inode, the others from the source, every chunk compared, then one rename

The published file is only read, and stays in place until its successor is complete. That needs its size once more for a
while, so a bounded root makes room as for a fetch. Files are repaired one after another, so one that cannot be fetched does
not keep the others damaged.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from fetcher.artifact import ArtifactRef, Digest, Listing, RemoteFile, listing_digest, redact
from fetcher.engine.lease_keeping import LeaseTimes, acquire_or_wait, give_up, kept_alive
from fetcher.engine.retry import Asker, Patience
from fetcher.engine.roominess import room_of
from fetcher.engine.sizing import transfer_of
from fetcher.engine.transfer import Transfer
from fetcher.engine.unpacking import UnpackingSource
from fetcher.errors import ContentChanged, DigestMismatch, NotFound
from fetcher.events import FileRepaired, Resolving, Subscriber, Warned
from fetcher.failure import one_error
from fetcher.filesystem import file_mode, storing
from fetcher.manifest import Manifest, ManifestFile
from fetcher.settings import Settings
from fetcher.sources.base import Guide, Source
from fetcher.steps import Step
from fetcher.store.damaged import Damaged, interrupted
from fetcher.store.identity import identity_of
from fetcher.store.journal import Journal, Journalled
from fetcher.store.lease import Lease
from fetcher.store.placement import Placement
from fetcher.store.room import Room
from fetcher.uncancelled import run_uncancelled
from fetcher.version import VERSION


@dataclass(slots=True)
class Repaired:
    """The result of a repair: the paths of the files that were replaced, in order, and the `fetched` bytes.

    `shared` are those whose former inode has other names: another artifact may have the same damage.
    """

    paths: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    fetched: int = 0


@dataclass(slots=True)
class Repair:
    """One repair. `root` is the cache root of the artifact, None for a destination: that has no limits.

    `step` is called with the name of each step after it.
    """

    ref: ArtifactRef
    settings: Settings
    source: Source
    placement: Placement
    root: Path | None
    emit: Subscriber
    step: Step
    result: Repaired = field(default_factory=Repaired)
    _transfer: Transfer | None = None
    _guide: Guide | None = None

    async def run(self, paths: Collection[str]) -> Repaired:
        """Repair the files `paths`. A file that is intact by now is left alone. A file whose chunks cannot be had is left as it
        is, with a warning. Raises FetchError; ContentChanged if the source has other content, before anything is fetched.
        """
        lease = await acquire_or_wait(
            self.placement,
            times=LeaseTimes(self.settings.lease_wait, self.settings.lease_stale),
            published=lambda: None,
            on_event=self.emit,
        )
        if isinstance(lease, Manifest):
            raise AssertionError("unreachable")
        try:
            with one_error():
                async with kept_alive(lease, progress=lambda: (self._fetched, None)):
                    await self._repair(lease, paths)
            return self.result
        finally:
            await run_uncancelled(give_up, lease)

    @property
    def _fetched(self) -> int:
        return self.result.fetched + (self._transfer.bytes_fetched if self._transfer else 0)

    async def _repair(self, lease: Lease, paths: Collection[str]) -> None:
        manifest = self.placement.present()
        if manifest is None:
            raise NotFound(f"{redact(self.ref.uri)} was removed while it was verified; fetch it again")
        entries = [file for file in manifest.files if file.path in paths]
        patience = Patience(self.settings.retry_for)
        self.emit(Resolving(redact(self.ref.uri)))
        ask = Asker(patience, self.emit)
        if isinstance(self.source, UnpackingSource):
            self.source.under(self._room(lease, lambda: False))
        listing = await self.source.list(manifest.revision, ask)
        files = await self.source.describe([listed_as(entry, listing) for entry in entries], ask)
        self._guide = self._begun(manifest, files)
        with storing("resume the staged files"):
            leftovers = await run_uncancelled(interrupted, lease, entries)
        with storing("open the journal"):
            journal = Journal(lease.journal_path, mode=file_mode(lease.directory), version=VERSION)
        with closing(journal):
            if listing.authenticated:
                journal.authenticated()
            for file, entry in zip(files, entries, strict=True):
                stopping = threading.Event()
                damaged = await run_uncancelled(
                    partial(Damaged, self.placement, manifest, entry, stopped=stopping.is_set),
                    stop=stopping.set,
                    undo=Damaged.close,
                )
                with closing(damaged):
                    if not damaged.intact:
                        await self._replace(damaged, file, manifest, lease, journal, leftovers, patience)

    def _begun(self, manifest: Manifest, damaged: Sequence[RemoteFile]) -> Guide | None:
        """Ask mirrors for the `damaged` files: they know the whole artifact. The server of this root is left out."""
        listed = {file.path: file for file in damaged}
        files = [
            listed.get(each.path) or RemoteFile(each.path, each.size, each.digests, each.validator) for each in manifest.files
        ]
        node = self.settings.node or (identity_of(self.root) if self.root is not None else None)
        return self.source.begin(files, listing=listing_digest(manifest.files), node=node, on_event=self.emit)

    async def _replace(
        self,
        damaged: Damaged,
        file: RemoteFile,
        manifest: Manifest,
        lease: Lease,
        journal: Journal,
        leftovers: Journalled,
        patience: Patience,
    ) -> None:
        """Complete the file and swap it in, or warn and leave the old one."""
        stopping = threading.Event()
        await self._make_room(damaged, file, lease, stopping)
        with storing("stage the file", file.path):
            staged = await run_uncancelled(
                damaged.stage, file, lease, journal, leftovers.files.get(file.path), stopping.is_set, stop=stopping.set
            )
        if staged is None:
            raise asyncio.CancelledError
        self._transfer = transfer_of(
            [staged],
            files=[file],
            held=staged.held,
            source=self.source,
            lease=lease,
            journal=journal,
            settings=self.settings,
            patience=patience,
            guide=self._guide,
            on_event=self.emit,
        )
        try:
            with one_error():
                entry = (await self._transfer.run())[file.path]
            _refuse_other_chunks(entry, damaged.entry)
        except (ContentChanged, DigestMismatch, NotFound) as error:
            with storing("discard the staged file", file.path):
                await run_uncancelled(staged.discard)
            self.emit(Warned(error.reason, f"{error.message}; the damaged file stays as it is"))
            return
        finally:
            fetched = self._transfer.bytes_fetched
            self.result.fetched, self._transfer = self.result.fetched + fetched, None
        self.step(f"staged {file.path}")
        with storing("replace the damaged file", file.path):
            await run_uncancelled(self.placement.swap, lease, file, manifest)
            journal.drop(file.path)
        self.step(f"replaced {file.path}")
        self.result.paths.append(file.path)
        if damaged.names > 1:
            self.result.shared.append(file.path)
        self.emit(FileRepaired(file.path, entry.size, fetched))

    async def _make_room(self, damaged: Damaged, file: RemoteFile, lease: Lease, stopping: threading.Event) -> None:
        """Make room for the successor of the file. Raises OutOfSpace, CacheBusy, and then nothing is changed."""
        room = self._room(lease, stopping.is_set)

        def make() -> None:
            with storing("make room in the cache", file.path):
                room.make(damaged.space(lease))

        await run_uncancelled(make, stop=stopping.set)

    def _room(self, lease: Lease, stopped: Callable[[], bool]) -> Room:
        """The room of the repair. Limits belong to a cache root: a destination has none."""
        return room_of(
            self.root or self.placement.anchor,
            self.ref.key,
            lease,
            self.settings,
            limited=self.root is not None,
            growing=False,
            stopped=stopped,
            on_event=self.emit,
        )


def listed_as(entry: ManifestFile, listing: Listing) -> RemoteFile:
    """Return the listed file of `entry`, with all its digests. Raises ContentChanged unless it has the identity of `entry`.

    A pin of the user is in the manifest only. So each listed digest must be one of the manifest's, but not the reverse.
    """
    listed = next((file for file in listing.files if file.path == entry.path), None)
    if listed is None:
        raise _changed(entry.path, "no longer lists this file")
    if listed.size is not None and listed.size != entry.size:
        raise _changed(entry.path, f"lists {listed.size:,} bytes instead of {entry.size:,}")
    if other := next((digest for digest in listed.digests if _contradicts(digest, entry)), None):
        raise _changed(entry.path, f"lists {other}, which is not a digest of the manifest")
    if entry.digests:
        return replace(listed, size=entry.size, digests=entry.digests)
    if entry.validator is None:
        # The replicas of the source disagreed about it. One response has one content, whatever its validator is.
        return replace(listed, size=entry.size, validator=None, ranges=False)
    if listed.validator != entry.validator:
        raise _changed(entry.path, f"has {listed.validator or 'no validator'} instead of {entry.validator}")
    return listed


def _contradicts(digest: Digest, entry: ManifestFile) -> bool:
    return digest not in entry.digests and any(digest.algorithm == known.algorithm for known in entry.digests)


def _changed(path: str, how: str) -> ContentChanged:
    return ContentChanged(
        f"{path}: the source {how}, so it cannot repair the file; remove the artifact and fetch it again", path=path
    )


def _refuse_other_chunks(entry: ManifestFile, known: ManifestFile) -> None:
    """Raise DigestMismatch unless every chunk is the one that was verified when the artifact was fetched."""
    if entry.chunks != known.chunks:
        raise DigestMismatch(f"{entry.path}: the source sends other content than was verified", path=entry.path)


async def repair(
    ref: ArtifactRef,
    placement: Placement,
    paths: Collection[str],
    settings: Settings,
    *,
    root: Path | None,
    on_event: Subscriber,
    source: Source,
    step: Step,
) -> Repaired:
    """Repair the files `paths` of the artifact at `placement`, and close `source`. See `Repair` and `Repair.run`."""
    try:
        with storing("use the local filesystem"):
            return await Repair(ref, settings, source, placement, root, on_event, step).run(paths)
    finally:
        await source.aclose()
