"""What a directory that another tool filled says about itself: the repository, and the commit of its files.

A Hub cache says both by its names, `hf download --local-dir` writes the commit beside each file, and an artifact of ours has a
manifest. Nothing of this is believed: it says which listing to compare the files with.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fetcher.errors import NotFound, UsageError
from fetcher.filesystem import storing
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.sources.addresses import address_of_folder, is_commit
from fetcher.store.beneath import read_beneath
from fetcher.store.donor import Donor
from fetcher.values import dataclass

_METADATA = Path(".cache") / "huggingface" / "download"
_LONGEST = 4096
"""Bytes that are read of a ref and of a file of metadata: a commit, an ETag and a time take 150."""
_NAMED = 10
"""Names in a message at most."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """The files, and the URI and the commit that the directory names, if it does."""

    donor: Donor
    uri: str | None = None
    commit: str | None = None


def recognise(directory: Path, *, folder: str | None, revision: str | None) -> Recognised:
    """Return what `directory` holds. It may also be a Hub cache, or a repository or a snapshot of one.

    `folder` is the wanted repository's in a Hub cache. `revision` selects its snapshot, by default the one of `main`. Raises
    NotFound, UsageError, StoreError.
    """
    place = Path(os.path.realpath(directory))
    if not place.is_dir():
        raise NotFound(f"there is no directory {directory}; give the directory that holds the files")
    with storing("read the directory", str(directory)):
        if place.parent.name == "snapshots" and is_commit(place.name) and address_of_folder(place.parents[1].name):
            return _snapshot(place.parents[1], place.name)
        if address_of_folder(place.name) and (place / "snapshots").is_dir():
            return _snapshot(place, _chosen(place, revision))
        if repositories := [name for name in _directories(place) if address_of_folder(name)]:
            if folder is None and len(repositories) == 1:
                folder = repositories[0]
            if folder not in repositories:
                raise UsageError(
                    f"{directory} is a Hub cache; give --uri of one of its repositories: {_shown([*map(_uri, repositories)])}"
                )
            return _snapshot(place / folder, _chosen(place / folder, revision))
        if (known := Manifest.read(place / RELATIVE_PATH)) is not None:
            return Recognised(Donor(place), known.uri, known.revision if is_commit(known.revision or "") else None)
        return Recognised(Donor(place), commit=None if revision and is_commit(revision) else _downloaded_commit(place))


def _snapshot(repository: Path, commit: str) -> Recognised:
    return Recognised(Donor(repository / "snapshots" / commit, repository), _uri(repository.name), commit)


def _uri(folder: str) -> str:
    address = address_of_folder(folder)
    return address.uri if address is not None else folder


def _chosen(repository: Path, revision: str | None) -> str:
    """The commit of the snapshot to adopt. Raises UsageError, NotFound."""
    commits = [name for name in _directories(repository / "snapshots") if is_commit(name)]
    wanted = (
        revision
        if revision is not None and is_commit(revision)
        else _read(repository, repository / "refs" / (revision or "main")).strip()
    )
    if wanted in commits:
        return wanted
    if revision is None and len(commits) == 1:
        return commits[0]
    there = f"its snapshots are {_shown(commits)}" if commits else "it has no snapshots"
    if revision is not None:
        raise NotFound(f"{repository} has no snapshot of {revision}; {there}")
    raise UsageError(f"{repository} does not say which snapshot is main's; give one with --revision; {there}")


def _read(base: Path, path: Path) -> str:
    with suppress(OSError):
        return read_beneath(base, path, limit=_LONGEST).decode(errors="replace")
    return ""


def _downloaded_commit(directory: Path) -> str | None:
    """The commit that huggingface_hub noted for every file; None without notes. Raises UsageError if the notes disagree."""
    commits = set()
    for place, _, names in os.walk(directory / _METADATA):
        for name in names:
            commit, _, _ = _read(directory, Path(place) / name).partition("\n")
            if name.endswith(".metadata") and is_commit(commit):
                commits.add(commit)
    if len(commits) > 1:
        raise UsageError(
            f"the files of {directory} were downloaded at several commits; give the one to compare them with by --revision: "
            f"{_shown(sorted(commits))}"
        )
    return commits.pop() if commits else None


def _directories(directory: Path) -> list[str]:
    with os.scandir(directory) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
