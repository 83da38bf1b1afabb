"""The summary of a manifest: all that a list, an eviction or the search for equal files needs, without the digests of chunks.

::

    <artifact>/.fetcher/summary.json        beside manifest.json
    .fetcher/manifests/<key>.summary.json   beside <key>.json

The manifest stays the truth. A summary names the size, time and inode of the manifest that it was made from, and counts as
missing if they differ, if it is damaged, or if a later version wrote it. Then it is made again.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from fetcher.artifact import RemoteFile
from fetcher.errors import NewerFormat
from fetcher.filesystem import file_mode
from fetcher.manifest import FORMAT_VERSION, RELATIVE_PATH, Manifest
from fetcher.records import check_format
from fetcher.store.beneath import read_beneath, replace_file
from fetcher.values import dataclass

SUMMARY_PATH = RELATIVE_PATH.with_name("summary.json")
LARGEST = 64 * 1024 * 1024
"""Bytes of the largest summary that is read. A file takes some 150, so this is an artifact of 400,000 files."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The summary of one manifest. `size` and `shared` are in bytes; `shared` was cloned or linked from other artifacts."""

    fingerprint: str
    uri: str
    requested_revision: str | None
    revision: str | None
    snapshot: str | None
    size: int
    shared: int
    files: int
    verified: bool
    verified_by: Mapping[str, int]
    """The number of files by what each was compared with."""
    authenticated: bool
    unconfirmed: bool
    created: str
    version: str
    manifest: Mapping[str, int]
    """The size, modification time and inode of the manifest."""
    digests: Mapping[str, Any]
    """The path of the file that has each digest, written `sha256:HEX`."""

    @classmethod
    def of(cls, manifest: Manifest, status: os.stat_result) -> Summary:
        """Return the summary of `manifest`, whose file has `status`."""
        return cls(
            fingerprint=manifest.fingerprint,
            uri=manifest.uri,
            requested_revision=manifest.requested_revision,
            revision=manifest.revision,
            snapshot=manifest.snapshot,
            size=manifest.size,
            shared=sum(file.size for file in manifest.files if file.shared in ("clone", "link")),
            files=len(manifest.files),
            verified=manifest.verified,
            verified_by=manifest.verified_by,
            authenticated=manifest.authenticated,
            unconfirmed=manifest.unconfirmed,
            created=manifest.created,
            version=manifest.version,
            manifest=_mark(status),
            digests={str(digest): file.path for file in manifest.files for digest in file.digests},
        )

    def paths(self, file: RemoteFile) -> set[str]:
        """Return the paths of files that have a digest of `file`."""
        found = (self.digests.get(str(digest)) for digest in file.digests)
        return {path for path in found if isinstance(path, str)}

    def to_bytes(self) -> bytes:
        # The format is the manifest's: a version that cannot read the one must not believe the other.
        document = {"format_version": FORMAT_VERSION, **{name: getattr(self, name) for name in _KINDS}}
        return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogateescape")

    @classmethod
    def from_bytes(cls, data: bytes) -> Summary:
        """Parse a summary. Raises ValueError if it is malformed, NewerFormat if it is of a later version."""
        try:
            document = json.loads(data.decode("utf-8", "surrogateescape"))
            check_format(document, newest=FORMAT_VERSION, what="the summary")
            return cls(**{name: _checked(document[name], kinds) for name, kinds in _KINDS.items()})
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"malformed summary: {error!r}") from error


_TYPES: Mapping[str, tuple[type, ...]] = {
    "str": (str,), "str | None": (str, type(None)), "int": (int,), "bool": (bool,),
    "Mapping[str, int]": (dict,), "Mapping[str, Any]": (dict,),
}  # fmt: skip
_KINDS = {each.name: _TYPES[str(each.type)] for each in fields(Summary)}


def summary_path(manifest: Path) -> Path:
    """Return the path of the summary that belongs to the manifest at path `manifest`."""
    if manifest.name == RELATIVE_PATH.name:
        return manifest.with_name(SUMMARY_PATH.name)
    return manifest.with_suffix(".summary.json")


def summarized(base: Path, manifest: Path) -> Summary | None:
    """Return the summary of the manifest at path `manifest`; None if there is none, or if it is damaged. Raises NewerFormat.

    A summary that does not match the manifest is made again. It is written below `base`, unless that cannot be written.
    """
    path = summary_path(manifest)
    try:
        status = os.lstat(manifest)
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return None
    keep = stat.S_ISREG(status.st_mode)
    try:
        summary = Summary.from_bytes(read_beneath(base, path, limit=LARGEST))
        if keep and summary.manifest == _mark(status):
            return summary
    except NewerFormat:
        keep = False
    except (OSError, ValueError):
        pass
    # The status is older than the content: if the manifest is replaced in between, the summary does not match it.
    if (present := Manifest.read(manifest)) is None:
        return None
    summary = Summary.of(present, status)
    if keep:
        with suppress(OSError):
            replace_file(base, path, summary.to_bytes(), mode=file_mode(path.parent))
    return summary


def _mark(status: os.stat_result) -> dict[str, int]:
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "inode": status.st_ino}


def _checked(value: Any, kinds: tuple[type, ...]) -> Any:
    if not isinstance(value, kinds):
        raise ValueError(f"{value!r} is not {kinds[0].__name__}")
    return value
