"""Placement file by file, into a directory that cannot be renamed: a mount point, or one that holds foreign files.

::

    1  rename the present manifest away, and withdraw every file that announces a complete model (config.json, indexes)
    2  sync the directory
    3  rename weights into place, then all other files, then indexes and config.json; sync each group
    4  delete files that the previous manifest lists and the new one does not
    5  rename the manifest into place, and sync the directory

So every visible file is verified, and a config.json, index or manifest is visible only if all weights of its revision are.
Foreign files, and files that another artifact's manifest in this directory lists, are never deleted. They are never replaced
by a file of another spelling that the filesystem takes for the same name. After a kill, the sealed manifest in staging tells
which files are already in place.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

from fetcher.artifact import Listing, RemoteFile
from fetcher.filesystem import file_mode
from fetcher.manifest import RELATIVE_PATH, Manifest, ManifestFile
from fetcher.steps import Step
from fetcher.store.beneath import Fence, make_directories, open_beneath, remove_directory, sync
from fetcher.store.layout import Root, base_of_destination
from fetcher.store.lease import Lease
from fetcher.store.placement import swap_staged
from fetcher.store.spelling import in_the_way, refuse_somebody_elses, same_entries, spelled_otherwise
from fetcher.store.summary import SUMMARY_PATH, summary_path

_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".ckpt", ".onnx", ".msgpack", ".h5", ".npz", ".tensors")
_ANNOUNCEMENTS = ("config.json", "model_index.json", "params.json")
_RECORD = ".previous.json"
"""Suffix of the record of all files that may belong to an artifact in this directory. It outlives the manifest."""


def publish_order(path: str) -> int:
    """The order in which files become visible: 0 weights, 1 other files, 2 indexes, 3 files that announce a complete model."""
    name = path.rpartition("/")[2]
    if name in _ANNOUNCEMENTS:
        return 3
    if name.endswith(".index.json"):
        return 2
    return 0 if name.endswith(_WEIGHTS) else 1


def _in_publish_order(manifest: Manifest) -> list[list[str]]:
    groups: list[list[str]] = [[] for _ in range(4)]
    for file in manifest.files:
        groups[publish_order(file.path)].append(file.path)
    return groups


def _contradict(manifest: Manifest, other: Manifest) -> bool:
    """Whether both list a path with different content, so that only one of them can match the directory."""
    return any(
        (listed := other.file(file.path)) is not None and (listed.size, listed.chunks) != (file.size, file.chunks)
        for file in manifest.files
    )


class InPlace:
    LEASE = "in-place"

    def __init__(self, directory: Path, *, staged_in: Root | None = None, shared_key: str | None = None) -> None:
        """`shared_key` is the artifact's key if it shares `directory` with other artifacts. Each then has its own manifest."""
        self._directory = directory
        self._base = base_of_destination(directory)
        self._respelled: frozenset[str] = frozenset()
        self._removed_first: set[str] = set()
        self._root = staged_in or Root(directory)
        self._manifest = Root(directory).manifests / f"{shared_key}.json" if shared_key else directory / RELATIVE_PATH
        self._record = self._manifest.with_suffix(_RECORD)

    @property
    def anchor(self) -> Path:
        return self._directory

    @property
    def staging(self) -> Path:
        return self._root.staging

    @property
    def lease_name(self) -> str:
        # One lease for each directory, not for each key: two artifacts with the same destination take turns.
        return self.LEASE

    def present(self) -> Manifest | None:
        return Manifest.read(self._manifest)

    def location(self, manifest: Manifest) -> Path:
        return self._directory

    def survey(self, paths: Collection[str]) -> None:
        """Our own files of another spelling are removed later. Any other file of another spelling raises CannotWrite."""
        previous = {file.path for each in self._manifests() for file in each.files}
        others = {file.path for manifest in self._others().values() for file in manifest.files}
        spellings = spelled_otherwise(self._base, self._directory, paths)
        refuse_somebody_elses(spellings, self._directory, placed=previous | others, former=previous)
        unlisted = previous.difference(paths, others)
        same = same_entries(self._directory, unlisted, paths)
        self._respelled = frozenset(same)
        self._removed_first = {*same.values(), *in_the_way(unlisted, paths)}

    def existing(self, file: RemoteFile) -> Path | None:
        # A file that announces the model is withdrawn before weights change. It is small, so it is fetched again.
        path = self._directory / file.path
        if file.path in self._respelled:
            return None  # it needs its new name
        return path if publish_order(file.path) < 2 and path.is_file() and not path.is_symlink() else None

    def reuse(self, file: RemoteFile, previous: ManifestFile, lease: Lease) -> bool:
        existing = self.existing(file)
        return existing is not None and existing.stat().st_size == previous.size

    def place(self, lease: Lease, manifest: Manifest, listing: Listing, step: Step) -> Path:
        lease.check()
        step("sealed")
        fence = Fence(base_of_destination(self._root.path), lease.data)
        with lease.fenced():
            self.survey([file.path for file in manifest.files])
            known = self._withdraw(manifest, lease, fence, step)
            for group in _in_publish_order(manifest):
                self._move(lease, fence, group, step)
            listed = {file.path for each in (manifest, *self._others().values()) for file in each.files}
            self._delete(fence, known - listed)
            step("former files deleted")
            lease.prepare_to_place()
            make_directories(self._base, self._manifest.parent)
            fence.place(lease.data / SUMMARY_PATH, self._base, summary_path(self._manifest))
            fence.place(lease.data / RELATIVE_PATH, self._base, self._manifest)
            sync(self._base, self._manifest.parent)
            step("manifest placed")
            fence.doom(self._base, self._record)
        lease.dissolve()
        with suppress(OSError):
            remove_directory(base_of_destination(self._root.path), self._root.staging)
        return self._directory

    def open_published(self, file: RemoteFile, manifest: Manifest) -> int:
        return open_beneath(self._base, self._directory / file.path, os.O_RDONLY)

    def swap(self, lease: Lease, file: RemoteFile, manifest: Manifest) -> None:
        swap_staged(lease, file.path, self._base, self._directory / file.path)

    def _withdraw(self, manifest: Manifest, lease: Lease, fence: Fence, step: Step) -> set[str]:
        """Withdraw every file that announces a complete model. Returns all paths in this directory that may be ours.

        The record of those paths survives a kill, so that a later run for any revision can still remove them.
        """
        make_directories(self._base, self._record.parent)
        known = {file.path: file for each in (*self._manifests(), manifest) for file in each.files}
        whole = replace(manifest, files=tuple(known.values()))
        fence.replace_file(self._base, self._record, whole.to_bytes(), mode=file_mode(self._record.parent))
        step("former files noted")
        lease.check()
        fence.doom(self._base, self._manifest)
        for place, other in self._others().items():
            if _contradict(manifest, other):
                record = place.with_suffix(_RECORD)
                fence.replace_file(self._base, record, other.to_bytes(), mode=file_mode(place.parent))
                for each in (place, summary_path(place)):
                    fence.doom(self._base, each)
                sync(self._base, place.parent)
        sync(self._base, self._record.parent)
        step("manifest withdrawn")
        for path in sorted(path for path in known if publish_order(path) >= 2):
            lease.check()
            _doom(fence, self._base, self._directory / path)
        # A file must be removed before a directory can take its name. A file of another spelling must be removed first too:
        # removing it later would remove the new file.
        self._delete(fence, self._removed_first)
        self._sync(known)
        step("announcements withdrawn")
        return set(known) - self._removed_first

    def _manifests(self) -> list[Manifest]:
        """The record of previous files and the present manifest: together they list all files that may be ours."""
        return [each for each in (Manifest.read(self._record), self.present()) if each is not None]

    def _others(self) -> dict[Path, Manifest]:
        """The manifests of other artifacts in this directory, by their paths."""
        paths = {self._directory / RELATIVE_PATH, *Root(self._directory).keyed_manifests()} - {self._manifest}
        manifests = {path: Manifest.read(path) for path in paths}
        return {path: manifest for path, manifest in manifests.items() if manifest is not None and manifest.snapshot is None}

    def _move(self, lease: Lease, fence: Fence, paths: Iterable[str], step: Step) -> None:
        paths, made = list(paths), set[Path]()
        for path in paths:
            lease.keep()
            staged = lease.data / path
            if staged.exists():
                target = self._directory / path
                if (above := target.parent) not in made:
                    make_directories(self._base, above)
                    made.add(above)
                fence.place(staged, self._base, target)
                step(f"placed {path}")
        self._sync(paths)

    def _delete(self, fence: Fence, paths: Iterable[str]) -> None:
        for path in paths:
            _doom(fence, self._base, self._directory / path)
            with suppress(OSError):  # not empty
                for above in PurePosixPath(path).parents[:-1]:
                    remove_directory(self._base, self._directory / above)

    def _sync(self, paths: Iterable[str]) -> None:
        """Sync every directory that holds one of `paths`, and its parents, deepest first."""
        directories = {self._directory}
        for holding in {path.rpartition("/")[0] for path in paths}:
            directories.update(
                (self._directory / holding, *(self._directory / each for each in PurePosixPath(holding).parents))
            )
        for directory in sorted(directories, key=lambda each: len(each.parts), reverse=True):
            if directory.is_dir():
                sync(self._base, directory)


def _doom(fence: Fence, base: Path, path: Path) -> None:
    """Remove the file we placed at `path`. If a link or a file replaced one of its directories, the path is not ours."""
    try:
        fence.doom(base, path)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EISDIR):
            raise
