"""The interface of a placement. `keyed`, `in_place` and `hub_cache` implement it.

The pipeline builds in a lease under `staging`, seals the manifest there, and calls `place`, which makes the artifact visible.
A kill between any two of its steps leaves nothing unverified visible, and everything resumable.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from fetcher.artifact import Listing, RemoteFile
from fetcher.filesystem import sync_directory
from fetcher.manifest import RELATIVE_PATH, Manifest, ManifestFile
from fetcher.steps import Step
from fetcher.store.beneath import Fence, make_directories, sync
from fetcher.store.layout import PRIVATE, Root, base_of, fence_of
from fetcher.store.lease import Lease
from fetcher.store.summary import Summary, summary_path


class Placement(Protocol):
    """A way of placing an artifact.

    `staging` and `lease_name` name the lease that guards it. `anchor` is a directory on its filesystem, for free space.
    """

    @property
    def anchor(self) -> Path: ...
    @property
    def staging(self) -> Path: ...
    @property
    def lease_name(self) -> str: ...

    def present(self) -> Manifest | None:
        """The manifest of the artifact that is there now, of any revision; None if there is no complete one."""
        ...

    def location(self, manifest: Manifest) -> Path:
        """The directory that holds the files of `manifest`: the path that is printed."""
        ...

    def survey(self, paths: Collection[str]) -> None:
        """Check the destination for foreign files that `paths` would replace, because the filesystem treats two spellings as
        one name. Raises CannotWrite for such a file, and OSError."""
        ...

    def existing(self, file: RemoteFile) -> Path | None:
        """The path of a placed file that may be `file`, to be verified there; None if there is none."""
        ...

    def reuse(self, file: RemoteFile, previous: ManifestFile, lease: Lease) -> bool:
        """Use an equal file of the previous version without fetching it again; False if it cannot be used."""
        ...

    def place(self, lease: Lease, manifest: Manifest, listing: Listing, step: Step) -> Path:
        """Make the sealed artifact visible, and return its location. Blocks. Raises OSError, LeaseLost."""
        ...

    def open_published(self, file: RemoteFile, manifest: Manifest) -> int:
        """Open the published `file` of `manifest`, the present artifact, for reading; return its descriptor. Raises OSError."""
        ...

    def swap(self, lease: Lease, file: RemoteFile, manifest: Manifest) -> None:
        """Replace the published `file` of `manifest` by the staged one in one step. Blocks. Raises OSError, LeaseLost."""
        ...


class KeyInRoot:
    """What `Keyed` and `HubCache` share: an artifact with a key under a cache root, and a lease with the name of the key."""

    def __init__(self, root: Path, key: str) -> None:
        self._root = Root(root)
        self._key = key

    @property
    def anchor(self) -> Path:
        return self._root.path

    @property
    def staging(self) -> Path:
        return self._root.staging

    @property
    def lease_name(self) -> str:
        return self._key

    def survey(self, paths: Collection[str]) -> None:
        """Nothing to check: directories named by keys, commits and digests hold no foreign files."""


def swap_staged(lease: Lease, path: str, base: Path, target: Path) -> None:
    """Rename the staged file `path` to `target` below `base`, and sync the directory. Raises OSError, LeaseLost."""
    lease.check()
    staged = lease.data / path
    with lease.fenced():
        make_directories(base, target.parent)
        fence_of(staged).place(staged, base, target)
    sync(base, target.parent)


def intact(manifest: Manifest, location: Path) -> bool:
    """Whether every file that `manifest` lists is at `location` with the listed size."""
    try:
        directory = os.open(location, os.O_PATH)
    except OSError:
        return False
    try:
        # An artifact may have 100,000 files: a Path takes longer than the call, and the whole path half as long again.
        return all(os.stat(file.path, dir_fd=directory).st_size == file.size for file in manifest.files)
    except OSError:
        return False
    finally:
        os.close(directory)


def write_manifest(fence: Fence, base: Path, target: Path, manifest: Manifest, *, mode: int) -> None:
    """Replace the manifest at `target` below `base` durably, and its summary just before it. Raises OSError."""
    draft = fence.write_draft(manifest.to_bytes(), mode=mode)
    fence.replace_file(base, summary_path(target), Summary.of(manifest, os.lstat(draft)).to_bytes(), mode=mode)
    fence.place(draft, base, target)
    sync(base, target.parent)


def holds_others(directory: Path, manifest: Manifest | None) -> bool:
    """Whether `directory` has files that `manifest` does not list. Our own records in its `.fetcher` do not count."""
    ours = {file.path for file in manifest.files} if manifest is not None else set()
    for above, names, files in os.walk(directory):
        place = Path(above).relative_to(directory)
        if not place.parts and PRIVATE in names:
            names.remove(PRIVATE)
        prefix = f"{place.as_posix()}/" if place.parts else ""
        if any(prefix + name not in ours for name in files):
            return True
    return False


def seal(data: Path, manifest: Manifest, *, mode: int) -> None:
    """Sync all directories of `data` bottom-up, then write and sync the manifest. The files must be synced already."""
    target = data / RELATIVE_PATH
    fence = fence_of(target)
    fence.make_directories(target.parent)
    for directory, _, _ in os.walk(data, topdown=False):
        sync_directory(Path(directory))
    write_manifest(fence, base_of(target), target, manifest, mode=mode)
    sync_directory(data)
