"""Which paths of a selection are refused before anything is fetched, and which names a filesystem must tell apart.

A listing comes from outside. Nothing that is selected of it may name a place outside the artifact's directory or a place that
this store uses itself. Two names that differ only in case or in Unicode form are legal: whether they are two files is for the
destination's filesystem to say (`store.names`), and `look_alikes` says what to ask it.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable

from fetcher.artifact import RemoteFile
from fetcher.errors import DigestMismatch, HostilePath

RESERVED = ".fetcher"
_MAX_COMPONENT = 255
"""Bytes: NAME_MAX of ext4, xfs, btrfs, tmpfs and NFS."""
_MAX_PATH = 2048
"""Bytes: leaves room for the root within Linux's PATH_MAX of 4,096."""


def each_once(files: Iterable[RemoteFile]) -> tuple[RemoteFile, ...]:
    """`files` with each path once. Raises DigestMismatch when one path is listed with two contents."""
    found: dict[str, RemoteFile] = {}
    for file in files:
        other = found.setdefault(file.path, file)
        if (other.size, other.identity) != (file.size, file.identity):
            raise DigestMismatch(
                f"the listing holds {shown(file.path)} twice, with different contents; nothing was fetched. Its publisher must "
                "repair it, or leave the file out with --exclude",
                path=file.path,
            )
    return tuple(found.values())


def refuse_hostile_paths(paths: Iterable[str]) -> None:
    """Raises HostilePath for a path that is no plain relative one, and for a file where another path needs a directory."""
    listed = dict.fromkeys(paths)
    for path in listed:
        if problem := _problem(path):
            raise HostilePath(f"the listing holds {shown(path)}, {problem}; nothing was fetched")
    for path in listed:
        for parent in _parents(path):
            if parent in listed:
                raise HostilePath(
                    f"the listing holds the file {shown(parent)} where {shown(path)} needs a directory; nothing was fetched"
                )


def look_alikes(paths: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Groups of names of one directory that some filesystem takes for one. They differ only in case, in Unicode form, in
    characters that show nothing, or in dots and spaces at their end."""
    groups: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for path in paths:
        for entry in (path, *_parents(path)):
            directory, _, name = entry.rpartition("/")
            groups[directory, _folded(name)].setdefault(name)
    return tuple(tuple(names) for names in groups.values() if len(names) > 1)


def folded(path: str) -> str:
    """Equal for two paths that some filesystem may take for one."""
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
        return "a path with a backslash, which some programs read as a separator of directories"
    if any(unicodedata.category(character) == "Cc" for character in path):
        return "a path with control characters"
    if any(not part.strip(". ") for part in parts):
        return "a path that leaves its directory"  # also `.. `, which is `..` where spaces at the end do not count
    if any(_folded(part) == RESERVED for part in parts):
        return f"a path under the reserved name {RESERVED}"
    if len(encoded) > _MAX_PATH or any(len(part.encode()) > _MAX_COMPONENT for part in parts):
        return "a path too long for a filesystem"
    return None


def _folded(name: str) -> str:
    """Equal for names that vfat, CIFS (no dots and spaces at the end) or ext4 with casefold (no characters of format) take for
    one."""
    plain = unicodedata.normalize("NFC", unicodedata.normalize("NFKD", name).casefold())
    return "".join(each for each in plain if unicodedata.category(each) != "Cf").rstrip(". ")


def shown(path: str) -> str:
    """`path` in plain letters, fit for a message."""
    return ascii(path if len(path) <= 120 else path[:117] + "...")
