"""Paths under a cache root.

::

    <root>/<cache-key>/                         one artifact, complete
    <root>/.fetcher/staging/<cache-key>/        the lease
    <root>/.fetcher/old/<key>-<revision>.<time> replaced directories, kept for a grace period
    <root>/.fetcher/ready/<the same name>       sealed, about to be swapped in (only without atomic exchange). The name records
                                                a swap that has begun, and where the replaced directory goes
    <root>/.fetcher/usage/<cache-key>           last use; beside it the pins and holds (`claims`)
    <root>/.fetcher/root.json                   the limits of the root (`limits`)
    <root>/.fetcher/node                        the identity of the root, if a server has passed it on (`identity`)
    <root>/.fetcher/ballast/                    space that a full filesystem gives up, so that eviction can begin (`ballast`)
    <root>/.fetcher/manifests/<cache-key>.json  manifests of the hf-cache layout, and of artifacts that share one directory,
                                                each with its <cache-key>.summary.json
    <root>/.fetcher/superseded/                 manifests of replaced versions in the hf-cache layout (`superseded`)
    <root>/.fetcher/archive/<cache-key>/        the archives of a packed artifact and their files, under its lease (`archives`)
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from fetcher.filesystem import file_mode, try_chmod
from fetcher.store.beneath import Fence, make_directories, open_beneath
from fetcher.usage import renew
from fetcher.values import dataclass

PRIVATE = ".fetcher"
_STAGING, _ARCHIVE = (PRIVATE, "staging"), (PRIVATE, "archive")
_HOLDING = ("staging", "archive")
_RECENT = 256
"""Directories remembered with their root and fence, which depend on nothing but their names: for each of thousands of small
files, to take its path apart cost more than to create it."""


@dataclass(frozen=True, slots=True)
class Root:
    """A cache root, or an artifact directory with its own staging."""

    path: Path

    @property
    def staging(self) -> Path:
        return self.path / PRIVATE / "staging"

    @property
    def old(self) -> Path:
        return self.path / PRIVATE / "old"

    @property
    def ready(self) -> Path:
        return self.path / PRIVATE / "ready"

    @property
    def usage(self) -> Path:
        return self.path / PRIVATE / "usage"

    @property
    def superseded(self) -> Path:
        return self.path / PRIVATE / "superseded"

    @property
    def ballast(self) -> Path:
        return self.path / PRIVATE / "ballast"

    @property
    def archive(self) -> Path:
        return self.path / PRIVATE / "archive"

    @property
    def manifests(self) -> Path:
        return self.path / PRIVATE / "manifests"

    def keyed_manifests(self) -> list[Path]:
        """The paths in `manifests`, without the summaries and the records of previous files that lie beside them."""
        return sorted(path for path in self.manifests.glob("*.json") if "." not in path.stem)

    def old_name(self, key: str, revision: str | None) -> Path:
        """The path in `old` for a replaced version of `key`, unique to the nanosecond."""
        label = "".join(character for character in (revision or "unknown")[:40] if character.isalnum()) or "unknown"
        return self.old / f"{key}-{label}.{time.time_ns()}"

    def touch_usage(self, key: str) -> bool:
        """Record that `key` is used now. Return False if that is not possible: a hit works on a read-only root too."""
        if renew(self.path, key):
            return True
        with suppress(OSError):
            make_directories(self.path, self.usage)
            descriptor = open_beneath(self.path, self.usage / key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                try_chmod(descriptor, file_mode(self.usage))
            finally:
                os.close(descriptor)
            return True
        return False


def fence_of(staged: Path) -> Fence:
    """The fence of the lease whose data directory holds `staged`. Outside a root's staging, the fence of its own directory."""
    return _fence_in(os.path.dirname(staged))


def base_of(path: Path) -> Path:
    """The directory below which no link in `path` is followed: the root whose staging or archive holds `path`.

    For any other path it is the parent directory.
    """
    return _root_around(path) or path.parent


def base_of_destination(directory: Path) -> Path:
    """The directory below which no link is followed when an artifact is placed in `directory`.

    It is `directory` itself, or the root whose staging or archive holds it.
    """
    return _root_around(directory) or directory


def _root_around(path: Path) -> Path | None:
    """The outermost root whose staging or archive holds `path`; None if there is none."""
    if path.name in _HOLDING:
        return _root_in(os.fspath(path))
    return _root_in(os.path.dirname(path))


@lru_cache(_RECENT)
def _fence_in(directory: str) -> Fence:
    base, parts = base_of(Path(directory, "file")), Path(directory).parts
    # Search from the end: the root may lie in the private directory of another root.
    for index in reversed(range(len(parts) - 3)):
        if parts[index : index + 2] == _STAGING:
            return Fence(base, Path(*parts[: index + 4]))  # .fetcher/staging/<key>/data.<owner>
    return Fence(base.parent, base)


@lru_cache(_RECENT)
def _root_in(directory: str) -> Path | None:
    """The outermost root whose staging or archive is or holds `directory`; None if there is none."""
    parts = Path(directory).parts
    for index in range(len(parts) - 1):
        if parts[index : index + 2] in (_STAGING, _ARCHIVE):
            return Path(*parts[:index])
    return None
