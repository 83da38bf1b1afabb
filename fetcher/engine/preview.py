"""`fetcher plan`: shows what a fetch would do, without fetching."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fetcher.artifact import ArtifactRef, RemoteFile, redact, total_size
from fetcher.engine.choosing import chosen, warn_of_selection
from fetcher.engine.expecting import with_listed_pins
from fetcher.engine.request import choose_placement
from fetcher.engine.retry import Asker, Patience
from fetcher.events import Resolving, Subscriber, silent
from fetcher.filesystem import existing_parent, free_bytes
from fetcher.manifest import Manifest
from fetcher.settings import Settings
from fetcher.sources import open_source
from fetcher.store.selector import matching_manifest


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file of the plan. `state` is held (equal in the present version), fetch, or skipped (not selected)."""

    path: str
    size: int | None
    digests: tuple[str, ...]
    state: str


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


async def preview(ref: ArtifactRef, settings: Settings, on_event: Subscriber = silent) -> Preview:
    """Return the plan: resolve, list, and compare with the present version. Writes nothing. Raises FetchError."""
    on_event(Resolving(redact(ref.uri)))
    source = open_source(ref, settings)
    ask = Asker(Patience(settings.retry_for), on_event)
    try:
        listing = await source.list(await ask(source.resolve), ask)
        pinning = await with_listed_pins(settings, ref, listing, source=source, ask=ask)
    finally:
        await source.aclose()
    wanted = {each.path: each for each in chosen(listing, ref, pinning)}
    warn_of_selection(listing, wanted.values(), ref, on_event)
    placement = choose_placement(ref, settings)
    present = placement.present()
    listed = {file.path: file for file in listing.files}
    files = tuple(_planned(file, wanted.get(file.path), present) for file in listed.values())
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


def _planned(file: RemoteFile, chosen: RemoteFile | None, present: Manifest | None) -> PlannedFile:
    known = present.file(file.path) if present else None
    state = "held" if known and chosen and chosen.identity and known.identity == chosen.identity else "fetch"
    digests = (chosen or file).digests
    return PlannedFile(file.path, file.size, tuple(str(each) for each in digests), state if chosen else "skipped")
