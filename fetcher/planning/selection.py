"""`--include` and `--exclude`, read as `hf download` reads them: shell patterns on the whole relative path, in which `*`
also crosses `/`; a pattern that ends in `/` means everything below."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from fetcher.artifact import RemoteFile
from fetcher.errors import NotFound

_COMPARED = 1000
"""Paths that a misspelt pattern is compared with: 10 ms of `difflib`."""


def select(files: Iterable[RemoteFile], *, include: tuple[str, ...], exclude: tuple[str, ...]) -> tuple[RemoteFile, ...]:
    """The files that match some include (all do when there is none) and no exclude.

    Raises NotFound when nothing is left: an empty artifact is never what was meant.
    """
    files = tuple(files)
    chosen = tuple(file for file in files if (not include or _matches(file.path, include)) and not _matches(file.path, exclude))
    if not files:
        raise NotFound("there are no files at this revision; check the revision")
    if not chosen:
        hints = "; ".join(unmatched([file.path for file in files], include=include, exclude=exclude))
        why = hints or "--include and --exclude together leave nothing"
        raise NotFound(f"the selection matches none of its {len(files)} files: {why}; `fetcher plan` without them lists all")
    return chosen


def unmatched(paths: Sequence[str], *, include: tuple[str, ...], exclude: tuple[str, ...]) -> tuple[str, ...]:
    """A sentence for each pattern that matches none of `paths`, with the nearest one that would."""
    given = [("--include", pattern) for pattern in include] + [("--exclude", pattern) for pattern in exclude]
    return tuple(
        f"{flag} {pattern!r} matches nothing{_hint(pattern, paths)}"
        for flag, pattern in given
        if not any(_matches(path, (pattern,)) for path in paths)
    )


def _hint(pattern: str, paths: Sequence[str]) -> str:
    """Patterns are compared with the whole relative path, so `./a` and `/a` match nothing, and so does a misspelt ending."""
    endings = {f"*{PurePosixPath(path).suffix}" for path in paths if PurePosixPath(path).suffix}
    folded = {candidate.casefold(): candidate for candidate in (*sorted(endings), *paths[:_COMPARED])}
    wanted = pattern.casefold().removeprefix("./").lstrip("/")
    near = [folded[wanted]] if wanted in folded else [folded[each] for each in get_close_matches(wanted, folded, n=1)]
    return f" (did you mean {near[0]!r}?)" if near else ""


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path, pattern + "*" if pattern.endswith("/") else pattern) for pattern in patterns)
