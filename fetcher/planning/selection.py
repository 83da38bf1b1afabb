"""`--include` and `--exclude`, read as `hf download` reads them: shell patterns on the whole relative path, in which `*`
also crosses `/`; a pattern that ends in `/` means everything below."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from fetcher.artifact import RemoteFile
from fetcher.errors import NotFound


def select(files: Iterable[RemoteFile], *, include: tuple[str, ...], exclude: tuple[str, ...]) -> tuple[RemoteFile, ...]:
    """The files that match some include (all do when there is none) and no exclude.

    Raises NotFound when nothing is left: an empty artifact is never what was meant.
    """
    files = tuple(files)
    chosen = tuple(file for file in files if (not include or _matches(file.path, include)) and not _matches(file.path, exclude))
    if not chosen:
        what = "the selection matches none of its" if files else "there are no"
        raise NotFound(f"{what} {len(files) or ''} files; look at `fetcher plan` without --include and --exclude")
    return chosen


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path, pattern + "*" if pattern.endswith("/") else pattern) for pattern in patterns)
