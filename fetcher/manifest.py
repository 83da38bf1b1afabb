"""The record of a complete artifact, `<artifact>/.fetcher/manifest.json`: written and synced last, so its presence is the
proof that everything it lists was verified.

It holds no credential: the URI is redacted, and `fingerprint` (SHA-256 of URI and selection as written) stands for the
original when a request is compared. Readers outside `fetcher` (the loader) use `Manifest.read` and the XXH3 chunks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fetcher.artifact import CHUNK_SIZE, ArtifactRef, Digest, RemoteFile, redact
from fetcher.errors import UsageError

FORMAT_VERSION = 1
RELATIVE_PATH = Path(".fetcher") / "manifest.json"


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file: size in bytes, the digests that were checked, and XXH3-128 (32 hex digits) of each `chunk_size` bytes."""

    path: str
    size: int
    digests: tuple[Digest, ...]
    chunks: tuple[str, ...]
    validator: str | None = None

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
    """Which version of weightlift wrote it."""
    snapshot: str | None = None
    """Where the files lie, relative to the cache root, in layouts that keep the manifest elsewhere (`hf-cache`)."""
    chunk_size: int = CHUNK_SIZE

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def verified(self) -> bool:
        """Whether every file was compared with a published or pinned digest."""
        return all(file.digests for file in self.files)

    def file(self, path: str) -> ManifestFile | None:
        return next((file for file in self.files if file.path == path), None)

    def answers(self, ref: ArtifactRef) -> bool:
        """Whether this is the manifest of exactly that request: URI, requested revision and selection."""
        return self.fingerprint == ref.fingerprint

    def to_bytes(self) -> bytes:
        document = asdict(self)
        document["files"] = [_file_to_json(file) for file in self.files]
        return json.dumps({"format_version": FORMAT_VERSION, **document}, indent=1, ensure_ascii=False).encode(
            "utf-8", "surrogateescape"
        )

    @classmethod
    def for_request(
        cls, ref: ArtifactRef, *, revision: str | None, files: Iterable[ManifestFile], created: str, version: str
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
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Raises ValueError when it is not a manifest of a format this version reads."""
        try:
            document = json.loads(data.decode("utf-8", "surrogateescape"))
            if document.pop("format_version") != FORMAT_VERSION:
                raise ValueError("unknown format_version")
            files = tuple(_file_from_json(entry) for entry in document.pop("files"))
            for name in ("include", "exclude"):
                document[name] = tuple(document[name])
            return cls(files=files, **document)
        except (KeyError, TypeError, AttributeError, RecursionError, UsageError) as error:
            raise ValueError(f"not a manifest: {error!r}") from error

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Manifest | None:
        """The manifest at `path`; None when there is none or it can't be read: a missing manifest is never a hit."""
        try:
            with open(path, "rb") as stream:
                return cls.from_bytes(stream.read())
        except (OSError, ValueError):
            return None


def _file_to_json(file: ManifestFile) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": file.path, "size": file.size}
    entry["digests"] = [str(digest) for digest in file.digests]
    if file.validator:
        entry["validator"] = file.validator
    entry["xxh3_128"] = list(file.chunks)
    return entry


def _file_from_json(entry: dict[str, Any]) -> ManifestFile:
    path, size = entry["path"], entry["size"]
    # Former files are deleted by what a manifest says, and it lies where others may write too.
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"a path that leaves its directory: {path!r}")
    if not isinstance(size, int):
        raise ValueError(f"a size that is no number: {size!r}")
    return ManifestFile(
        path=path,
        size=size,
        digests=tuple(Digest(*text.split(":", 1)) for text in entry["digests"]),
        chunks=tuple(entry["xxh3_128"]),
        validator=entry.get("validator"),
    )
