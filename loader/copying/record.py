"""The record of a copy, `<copy>/.fetcher/copy.json`: which files it was made of.

It says that a directory is a copy, which may be replaced. Where no manifest vouches for the content, it also says which files
of a former copy are still those of the source.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fetcher.errors import FetchError
from fetcher.records import check_format
from fetcher.version import VERSION
from loader.checkpoint.files import FileIdentity, open_file, read_bytes
from loader.copying.artifacts import Item

RECORD = Path(".fetcher") / "copy.json"
FORMAT_VERSION = 1

_LARGEST = 64 * 1024 * 1024
"""Bytes that are read. A file takes about 150 of them, so this is a copy of 400,000 files."""


@dataclass(frozen=True, slots=True)
class CopyRecord:
    """`files`: what each path was copied from."""

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
        """The record of the copy in this directory; None when there is none, or it is damaged.

        Raises NewerFormat when a later version wrote it.
        """
        path = str(copy / RECORD)
        try:
            document = json.loads(_content(path).decode("utf-8", "surrogateescape"))
            check_format(document, newest=FORMAT_VERSION, what=path)
            return cls({str(entry["path"]): _identity(entry) for entry in document["files"]})
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
            return None


def _content(path: str) -> bytes:
    """Raises ValueError when it cannot be read: then nothing is known."""
    try:
        descriptor = open_file(path)
    except FetchError as error:
        raise ValueError(f"{path} cannot be read") from error
    try:
        size = os.fstat(descriptor).st_size
        if size > _LARGEST:
            raise ValueError(f"{path} is no record of a copy")
        return read_bytes(descriptor, size, 0, path=path)
    except FetchError as error:
        raise ValueError(f"{path} cannot be read") from error
    finally:
        os.close(descriptor)


def _identity(entry: Mapping[str, Any]) -> FileIdentity:
    return FileIdentity(*(int(entry[name]) for name in ("device", "inode", "size", "mtime_ns")))
