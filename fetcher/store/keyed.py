"""`ROOT/<key>`: the artifact appears, or is replaced, by one rename of its whole directory."""

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
from fetcher.filesystem import clone, exchange, file_mode, make_directory, sync_directory
from fetcher.manifest import RELATIVE_PATH, Manifest, ManifestFile
from fetcher.store.beneath import remove_tree
from fetcher.store.in_place import InPlace
from fetcher.store.layout import Root
from fetcher.store.lease import Lease
from fetcher.store.placement import Step

GRACE = 3600.0
"""Seconds a replaced directory is kept: readers on other NFS clients have its files open, and get ESTALE once it is gone. An
engine that mapped a shard keeps needing it only until it has loaded; an hour covers 894 GiB read at 0.25 GiB/s."""

_STAMP = re.compile(r"[0-9]{1,20}")
"""Nanoseconds since 1970, as `Root.old_name` writes them. A name in `old` may be anybody's."""


class Keyed:
    def __init__(self, root: Path, key: str) -> None:
        self._root = Root(root)
        self._key = key
        self._final = root / key

    @property
    def anchor(self) -> Path:
        return self._root.path

    @property
    def staging(self) -> Path:
        return self._root.staging

    @property
    def lease_name(self) -> str:
        return self._key

    def present(self) -> Manifest | None:
        return Manifest.read(self._final / RELATIVE_PATH)

    def location(self, manifest: Manifest) -> Path:
        return self._final

    def standing(self, file: RemoteFile) -> Path | None:
        return None

    def reuse(self, file: RemoteFile, previous: ManifestFile, lease: Lease) -> bool:
        """Link the published file, which nobody writes again, else clone or copy it."""
        source, target = self._final / previous.path, lease.data / file.path
        try:
            if source.stat().st_size != previous.size:
                return False
            make_directory(target.parent)
            target.unlink(missing_ok=True)
            try:
                os.link(source, target)
            except OSError:
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
            os.rename(lease.data, self._final)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.EXDEV):
                # Somebody filled it meanwhile, with files that are not ours to remove.
                return InPlace(self._final, staged_in=self._root).place(lease, manifest, listing, step)
            raise
        step("renamed")
        sync_directory(lease.directory)
        sync_directory(self._root.path)
        lease.dissolve()
        return self._final

    def _exchange(self, lease: Lease, replaced: Manifest, step: Step) -> bool:
        if not exchange(lease.data, self._final):
            return False
        step("exchanged")
        sync_directory(self._root.path)
        make_directory(self._root.old)
        os.rename(lease.data, self._root.old_name(self._key, replaced.revision))
        step("old moved away")
        lease.dissolve()
        return True

    def _swap(self, lease: Lease, replaced: Manifest, step: Step) -> None:
        """Two renames, announced by a name under `ready`, by which any later command completes them (`finish_swaps`)."""
        name = self._root.old_name(self._key, replaced.revision).name
        make_directory(self._root.ready)
        os.rename(lease.data, self._root.ready / name)
        sync_directory(self._root.ready)
        step("ready")
        _swap_in(self._root, name, step)
        lease.dissolve()


def finish_swaps(root: Path) -> None:
    """Complete swaps that a killed process began. Cheap when there are none; safe to race."""
    layout = Root(root)
    with suppress(OSError):
        for name in sorted(os.listdir(layout.ready)):
            with suppress(NewerFormat):  # the swap of a later version is for that one to finish
                if Manifest.read(layout.ready / name / RELATIVE_PATH) is not None:
                    _swap_in(layout, name, lambda _: None)


def _swap_in(layout: Root, name: str, step: Step) -> None:
    """Put `ready/<name>` where its key says, and what stands there to `old/<name>`.

    Several processes may be at it, each at another point: `name` is unique, so what one has done fails for the others.
    """
    final, ready, old = layout.path / name.partition("-")[0], layout.ready / name, layout.old / name
    make_directory(layout.old)
    moved = _renamed(final, old)
    step("old moved away")
    if not _renamed(ready, final) and moved:
        # The other one was done just before: what was moved away was its new version.
        _renamed(old, final)
    sync_directory(layout.old)
    sync_directory(layout.path)
    step("renamed")


def _renamed(source: Path, target: Path) -> bool:
    """False when `source` is gone, or `target` is there and holds something."""
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def sweep_old(root: Path, *, now: float | None = None, grace: float = GRACE) -> None:
    """Delete replaced directories whose grace period is over. Best effort: a read-only root keeps them."""
    moment = time.time() if now is None else now
    with suppress(OSError):
        for entry in os.scandir(Root(root).old):
            stamp = entry.name.rpartition(".")[2]
            if _STAMP.fullmatch(stamp) and int(stamp) / 1e9 + grace < moment:
                remove_tree(root, Path(entry.path))


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("xb") as writer:
        os.fchmod(writer.fileno(), file_mode(target.parent))
        if not clone(reader.fileno(), writer.fileno()):
            shutil.copyfileobj(reader, writer, 1024 * 1024)
        writer.flush()
        os.fsync(writer.fileno())
