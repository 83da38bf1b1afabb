"""Cooperative fetch: several processes fill one artifact on one shared volume (`--part I/N`).

::

    plan      the first part lists the source and publishes the plan; all others use its revision and its units
    units     each part fetches units: its own first, then those that nobody has, or whose owner is gone
    commit    a part that finds no unit left takes the artifact's own lease, collects all units, joins segments, and publishes

A unit is whole files, or a segment of a file that is larger than the share of a part. It has a lease and a journal of its own,
so takeover and fencing are those of every fetch. A joined file is hashed once more, as a whole: its SHA-256 takes one core
as long as it takes for every other fetch of that file. A part ends after the commit, whoever did it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fetcher.artifact import Listing, RemoteFile, known_listing, redact
from fetcher.engine.assembling import Assembly, seal_fenced
from fetcher.engine.changes import Changes
from fetcher.engine.choosing import chosen, warn_of_selection
from fetcher.engine.lease_keeping import LeaseTimes, acquire_or_wait, give_up, kept_alive
from fetcher.engine.pipeline import Pipeline, pipeline_of
from fetcher.engine.portion import Portion
from fetcher.engine.request import Request, donors_for
from fetcher.engine.result import Artifact
from fetcher.engine.retry import Asker, Patience
from fetcher.engine.segment import SegmentSource
from fetcher.errors import ContentChanged, LeaseTimeout
from fetcher.events import Event, LeaseWaiting, Resolved, Resolving, Subscriber, Warned
from fetcher.failure import one_error
from fetcher.filesystem import storing
from fetcher.manifest import Manifest
from fetcher.planning.units import Unit, in_turn, units_of
from fetcher.settings import Part
from fetcher.sources.base import Source
from fetcher.steps import Step
from fetcher.store.collecting import discard, finished_unit
from fetcher.store.contender import Contender
from fetcher.store.lease import Lease, Observation, default_stale_time, monotonic
from fetcher.store.plan import Plan, new_name, publish_plan, read_plan, remove_plan, unit_name
from fetcher.uncancelled import run_uncancelled

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
    _fetched: Counter[str] = field(default_factory=Counter)

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
                return self.whole.result(manifest, fetched=self._fetched, cached=not self._fetched.total())
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
            if plan is not None and self._is_over(plan, existing):
                remove_plan(root, key)
                plan = None
        whole.emit(Resolving(redact(whole.ref.uri)))
        revision = plan.revision if plan is not None else await whole.source.resolve(ask)
        listing = await whole.source.list(revision, ask)
        files = await chosen(listing, whole.ref, whole.settings, source=whole.source, ask=ask)
        whole.emit(Resolved(redact(whole.ref.uri), listing.revision, len(files), sum(file.size or 0 for file in files)))
        warn_of_selection(listing, files, whole.ref, whole.emit)
        if plan is None:
            identities = {file.path: file.identity for file in files}
            units = units_of(files, self.part.count, held=await run_uncancelled(self._held, files, existing, listing))
            mine = Plan(new_name(), listing.revision, identities, units)
            with storing("publish the plan"):
                plan = await run_uncancelled(publish_plan, root, key, mine)
            if plan.revision != listing.revision:
                return await self._planned(existing)  # another part was faster, and saw another revision
        _refuse_other(plan, files)
        whole.source.begin(files, listing=known_listing(files), node=whole.node(), on_event=whole.emit)
        return plan, replace(listing, files=files)

    def _is_over(self, plan: Plan, existing: Manifest | None) -> bool:
        """Whether a plan is of the version that is there, or of another one than was resolved."""
        if existing is not None and plan.revision == existing.revision:
            return True
        resolved = self.whole.settings.resolved
        return resolved is not None and plan.revision != resolved

    def _held(self, files: Sequence[RemoteFile], existing: Manifest | None, listing: Listing) -> set[str]:
        """The paths of files that the present version or another artifact of the root holds."""
        present = {file.path: file.identity for file in existing.files} if existing is not None else {}
        donors = donors_for(self.whole.settings, authenticated=listing.authenticated)
        return {
            file.path
            for file in files
            if (file.identity and present.get(file.path) == file.identity) or (donors and any(donors(file)))
        }

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

    async def _fetch(self, unit: Unit, listing: Listing, lease: Lease) -> None:
        """Fetch the files of one unit, and seal them in its lease."""
        # The pins are among the digests of the listed files by now, and a segment has none.
        settings = replace(self.whole.settings, expect={}, require_digests=False, require_checksums=False)
        source = self._source_of(unit, listing)
        pipeline = replace(self.whole, settings=settings, source=source, emit=self._without_repetition)
        try:
            with one_error():
                gathered = await pipeline.gathered(lease, Patience(settings.retry_for), Changes())
            self._fetched.update(gathered.fetched)
            with storing("seal the unit"):
                await run_uncancelled(seal_fenced, lease, gathered.manifest)
        except BaseException:
            await run_uncancelled(give_up, lease)
            raise
        await run_uncancelled(lease.release)

    def _source_of(self, unit: Unit, listing: Listing) -> Source:
        files = tuple(file for file in listing.files if file.path in unit.paths)
        if unit.segment is None:
            return Portion(self.whole.source, replace(listing, files=files))
        return SegmentSource(self.whole.source, files[0], unit.segment, listing)

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
            return whole.result(lease, fetched=self._fetched, cached=not self._fetched.total())
        try:
            with one_error():
                async with kept_alive(lease, progress=lambda: (0, None)):
                    assembly = Assembly(whole, plan, listing, self._without_repetition)
                    manifest, fetched = await assembly.manifest(lease)
            self._fetched.update(fetched)
            await run_uncancelled(whole.commit, lease, manifest, listing)
        except BaseException:
            await run_uncancelled(give_up, lease)
            raise
        return whole.result(manifest, fetched=self._fetched)


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
