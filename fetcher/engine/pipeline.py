"""The life of one fetch, from a reference to a complete artifact.

::

    ask          on-change only: one metadata request; ends here if unchanged or if the source cannot be asked
    lease        one owner per key; the result of another owner is used too
    resolve      a revision, then its listing, once
    check        selection, hostile paths, pins, digests: everything that can be refused before a byte is fetched
    prepare      existing copies of files, and space for the rest
    transfer     pull, write, hash, compare, sync
    seal, place  the manifest, then the rename
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

from fetcher.artifact import ArtifactRef, Listing, RemoteFile, known_listing, redact, total_size
from fetcher.engine.adopting import Adoption
from fetcher.engine.changes import Changes
from fetcher.engine.choosing import chosen, in_one_piece, refuse_pointers, warn_of_selection, with_pins
from fetcher.engine.expecting import with_listed_pins
from fetcher.engine.hits import find_hit, record_use
from fetcher.engine.lease_keeping import LeaseTimes, acquire_or_wait, give_up, kept_alive
from fetcher.engine.prepare import Preparation, prepare
from fetcher.engine.request import Request, donors_for
from fetcher.engine.result import Artifact, described
from fetcher.engine.retry import Asker, Patience
from fetcher.engine.roominess import kept_roomy, room_of
from fetcher.engine.sizing import drops_pages, transfer_of
from fetcher.engine.transfer import Transfer
from fetcher.engine.unpacking import UnpackingSource
from fetcher.errors import ContentChanged, SourceError
from fetcher.events import Committing, Resolved, Resolving, Subscriber, Warned
from fetcher.failure import one_error
from fetcher.filesystem import file_mode, make_directory, storing
from fetcher.host.processors import cpu_count
from fetcher.manifest import Manifest
from fetcher.planning.paths import look_alikes
from fetcher.settings import Settings
from fetcher.sources.base import Asking, Source
from fetcher.steps import Step
from fetcher.store.beneath import make_directories
from fetcher.store.donor import Donor
from fetcher.store.identity import identity_of
from fetcher.store.journal import Journal
from fetcher.store.keyed import sweep_old
from fetcher.store.layout import base_of_destination
from fetcher.store.lease import Lease
from fetcher.store.names import refuse_taken_for_one
from fetcher.store.placement import Placement, seal
from fetcher.store.room import Room
from fetcher.store.sharing import Sharing
from fetcher.uncancelled import run_uncancelled
from fetcher.values import dataclass
from fetcher.version import VERSION

ASK_FOR = 15.0
"""Maximum seconds for asking for a newer version while a good copy exists: the start of a pod waits for it."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """The complete staging, ready to be sealed; `fetched`: the received bytes by supplier."""

    manifest: Manifest
    listing: Listing
    fetched: Mapping[str, int]


@dataclass(slots=True)
class Pipeline:
    """One fetch. `step` is called with the name of each step of the commit after that step."""

    ref: ArtifactRef
    settings: Settings
    source: Source
    placement: Placement
    adoption: Adoption | None
    emit: Subscriber
    step: Step
    began: float
    outer: Room | None = None
    """The room of the fetch of which this one is a part."""

    async def run(self) -> Artifact:
        """Return the artifact. Raises FetchError; fetched bytes stay resumable."""
        existing = self.existing()
        if existing is not None and (answer := await self.ask(existing)) is not None:
            return answer
        self._warn_if_unconfirmed()
        lease = await acquire_or_wait(
            self.placement,
            times=LeaseTimes(self.settings.lease_wait, self.settings.lease_stale),
            published=lambda: self.published(existing),
            on_event=self.emit,
        )
        if isinstance(lease, Manifest):
            return self.result(lease, cached=True)
        try:
            return await self._build(lease)
        except BaseException:
            await run_uncancelled(give_up, lease)
            raise

    # Existing copies

    def existing(self) -> Manifest | None:
        hit = find_hit(self.placement, self.ref, self.settings)
        return hit.manifest if hit is not None else None

    def _warn_if_unconfirmed(self) -> None:
        present = self.placement.present()
        if present is not None and present.unconfirmed and self.adoption is None:
            self.emit(
                Warned(
                    "Unconfirmed",
                    "the existing copy was adopted without asking the source, and is compared with it now; "
                    "--accept-unverified uses it as it is",
                )
            )

    def published(self, before: Manifest | None) -> Manifest | None:
        manifest = self.existing()
        return manifest if manifest != before else None

    async def ask(self, existing: Manifest) -> Artifact | None:
        """Return the existing artifact, or None if the source has another version."""
        if self.settings.refresh == "if-not-present":
            return self.result(existing, cached=True)
        self.emit(Resolving(redact(self.ref.uri)))
        ask = Asker(Patience(min(self.settings.retry_for, ASK_FOR)), self.emit)
        try:
            revision = await self.source.resolve(ask)
        except SourceError as error:
            self.emit(Warned(error.reason, f"{error.message}; keeping the existing copy"))
            return self.result(existing, cached=True, stale=True)
        return self.result(existing, cached=True) if revision is not None and revision == existing.revision else None

    # Building

    async def _build(self, lease: Lease) -> Artifact:
        patience, changes = Patience(self.settings.retry_for), Changes()
        while True:
            try:
                with one_error():
                    gathered = await self.gathered(lease, patience, changes)
            except ContentChanged as error:
                self.emit(Warned(error.reason, changes.met(error)))
            else:
                await run_uncancelled(self.commit, lease, gathered.manifest, gathered.listing)
                return self.result(gathered.manifest, fetched=gathered.fetched)

    async def gathered(self, lease: Lease, patience: Patience, changes: Changes) -> Gathered:
        """List, stage and verify all files; the last time in one piece (see `in_one_piece`).

        The lease is renewed from the beginning: a source may take minutes to list its files.
        """
        transfer: Transfer | None = None
        total: int | None = None

        def progress() -> tuple[int, int | None]:
            return (transfer.bytes_fetched if transfer else 0), total

        async with kept_alive(lease, progress=progress):
            ask = Asker(patience, self.emit)
            listing = await self._list(ask, lease)
            changes.listed(listing)
            settings = await with_listed_pins(self.settings, self.ref, listing, source=self.source, ask=ask)
            if changes.last:
                listing = in_one_piece(listing, settings.expect)
            files = await self._checked(listing, settings, ask)
            total = total_size(files)
            if names := look_alikes(file.path for file in files):
                await run_uncancelled(refuse_taken_for_one, names, lease.data)
            with storing("examine the existing files"):
                await run_uncancelled(self.placement.survey, [file.path for file in files])
            # A local source is checked now, before the copy takes minutes.
            await run_uncancelled(refuse_pointers, files, self.source.local_path)
            with closing(self.journal(lease)) as journal:
                known = known_listing(files)
                _announce(journal, listing, known)
                guide = self.source.begin(files, listing=known, node=self.node(), on_event=self.emit)
                stopping = threading.Event()
                room = self.room(lease, growing=any(file.size is None for file in files), stopped=stopping.is_set)
                preparation = self._preparation(lease, journal, replace(listing, files=files), room)
                prepared = await run_uncancelled(prepare, files, preparation, stop=stopping.set)
                transfer = transfer_of(
                    prepared.staged,
                    files=files,
                    held=prepared.held,
                    source=self.source,
                    lease=lease,
                    journal=journal,
                    settings=self.settings,
                    patience=patience,
                    guide=guide,
                    on_event=self.emit,
                )
                async with kept_roomy(room, stop=stopping.set):
                    entries = prepared.settled | await transfer.run()
                await run_uncancelled(refuse_pointers, files, lambda file: lease.data / file.path)
        manifest = Manifest.for_request(
            self.ref,
            revision=listing.revision,
            files=entries.values(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            version=VERSION,
            authenticated=listing.authenticated or prepared.authenticated,
            unconfirmed=listing.unconfirmed,
        )
        return Gathered(manifest, replace(listing, files=with_pins(listing.files, files)), transfer.bytes_from)

    async def _list(self, ask: Asking, lease: Lease) -> Listing:
        """List the files. Those of archives are fetched and unpacked for it, under `lease`."""
        self.emit(Resolving(redact(self.ref.uri)))
        if isinstance(self.source, UnpackingSource):
            self.source.under(self.room(lease, growing=False, stopped=lambda: False))
        return await self.source.list(await self.source.resolve(ask), ask)

    async def _checked(self, listing: Listing, settings: Settings, ask: Asking) -> tuple[RemoteFile, ...]:
        files = await chosen(listing, self.ref, settings, source=self.source, ask=ask)
        self.emit(Resolved(redact(self.ref.uri), listing.revision, len(files), total_size(files)))
        warn_of_selection(listing, files, self.ref, self.emit)
        return files

    def node(self) -> str | None:
        """The identity under which others know what this fetch has; None if no server tells it."""
        return self.settings.node or (identity_of(self.settings.cache_dir) if self.settings.dest is None else None)

    def journal(self, lease: Lease) -> Journal:
        with storing("open the journal"):
            return Journal(lease.journal_path, mode=file_mode(lease.directory), version=VERSION)

    def _preparation(self, lease: Lease, journal: Journal, listing: Listing, room: Room) -> Preparation:
        """The inputs of `prepare`. `listing`: the chosen files."""
        donors, linking = donors_for(self.settings, authenticated=listing.authenticated), self.settings.dedupe == "link"
        present = self.placement.present()
        return Preparation(
            make_room=room.make,
            placement=self.placement,
            lease=lease,
            journal=journal,
            previous=present,
            local_path=self.source.local_path,
            hard_link=self.settings.hard_link,
            sharing=Sharing(self.settings.cache_dir, donors, linking=linking) if donors else None,
            adoption=self.adoption or self._from_unconfirmed(present),
            drop_pages=drops_pages(listing.files, self.settings),
            threads=cpu_count(),
            stopped=room.stopped,
            on_event=self.emit,
        )

    def room(self, lease: Lease, *, growing: bool, stopped: Callable[[], bool]) -> Room:
        """The room of the fetch. Limits belong to a cache root: a destination has none."""
        if self.outer is not None:
            return replace(self.outer, growing=growing, stopped=stopped)
        root, limited = self.settings.cache_dir, self.settings.dest is None
        return room_of(
            root,
            self.ref.key,
            lease,
            self.settings,
            limited=limited,
            growing=growing,
            stopped=stopped,
            on_event=self.emit,
        )

    def _from_unconfirmed(self, present: Manifest | None) -> Adoption | None:
        """An artifact whose source was never asked: its files are linked if they turn out to be the listed ones."""
        if present is None or not present.unconfirmed:
            return None
        return Adoption(Donor(self.placement.location(present)), link=True, complete=True)

    # Ending

    def commit(self, lease: Lease, manifest: Manifest, listing: Listing) -> None:
        self.emit(Committing(str(self.placement.location(manifest))))
        with storing("publish the artifact"):
            lease.renew()
            self.step("sealing")
            with lease.fenced():
                seal(lease.data, manifest, mode=file_mode(lease.data))
            self.placement.place(lease, manifest, listing, self.step)
            root = self.settings.dest or self.settings.cache_dir
            sweep_old(root)

    def result(
        self, manifest: Manifest, *, fetched: Mapping[str, int] | None = None, cached: bool = False, stale: bool = False
    ) -> Artifact:
        return described(
            self.ref,
            manifest,
            path=self.placement.location(manifest),
            fetched=fetched or {},
            seconds=time.monotonic() - self.began,
            cached=cached,
            stale=stale,
            use_recorded=record_use(self.ref, self.settings),
        )


def _announce(journal: Journal, listing: Listing, known: str | None) -> None:
    """Record what the chunks will belong to: a server beside this fetch passes them on, to who may have them."""
    if listing.authenticated:
        journal.authenticated()
    if known is not None:
        journal.listing(known)


def pipeline_of(request: Request, *, source: Source, adoption: Adoption | None, on_event: Subscriber, step: Step) -> Pipeline:
    """Return the pipeline of a request, and create the directory of its placement. Raises StoreError."""
    placement = request.placed
    with storing("create the directory"):
        base = base_of_destination(placement.anchor)
        make_directory(base)
        make_directories(base, placement.anchor)
    return Pipeline(
        request.ref, request.settings, source, placement, adoption, on_event, step, time.monotonic(), outer=request.room
    )


async def run(request: Request, *, source: Source, adoption: Adoption | None, on_event: Subscriber, step: Step) -> Artifact:
    """Fetch the artifact through `source`, files of `adoption` first, and return it. Raises FetchError."""
    pipeline = pipeline_of(request, source=source, adoption=adoption, on_event=on_event, step=step)
    with storing("use the local filesystem"):
        return await pipeline.run()
