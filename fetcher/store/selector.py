"""Selects the placement for a request, and decides whether the published artifact satisfies it. Uses no network."""

from __future__ import annotations

import os
from pathlib import Path

from fetcher.artifact import ArtifactRef
from fetcher.errors import CannotWrite, UsageError
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.planning.digest_lists import DigestList
from fetcher.settings import Settings
from fetcher.store.catalog import Entry
from fetcher.store.digest_lists import known_list
from fetcher.store.hub_cache import HubCache
from fetcher.store.in_place import InPlace
from fetcher.store.keyed import Keyed, finish_exchanges, finish_swaps
from fetcher.store.layout import PRIVATE
from fetcher.store.placement import Placement, holds_others, intact


def placement_for(ref: ArtifactRef, settings: Settings, *, repository: str | None, revision: str | None) -> Placement:
    """The placement for `ref`. `repository` and `revision` are the Hub's, for the hf-cache layout.

    Raises UsageError, CannotWrite.
    """
    if settings.layout == "hf-cache":
        if repository is None or settings.dest is not None:
            raise UsageError("--layout hf-cache is for hf:// artifacts under --cache-dir; leave it out")
        return HubCache(settings.cache_dir, ref.key, repository=repository, revision=revision or "main")
    if settings.dest is not None:
        _refuse_file(settings.dest)
        return InPlace(settings.dest, shared_key=ref.key if settings.shared_dest else None)
    final = settings.cache_dir / ref.key
    _refuse_file(final)
    return InPlace(final) if _must_stay(final) else Keyed(settings.cache_dir, ref.key)


def placement_of(entry: Entry) -> Placement:
    """The placement that published `entry`, with the lease that its fetches take."""
    if entry.manifest.snapshot is not None:
        repository, commit = entry.path.parents[1], entry.path.name
        return HubCache(repository.parent, entry.key, repository=repository.name, revision=commit)
    own = Manifest.read(entry.path / RELATIVE_PATH)
    if own is None or own.fingerprint != entry.manifest.fingerprint:
        return InPlace(entry.path, shared_key=entry.key)
    keyed = entry.path.name == entry.manifest.fingerprint[:16]
    return Keyed(entry.path.parent, entry.path.name) if keyed and not _must_stay(entry.path) else InPlace(entry.path)


def root_of(entry: Entry) -> Path | None:
    """The cache root that `entry` belongs to; None for the artifact of a destination."""
    if entry.manifest.snapshot is not None:
        return entry.path.parents[2]
    return entry.path.parent if entry.path.name == entry.manifest.fingerprint[:16] else None


def matching_manifest(placement: Placement, ref: ArtifactRef, settings: Settings) -> Manifest | None:
    """The manifest of the published artifact if it satisfies the request; None otherwise.

    It does not if it is at another revision than was resolved, if a required digest, checksum or pin was not verified when the
    artifact was fetched, or if its source was never asked.
    """
    manifest = placement.present()
    if manifest is None or not manifest.answers(ref) or not intact(manifest, placement.location(manifest)):
        return None
    if settings.resolved is not None and manifest.revision != settings.resolved:
        return None
    if settings.require_digests and not manifest.verified:
        return None
    if settings.require_checksums and not manifest.checked:
        return None
    if manifest.unconfirmed and not settings.accept_unverified:
        return None
    listed = _listed_pins(placement, manifest, settings)
    if listed is None:
        return None
    known = {file.path: file.digests for file in manifest.files}
    wanted = (*settings.expect.items(), *listed.selected(ref).digests.items())
    if not all(expected in known.get(path, ()) for path, expected in wanted) or listed.leaves_open(known) is not None:
        return None
    return manifest


def _listed_pins(placement: Placement, manifest: Manifest, settings: Settings) -> DigestList | None:
    """The digests of `expect_file`; None if the source has to be asked for them."""
    if settings.expect_file is None:
        return DigestList("", {})
    return known_list(settings.expect_file, manifest, placement.location(manifest), settings.signer)


def recover(settings: Settings) -> None:
    """Finish the swaps and exchanges that a killed command began at this destination."""
    root = settings.dest or settings.cache_dir
    finish_swaps(root)
    finish_exchanges(root)


def _must_stay(final: Path) -> bool:
    """Whether `final` must not be renamed: it is a mount point, or holds files that our manifest does not list."""
    if not final.is_dir():
        return False
    if os.path.ismount(final):
        return True
    manifest = Manifest.read(final / RELATIVE_PATH)
    return (manifest is None and (final / PRIVATE).is_dir()) or holds_others(final, manifest)


def _refuse_file(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise CannotWrite(f"{path} is not a directory; remove it or choose another destination")
