"""The end of a cooperative fetch: the units of all parts become one artifact, ready for its rename.

Whole files are moved. Files in segments are joined, and then pass through an ordinary transfer that has nothing to receive:
it hashes them as a whole, and fetches again what does not match.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial

from fetcher.artifact import Listing, RemoteFile, redact, total_size
from fetcher.engine.pipeline import Pipeline
from fetcher.engine.retry import Patience
from fetcher.engine.sizing import transfer_of
from fetcher.errors import LocalIOError
from fetcher.events import Subscriber
from fetcher.filesystem import clones, file_mode, storing
from fetcher.manifest import Manifest, ManifestFile
from fetcher.store.collecting import Collected, collect
from fetcher.store.ingest import StagedFile
from fetcher.store.joining import join
from fetcher.store.journal import Journal
from fetcher.store.lease import Lease
from fetcher.store.placement import seal
from fetcher.store.plan import Plan, remove_plan
from fetcher.store.salvage import remove_unlisted_files
from fetcher.uncancelled import Stopped, run_uncancelled
from fetcher.values import dataclass
from fetcher.version import VERSION


@dataclass(frozen=True, slots=True)
class Assembly:
    """The finished units of `plan`, for the artifact of `whole` with the files of `listing`."""

    whole: Pipeline
    plan: Plan
    listing: Listing
    emit: Subscriber

    async def manifest(self, lease: Lease) -> tuple[Manifest, Mapping[str, int]]:
        """Collect all units, join and seal the whole in the data of `lease`, and remove the units and their plan.

        From here on this is an ordinary fetch before its rename. Returns the sealed manifest, and the bytes that were fetched
        again, by supplier. Raises FetchError.
        """
        root, key = self.whole.settings.cache_dir, self.whole.ref.key
        with storing("collect the parts"):
            await run_uncancelled(remove_unlisted_files, lease, self.listing.files)
            collected = await run_uncancelled(collect, root, key, self.plan, lease, undo=Collected.release)
        try:
            joined, fetched = await self._joined(collected, lease)
            manifest = self._described([*collected.files, *joined], authenticated=collected.authenticated)
            with storing("seal the artifact"):
                await run_uncancelled(seal_fenced, lease, manifest)
        except BaseException:
            await run_uncancelled(collected.release)
            raise
        with storing("remove the parts"):
            await run_uncancelled(self._clean_up, collected, lease)
        return manifest, fetched

    async def _joined(self, collected: Collected, lease: Lease) -> tuple[list[ManifestFile], Mapping[str, int]]:
        """The entries of the files that were fetched in segments, joined, compared with their digests and synced."""
        files = [file for file in self.listing.files if file.path in collected.segments]
        if not files:
            return [], {}
        stopping = threading.Event()
        with storing("join the parts"), closing(self.whole.journal(lease)) as journal:
            await run_uncancelled(self._make_room, files, lease, stopping, stop=stopping.set)
            joining = partial(_join, files, collected, lease, journal, stopping.is_set)
            transfer = transfer_of(
                await run_uncancelled(joining, stop=stopping.set),
                files=files,
                held=total_size(files),
                source=self.whole.source,
                lease=lease,
                journal=journal,
                settings=self.whole.settings,
                patience=Patience(self.whole.settings.retry_for),
                on_event=self.emit,
            )
            entries = await transfer.run()
        return list(entries.values()), transfer.bytes_from

    def _make_room(self, files: Sequence[RemoteFile], lease: Lease, stopping: threading.Event) -> None:
        """Make room for the joined files. Where the filesystem can share blocks, they take none of their own."""
        if not clones(lease.data):
            self.whole.room(lease, growing=False, stopped=stopping.is_set).make(total_size(files))

    def _described(self, files: Sequence[ManifestFile], *, authenticated: bool) -> Manifest:
        """The manifest of `files`. Raises LocalIOError if they are not the listed ones."""
        whole = self.whole
        if {file.path: _content(file) for file in files} != {file.path: _content(file) for file in self.listing.files}:
            raise LocalIOError(
                f"the parts of {redact(whole.ref.uri)} do not make the whole; remove "
                f"{whole.placement.staging / whole.ref.key}.* and run all parts again"
            )
        return Manifest.for_request(
            whole.ref,
            revision=self.listing.revision,
            files=files,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            version=VERSION,
            authenticated=authenticated,
        )

    def _clean_up(self, collected: Collected, lease: Lease) -> None:
        lease.forget_previous_owners()
        remove_plan(self.whole.settings.cache_dir, self.whole.ref.key)
        collected.dissolve()


def seal_fenced(lease: Lease, manifest: Manifest) -> None:
    """Write `manifest` into the data of `lease`, unless it was taken over. Raises LeaseLost, OSError."""
    lease.renew()
    with lease.fenced():
        seal(lease.data, manifest, mode=file_mode(lease.data))


def _content(file: RemoteFile | ManifestFile) -> object:
    """What says which content a file has, also if the source does not give its size."""
    return frozenset(file.digests) or file.validator


def _join(
    files: Sequence[RemoteFile], collected: Collected, lease: Lease, journal: Journal, stopped: Callable[[], bool]
) -> list[StagedFile]:
    staged: list[StagedFile] = []
    try:
        for file in files:
            staged.append(join(file, collected.segments[file.path], lease, journal, stopped=stopped))
            if stopped():
                raise Stopped
    except BaseException:
        for each in staged:
            each.close()
        raise
    return staged
