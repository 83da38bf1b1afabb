"""The record of a copy, `<copy>/.fetcher/copy.json`: the source file of each file.

The record marks a directory as a copy, which the next copy is allowed to replace. If there is no manifest, it also shows which
files of an earlier copy are unchanged in the source.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fetcher.errors import FetchError
from fetcher.records import check_format
from fetcher.values import dataclass
from fetcher.version import VERSION
from loader.checkpoint.files import FileIdentity, open_file, read_bytes
from loader.copying.artifacts import Item

RECORD = Path(".fetcher") / "copy.json"
FORMAT_VERSION = 1

_LARGEST = 64 * 1024 * 1024
"""Bytes of a record. A file takes about 150 bytes, so this is enough for 400,000 files."""


@dataclass(frozen=True, slots=True)
class CopyRecord:
    """The record; `files` maps each path to the source file that it was copied from."""

    files: Mapping[str, FileIdentity]

    @classmethod
    def of(cls, items: Iterable[Item]) -> CopyRecord:
        return cls({item.path: item.identity for item in items})

    def to_bytes(self) -> bytes:
        files = [{"path": path, **asdict(identity)} for path, identity in self.files.items()]
        document = {"format_version": FORMAT_VERSION, "version": VERSION, "files": files}
        return json.dumps(document, indent=1, ensure_ascii=False).encode("utf-8", "surrogateescape")

    @classmethod
    def read(cls, copy: Path) -> CopyRecord | None:
        """Read the record of the copy in a directory; None if it is missing or damaged.

        Raises NewerFormat if a later version wrote it.
        """
        path = str(copy / RECORD)
        try:
            document = json.loads(_content(path).decode("utf-8", "surrogateescape"))
            check_format(document, newest=FORMAT_VERSION, what=path)
            return cls({str(entry["path"]): _identity(entry) for entry in document["files"]})
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
            return None


def _content(path: str) -> bytes:
    """Return the bytes of the record. Raises ValueError if it cannot be read."""
    try:
        descriptor = open_file(path)
    except FetchError as error:
        raise ValueError(f"{path} cannot be read") from error
    try:
        size = os.fstat(descriptor).st_size
        if size > _LARGEST:
            raise ValueError(f"{path} is not the record of a copy")
        return read_bytes(descriptor, size, 0, path=path)
    except FetchError as error:
        raise ValueError(f"{path} cannot be read") from error
    finally:
        os.close(descriptor)


def _identity(entry: Mapping[str, Any]) -> FileIdentity:
    return FileIdentity(*(int(entry[name]) for name in ("device", "inode", "size", "mtime_ns")))
