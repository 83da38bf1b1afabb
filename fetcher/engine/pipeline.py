"""The life of one fetch, from a reference to a complete artifact.

::

    recover      finish what a killed command began here
    ask          on-change only: one metadata request; unchanged, or not to be asked, ends here
    lease        one owner a key; somebody else's result is ours too
    resolve      a revision, then its listing, once
    check        selection, hostile paths, pins, digests: all that can be refused before a byte is fetched
    prepare      what is already here, and room for the rest
    transfer     pull, write, hash, compare, sync
    seal, place  the manifest, then the rename
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from fetcher import __version__
from fetcher.artifact import ArtifactRef, Listing, RemoteFile, redact, total_size
from fetcher.engine import Artifact, described
from fetcher.engine.failure import one_error
from fetcher.engine.hashing import hash_threads
from fetcher.engine.holding import LeaseTimes, kept_alive, let_go, obtain
from fetcher.engine.incoming import Incoming
from fetcher.engine.pace import RateLimit
from fetcher.engine.prepare import Preparation, Prepared, prepare
from fetcher.engine.receiving import write_threads
from fetcher.engine.retry import Asker, Patience
from fetcher.engine.transfer import Limits, Transfer
from fetcher.errors import ContentChanged, DigestUnavailable, NotFound, SourceError
from fetcher.events import Committing, Planned, Resolved, Resolving, Subscriber, Warned
from fetcher.filesystem import file_mode, make_directory, storing
from fetcher.host.descriptors import free_descriptors
from fetcher.host.memory import memory_left
from fetcher.host.processors import cpu_count
from fetcher.manifest import Manifest
from fetcher.planning.descriptors import plan_descriptors
from fetcher.planning.memory import plan_memory
from fetcher.planning.paths import each_once, look_alikes, refuse_hostile_paths
from fetcher.planning.pointers import LONGEST, refuse_pointer
from fetcher.planning.selection import in_vain, select
from fetcher.planning.sets import incomplete_sets
from fetcher.settings import Settings
from fetcher.sources.base import Source
from fetcher.store.beneath import make_directories
from fetcher.store.journal import Journal
from fetcher.store.keyed import sweep_old
from fetcher.store.layout import Root, base_of_destination
from fetcher.store.lease import Lease
from fetcher.store.names import refuse_taken_for_one
from fetcher.store.placement import Placement, Step, seal
from fetcher.store.selector import contradiction, hit, recover
from fetcher.uncancelled import run_uncancelled

ASK_FOR = 15.0
"""Seconds to spend on asking whether there is something newer, when a good copy is here: a pod's start waits for it."""
LEAST_ROOM = 64 * 1024 * 1024
"""Bytes of page cache that are counted on however small the cgroup: a chunk of each of four files."""
CHANGES = 2
"""Times an artifact is listed anew because its source changed while it was fetched. The last time, what no
digest vouches for is fetched in one piece."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """What is staged and may be sealed; `fetched` bytes of it came from the source."""

    manifest: Manifest
    listing: Listing
    fetched: int


@dataclass(slots=True)
class Pipeline:
    """One fetch. `step` is told the name of each step of the commit when it is done."""

    ref: ArtifactRef
    settings: Settings
    source: Source
    placement: Placement
    emit: Subscriber
    step: Step
    began: float

    async def run(self) -> Artifact:
        """Raises FetchError; whatever was fetched until then stays resumable."""
        recover(self.settings)
        stands = self._hit()
        if stands is not None and (answer := await self._ask(stands)) is not None:
            return answer
        lease = await obtain(
            self.placement,
            times=LeaseTimes(self.settings.lease_wait, self.settings.lease_stale),
            published=lambda: self._published(stands),
            on_event=self.emit,
        )
        if isinstance(lease, Manifest):
            return self._result(lease, cached=True)
        try:
            return await self._build(lease)
        except BaseException:
            await run_uncancelled(let_go, lease)
            raise

    # What is already here

    def _hit(self) -> Manifest | None:
        return hit(self.placement, self.ref, self.settings)

    def _published(self, before: Manifest | None) -> Manifest | None:
        manifest = self._hit()
        return manifest if manifest != before else None

    async def _ask(self, stands: Manifest) -> Artifact | None:
        """None when the source has something else than what stands here."""
        if self.settings.refresh == "if-not-present":
            return self._result(stands, cached=True)
        self.emit(Resolving(redact(self.ref.uri)))
        ask = Asker(Patience(min(self.settings.retry_for, ASK_FOR)), self.emit)
        try:
            revision = await ask(self.source.resolve)
        except SourceError as error:
            self.emit(Warned(error.reason, f"{error.message}; keeping the present copy"))
            return self._result(stands, cached=True, stale=True)
        return self._result(stands, cached=True) if revision is not None and revision == stands.revision else None

    # Building

    async def _build(self, lease: Lease) -> Artifact:
        patience = Patience(self.settings.retry_for)
        for attempt in range(CHANGES + 1):
            try:
                with one_error():
                    gathered = await self._gathered(lease, patience, whole=attempt == CHANGES)
            except ContentChanged as error:
                if attempt == CHANGES:
                    raise
                how = "again" if attempt + 1 < CHANGES else "once more, for each file without a digest in one piece"
                self.emit(Warned(error.reason, f"{error.message}; asking the source {how}"))
            else:
                await run_uncancelled(self._commit, lease, gathered.manifest, gathered.listing)
                return self._result(gathered.manifest, fetched=gathered.fetched)
        raise AssertionError("unreachable")

    async def _gathered(self, lease: Lease, patience: Patience, *, whole: bool) -> Gathered:
        """All that is listed, staged and verified; `whole`: see `in_one_piece`.

        The lease shows life from before the listing on, which a source may take minutes to give.
        """
        transfer: Transfer | None = None
        total: int | None = None

        def progress() -> tuple[int, int | None]:
            return (transfer.bytes_fetched if transfer else 0), total

        async with kept_alive(lease, progress=progress):
            listing = await self._list(patience)
            if whole:
                listing = in_one_piece(listing, self.settings.expect)
            files = self._checked(listing)
            total = total_size(files)
            if names := look_alikes(file.path for file in files):
                await run_uncancelled(refuse_taken_for_one, names, lease.data)
            with storing("look at what stands there"):
                await run_uncancelled(self.placement.survey, [file.path for file in files])
            # Those of a local source before minutes are spent on copying the rest.
            await run_uncancelled(_refuse_pointers, files, self.source.local_path)
            with closing(self._journal(lease)) as journal:
                if listing.authenticated:
                    journal.authenticated()
                stopping = threading.Event()
                preparation = self._preparation(lease, journal, stopping.is_set)
                prepared = await run_uncancelled(prepare, files, preparation, stop=stopping.set)
                transfer = self._transfer(prepared, lease, journal, files, patience)
                entries = prepared.settled | await transfer.run()
                await run_uncancelled(_refuse_pointers, files, lambda file: lease.data / file.path)
        manifest = Manifest.for_request(
            self.ref,
            revision=listing.revision,
            files=entries.values(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            version=__version__,
            authenticated=listing.authenticated or prepared.authenticated,
        )
        return Gathered(manifest, replace(listing, files=_with_pins(listing.files, files)), transfer.bytes_fetched)

    async def _list(self, patience: Patience) -> Listing:
        self.emit(Resolving(redact(self.ref.uri)))
        ask = Asker(patience, self.emit)
        return await self.source.list(await ask(self.source.resolve), ask)

    def _checked(self, listing: Listing) -> tuple[RemoteFile, ...]:
        files = chosen(listing, self.ref, self.settings)
        self.emit(Resolved(redact(self.ref.uri), listing.revision, len(files), total_size(files)))
        warn_of_selection(listing, files, self.ref, self.emit)
        return files

    def _journal(self, lease: Lease) -> Journal:
        with storing("open the journal"):
            return Journal(lease.journal_path, mode=file_mode(lease.directory), version=__version__)

    def _preparation(self, lease: Lease, journal: Journal, stopped: Callable[[], bool]) -> Preparation:
        return Preparation(
            placement=self.placement,
            lease=lease,
            journal=journal,
            previous=self.placement.present(),
            local_path=self.source.local_path,
            hard_link=self.settings.hard_link,
            threads=cpu_count(),
            stopped=stopped,
            on_event=self.emit,
        )

    def _transfer(
        self, prepared: Prepared, lease: Lease, journal: Journal, files: tuple[RemoteFile, ...], patience: Patience
    ) -> Transfer:
        threads = cpu_count()
        descriptors = plan_descriptors(
            free_descriptors(), connections=self.settings.max_concurrency, hash_threads=hash_threads(threads)
        )
        memory = plan_memory(
            self.settings.memory_limit,
            connections=descriptors.connections,
            hash_threads=descriptors.hash_threads,
            write_threads=write_threads(threads),
        )
        total, room = total_size(files), max(LEAST_ROOM, memory_left().pages.bytes - self.settings.memory_limit)
        self.emit(Planned(len(files), total, prepared.held, memory.connections))
        drop_pages = self.settings.page_cache == "drop" or (self.settings.page_cache == "auto" and total > room)
        limits = Limits(
            connections=memory.connections,
            files=descriptors.files,
            buffers=memory.buffers,
            buffer_size=memory.buffer,
            hash_lag=room // 4,
            write_threads=write_threads(threads),
            hash_threads=descriptors.hash_threads,
            timeout_stall=self.settings.timeout_stall,
        )
        return Transfer(
            [Incoming(staged, streams=len(prepared.staged), drop_pages=drop_pages) for staged in prepared.staged],
            source=self.source,
            lease=lease,
            journal=journal,
            limits=limits,
            rate=RateLimit(self.settings.limit_rate),
            patience=patience,
            on_event=self.emit,
        )

    # Ending

    def _commit(self, lease: Lease, manifest: Manifest, listing: Listing) -> None:
        self.emit(Committing(str(self.placement.location(manifest))))
        with storing("publish the artifact"):
            lease.renew()
            self.step("sealing")
            with lease.fenced():
                seal(lease.data, manifest, mode=file_mode(lease.data))
            self.placement.place(lease, manifest, listing, self.step)
            root = self.settings.dest or self.settings.cache_dir
            sweep_old(root)

    def _result(self, manifest: Manifest, *, fetched: int = 0, cached: bool = False, stale: bool = False) -> Artifact:
        if self.settings.dest is None:
            Root(self.settings.cache_dir).touch_usage(self.ref.key)
        return described(
            self.ref,
            manifest,
            path=self.placement.location(manifest),
            fetched=fetched,
            seconds=time.monotonic() - self.began,
            cached=cached,
            stale=stale,
        )


def in_one_piece(listing: Listing, pins: Container[str]) -> Listing:
    """`listing` for a source whose answers contradict each other: a file without digest or pin is to come in one answer.

    One answer of one server is one content, whatever the validators say. None of them is recorded then, and no revision that
    is made of them: what another server says later must not pass for this content.
    """
    files = tuple(
        file if file.digests or file.path in pins else replace(file, ranges=False, validator=None) for file in listing.files
    )
    disputed = any(before.validator != after.validator for before, after in zip(listing.files, files, strict=True))
    return replace(listing, files=files, revision=None if disputed else listing.revision)


def chosen(listing: Listing, ref: ArtifactRef, settings: Settings) -> tuple[RemoteFile, ...]:
    """What is to be fetched, with the user's pins. What the selection leaves out is not judged.

    Raises NotFound, HostilePath, DigestMismatch, DigestUnavailable.
    """
    files = each_once(select(listing.files, include=ref.include, exclude=ref.exclude))
    refuse_hostile_paths(file.path for file in files)
    return pinned(files, settings)


def pinned(files: Iterable[RemoteFile], settings: Settings) -> tuple[RemoteFile, ...]:
    """`files` with the user's pins among their digests. Raises DigestMismatch, DigestUnavailable, NotFound."""
    by_path = {file.path: file for file in files}
    for path, expected in settings.expect.items():
        if path not in by_path:
            raise NotFound(f"--expect names {path}, which is not among the artifact's files; see `fetcher plan`", path=path)
        listed = by_path[path].digests
        if expected not in listed:
            by_path[path] = replace(by_path[path], digests=(*listed, expected))
    for file in by_path.values():
        listed_of = {digest.algorithm: digest for digest in reversed(file.digests)}
        for digest in file.digests:
            if digest != listed_of[digest.algorithm]:
                raise contradiction(file.path, digest, listed_of[digest.algorithm])
    if settings.require_digests:
        for file in by_path.values():
            if not file.digests:
                raise DigestUnavailable(
                    f"{file.path}: --require-digests is set, but the source publishes none; pin it with "
                    f"--expect {file.path}=sha256:...",
                    path=file.path,
                )
    return tuple(by_path.values())


def _with_pins(listed: Iterable[RemoteFile], chosen: Iterable[RemoteFile]) -> tuple[RemoteFile, ...]:
    pinned = {file.path: file for file in chosen}
    return tuple(pinned.get(file.path, file) for file in listed)


def warn_of_selection(listing: Listing, files: Iterable[RemoteFile], ref: ArtifactRef, emit: Subscriber) -> None:
    """What may be a mistake, or meant: a pattern in vain (of a list for many models), a part alone (for each node its own)."""
    for sentence in in_vain(listing.files, include=ref.include, exclude=ref.exclude):
        emit(Warned("NoMatch", sentence))
    for each in incomplete_sets(file.path for file in files):
        emit(Warned("IncompleteSet", f"{each.example} is one of {each.total} parts; fetched of them: {each.present}"))


def _refuse_pointers(files: Iterable[RemoteFile], place: Callable[[RemoteFile], Path | None]) -> None:
    """Raises LfsPointer for a file that no digest vouches for. It lies where `place` says; what is not there is not judged."""
    for file in files:
        path = None if file.digests or (file.size or 0) >= LONGEST else place(file)
        if path is not None and path.is_file() and path.stat().st_size < LONGEST:
            with storing("read the file", file.path):
                refuse_pointer(file.path, path.read_bytes())


async def run(
    ref: ArtifactRef, settings: Settings, *, source: Source, placement: Placement, on_event: Subscriber, step: Step
) -> Artifact:
    """One fetch through `source` into `placement`. Raises FetchError."""
    with storing("make the directory"):
        base = base_of_destination(placement.anchor)
        make_directory(base)
        make_directories(base, placement.anchor)
    began = time.monotonic()
    with storing("use the local filesystem"):
        return await Pipeline(ref, settings, source, placement, on_event, step, began).run()
