"""What every way of placing an artifact can do; `keyed`, `in_place` and `hub_cache` are the three.

The pipeline builds in a lease under `staging`, seals the manifest there, and calls `place`, which makes the artifact visible
in an order such that a kill between any two steps leaves nothing unverified visible and everything resumable.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

from fetcher.artifact import Listing, RemoteFile
from fetcher.filesystem import sync_directory
from fetcher.manifest import RELATIVE_PATH, Manifest, ManifestFile
from fetcher.store.layout import base_of, fence_of
from fetcher.store.lease import Lease

Step = Callable[[str], None]
"""Called between the steps of a commit, with the name of the one just done: where tests kill the process."""


class Placement(Protocol):
    """`staging` and `lease_name` say which lease guards it; `anchor` is the directory that shows filesystem and free space."""

    @property
    def anchor(self) -> Path: ...
    @property
    def staging(self) -> Path: ...
    @property
    def lease_name(self) -> str: ...

    def present(self) -> Manifest | None:
        """The manifest of what stands there now, whatever was asked for; None when nothing complete does."""
        ...

    def location(self, manifest: Manifest) -> Path:
        """The directory that holds the files of `manifest`: what is printed."""
        ...

    def survey(self, paths: Collection[str]) -> None:
        """Look at what stands where `paths` will. Raises CannotWrite for somebody else's file of which the filesystem takes the
        name for one of them, so that it would be replaced; and OSError."""
        ...

    def existing(self, file: RemoteFile) -> Path | None:
        """A file already at its final place that might be `file`; it stays there if it is."""
        ...

    def reuse(self, file: RemoteFile, previous: ManifestFile, lease: Lease) -> bool:
        """Bring a file of the previous version, known to be equal, into the new one without fetching it."""
        ...

    def place(self, lease: Lease, manifest: Manifest, listing: Listing, step: Step) -> Path:
        """Make the sealed artifact visible; returns `location`. Blocks. Raises OSError, LeaseLost."""
        ...


def intact(manifest: Manifest, location: Path) -> bool:
    """Whether every listed file stands at `location` with the listed size."""
    for file in manifest.files:
        try:
            if os.stat(location / file.path).st_size != file.size:
                return False
        except OSError:
            return False
    return True


def seal(data: Path, manifest: Manifest, *, mode: int) -> None:
    """Sync all directories of `data` bottom-up, then write and sync the manifest into it. The files are synced already."""
    target = data / RELATIVE_PATH
    fence = fence_of(target)
    fence.make_directories(target.parent)
    for directory, _, _ in os.walk(data, topdown=False):
        sync_directory(Path(directory))
    fence.replace_file(base_of(target), target, manifest.to_bytes(), mode=mode)
    sync_directory(data)
