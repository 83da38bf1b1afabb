"""Cooperative fetch: several processes fill one artifact on one shared volume (`--part I/N`).

::

    plan      the first part lists the source and publishes the plan; all others use its revision and its units
    units     each part fetches units: its own first, then those that nobody has, or whose owner is gone
    commit    a part that finds no unit left takes the artifact's own lease, collects all units, and publishes

A unit is whole files, with a lease and a journal of its own, so takeover and fencing are those of every fetch. A part ends
after the commit, whoever did it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from fetcher.artifact import Listing, RemoteFile, redact
from fetcher.engine.choosing import chosen, warn_of_selection
from fetcher.engine.failure import one_error
from fetcher.engine.lease_keeping import LeaseTimes, acquire_or_wait, give_up, kept_alive
from fetcher.engine.pipeline import Pipeline, pipeline_of
from fetcher.engine.portion import Portion
from fetcher.engine.request import Request
from fetcher.engine.result import Artifact
from fetcher.engine.retry import Asker, Patience
from fetcher.errors import ContentChanged, LeaseTimeout, LocalIOError
from fetcher.events import Event, LeaseWaiting, Resolved, Resolving, Subscriber, Warned
from fetcher.filesystem import file_mode, storing
from fetcher.manifest import Manifest, ManifestFile
from fetcher.planning.units import in_turn, units_of
from fetcher.settings import Part
from fetcher.sources.base import Source
from fetcher.store.collecting import collect, discard, finished_unit
from fetcher.store.contender import Contender
from fetcher.store.lease import Lease, Observation, default_stale_time, monotonic
from fetcher.store.placement import Step, seal
from fetcher.store.plan import Plan, new_name, publish_plan, read_plan, remove_plan, unit_name
from fetcher.store.salvage import remove_unlisted_files
from fetcher.uncancelled import run_uncancelled
from fetcher.version import VERSION

_POLL = 0.5
"""Seconds between two looks at units that others fetch."""
_SAID_BEFORE = ("NoMatch", "IncompleteSet")
"""Warnings about the selection. They are about the whole artifact, so a unit does not repeat them."""


@dataclass(slots=True)
class Parts:
    """One part of a cooperative fetch. `whole` is the pipeline of the whole artifact."""

    whole: Pipeline
    part: Part
    _contenders: dict[int, Contender] = field(default_factory=dict)
    _fetched: int = 0

    async def run(self) -> Artifact:
        """Return the artifact after its commit. Raises FetchError; what was fetched stays resumable, for any part."""
        existing = self.whole.existing()
        if existing is not None and (answer := await self.whole.ask(existing)) is not None:
            return answer
        plan, listing = await self._planned(existing)
        began = monotonic()
        while True:
            if (manifest := self.whole.published(existing)) is not None:
                await run_uncancelled(discard, self.whole.settings.cache_dir, self.whole.ref.key, plan)
                return self.whole.result(manifest, fetched=self._fetched, cached=self._fetched == 0)
            found = await run_uncancelled(self._next, plan, undo=_give_back)
            match found:
                case (int(number), Lease() as lease):
                    await self._fetch(plan.units[number], listing, lease)
                case None:
                    return await self._commit(plan, listing, existing)
                case Observation() as seen:
                    await self._wait(seen, began)
                case _:
                    await asyncio.sleep(0)

    # The plan

    async def _planned(self, existing: Manifest | None) -> tuple[Plan, Listing]:
        """Return the plan, and the chosen files of the source at its revision. Publishes the plan if there is none."""
        whole, key = self.whole, self.whole.ref.key
        root, patience = whole.settings.cache_dir, Patience(whole.settings.retry_for)
        ask = Asker(patience, whole.emit)
        with storing("read the plan"):
            plan = read_plan(root, key)
            if plan is not None and existing is not None and plan.revision == existing.revision:
                remove_plan(root, key)  # of the version that is there
                plan = None
        whole.emit(Resolving(redact(whole.ref.uri)))
        revision = plan.revision if plan is not None else await whole.source.resolve(ask)
        listing = await whole.source.list(revision, ask)
        files = await chosen(listing, whole.ref, whole.settings, source=whole.source, ask=ask)
        whole.emit(Resolved(redact(whole.ref.uri), listing.revision, len(files), sum(file.size or 0 for file in files)))
        warn_of_selection(listing, files, whole.ref, whole.emit)
        if plan is None:
            identities = {file.path: file.identity for file in files}
            mine = Plan(new_name(), listing.revision, identities, units_of(files, self.part.count))
            with storing("publish the plan"):
                plan = await run_uncancelled(publish_plan, root, key, mine)
            if plan.revision != listing.revision:
                return await self._planned(existing)  # another part was faster, and saw another revision
        _refuse_other(plan, files)
        return plan, replace(listing, files=files)

    # Units

    def _next(self, plan: Plan) -> tuple[int, Lease] | Observation | bool | None:
        """Return a unit to fetch with its lease; who has one of the others; None if all are finished; True to look again."""
        root, key = self.whole.settings.cache_dir, self.whole.ref.key
        busy: Observation | None = None
        finished = 0
        with storing("take a unit"):
            stale = self.whole.settings.lease_stale or default_stale_time(self.whole.placement.staging)
            for number in in_turn(plan.units, self.part):
                if finished_unit(root, key, plan, number) is not None:
                    finished += 1
                    continue
                name = unit_name(key, plan, number)
                contender = self._contenders.setdefault(number, Contender(self.whole.placement.staging, name, stale=stale))
                lease = contender.attempt()
                if isinstance(lease, Lease):
                    return number, lease
                busy = lease or busy
        return None if finished == len(plan.units) else busy or True

    async def _fetch(self, paths: Sequence[str], listing: Listing, lease: Lease) -> None:
        """Fetch the files of one unit, and seal them in its lease."""
        portion = replace(listing, files=tuple(file for file in listing.files if file.path in paths))
        settings = self.whole.settings
        expect = {path: digest for path, digest in settings.expect.items() if path in paths}
        unit = replace(
            self.whole,
            settings=replace(settings, expect=expect),
            source=Portion(self.whole.source, portion),
            emit=self._without_repetition,
        )
        try:
            with one_error():
                gathered = await unit.gathered(lease, Patience(settings.retry_for), whole=False)
            self._fetched += gathered.fetched
            with storing("seal the unit"):
                await run_uncancelled(_seal, lease, gathered.manifest)
        except BaseException:
            await run_uncancelled(give_up, lease)
            raise
        await run_uncancelled(lease.release)

    def _without_repetition(self, event: Event) -> None:
        if not isinstance(event, Resolving | Resolved) and not (isinstance(event, Warned) and event.reason in _SAID_BEFORE):
            self.whole.emit(event)

    async def _wait(self, seen: Observation, began: float) -> None:
        waited, limit = monotonic() - began, self.whole.settings.lease_wait
        self.whole.emit(LeaseWaiting(seen.owner or "another part", waited, seen.fetched, seen.total))
        if limit is not None and waited >= limit:
            raise LeaseTimeout(
                f"{seen.owner or 'another part'} still fetches its part of this artifact after {waited:.0f} s (--lease-wait); "
                "run the same command again, or check that process"
            )
        await asyncio.sleep(_POLL)

    # The commit

    async def _commit(self, plan: Plan, listing: Listing, existing: Manifest | None) -> Artifact:
        """Publish the artifact, or return it if another part was faster."""
        whole, settings = self.whole, self.whole.settings
        lease = await acquire_or_wait(
            whole.placement,
            times=LeaseTimes(settings.lease_wait, settings.lease_stale),
            published=lambda: whole.published(existing),
            on_event=whole.emit,
        )
        if isinstance(lease, Manifest):
            return whole.result(lease, fetched=self._fetched, cached=self._fetched == 0)
        try:
            with one_error():
                async with kept_alive(lease, progress=lambda: (0, None)):
                    with storing("collect the parts"):
                        manifest = await run_uncancelled(self._collected, plan, listing, lease)
            await run_uncancelled(whole.commit, lease, manifest, listing)
        except BaseException:
            await run_uncancelled(give_up, lease)
            raise
        return whole.result(manifest, fetched=self._fetched)

    def _collected(self, plan: Plan, listing: Listing, lease: Lease) -> Manifest:
        """Collect and seal all units, then remove them and the plan.

        From here on this is an ordinary fetch before its rename.
        """
        root, key = self.whole.settings.cache_dir, self.whole.ref.key
        remove_unlisted_files(lease, listing.files)
        manifests, units = collect(root, key, plan, lease)
        files = [file for each in manifests for file in each.files]
        if {file.path: _content(file) for file in files} != {file.path: _content(file) for file in listing.files}:
            raise LocalIOError(
                f"the parts of {redact(self.whole.ref.uri)} do not make the whole; remove {lease.directory}.* and run all "
                "parts again"
            )
        manifest = Manifest.for_request(
            self.whole.ref,
            revision=listing.revision,
            files=files,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            version=VERSION,
            authenticated=any(each.authenticated for each in manifests),
        )
        _seal(lease, manifest)
        lease.forget_previous_owners()
        remove_plan(root, key)
        for unit in units:
            unit.dissolve()
        return manifest


def _content(file: RemoteFile | ManifestFile) -> object:
    """What says which content a file has, also if the source does not give its size."""
    return frozenset(file.digests) or file.validator


def _seal(lease: Lease, manifest: Manifest) -> None:
    lease.renew()
    with lease.fenced():
        seal(lease.data, manifest, mode=file_mode(lease.data))


def _refuse_other(plan: Plan, files: Sequence[RemoteFile]) -> None:
    """Raise ContentChanged if the source lists other content at the revision of the plan."""
    listed = {file.path: file.identity for file in files}
    if listed != dict(plan.files):
        path = next(iter(sorted(set(listed.items()) ^ set(plan.files.items()))))[0]
        raise ContentChanged(
            f"{path}: the source lists other content than the plan of this fetch; run all parts again when it is stable",
            path=path,
        )


def _give_back(found: tuple[int, Lease] | Observation | bool | None) -> None:
    if isinstance(found, tuple):
        give_up(found[1])


async def run(request: Request, part: Part, *, source: Source, on_event: Subscriber, step: Step) -> Artifact:
    """Fetch one part of the artifact, and return the artifact after its commit. Raises FetchError."""
    whole = pipeline_of(request, source=source, adoption=None, on_event=on_event, step=step)
    with storing("use the local filesystem"):
        return await Parts(whole, part).run()
