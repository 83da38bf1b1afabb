"""Walk a tree of directories: a Hub cache, the components of a pipeline, a subdirectory for each quantization. Bounded."""

from __future__ import annotations

import os
from collections.abc import Iterator

from fetcher.errors import UsageError
from loader.errors import from_os_error, shown

_DEEPEST = 8
_MOST = 10_000
"""Directories of a tree. A Hub cache with hundreds of models has a few thousand."""

_REPOSITORY = ("models--", "datasets--", "spaces--")
_SNAPSHOTS = "snapshots"
_LONGEST_REF = 1024


def snapshot_of(directory: str) -> str:
    """Return the snapshot to read if `directory` is a repository of a Hub cache, else `directory` itself.

    Raises UsageError if there are several snapshots and no `refs/main`, and NotReadable, LocalIOError.
    """
    if not _is_repository(directory):
        return directory
    snapshots = _snapshots(directory)
    if len(snapshots) > 1 and (main := _ref(directory, "main")) in snapshots:
        return os.path.join(directory, _SNAPSHOTS, main)
    if len(snapshots) == 1:
        return os.path.join(directory, _SNAPSHOTS, snapshots[0])
    if snapshots:
        listed = ", ".join(map(shown, snapshots[:8]))
        raise UsageError(f"{directory} has {len(snapshots)} snapshots; name one: {listed}")
    return directory


def below(root: str) -> Iterator[str]:
    """Yield each directory below `root` once, breadth first.

    Hidden directories (`.fetcher`, `.cache`, staging) are skipped. A repository of a Hub cache yields the snapshots that its
    refs name, or all snapshots if there are no refs. Links to directories are followed if they stay within `root`.

    Raises UsageError for a tree that is too large, NotReadable, LocalIOError.
    """
    real = os.path.realpath(root)
    seen, level = {real}, [root]
    for _ in range(_DEEPEST):
        next_level = []
        for directory in level:
            for child in _children(directory):
                target = os.path.realpath(child)
                if target not in seen and _within(target, real):
                    seen.add(target)
                    next_level.append(child)
                if len(seen) > _MOST:
                    raise UsageError(f"{root} has more than {_MOST} directories; name a subdirectory")
        yield from next_level
        level = next_level
    if any(_children(directory) for directory in level):
        raise UsageError(f"{root} has directories more than {_DEEPEST} levels deep; name a subdirectory")


def _children(directory: str) -> list[str]:
    if _is_repository(directory):
        return [os.path.join(directory, _SNAPSHOTS, name) for name in _current(directory)]
    return [os.path.join(directory, name) for name in _directories(directory)]


def _is_repository(directory: str) -> bool:
    """Recognize a repository by its name or by its subdirectories: a Hub cache may be mounted under any name."""
    named = os.path.basename(os.path.abspath(directory)).startswith(_REPOSITORY)
    snapshots = os.path.isdir(os.path.join(directory, _SNAPSHOTS))
    return snapshots and (named or os.path.isdir(os.path.join(directory, "blobs")))


def _current(repository: str) -> list[str]:
    snapshots = _snapshots(repository)
    refs = os.path.join(repository, "refs")
    named = {_ref(repository, name) for name in _files_below(refs)}
    return [name for name in snapshots if name in named] or snapshots


def _snapshots(repository: str) -> list[str]:
    return _directories(os.path.join(repository, _SNAPSHOTS))


def _ref(repository: str, name: str) -> str:
    """Return the revision that the ref names, or "" if it cannot be read: refs only choose among snapshots."""
    try:
        with open(os.path.join(repository, "refs", name), encoding="utf-8") as file:
            return file.read(_LONGEST_REF).strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _files_below(refs: str) -> Iterator[str]:
    """Yield the names of refs, such as `main` and `pr/1`."""
    for directory, _, names in os.walk(refs):
        for name in names:
            yield os.path.relpath(os.path.join(directory, name), refs)


def _directories(directory: str) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    except OSError as error:
        raise from_os_error(error, doing="list the files", path=directory) from error


def _within(path: str, root: str) -> bool:
    return os.path.commonpath([path, root]) == root
