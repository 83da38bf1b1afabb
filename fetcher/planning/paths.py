"""Which paths of a listing are refused, before anything is fetched.

A listing comes from outside. Nothing in it may name a place outside the artifact's directory, a place this store uses
itself, or two files that some filesystem would take for one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from fetcher.errors import HostilePath

RESERVED = ".fetcher"
_MAX_COMPONENT = 255
"""Bytes: NAME_MAX of ext4, xfs, btrfs, tmpfs and NFS."""
_MAX_PATH = 2048
"""Bytes: leaves room for the root within Linux's PATH_MAX of 4,096."""


def refuse_hostile_paths(paths: Iterable[str]) -> None:
    """Raises HostilePath, naming the first path that is not a plain relative one or collides with another."""
    files: dict[str, str] = {}
    for path in paths:
        if problem := _problem(path):
            raise HostilePath(f"the listing holds {_shown(path)}, {problem}; nothing was fetched")
        folded = _folded(path)
        if (other := files.get(folded)) is not None:
            raise HostilePath(
                f"the listing holds {_shown(path)} and {_shown(other)}, which one filesystem may take for the same file; "
                "nothing was fetched"
            )
        files[folded] = path
    _refuse_files_as_directories(files)


def _refuse_files_as_directories(files: dict[str, str]) -> None:
    directories: dict[str, str] = {}
    for folded, path in files.items():
        parent, name = folded.rpartition("/")[0], path.rpartition("/")[0]
        while parent:
            if parent in files:
                raise HostilePath(
                    f"the listing holds the file {_shown(files[parent])} where {_shown(path)} needs a directory; "
                    "nothing was fetched"
                )
            if directories.setdefault(parent, name) != name:
                raise HostilePath(
                    f"the listing holds the directories {_shown(name)} and {_shown(directories[parent])}, which one "
                    "filesystem may take for the same; nothing was fetched"
                )
            parent, name = parent.rpartition("/")[0], name.rpartition("/")[0]


def _problem(path: str) -> str | None:
    parts = path.split("/")
    try:
        encoded = path.encode("utf-8")
    except UnicodeEncodeError:
        return "which is not valid Unicode"
    if not path or path.startswith("/"):
        return "an absolute or empty path"
    if "\\" in path or re.match(r"[A-Za-z]:", path):
        return "a path with a backslash or a drive letter"
    if any(unicodedata.category(character) == "Cc" for character in path):
        return "a path with control characters"
    if any(part in ("", ".", "..") for part in parts):
        return "a path that leaves its directory"
    if any(_folded(part) == RESERVED for part in parts):
        return f"a path under the reserved name {RESERVED}"
    if len(encoded) > _MAX_PATH or any(len(part.encode()) > _MAX_COMPONENT for part in parts):
        return "a path too long for a filesystem"
    return None


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKD", path).casefold())


def _shown(path: str) -> str:
    return ascii(path if len(path) <= 120 else path[:117] + "...")
