"""Versions that a newer one replaced in the Hub's cache layout: their snapshots, and the blobs that nothing links any more.

A refresh leaves the former manifest in `.fetcher/superseded/`, so only what we placed is ever deleted. First the snapshot goes,
after its grace period. A day later the blobs go that no snapshot links. `hf download` finishes a blob first and links it
later, under its own lock; a day is far longer than that. A snapshot without a ref was pinned by its commit, so it has no record
here and stays.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from fetcher.filesystem import first_names
from fetcher.manifest import Manifest
from fetcher.store.beneath import make_directories, open_beneath, read_beneath, remove, remove_tree, rename
from fetcher.store.in_use import use_of
from fetcher.store.keyed import GRACE
from fetcher.store.layout import Root
from fetcher.values import dataclass

UNLINKED_FOR = 24 * 3600.0
"""Seconds for which a blob must be unlinked before it is deleted."""
_MOST = 100_000


@dataclass(frozen=True, slots=True)
class Superseded:
    """A former version. `record` is the path of its manifest, `since` the time of its last change in seconds since 1970."""

    root: Path
    record: Path
    manifest: Manifest
    since: float

    @property
    def snapshot(self) -> Path:
        return self.root / (self.manifest.snapshot or "")

    @property
    def repository(self) -> Path:
        return self.snapshot.parents[1]

    @property
    def wanted(self) -> bool:
        """Whether a ref, or another manifest of ours, names this version again."""
        named = any(refs_of(self))
        ours = (Manifest.read(path) for path in Root(self.root).manifests.glob("*.json"))
        return named or any(each is not None and each.snapshot == self.manifest.snapshot for each in ours)

    def snapshot_may_go(self, now: float) -> bool:
        """Whether the snapshot's grace period is over, and nobody reads its files."""
        if self.wanted or self.since + GRACE > now:
            return False
        return use_of(self.root, self.blobs()) != "open"

    def blobs(self) -> list[Path]:
        """The blobs that the version listed, and that still exist."""
        names = {file.digests[0].hex for file in self.manifest.files if file.digests}
        return [path for name in sorted(names) if (path := self.repository / "blobs" / name).is_file()]

    def unlinked_blobs(self, now: float) -> list[Path]:
        """The blobs that no snapshot has linked for a day."""
        if self.since + UNLINKED_FOR > now:
            return []
        linked = _linked(self.repository)
        return [each for each in self.blobs() if each.name not in linked and each.lstat().st_mtime + UNLINKED_FOR <= now]

    @property
    def served(self) -> bool:
        """Whether the record is needed no more: what is left of the version belongs to others."""
        if self.wanted:
            return True
        linked = _linked(self.repository)
        return not os.path.lexists(self.snapshot) and all(blob.name in linked for blob in self.blobs())

    def remove_snapshot(self) -> None:
        """Remove the snapshot and its listing. The blobs follow a day later. Raises OSError."""
        away = Root(self.root).old_name(self.record.name.partition("-")[0], self.snapshot.name)
        make_directories(self.root, away.parent)
        rename(self.root, self.snapshot, self.root, away)
        remove_tree(self.root, away)
        remove(self.root, self.repository / "trees" / f"{self.snapshot.name}.json")
        os.utime(self.record)

    def remove_blob(self, blob: Path) -> bool:
        """Remove a blob under the Hub's lock; False if it is locked, or linked again. Raises OSError."""
        with _hub_lock(self.root, self.repository, blob.name) as locked:
            if not locked or blob.name in _linked(self.repository):
                return False
            away = Root(self.root).old_name("blob", blob.name)
            make_directories(self.root, away.parent)
            rename(self.root, blob, self.root, away)
            if blob.name in _linked(self.repository):  # linked just now, by somebody who found it there
                rename(self.root, away, self.root, blob)
                return False
            remove(self.root, away)
        return True

    def forget(self) -> None:
        """Remove the record: nothing of this version is left, or it is wanted again. Raises OSError."""
        remove(self.root, self.record)


def refs_of(version: Superseded) -> Iterator[str]:
    """Yield the names of the refs that name `version`."""
    refs = version.repository / "refs"
    for path in _files(refs):
        if _content(version.root, path) == version.snapshot.name:
            yield path.relative_to(refs).as_posix()


def record_of(root: Path, key: str, manifest: Manifest) -> Path:
    """Return the path of a new record: that a newer version replaced `manifest` of the artifact `key`."""
    return Root(root).superseded / f"{Root(root).old_name(key, manifest.revision).name}.json"


def superseded(root: Path) -> Iterator[Superseded]:
    """Yield the former versions of a Hub cache, oldest first."""
    directory = Root(root).superseded
    with suppress(FileNotFoundError, NotADirectoryError):
        for name in sorted(first_names(directory, limit=_MOST)):
            with suppress(OSError):
                manifest, status = Manifest.read(directory / name), os.lstat(directory / name)
                if manifest is not None and is_a_snapshot(manifest.snapshot):
                    yield Superseded(root, directory / name, manifest, status.st_mtime)


def is_a_snapshot(path: str | None) -> bool:
    """Whether `path` is `models--org--name/snapshots/<commit>`: other users may write records too."""
    parts = PurePosixPath(path or "").parts
    return len(parts) == 3 and parts[1] == "snapshots" and ".." not in parts and not PurePosixPath(path or "").is_absolute()


def _linked(repository: Path) -> set[str]:
    """Return the names of all blobs that a snapshot links."""
    names = set()
    for above, directories, files in os.walk(repository / "snapshots"):
        for name in (*directories, *files):
            with suppress(OSError):
                names.add(PurePosixPath(os.readlink(os.path.join(above, name))).name)
    return names


def _files(directory: Path) -> Iterator[Path]:
    for above, _, names in os.walk(directory):
        yield from (Path(above) / name for name in names)


def _content(root: Path, path: Path) -> str:
    with suppress(OSError):
        return read_beneath(root, path, limit=4096).decode(errors="replace").strip()
    return ""


@contextmanager
def _hub_lock(root: Path, repository: Path, blob: str) -> Iterator[bool]:
    """Hold the lock that huggingface_hub takes for a blob, `.locks/<repository>/<etag>.lock`. Yield False if it is taken."""
    path = root / ".locks" / repository.name / f"{blob}.lock"
    make_directories(root, path.parent)
    descriptor = open_beneath(root, path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)
