"""Finds existing files at a destination whose names are another spelling of the names to be placed.

A filesystem that folds case or normalizes Unicode opens `readme.md` for `README.md`. Placing one would replace a foreign file
and keep its name. No system call tells the stored spelling, so each directory is read once.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

from fetcher.errors import CannotWrite
from fetcher.planning.paths import folded, shown
from fetcher.store.beneath import open_beneath


def spelled_otherwise(base: Path, directory: Path, paths: Iterable[str]) -> dict[str, str]:
    """Map each of `paths`, and of their parent directories, to the existing entry that has another spelling of its name.

    Paths without such an entry are left out. Raises OSError, also if a link replaces a directory.
    """
    names: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        rest = path
        while rest:
            rest, _, name = rest.rpartition("/")
            names[rest or "."].add(name)
    spellings: dict[str, str] = {}
    for parent, wanted in sorted(names.items(), key=lambda item: len(PurePosixPath(item[0]).parts)):
        for name, other in _of_one_directory(base, directory / parent, wanted).items():
            spellings[str(PurePosixPath(parent, name))] = str(PurePosixPath(parent, other))
    return spellings


def same_entries(directory: Path, former: Collection[str], listed: Iterable[str]) -> dict[str, str]:
    """Map `listed` paths to the `former` paths that are the same entry below `directory`."""
    if not former:
        return {}
    by_spelling = {folded(path): path for path in former}
    pairs = ((path, by_spelling[folded(path)]) for path in listed if folded(path) in by_spelling)
    return {path: other for path, other in pairs if _is_one(directory / path, directory / other)}


def in_the_way(former: Collection[str], listed: Collection[str]) -> set[str]:
    """The `former` paths that are files where `listed` needs a directory, or lie in a directory where `listed` has a file."""
    if not former:
        return set()
    files = {folded(path) for path in listed}
    directories = {folded(str(above)) for path in listed for above in PurePosixPath(path).parents}
    return {
        path
        for path in former
        if folded(path) in directories or not files.isdisjoint(folded(str(above)) for above in PurePosixPath(path).parents)
    }


def refuse_somebody_elses(found: dict[str, str], directory: Path, *, placed: Collection[str], former: Collection[str]) -> None:
    """Raise CannotWrite for an entry of another spelling that is not ours. `found` is the result of `spelled_otherwise`.

    `placed` are the paths that we placed under this spelling, if the filesystem stores another one. `former` are the paths
    that we placed under the other spelling, and may replace.
    """
    our_paths, our_spellings = _with_parents(placed), _with_parents(former)
    for path, other in found.items():
        if path not in our_paths and other not in our_spellings:
            raise CannotWrite(
                f"{directory} holds {shown(other)}, which does not belong to this artifact. On this filesystem {shown(path)} "
                f"is the same name; nothing was replaced. Move {shown(other)} away, leave the file out with --exclude, or "
                "choose another directory",
                path=path,
            )


def _of_one_directory(base: Path, directory: Path, names: set[str]) -> dict[str, str]:
    try:
        descriptor = open_beneath(base, directory, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    try:
        with os.scandir(descriptor) as entries:
            missing = names.difference(entry.name for entry in entries)
        statuses = {name: status for name in sorted(missing) if (status := _status(name, descriptor))}
        return {name: _spelling(name, status, descriptor) for name, status in statuses.items()}
    finally:
        os.close(descriptor)


def _spelling(name: str, status: os.stat_result, descriptor: int) -> str:
    """The stored spelling of the entry that `name` opens; `name` itself if no entry matches."""
    with os.scandir(descriptor) as entries:
        alike = (entry.name for entry in entries if folded(entry.name) == folded(name))
        return next((each for each in alike if _same(_status(each, descriptor), status)), name)


def _status(name: str, descriptor: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    except OSError:
        return None  # no such entry, or a name that is not allowed: creating the file reports that


def _same(one: os.stat_result | None, other: os.stat_result) -> bool:
    return one is not None and os.path.samestat(one, other)


def _is_one(path: Path, other: Path) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.lstat(other))
    except OSError:
        return False


def _with_parents(paths: Iterable[str]) -> set[str]:
    return {str(each) for path in paths for each in (PurePosixPath(path), *PurePosixPath(path).parents)}
