"""`--include` and `--exclude`, with the meaning they have in `hf download`: shell patterns on the whole relative path. `*` also
matches `/`, and a pattern that ends in `/` means everything below."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from fetcher.artifact import RemoteFile
from fetcher.errors import NotFound
from fetcher.planning.paths import shown

_NAMED = 10
"""Patterns named in messages: a list of a thousand helps no one."""
_COMPARED = 1000
"""Paths compared letter by letter, which takes 0.1 s."""


def select(files: Iterable[RemoteFile], *, include: tuple[str, ...], exclude: tuple[str, ...]) -> tuple[RemoteFile, ...]:
    """Return the files that match an include pattern (or all, without one) and no exclude pattern.

    Raises NotFound if no file is selected: nobody wants an empty artifact.
    """
    files = tuple(files)
    chosen = tuple(file for file in files if selects(file.path, include=include, exclude=exclude))
    if not files:
        raise NotFound("the source lists no files; check its address")
    if not chosen:
        why = "".join(f"; {each}" for each in unmatched_patterns(files, include=include, exclude=()))
        raise NotFound(
            f"the selection matches none of the {len(files)} files{why}; run `fetcher plan` without --include and --exclude"
        )
    return chosen


def selects(path: str, *, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    """Return whether the patterns select `path`."""
    return (not include or _matches(path, include)) and not _matches(path, exclude)


def unmatched_patterns(files: Iterable[RemoteFile], *, include: tuple[str, ...], exclude: tuple[str, ...]) -> tuple[str, ...]:
    """Return a sentence for each of the first patterns that match no file, with a suggestion."""
    paths = [file.path for file in files]
    patterns = [("--include", pattern) for pattern in include] + [("--exclude", pattern) for pattern in exclude]
    vain = [(option, pattern) for option, pattern in patterns if not any(_matches(path, (pattern,)) for path in paths)]
    return tuple(f"{option} {shown(pattern)} matches no file{_hint(pattern, paths)}" for option, pattern in vain[:_NAMED])


def _hint(pattern: str, paths: list[str]) -> str:
    plain = pattern.removeprefix("./").lstrip("/")
    folder = plain.rstrip("/") + "/"
    for meant, why in (
        (plain, "paths begin without ./ and /"),
        (folder, "that is a directory"),
        (f"*/{plain}", "a pattern is compared with the whole path"),
    ):
        if any(_matches(path, (meant,)) for path in paths):
            return f": {why}, write {shown(meant)}"
    if other := next((path for path in paths if _matches(path.casefold(), (plain.casefold(),))), None):
        return f": patterns are case-sensitive, there is {shown(other)}"
    from difflib import get_close_matches  # for a hint only

    alike = get_close_matches(plain, paths[:_COMPARED], n=1)
    return f": there is {shown(alike[0])}" if alike else ""


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path, pattern + "*" if pattern.endswith("/") else pattern) for pattern in patterns)
