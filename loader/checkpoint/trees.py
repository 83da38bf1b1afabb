"""The directories of a tree: a Hub cache, a pipeline's components, one subdirectory for each quantization. Bounded."""

from __future__ import annotations

import os
from collections.abc import Iterator

from fetcher.errors import UsageError
from loader.errors import from_os_error, shown

_DEEPEST = 8
_MOST = 10_000
"""Directories. A Hub cache with hundreds of models has a few thousand."""

_REPOSITORY = ("models--", "datasets--", "spaces--")
_SNAPSHOTS = "snapshots"
_LONGEST_REF = 1024


def snapshot_of(directory: str) -> str:
    """The one snapshot to read where `directory` is a repository of a Hub cache; else `directory` itself.

    Raises UsageError where several snapshots are there and no `refs/main` chooses, and what listing raises.
    """
    if not _is_repository(directory):
        return directory
    found = _snapshots(directory)
    if len(found) > 1 and (main := _ref(directory, "main")) in found:
        return os.path.join(directory, _SNAPSHOTS, main)
    if len(found) == 1:
        return os.path.join(directory, _SNAPSHOTS, found[0])
    if found:
        listed = ", ".join(map(shown, found[:8]))
        raise UsageError(f"{directory} has {len(found)} snapshots; name one: {listed}")
    return directory


def below(root: str) -> Iterator[str]:
    """The directories below `root`, breadth first, each once.

    Hidden ones (`.fetcher`, `.cache`, staging) are skipped. Of a repository of a Hub cache these are the snapshots that its
    refs name, or all of them where none is named. A link to a directory is followed where it stays within `root`.

    Raises UsageError for a tree that is too large, NotReadable, LocalIOError.
    """
    real = os.path.realpath(root)
    seen, level = {real}, [root]
    for _ in range(_DEEPEST):
        following = []
        for directory in level:
            for place in _children(directory):
                target = os.path.realpath(place)
                if target not in seen and _within(target, real):
                    seen.add(target)
                    following.append(place)
                if len(seen) > _MOST:
                    raise UsageError(f"{root} has more than {_MOST} directories; name one further in")
        yield from following
        level = following
    if any(_children(directory) for directory in level):
        raise UsageError(f"{root} has directories more than {_DEEPEST} levels deep; name one further in")


def _children(directory: str) -> list[str]:
    if _is_repository(directory):
        return [os.path.join(directory, _SNAPSHOTS, name) for name in _current(directory)]
    return [os.path.join(directory, name) for name in _directories(directory)]


def _is_repository(directory: str) -> bool:
    """By its name or its parts; a Hub cache may be mounted under any name."""
    named = os.path.basename(os.path.abspath(directory)).startswith(_REPOSITORY)
    snapshots = os.path.isdir(os.path.join(directory, _SNAPSHOTS))
    return snapshots and (named or os.path.isdir(os.path.join(directory, "blobs")))


def _current(repository: str) -> list[str]:
    found = _snapshots(repository)
    refs = os.path.join(repository, "refs")
    named = {_ref(repository, name) for name in _files_below(refs)}
    return [name for name in found if name in named] or found


def _snapshots(repository: str) -> list[str]:
    return _directories(os.path.join(repository, _SNAPSHOTS))


def _ref(repository: str, name: str) -> str:
    """The revision that it names; nothing where it can't be read, as the snapshots themselves are there."""
    try:
        with open(os.path.join(repository, "refs", name), encoding="utf-8") as file:
            return file.read(_LONGEST_REF).strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _files_below(refs: str) -> Iterator[str]:
    """`main`, and `pr/1`."""
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
