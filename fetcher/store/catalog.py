"""The catalog of a cache root: every complete artifact, found by its manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fetcher.artifact import ArtifactRef, redact
from fetcher.errors import NewerFormat, NotFound
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.store.keyed import finish_swaps
from fetcher.store.layout import Root


@dataclass(frozen=True, slots=True)
class Entry:
    """One complete artifact. `path` is the directory of its files."""

    key: str
    path: Path
    manifest: Manifest


def entries(cache_dir: Path, *, on_newer: Callable[[NewerFormat], None]) -> list[Entry]:
    """All artifacts under `cache_dir`: keyed ones, those that share a directory, and those of the hf-cache layout.

    `on_newer` is called for each manifest that a later version wrote.
    """
    finish_swaps(cache_dir)
    keyed = _manifests(cache_dir.glob(f"*/{RELATIVE_PATH}"), on_newer)
    listed = [Entry(path.parents[1].name, path.parents[1], manifest) for path, manifest in keyed]
    for path in sorted(cache_dir.glob("*/.fetcher/manifests")):
        listed += _sharing(path.parents[1], on_newer)
    for path, manifest in _manifests(Root(cache_dir).manifests.glob("*.json"), on_newer):
        if manifest.snapshot:
            listed.append(Entry(path.stem, cache_dir / manifest.snapshot, manifest))
    return listed


def entry_at(directory: Path) -> Entry | None:
    """The artifact at exactly `directory`, inside or outside a cache root; None if there is none. Raises NewerFormat."""
    manifest = Manifest.read(directory / RELATIVE_PATH)
    return Entry(manifest.fingerprint[:16], directory, manifest) if manifest is not None else None


def find(cache_dir: Path, what: str) -> Entry:
    """The artifact whose key or URI is `what`. Raises NotFound, NewerFormat."""
    key, uri = ArtifactRef(what).key, redact(what)
    newer: list[NewerFormat] = []
    candidates = _sharing(Path(what), newer.append)
    listed = candidates or entries(cache_dir, on_newer=newer.append)
    candidates = candidates or [entry for entry in listed if entry.key in (what, key)]
    candidates = candidates or [entry for entry in listed if entry.manifest.uri == uri]
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
        Entry(path.stem, directory, manifest)
        for path, manifest in _manifests(Root(directory).manifests.glob("*.json"), on_newer)
        # Skip records of previous files, and manifests of the hf-cache layout.
        if manifest.fingerprint.startswith(path.stem) and manifest.snapshot is None
    ]


def _manifests(paths: Iterable[Path], on_newer: Callable[[NewerFormat], None]) -> Iterator[tuple[Path, Manifest]]:
    for path in sorted(paths):
        try:
            manifest = Manifest.read(path)
        except NewerFormat as error:
            on_newer(error)
            continue
        if manifest is not None:
            yield path, manifest
