"""A local directory, usually a mounted claim, seen through links: nothing is copied, as its user expects.

KServe's webhook mounts a claim at a place of its own and has the initializer link its entries into the model's directory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from fetcher.errors import CannotWrite, DigestMismatch, NotFound, Unauthorized
from fetcher.filesystem import make_directory, storing
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.store.beneath import symlink
from fetcher.store.placement import intact


def entries(source: Path, *, admits: Callable[[str], bool]) -> Sequence[Path]:
    """`source` if it is a file, else what it holds but for hidden entries; those whose names `admits`.

    Raises NotFound, Unauthorized, and DigestMismatch where a manifest says that something is missing.
    """
    try:
        if not source.exists():
            raise NotFound(f"{source} does not exist")
        found = [path for path in source.iterdir() if not path.name.startswith(".")] if source.is_dir() else [source]
    except PermissionError as error:
        raise Unauthorized(f"{source} may not be read by user {os.getuid()}") from error
    chosen = sorted(path for path in found if admits(path.name))
    if not chosen:
        raise NotFound(f"{source} holds nothing that matches; look at what is in it, and at the patterns")
    manifest = Manifest.read(source / RELATIVE_PATH)
    if manifest is not None and not intact(manifest, source):
        raise DigestMismatch(f"{source} is not complete: its manifest lists other files or sizes; fetch it again")
    return chosen


def link(sources: Sequence[Path], directory: Path) -> None:
    """Links of their names in `directory`; one that leads elsewhere is replaced in one step. Raises StoreError."""
    with storing("link the files"):
        make_directory(directory)
        for source in sources:
            _link(source, directory / source.name)


def _link(source: Path, place: Path) -> None:
    target = os.path.abspath(source)
    if place.is_symlink() and os.readlink(place) == target:
        return
    try:
        symlink(place.parent, place, target)
    except FileExistsError:
        if not os.path.samestat(os.lstat(place), os.stat(source)):
            raise CannotWrite(f"{place} is there already and is not {source}; remove it, or choose another directory") from None
