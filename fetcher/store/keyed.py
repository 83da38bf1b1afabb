"""Placement at `ROOT/<key>`: one rename of the whole directory publishes or replaces the artifact."""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

from fetcher.artifact import Listing, RemoteFile
from fetcher.errors import NewerFormat
from fetcher.filesystem import clone, exchange, file_mode, first_names, sync_directory
from fetcher.manifest import RELATIVE_PATH, Manifest, ManifestFile
from fetcher.steps import Step
from fetcher.store.beneath import make_directories, open_beneath, remove_directory, remove_tree, rename
from fetcher.store.in_place import InPlace
from fetcher.store.in_use import use_of
from fetcher.store.ingest import link_staged
from fetcher.store.layout import Root, fence_of
from fetcher.store.lease import Lease
from fetcher.store.placement import KeyInRoot, swap_staged

GRACE = 3600.0
"""Seconds a replaced directory is kept. Readers on other NFS clients may have its files open, and get ESTALE when it is
removed. An engine needs a mapped shard until it has loaded: an hour covers 894 GiB read at 0.25 GiB/s."""

_STAMP = re.compile(r"[0-9]{1,20}")
"""Nanoseconds since 1970, as `Root.old_name` writes them. Other users may create names in `old` too."""


class Keyed(KeyInRoot):
    def __init__(self, root: Path, key: str) -> None:
        super().__init__(root, key)
        self._final = root / key

    def present(self) -> Manifest | None:
        return Manifest.read(self._final / RELATIVE_PATH)

    def location(self, manifest: Manifest) -> Path:
        return self._final

    def existing(self, file: RemoteFile) -> Path | None:
        return None

    def reuse(self, file: RemoteFile, previous: ManifestFile, lease: Lease) -> bool:
        """Link the published file, which is never written again. If that is not possible, clone or copy it."""
        source, target = self._final / previous.path, lease.data / file.path
        try:
            if source.stat().st_size != previous.size:
                return False
            if not link_staged(source, target):
                _copy(source, target)
        except FileNotFoundError:
            return False
        return True

    def place(self, lease: Lease, manifest: Manifest, listing: Listing, step: Step) -> Path:
        replaced = self.present()
        lease.prepare_to_place()
        step("sealed")
        if replaced is not None and self._exchange(lease, replaced, step):
            return self._final
        if replaced is not None:
            self._swap(lease, replaced, step)
            return self._final
        try:
            with lease.fenced():
                rename(self._root.path, lease.data, self._root.path, self._final)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.EXDEV):
                # Somebody put files into the directory meanwhile. They are not ours to remove.
                return InPlace(self._final, staged_in=self._root).place(lease, manifest, listing, step)
            raise
        step("renamed")
        sync_directory(lease.directory)
        sync_directory(self._root.path)
        lease.dissolve()
        return self._final

    def open_published(self, file: RemoteFile, manifest: Manifest) -> int:
        return open_beneath(self._root.path, self._final / file.path, os.O_RDONLY)

    def swap(self, lease: Lease, file: RemoteFile, manifest: Manifest) -> None:
        swap_staged(lease, file.path, self._root.path, self._final / file.path)

    def _exchange(self, lease: Lease, replaced: Manifest, step: Step) -> bool:
        with lease.fenced():
            exchanged = exchange(lease.data, self._final)
        if not exchanged:
            return False
        step("exchanged")
        sync_directory(self._root.path)
        _move_away(self._root, self._key, lease.data, replaced)
        step("old moved away")
        lease.dissolve()
        return True

    def _swap(self, lease: Lease, replaced: Manifest, step: Step) -> None:
        """Swap by two renames. The name under `ready` lets any later command complete them (`finish_swaps`)."""
        name = self._root.old_name(self._key, replaced.revision).name
        make_directories(self._root.path, self._root.ready)
        with lease.fenced():
            rename(self._root.path, lease.data, self._root.path, self._root.ready / name)
        sync_directory(self._root.ready)
        step("ready")
        _swap_in(self._root, name, step)
        lease.dissolve()


def finish_swaps(root: Path) -> None:
    """Complete swaps that a killed process began. Cheap if there are none. Several processes may do it at the same time."""
    layout = Root(root)
    with suppress(OSError):
        for name in sorted(first_names(layout.ready)):
            with suppress(NewerFormat):  # only the later version that began it can finish it
                if Manifest.read(layout.ready / name / RELATIVE_PATH) is not None:
                    _swap_in(layout, name, lambda _: None)


def _swap_in(layout: Root, name: str, step: Step) -> None:
    """Move the present version to `old/<name>`, and `ready/<name>` to its place.

    Several processes may run this at the same time. `name` is unique, so a step that one has done fails for the others.
    """
    final, ready, old = layout.path / name.partition("-")[0], layout.ready / name, layout.old / name
    make_directories(layout.path, layout.old)
    moved = _renamed(layout, final, old)
    step("old moved away")
    if not _renamed(layout, ready, final) and moved:
        # Another process finished the swap just before, and we moved its new version away: move it back.
        _renamed(layout, old, final)
    sync_directory(layout.old)
    sync_directory(layout.path)
    step("renamed")


def finish_exchanges(root: Path) -> None:
    """Move replaced versions from staging to `old` if a process was killed just after an exchange. Safe to run concurrently.

    An exchange happens on local filesystems only, so one clock stamped both manifests, and the replaced one is older. A staged
    manifest that is newer was sealed and not placed yet: the next owner of the lease continues it.
    """
    layout = Root(root)
    with suppress(OSError):
        for key in first_names(layout.staging):
            with suppress(OSError, NewerFormat):
                _finish_exchange(layout, key)


def _finish_exchange(layout: Root, key: str) -> None:
    directory = layout.staging / key
    names = first_names(directory, limit=2)
    if len(names) != 1 or not names[0].startswith("data."):
        return  # a journal or a heartbeat means that it is still being built
    (name,) = names
    staged, published = directory / name / RELATIVE_PATH, layout.path / key / RELATIVE_PATH
    if os.lstat(staged).st_mtime_ns >= os.lstat(published).st_mtime_ns:
        return
    if (replaced := Manifest.read(staged)) is not None:
        _move_away(layout, key, directory / name, replaced)
        remove_directory(layout.path, directory)


def _move_away(layout: Root, key: str, replaced: Path, manifest: Manifest) -> None:
    """Move a replaced version to `old` for its grace period. Another process may have done it already."""
    make_directories(layout.path, layout.old)
    _renamed(layout, replaced, layout.old_name(key, manifest.revision))


def _renamed(layout: Root, source: Path, target: Path) -> bool:
    """Rename `source` to `target`; False if `source` is gone or `target` is a directory that is not empty."""
    try:
        rename(layout.path, source, layout.path, target)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def replaced_versions(root: Path, *, now: float, grace: float = GRACE) -> list[Path]:
    """Return replaced directories whose grace period is over, and that nobody reads. `now` and `grace` are in seconds."""
    over = []
    with suppress(OSError):
        for entry in os.scandir(Root(root).old):
            stamp = entry.name.rpartition(".")[2]
            if _STAMP.fullmatch(stamp) and int(stamp) / 1e9 + grace < now:
                files = (Path(above) / name for above, _, names in os.walk(entry.path) for name in names)
                if use_of(root, files) != "open":
                    over.append(Path(entry.path))
    return over


def sweep_old(root: Path, *, now: float | None = None, grace: float = GRACE) -> None:
    """Delete the `replaced_versions`. A read-only root keeps them."""
    for path in replaced_versions(root, now=time.time() if now is None else now, grace=grace):
        remove_tree(root, path)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader, os.fdopen(fence_of(target).create(target, 0o600), "wb") as writer:
        os.fchmod(writer.fileno(), file_mode(target.parent))
        if not clone(reader.fileno(), writer.fileno()):
            shutil.copyfileobj(reader, writer, 1024 * 1024)
        writer.flush()
        os.fsync(writer.fileno())
