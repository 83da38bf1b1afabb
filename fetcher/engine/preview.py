"""`fetcher plan`: shows what a fetch would do, without fetching."""

from __future__ import annotations

from pathlib import Path

from fetcher.artifact import ArtifactRef, Listing, RemoteFile, redact, total_size
from fetcher.engine.choosing import chosen, proves_no_less, warn_of_selection
from fetcher.engine.expecting import with_listed_pins
from fetcher.engine.request import choose_placement, donors_for
from fetcher.engine.retry import Asker, Patience
from fetcher.events import Resolving, Subscriber, silent
from fetcher.filesystem import existing_parent, free_bytes
from fetcher.manifest import Manifest
from fetcher.settings import Settings
from fetcher.sources import open_source
from fetcher.sources.base import Source
from fetcher.store.donors import Donors
from fetcher.store.selector import matching_manifest
from fetcher.values import dataclass


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file of the plan. `state` is held (equal in the present version), shared (another artifact has it), fetch, or skipped
    (not selected)."""

    path: str
    size: int | None
    digests: tuple[str, ...]
    state: str
    checksums: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Preview:
    """The plan of a fetch. Sizes in bytes; `cached`: a complete copy satisfies the request."""

    cache_key: str
    uri: str
    revision: str | None
    path: Path
    files: tuple[PlannedFile, ...]
    bytes_total: int
    bytes_to_fetch: int
    free_bytes: int | None
    cached: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What a source lists, and the files that a fetch of it would choose, with all that is published of them."""

    listing: Listing
    chosen: tuple[RemoteFile, ...]


async def answered(source: Source, ref: ArtifactRef, settings: Settings, on_event: Subscriber = silent) -> Answer:
    """Ask `source` what a fetch would get, and close it. Touches no store. Raises FetchError."""
    on_event(Resolving(redact(ref.uri)))
    ask = Asker(Patience(settings.retry_for), on_event)
    try:
        listing = await source.list(await source.resolve(ask), ask)
        pinning = await with_listed_pins(settings, ref, listing, source=source, ask=ask)
        return Answer(listing, await chosen(listing, ref, pinning, source=source, ask=ask))
    finally:
        await source.aclose()


async def preview(ref: ArtifactRef, settings: Settings, on_event: Subscriber = silent) -> Preview:
    """Return the plan: resolve, list, and compare with what is present. Writes no file of an artifact.

    Raises FetchError.
    """
    answer = await answered(open_source(ref, settings), ref, settings, on_event)
    listing, wanted = answer.listing, {each.path: each for each in answer.chosen}
    warn_of_selection(listing, answer.chosen, ref, on_event)
    placement = choose_placement(ref, settings)
    present = placement.present()
    listed = {file.path: file for file in listing.files}
    donors = donors_for(settings, authenticated=listing.authenticated)
    files = tuple(_planned(file, wanted.get(file.path), present, donors) for file in listed.values())
    manifest = Manifest.for_request(ref, revision=listing.revision, files=(), created="", version="")
    return Preview(
        cache_key=ref.key,
        uri=redact(ref.uri),
        revision=listing.revision,
        path=placement.location(manifest),
        files=files,
        bytes_total=total_size(wanted.values()),
        bytes_to_fetch=sum(file.size or 0 for file in files if file.state == "fetch"),
        free_bytes=free_bytes(existing_parent(placement.anchor)),
        cached=matching_manifest(placement, ref, settings) is not None,
    )


def _planned(file: RemoteFile, chosen: RemoteFile | None, present: Manifest | None, donors: Donors | None) -> PlannedFile:
    known = chosen or file
    digests, checksums = (tuple(str(each) for each in published) for published in (known.digests, known.checksums))
    return PlannedFile(file.path, file.size, digests, _state(chosen, present, donors), checksums)


def _state(chosen: RemoteFile | None, present: Manifest | None, donors: Donors | None) -> str:
    if chosen is None:
        return "skipped"
    known = present.file(chosen.path) if present else None
    if known and chosen.identity and known.identity == chosen.identity and proves_no_less(known, chosen):
        return "held"
    return "shared" if donors and any(donors(chosen)) else "fetch"
