"""`fetcher plan`: shows what a fetch would do, without fetching."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path

from fetcher.artifact import ArtifactRef, Listing, RemoteFile, redact, total_size
from fetcher.engine.choosing import chosen, pinned, proves_no_less, warn_of_selection
from fetcher.engine.expecting import with_listed_pins
from fetcher.engine.request import choose_placement, donors_for
from fetcher.engine.retry import Asker, Patience
from fetcher.events import Resolving, Subscriber, silent
from fetcher.filesystem import existing_parent, free_bytes
from fetcher.manifest import Manifest
from fetcher.planning.paths import refuse_hostile_paths
from fetcher.planning.selection import selects
from fetcher.settings import Settings
from fetcher.sources import open_source
from fetcher.sources.base import Asking, Packed, Packing, Source
from fetcher.store.donors import Donors
from fetcher.store.selector import matching_manifest
from fetcher.values import dataclass


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file of the plan. `state` is held (equal in the present version), shared (another artifact has it), fetch, unpack, or
    skipped (not selected).

    A file to unpack is an archive: it is fetched, and its members take its place. Their names and sizes are not known before.
    """

    path: str
    size: int | None
    digests: tuple[str, ...]
    state: str
    checksums: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()
    """Who may bring it instead of the origin."""


@dataclass(frozen=True, slots=True)
class Preview:
    """The plan of a fetch. Sizes in bytes, those of archives without their members; `bytes_mirrored` of those to fetch may come
    from mirrors; `cached`: a complete copy satisfies the request."""

    cache_key: str
    uri: str
    revision: str | None
    path: Path
    files: tuple[PlannedFile, ...]
    bytes_total: int
    bytes_to_fetch: int
    bytes_mirrored: int
    free_bytes: int | None
    cached: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What a source lists, and the files that a fetch of it would choose, with all that is published of them. `archives` are
    the paths of those that it would unpack, `mirrors` who may bring a file instead of the origin, by its path."""

    listing: Listing
    chosen: tuple[RemoteFile, ...]
    archives: tuple[str, ...] = ()
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


async def answered(source: Source, ref: ArtifactRef, settings: Settings, on_event: Subscriber = silent) -> Answer:
    """Ask `source` what a fetch would get, and close it. Touches no store. Raises FetchError."""
    on_event(Resolving(redact(ref.uri)))
    ask = Asker(Patience(settings.retry_for), on_event)
    try:
        revision = await source.resolve(ask)
        listing = await source.list(revision, ask)
        packing = await source.packing(revision, ask) if isinstance(source, Packed) else None
        if packing is not None:
            files = await _with_archives(listing, packing, ref, settings, source=source, ask=ask)
            return Answer(listing, files, packing.archives)
        pinning = await with_listed_pins(settings, ref, listing, source=source, ask=ask)
        files = await chosen(listing, ref, pinning, source=source, ask=ask)
        return Answer(listing, files, mirrors={file.path: tuple(source.mirrors(file)) for file in files})
    finally:
        await source.aclose()


async def preview(ref: ArtifactRef, settings: Settings, on_event: Subscriber = silent) -> Preview:
    """Return the plan: resolve, list, and compare with what is present. Writes no file of an artifact.

    Raises FetchError.
    """
    answer = await answered(open_source(ref, settings), ref, settings, on_event)
    listing, archives = answer.listing, answer.archives
    wanted = {each.path: each for each in answer.chosen}
    if not archives:
        warn_of_selection(listing, answer.chosen, ref, on_event)
    placement = choose_placement(ref, settings)
    present = placement.present()
    listed = {file.path: file for file in listing.files}
    donors = donors_for(settings, authenticated=listing.authenticated)
    complete = matching_manifest(placement, ref, settings)
    # The manifest lists the members of archives, so only its revision tells whether the archives changed.
    unpacked = complete is not None and complete.revision is not None and complete.revision == listing.revision
    planned = tuple(
        _planned(file, "held" if unpacked else "unpack")
        if file.path in archives
        else _planned(
            wanted.get(file.path, file), _state(wanted.get(file.path), present, donors), answer.mirrors.get(file.path, ())
        )
        for file in listed.values()
    )
    manifest = Manifest.for_request(ref, revision=listing.revision, files=(), created="", version="")
    return Preview(
        cache_key=ref.key,
        uri=redact(ref.uri),
        revision=listing.revision,
        path=placement.location(manifest),
        files=planned,
        bytes_total=total_size(wanted.values()),
        bytes_to_fetch=sum(file.size or 0 for file in planned if file.state in ("fetch", "unpack")),
        bytes_mirrored=sum(file.size or 0 for file in planned if file.mirrors),
        free_bytes=free_bytes(existing_parent(placement.anchor)),
        cached=complete is not None,
    )


async def _with_archives(
    listing: Listing, packing: Packing, ref: ArtifactRef, settings: Settings, *, source: Source, ask: Asking
) -> tuple[RemoteFile, ...]:
    """All archives and the other selected files. Patterns and pins may name members, so none of them is refused here."""
    files = tuple(
        file
        for file in listing.files
        if file.path in packing.archives or selects(file.path, include=ref.include, exclude=ref.exclude)
    )
    refuse_hostile_paths(file.path for file in files)
    return pinned(await source.describe(files, ask), replace(settings, expect={}))


def _planned(file: RemoteFile, state: str, mirrors: tuple[str, ...] = ()) -> PlannedFile:
    digests, checksums = (tuple(str(each) for each in published) for published in (file.digests, file.checksums))
    return PlannedFile(file.path, file.size, digests, state, checksums, mirrors if state == "fetch" else ())


def _state(chosen: RemoteFile | None, present: Manifest | None, donors: Donors | None) -> str:
    if chosen is None:
        return "skipped"
    known = present.file(chosen.path) if present else None
    if known and chosen.identity and known.identity == chosen.identity and proves_no_less(known, chosen):
        return "held"
    return "shared" if donors and any(donors(chosen)) else "fetch"
