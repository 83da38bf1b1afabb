"""Refuses hostile paths before anything is fetched, and finds names that some filesystems take for one.

A listing comes from outside. A selected path must not leave the artifact's directory, nor name a path that the store uses
itself. Two names that differ only in case or in Unicode form are legal. Whether they are two files depends on the destination's
filesystem (`store.names`); `look_alikes` finds the names to ask about.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

from fetcher.artifact import RemoteFile
from fetcher.errors import DigestMismatch, HostilePath

RESERVED = ".fetcher"
_CONTROL = r"[\x00-\x1f\x7f-\x9f]"
"""All characters of Unicode's category Cc."""
_MAX_COMPONENT = 255
"""Bytes: NAME_MAX of ext4, xfs, btrfs, tmpfs and NFS."""
_MAX_PATH = 2048
"""Bytes: leaves space for the root within Linux's PATH_MAX of 4,096."""


def without_duplicates(files: Iterable[RemoteFile]) -> tuple[RemoteFile, ...]:
    """Return `files` with each path once. Raises DigestMismatch if a path is listed with two contents."""
    by_path: dict[str, RemoteFile] = {}
    for file in files:
        other = by_path.setdefault(file.path, file)
        if (other.size, other.identity) != (file.size, file.identity):
            raise DigestMismatch(
                f"the listing contains {shown(file.path)} twice, with different contents; nothing was fetched. Ask the "
                "publisher to fix it, or leave the file out with --exclude",
                path=file.path,
            )
    return tuple(by_path.values())


def refuse_hostile_paths(paths: Iterable[str]) -> None:
    """Raise HostilePath for a path that is not plain and relative, and for a file where another path needs a directory."""
    listed = dict.fromkeys(paths)
    for path in listed:
        if problem := _problem(path):
            raise HostilePath(
                f"the listing contains {shown(path)}, {problem}; nothing was fetched. Leave it out with --exclude"
            )
    for path in listed:
        for parent in _parents(path):
            if parent in listed:
                raise HostilePath(
                    f"the listing contains the file {shown(parent)} where {shown(path)} needs a directory; nothing was "
                    "fetched. Leave one out with --exclude"
                )


def look_alikes(paths: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Return groups of names in one directory that some filesystem takes for one name. They differ only in case, in Unicode
    form, in invisible characters, or in dots and spaces at the end."""
    groups: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for path in paths:
        for entry in (path, *_parents(path)):
            directory, _, name = entry.rpartition("/")
            groups[directory, _folded(name)].setdefault(name)
    return tuple(tuple(names) for names in groups.values() if len(names) > 1)


def folded(path: str) -> str:
    """Return `path` in a form that is equal for two paths which some filesystem takes for one."""
    return "/".join(_folded(name) for name in path.split("/"))


def _parents(path: str) -> Iterable[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _problem(path: str) -> str | None:
    parts = path.split("/")
    try:
        encoded = path.encode("utf-8")
    except UnicodeEncodeError:
        return "which is not valid Unicode"
    if not path or path.startswith("/"):
        return "an absolute or empty path"
    if "\\" in path:
        return "a path with a backslash, which some programs read as a directory separator"
    if re.search(_CONTROL, path):
        return "a path with control characters"
    if any(not part.strip(". ") for part in parts):
        return "a path that leaves its directory"  # also `.. `: some filesystems ignore spaces at the end
    if any(_folded(part) == RESERVED for part in parts):
        return f"a path under the reserved name {RESERVED}"
    if len(encoded) > _MAX_PATH or any(len(part.encode()) > _MAX_COMPONENT for part in parts):
        return "a path too long for a filesystem"
    return None


def _folded(name: str) -> str:
    """Equal for names that vfat, CIFS (both ignore dots and spaces at the end) or ext4 with casefold (ignores format
    characters) take for one."""
    if name.isascii():
        return name.lower().rstrip(". ")
    plain = unicodedata.normalize("NFC", unicodedata.normalize("NFKD", name).casefold())
    return "".join(each for each in plain if unicodedata.category(each) != "Cf").rstrip(". ")


def shown(path: str) -> str:
    """Return `path` in ASCII and shortened, for a message."""
    return ascii(path if len(path) <= 120 else path[:117] + "...")
