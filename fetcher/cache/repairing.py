"""Repair of an artifact that a verification found damaged: `fetcher verify --repair`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from fetcher.artifact import ArtifactRef, Digest
from fetcher.engine.artifact_check import NO_PINS, Sibling, VerifyReport, verify
from fetcher.errors import NewerFormat, UsageError
from fetcher.events import Subscriber, silent
from fetcher.manifest import ManifestFile
from fetcher.settings import Settings
from fetcher.sources.base import Source
from fetcher.steps import Step, no_step
from fetcher.store.catalog import Entry, entries
from fetcher.store.selector import placement_of, root_of
from fetcher.uncancelled import run_uncancelled


async def repair(
    entry: Entry,
    report: VerifyReport,
    settings: Settings,
    *,
    uri: str | None = None,
    apart: Collection[Path] = (),
    expect: Mapping[str, Digest] = NO_PINS,
    on_event: Subscriber = silent,
    source: Source | None = None,
    step: Step = no_step,
) -> VerifyReport:
    """Fetch what `report` found damaged in `entry`, at the revision of its manifest, and verify those files again.

    `uri` is the URI as the user wrote it: a manifest keeps no credentials. `apart` are the directories of other artifacts that
    the caller verifies itself. `expect` are further digests, by path. `source` replaces the source that the URI
    names. Files that could not be repaired are in `bad` of the result. Raises FetchError; UsageError if the URI is needed.
    """
    from fetcher.engine.repairing import repair as repair_files
    from fetcher.engine.unpacking import UnpackingSource
    from fetcher.sources import open_source

    ref, placement = _request(entry, uri), placement_of(entry)
    bad = {path for path, _ in report.bad}
    source = source or open_source(ref, settings)
    unpacked = UnpackingSource(source, ref, settings, on_event)
    repaired = await repair_files(
        ref, placement, bad, settings, root=root_of(entry), on_event=on_event, source=unpacked, step=step
    )
    await run_uncancelled(unpacked.clean_up)
    present = placement.present() or entry.manifest
    after = replace(entry, path=placement.location(present))
    again = await run_uncancelled(_verify, after, [file for file in present.files if file.path in bad], report.full, expect)
    shared = [file for file in entry.manifest.files if file.path in repaired.shared]
    siblings = await run_uncancelled(lambda: tuple(_siblings(entry, shared, {entry.path, *apart})))
    return replace(report, bad=again.bad, repaired=tuple(repaired.paths), fetched=repaired.fetched, siblings=siblings)


def _request(entry: Entry, uri: str | None) -> ArtifactRef:
    """Return the request that the manifest answers. Raises UsageError if that takes a URI with its credentials."""
    manifest = entry.manifest
    for each in (uri, manifest.uri):
        ref = ArtifactRef(each or "", manifest.requested_revision, manifest.include, manifest.exclude)
        if manifest.answers(ref):
            return ref
    raise UsageError(
        f"{entry.path} was fetched from a URI with credentials, which its manifest does not keep; "
        "give the same URI instead of the key or the directory"
    )


def _verify(entry: Entry, files: list[ManifestFile], full: bool, expect: Mapping[str, Digest]) -> VerifyReport:
    return verify(entry, full=full, on_event=silent, expect=expect, only=files)


def _siblings(entry: Entry, files: list[ManifestFile], apart: Collection[Path]) -> Iterator[Sibling]:
    """Yield the files of other artifacts in the same root that list the content of one of `files`."""
    contents = {(file.size, file.chunks) for file in files}
    for other in entries(entry.path.parent, on_newer=_skip) if contents else ():
        equal = [file for file in other.manifest.files if (file.size, file.chunks) in contents]
        if equal and other.path not in apart:
            problems = dict(_verify(other, equal, False, NO_PINS).bad)
            for file in equal:
                yield Sibling(str(other.path), file.path, problems.get(file.path))


def _skip(_: NewerFormat) -> None:
    """Skip an artifact that only a later version can read."""
