"""`fetcher adopt`: a directory that another tool filled becomes an artifact of the cache, compared with its source."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from fetcher.artifact import ArtifactRef, RemoteFile, redact
from fetcher.cache.recognising import Recognised, recognise
from fetcher.engine.adopting import Adoption
from fetcher.engine.fetching import fetch_uncached, find_cached
from fetcher.engine.request import Request, recover_and_request
from fetcher.engine.result import Artifact
from fetcher.errors import NotFound, SourceError, UsageError
from fetcher.events import Subscriber, Warned
from fetcher.filesystem import file_mode, storing, try_chmod
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.planning.selection import select
from fetcher.settings import Settings
from fetcher.sources.addresses import hub_address, is_commit, named_revision
from fetcher.sources.base import Listing, Source
from fetcher.steps import Step, no_step
from fetcher.store.beneath import open_beneath
from fetcher.store.donor import Donor
from fetcher.values import dataclass


@dataclass(frozen=True, slots=True)
class Adoptable:
    """A recognised directory and the request that it answers. `pin`: the revision of the listing to compare it with."""

    ref: ArtifactRef
    donor: Donor
    pin: str | None


@dataclass(frozen=True, slots=True)
class Adopted:
    """The artifact, and the paths of the directory's files that are no part of it."""

    artifact: Artifact
    ignored: tuple[str, ...]


def adoptable(
    directory: Path, *, uri: str | None, revision: str | None, include: Iterable[str], exclude: Iterable[str], offline: bool
) -> Adoptable:
    """Return the request that `directory` answers. Sends no request. Raises UsageError, NotFound, StoreError.

    The commit is that of `revision` or the URI, else the one that the directory names. Only without either, the source is asked
    for the branch or tag that was given.
    """
    given = ArtifactRef(uri or "", revision, tuple(include), tuple(exclude))
    address = hub_address(given) if uri else None
    named = named_revision(given) if address else revision
    found = recognise(directory, folder=address.folder if address else None, revision=named)
    ref = replace(given, uri=uri or _uri_of(found, directory))
    if ref.uri.startswith("pvc://"):
        raise UsageError("the files of a pvc:// URI are used where they are; give the URI that would be fetched")
    if hub_address(ref) is None:
        return Adoptable(ref, found.donor, None)
    pin = named if named and is_commit(named) else found.commit or named
    if pin is None and not offline:
        raise UsageError(
            f"{directory} does not say of which commit of {redact(ref.uri)} its files are; give it with --revision"
        )
    return Adoptable(ref, found.donor, pin)


async def adopt(
    what: Adoptable,
    settings: Settings,
    on_event: Subscriber,
    *,
    offline: bool = False,
    complete: bool = False,
    link: bool = False,
    move: bool = False,
    step: Step = no_step,
) -> Adopted:
    """Make `what` an artifact of the cache, and return it. Every file is compared with the source's listing.

    `complete` fetches the files that are missing or differ. `offline` asks no source, and the artifact is unconfirmed. `link`
    shares the inodes with the directory. `move` does the same where it can, and removes the adopted files from the directory
    after they were published. `step` is called with each step of the commit. Raises Differs, UsageError, the errors of a fetch.
    """
    if move and what.donor.repository is not None:
        raise UsageError(
            "--move would break other snapshots of the Hub cache, which share its blobs; use --link, which takes no space"
        )
    if complete and offline:
        raise UsageError("--complete fetches files from the source, and --offline does not ask it; give one of them")
    at_home = _same_directory(what.donor.directory, settings.cache_dir / what.ref.key)
    if move and not at_home and (what.donor.directory / RELATIVE_PATH).exists():
        raise UsageError(f"{what.donor.directory} is an artifact, which --move would break; use --link, which takes no space")
    adoption = Adoption(what.donor, link=(link or move) and not at_home, complete=complete)
    request = recover_and_request(what.ref, replace(settings, accept_unverified=offline))
    with storing("read the directory"):
        there = what.donor.paths()
    try:
        artifact = find_cached(request, on_event) or await _adopted(what, request, adoption, on_event, offline, step)
    except SourceError as error:
        if error.exit_code != 69 or complete:
            raise
        advice = "pass --offline to adopt the files without comparing them"
        raise type(error)(f"{error.message}; {advice}", path=error.path) from error
    if artifact.cached and what.pin is not None and is_commit(what.pin) and artifact.revision != what.pin:
        on_event(Warned("OtherRevision", f"the cache already has {artifact.uri} at {artifact.revision}; nothing was adopted"))
    manifest = Manifest.read(artifact.path / RELATIVE_PATH)
    files = {file.path for file in manifest.files} if manifest else set()
    if move and not at_home:
        with storing("remove the adopted files from the directory"):
            _release(adoption, files, artifact.path)
    return Adopted(artifact, tuple(path for path in there if path not in files))


async def _adopted(
    what: Adoptable, request: Request, adoption: Adoption, on_event: Subscriber, offline: bool, step: Step
) -> Artifact:
    source = _offline_source(what) if offline else _online_source(what, request.settings)
    return await fetch_uncached(request, on_event, source=source, adoption=adoption, step=step)


def _uri_of(found: Recognised, directory: Path) -> str:
    if found.uri is None:
        raise UsageError(
            f"{directory} does not say where its files come from; give the source with --uri, such as hf://org/model"
        )
    return found.uri


def _online_source(what: Adoptable, settings: Settings) -> Source:
    from fetcher.sources import open_source

    return open_source(what.ref, settings, pin=what.pin)


def _offline_source(what: Adoptable) -> Source:
    from fetcher.sources.local import LocalSource

    ref, donor = what.ref, what.donor
    with storing("read the directory"):
        there = tuple(RemoteFile(path, None) for path in donor.paths())
        if not there:
            raise NotFound(f"{donor.directory} contains no files")
        selected = select(there, include=ref.include, exclude=ref.exclude)
        chosen = {file.path for file in selected}
        files = tuple(donor.file(file.path) if file.path in chosen else file for file in there)
        known = Manifest.read(donor.directory / RELATIVE_PATH)
    authenticated = known is not None and known.authenticated
    return LocalSource(donor.directory, listing=Listing(what.pin, files, authenticated=authenticated, unconfirmed=True))


def _same_directory(one: Path, other: Path) -> bool:
    """Whether other tools filled the place of the artifact itself, as KServe does: it stays there, and is verified there."""
    return other.is_dir() and os.path.samefile(one, other)


def _release(adoption: Adoption, files: Iterable[str], published: Path) -> None:
    """Remove the adopted files from the directory. Those that changed since stay."""
    for path in files:
        descriptor = open_beneath(published.parent, published / path, os.O_RDONLY)
        try:
            adoption.donor.release(path, state=adoption.taken.get(path), published=descriptor)
            try_chmod(descriptor, file_mode(published))
        finally:
            os.close(descriptor)
