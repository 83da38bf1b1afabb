"""What a cache root holds: every complete artifact, by its manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fetcher.artifact import ArtifactRef, redact
from fetcher.errors import NotFound
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.store.keyed import finish_swaps
from fetcher.store.layout import Root


@dataclass(frozen=True, slots=True)
class Entry:
    """One complete artifact; `path` is the directory its files are in."""

    key: str
    path: Path
    manifest: Manifest


def entries(cache_dir: Path) -> list[Entry]:
    """All artifacts under `cache_dir`: keyed ones, by key, those that share a directory, and those of the hf-cache layout."""
    finish_swaps(cache_dir)
    found = [
        Entry(path.parents[1].name, path.parents[1], manifest)
        for path in sorted(cache_dir.glob(f"*/{RELATIVE_PATH}"))
        if (manifest := Manifest.read(path)) is not None
    ]
    for path in sorted(cache_dir.glob("*/.fetcher/manifests")):
        found += _beside_each_other(path.parents[1])
    for path in sorted(Root(cache_dir).manifests.glob("*.json")):
        manifest = Manifest.read(path)
        if manifest is not None and manifest.snapshot:
            found.append(Entry(path.stem, cache_dir / manifest.snapshot, manifest))
    return found


def standing(directory: Path) -> Entry | None:
    """The artifact that is at that very directory, wherever it lies."""
    manifest = Manifest.read(directory / RELATIVE_PATH)
    return Entry(manifest.fingerprint[:16], directory, manifest) if manifest is not None else None


def find(cache_dir: Path, what: str) -> Entry:
    """The artifact with that key or of that URI. Raises NotFound."""
    key, uri = ArtifactRef(what).key, redact(what)
    candidates = _beside_each_other(Path(what))
    candidates = candidates or [entry for entry in entries(cache_dir) if what == entry.key or key == entry.key]
    candidates = candidates or [entry for entry in entries(cache_dir) if entry.manifest.uri == uri]
    if len(candidates) > 1:
        keys = ", ".join(entry.key for entry in candidates)
        raise NotFound(f"{uri} is here with several selections or revisions; name one by its key: {keys}")
    if not candidates:
        raise NotFound(f"no complete artifact {uri} under {cache_dir}; `fetcher list` shows what is there")
    return candidates[0]


def _beside_each_other(directory: Path) -> list[Entry]:
    """The artifacts that share `directory`, each with a manifest of its own."""
    found = [(path.stem, Manifest.read(path)) for path in sorted(Root(directory).manifests.glob("*.json"))]
    return [
        Entry(key, directory, manifest)
        for key, manifest in found
        # Not the records of what was there before, nor what a Hub cache keeps there.
        if manifest is not None and manifest.fingerprint.startswith(key) and manifest.snapshot is None
    ]
