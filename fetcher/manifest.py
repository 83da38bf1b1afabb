"""The record of a complete artifact, `<artifact>/.fetcher/manifest.json`: written and synced last, so its presence is the
proof that everything it lists was verified.

It holds no credential: the URI is redacted, and `fingerprint` (SHA-256 of URI and selection as written) stands for the
original when a request is compared. Readers outside `fetcher` (the loader) use `Manifest.read` and the XXH3 chunks.
`docs/manifest.schema.json` describes the file for everybody else.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from fetcher.artifact import CHUNK_SIZE, ArtifactRef, Digest, RemoteFile, redact
from fetcher.errors import UsageError
from fetcher.quantities import ceil_div
from fetcher.records import check_format, unknown_fields

FORMAT_VERSION = 1
"""What is written, and the newest that is read. A later release first learns to read format 2 and still writes 1."""
RELATIVE_PATH = Path(".fetcher") / "manifest.json"
LARGEST = 256 * 1024 * 1024
"""Bytes of a manifest that are read. A file of 16 MiB takes 48 bytes for each chunk, so this is an artifact of 90 TB."""


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file: size in bytes, the digests that were checked, and XXH3-128 (32 hex digits) of each `chunk_size` bytes.

    `unknown` holds the fields of a later version.
    """

    path: str
    size: int
    digests: tuple[Digest, ...]
    chunks: tuple[str, ...]
    validator: str | None = None
    unknown: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> str | None:
        """As `RemoteFile.identity`: equal to a listed file's when the content is the same."""
        return RemoteFile(self.path, self.size, self.digests, self.validator).identity


@dataclass(frozen=True, slots=True)
class Manifest:
    fingerprint: str
    uri: str
    requested_revision: str | None
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    revision: str | None
    files: tuple[ManifestFile, ...]
    created: str
    """When, RFC 3339 in UTC."""
    version: str
    """The version of weightlift that wrote it."""
    snapshot: str | None = None
    """Where the files lie, relative to the cache root, in layouts that keep the manifest elsewhere (`hf-cache`)."""
    chunk_size: int = CHUNK_SIZE
    authenticated: bool = False
    """Whether a credential was used to get any part of it: others may have no right to read it."""
    unknown: Mapping[str, Any] = field(default_factory=dict)
    """The fields of a later version, written back as they are."""
    _by_path: Mapping[str, ManifestFile] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_path", {file.path: file for file in self.files})

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def verified(self) -> bool:
        """Whether every file was compared with a published or pinned digest."""
        return all(file.digests for file in self.files)

    def file(self, path: str) -> ManifestFile | None:
        return self._by_path.get(path)

    def answers(self, ref: ArtifactRef) -> bool:
        """Whether this is the manifest of exactly that request: URI, requested revision and selection."""
        return self.fingerprint == ref.fingerprint

    def to_bytes(self) -> bytes:
        document = {"format_version": FORMAT_VERSION, **{name: getattr(self, name) for name in _FIELDS}, **self.unknown}
        document["files"] = [_file_to_json(file) for file in self.files]
        return json.dumps(document, indent=1, ensure_ascii=False).encode("utf-8", "surrogateescape")

    @classmethod
    def for_request(
        cls,
        ref: ArtifactRef,
        *,
        revision: str | None,
        files: Iterable[ManifestFile],
        created: str,
        version: str,
        authenticated: bool = False,
    ) -> Manifest:
        return cls(
            fingerprint=ref.fingerprint,
            uri=redact(ref.uri),
            requested_revision=ref.revision,
            include=tuple(sorted(ref.include)),
            exclude=tuple(sorted(ref.exclude)),
            revision=revision,
            files=tuple(sorted(files, key=lambda file: file.path)),
            created=created,
            version=version,
            authenticated=authenticated,
        )

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str = "the manifest") -> Manifest:
        """Raises ValueError when it is no manifest, NewerFormat when a later version wrote it. `where` names its file."""
        try:
            document = json.loads(data.decode("utf-8", "surrogateescape"))
            check_format(document, newest=FORMAT_VERSION, what=where)
            return cls(**_checked(document))
        except (KeyError, TypeError, AttributeError, RecursionError, UsageError) as error:
            raise ValueError(f"not a manifest: {error!r}") from error

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Manifest | None:
        """The manifest at `path`; None when there is none or it is damaged: a missing manifest is never a hit.

        Raises NewerFormat when a later version wrote it: something is there, and it is not ours.
        """
        try:
            return cls.from_bytes(_bounded(path), where=os.fspath(path))
        except (OSError, ValueError):
            return None


_FIELDS = tuple(each.name for each in fields(Manifest) if each.name not in ("unknown", "_by_path"))
_FILE_FIELDS = ("path", "size", "digests", "validator", "xxh3_128")
_TEXTS = ("fingerprint", "uri", "created", "version")
_TEXTS_OR_NULL = ("requested_revision", "revision", "snapshot")


def _bounded(path: str | os.PathLike[str]) -> bytes:
    """The content of a regular file. The directory may belong to others too, who could put a pipe there."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
            raise ValueError(f"{os.fspath(path)} is no manifest")
        return stream.read(status.st_size)


def _checked(document: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `Manifest`. Raises ValueError, KeyError, TypeError."""
    chunk_size = _number(document.get("chunk_size", CHUNK_SIZE), least=1)
    return {
        **{name: _text(document[name]) for name in _TEXTS},
        **{name: None if document.get(name) is None else _text(document[name]) for name in _TEXTS_OR_NULL},
        **{name: tuple(_text(pattern) for pattern in document[name]) for name in ("include", "exclude")},
        "files": tuple(_file_from_json(entry, chunk_size) for entry in document["files"]),
        "chunk_size": chunk_size,
        "authenticated": document.get("authenticated", False) is not False,
        "unknown": unknown_fields(document, ("format_version", *_FIELDS)),
    }


def _file_to_json(file: ManifestFile) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": file.path, "size": file.size}
    entry["digests"] = [str(digest) for digest in file.digests]
    if file.validator:
        entry["validator"] = file.validator
    entry["xxh3_128"] = list(file.chunks)
    return {**entry, **file.unknown}


def _file_from_json(entry: Mapping[str, Any], chunk_size: int) -> ManifestFile:
    path, size = _text(entry["path"]), _number(entry["size"])
    # Former files are deleted by what a manifest says, and it lies where others may write too.
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"a path that leaves its directory: {path!r}")
    chunks = tuple(_text(digest) for digest in entry["xxh3_128"])
    if len(chunks) != ceil_div(size, chunk_size):
        raise ValueError(f"{len(chunks)} chunks for {size} bytes of {path!r}")
    return ManifestFile(
        path=path,
        size=size,
        digests=tuple(Digest(*text.split(":", 1)) for text in entry["digests"]),
        chunks=chunks,
        validator=None if entry.get("validator") is None else _text(entry["validator"]),
        unknown=unknown_fields(entry, _FILE_FIELDS),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"not a text: {value!r}")
    return value


def _number(value: object, *, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"not a number of at least {least}: {value!r}")
    return value
