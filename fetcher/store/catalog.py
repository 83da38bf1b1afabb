"""The catalog of a cache root: every complete artifact, found by its manifest and known by its summary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from fetcher.artifact import ArtifactRef, redact
from fetcher.errors import NewerFormat, NotFound
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.store.keyed import finish_swaps
from fetcher.store.layout import Root
from fetcher.store.summary import Summary, summarized
from fetcher.values import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """One complete artifact. `path` is the directory of its files, `record` its manifest."""

    key: str
    path: Path
    record: Path
    summary: Summary

    @property
    def manifest(self) -> Manifest:
        """The manifest, read each time. Raises NotFound, NewerFormat."""
        if (manifest := Manifest.read(self.record)) is None:
            raise NotFound(f"{self.path} was removed or replaced meanwhile; run the command again")
        return manifest


def entries(cache_dir: Path, *, on_newer: Callable[[NewerFormat], None]) -> list[Entry]:
    """All artifacts under `cache_dir`: keyed ones, those that share a directory, and those of the hf-cache layout.

    `on_newer` is called for each manifest that a later version wrote.
    """
    finish_swaps(cache_dir)
    keyed = _summaries(cache_dir, sorted(cache_dir.glob(f"*/{RELATIVE_PATH}")), on_newer)
    listed = [Entry(record.parents[1].name, record.parents[1], record, summary) for record, summary in keyed]
    for path in sorted(cache_dir.glob("*/.fetcher/manifests")):
        listed += _sharing(path.parents[1], on_newer)
    for record, summary in _summaries(cache_dir, Root(cache_dir).keyed_manifests(), on_newer):
        if summary.snapshot:
            listed.append(Entry(record.stem, cache_dir / summary.snapshot, record, summary))
    return listed


def entry_at(directory: Path) -> Entry | None:
    """The artifact at exactly `directory`, inside or outside a cache root; None if there is none. Raises NewerFormat."""
    record = directory / RELATIVE_PATH
    summary = summarized(directory, record)
    return Entry(summary.fingerprint[:16], directory, record, summary) if summary is not None else None


def find(cache_dir: Path, what: str) -> Entry:
    """The artifact whose key or URI is `what`. Raises NotFound, NewerFormat."""
    key, uri = ArtifactRef(what).key, redact(what)
    newer: list[NewerFormat] = []
    candidates = _sharing(Path(what), newer.append)
    listed = candidates or entries(cache_dir, on_newer=newer.append)
    candidates = candidates or [entry for entry in listed if entry.key in (what, key)]
    candidates = candidates or [entry for entry in listed if entry.summary.uri == uri]
    if len(candidates) > 1:
        keys = ", ".join(entry.key for entry in candidates)
        raise NotFound(f"the cache has several artifacts of {uri}; pass one of their keys: {keys}")
    if not candidates:
        for error in newer:
            if {what, key} & {part.removesuffix(".json") for part in Path(error.path or "").parts}:
                raise error
        if Path(what).is_dir():
            raise NotFound(f"{what} has no manifest; give the directory of a fetched artifact, its key or its URI")
        raise NotFound(f"no complete artifact {uri} under {cache_dir}; `fetcher list` shows the artifacts there")
    return candidates[0]


def _sharing(directory: Path, on_newer: Callable[[NewerFormat], None]) -> list[Entry]:
    """The artifacts that share `directory`, each with its own manifest."""
    return [
        Entry(record.stem, directory, record, summary)
        for record, summary in _summaries(directory, Root(directory).keyed_manifests(), on_newer)
        if summary.fingerprint.startswith(record.stem) and summary.snapshot is None  # others are of the hf-cache layout
    ]


def _summaries(base: Path, records: Iterable[Path], on_newer: Callable[[NewerFormat], None]) -> Iterator[tuple[Path, Summary]]:
    for record in records:
        try:
            summary = summarized(base, record)
        except NewerFormat as error:
            on_newer(error)
            continue
        if summary is not None:
            yield record, summary
