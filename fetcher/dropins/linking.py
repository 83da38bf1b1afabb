"""Link to the entries of a local directory, usually a mounted claim. Nothing is copied.

KServe's webhook mounts the claim outside the model's directory, and its initializer links the entries of the claim there.
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


def linkable_entries(source: Path, *, admits: Callable[[str], bool]) -> Sequence[Path]:
    """Return `source` if it is a file, otherwise its entries except hidden ones. `admits` selects them by name.

    Raises NotFound, Unauthorized, and DigestMismatch if `source` does not match its manifest.
    """
    try:
        if not source.exists():
            raise NotFound(f"{source} does not exist")
        paths = [path for path in source.iterdir() if not path.name.startswith(".")] if source.is_dir() else [source]
    except PermissionError as error:
        raise Unauthorized(
            f"{source} cannot be read by user {os.getuid()}: permission denied; change its mode or owner"
        ) from error
    chosen = sorted(path for path in paths if admits(path.name))
    if not chosen:
        raise NotFound(f"no file in {source} matches; check its content and the patterns")
    manifest = Manifest.read(source / RELATIVE_PATH)
    if manifest is not None and not intact(manifest, source):
        raise DigestMismatch(f"{source} is incomplete: its files or sizes differ from its manifest; fetch it again")
    return chosen


def link(sources: Sequence[Path], directory: Path) -> None:
    """Create a link in `directory` to each of `sources`. Replaces a link to another target atomically. Raises StoreError."""
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
            raise CannotWrite(f"{place} exists and is not {source}; remove it or choose another directory") from None
