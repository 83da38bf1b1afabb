"""The record of a complete artifact, `<artifact>/.fetcher/manifest.json`. It is written and synced last, so its presence
proves that everything it lists was verified.

It contains no credential: the URI is redacted, and requests are compared by `fingerprint` (SHA-256 of URI and selection as
written). The loader uses `Manifest.read` and the XXH3 chunks. `docs/manifest.schema.json` describes the file for other readers.
"""

from __future__ import annotations

import gc
import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field, fields
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

from fetcher.artifact import CHUNK_SIZE, ArtifactRef, Digest, RemoteFile, redact
from fetcher.errors import UsageError
from fetcher.quantities import ceil_div
from fetcher.records import check_format, unknown_fields
from fetcher.values import dataclass

FORMAT_VERSION = 1
"""The format that is written, and the newest that is read. A later release will first read format 2 and still write 1."""
RELATIVE_PATH = Path(".fetcher") / "manifest.json"
_REMEMBERED = 16 * 1024 * 1024
"""Bytes at most of the manifest that was read last, which is remembered: a hit reads it twice, a third of its time with 20,000
files."""
LARGEST = 256 * 1024 * 1024
"""Bytes of the largest manifest that is read. Each 16 MiB chunk takes 48 bytes, so this is an artifact of 90 TB."""


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file: size in bytes, the checked digests, and the XXH3-128 (32 hex digits) of each `chunk_size` bytes.

    `checksums` are those that the store published and the fetch compared: `crc64nvme:...`, with `-N` at the end of N parts.
    `shared` says how the file came from another artifact of the root: `clone`, `link` or `copy`.
    `unknown` holds the fields of a later version.
    """

    path: str
    size: int
    digests: tuple[Digest, ...]
    chunks: tuple[str, ...]
    validator: str | None = None
    shared: str | None = None
    checksums: tuple[str, ...] = ()
    unknown: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> str | None:
        """The identity as in `RemoteFile.identity`: equal to a listed file's if the content is the same."""
        return RemoteFile(self.path, self.size, self.digests, self.validator).identity

    @property
    def verified_by(self) -> str:
        """The strongest of what the file was compared with: `sha256`, ..., `crc64nvme`, ..., or `size` if nothing else."""
        return strongest(_algorithms(self))


@dataclass(frozen=True, slots=True)
class Manifest:
    """The manifest of one artifact. Sizes are in bytes."""

    fingerprint: str
    uri: str
    requested_revision: str | None
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    revision: str | None
    files: tuple[ManifestFile, ...]
    created: str
    """The time of the fetch, RFC 3339 in UTC."""
    version: str
    """The version of weightlift that wrote the manifest."""
    snapshot: str | None = None
    """The directory of the files, relative to the cache root, in layouts that keep the manifest elsewhere (`hf-cache`)."""
    chunk_size: int = CHUNK_SIZE
    authenticated: bool = False
    """Whether a credential was used to fetch any part: other users may have no right to read it."""
    unconfirmed: bool = False
    """Whether the files were adopted without asking the source: they are what a directory held."""
    unknown: Mapping[str, Any] = field(default_factory=dict)
    """The fields of a later version, written back unchanged."""
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

    @property
    def checked(self) -> bool:
        """Whether every file was compared with a digest, or with a checksum that its store published."""
        return all(file.digests or file.checksums for file in self.files)

    @property
    def verified_by(self) -> dict[str, int]:
        """The number of files by what each was verified by, the strongest first; see `ManifestFile.verified_by`."""
        counts: Counter[str] = Counter()
        # A hit asks this of all files: most are alike, and the strongest of each took a tenth of a hit of 20,000.
        for algorithms, number in Counter(map(_algorithms, self.files)).items():
            counts[strongest(algorithms)] += number
        return {name: counts[name] for name in sorted(counts, key=_strength)}

    def file(self, path: str) -> ManifestFile | None:
        return self._by_path.get(path)

    def answers(self, ref: ArtifactRef) -> bool:
        """Return whether this is the manifest of exactly that request: URI, requested revision and selection."""
        return self.fingerprint == ref.fingerprint

    def to_bytes(self) -> bytes:
        """Return JSON with a line for each field and each file."""
        document = {"format_version": FORMAT_VERSION, **{name: getattr(self, name) for name in _FIELDS}, **self.unknown}
        del document["files"]
        files = ",\n".join(f"  {_to_json(_file_to_json(file))}" for file in self.files)
        lines = [f" {_to_json(name)}: {_to_json(value)}" for name, value in document.items()]
        lines.append(f' "files": [\n{files}\n ]' if files else ' "files": []')
        return ("{\n" + ",\n".join(lines) + "\n}").encode("utf-8", "surrogateescape")

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
        unconfirmed: bool = False,
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
            unconfirmed=unconfirmed,
        )

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str = "the manifest") -> Manifest:
        """Parse a manifest; `where` names its file. Raises ValueError if it is malformed, NewerFormat if it is of a later
        version."""
        try:
            return (_parsed_again if len(data) <= _REMEMBERED else _parsed)(data, where)
        except (KeyError, TypeError, AttributeError, RecursionError, UsageError) as error:
            raise ValueError(f"malformed manifest: {error!r}") from error

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Manifest | None:
        """Return the manifest at `path`, or None if it is missing or damaged: then the artifact is not a cache hit.

        Raises NewerFormat if a later version wrote it: this version must not replace the artifact.
        """
        try:
            return cls.from_bytes(_bounded(path), where=os.fspath(path))
        except (OSError, ValueError):
            return None


_to_json = json.JSONEncoder(ensure_ascii=False).encode
"""Without an indent the encoder is the one in C: 20,000 files take 0.19 s of a busy processor instead of 0.32."""
_FIELDS = tuple(each.name for each in fields(Manifest) if each.name not in ("unknown", "_by_path"))
_OF_MOST = frozenset({"path", "size", "digests", "validator", "xxh3_128"})
_FILE_FIELDS = _OF_MOST | {"shared", "checksums"}
_STRONGEST = ("sha256", "git-sha1", "md5", "crc64nvme", "crc32c", "crc32")
_TEXTS = ("fingerprint", "uri", "created", "version")
_TEXTS_OR_NULL = ("requested_revision", "revision", "snapshot")


_algorithm = attrgetter("algorithm")


def _name(checksum: str) -> str:
    return checksum.partition(":")[0]


def _bounded(path: str | os.PathLike[str]) -> bytes:
    """Read a regular file of at most `LARGEST` bytes. Other users may share the directory and could put a pipe there."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
            raise ValueError(f"{os.fspath(path)} is not a manifest")
        return stream.read(status.st_size)


def _parsed(data: bytes, where: str) -> Manifest:
    with _without_collection():
        document = json.loads(data.decode("utf-8", "surrogateescape"))
        check_format(document, newest=FORMAT_VERSION, what=where)
        return Manifest(**_checked(document))


@contextmanager
def _without_collection() -> Iterator[None]:
    """Search for no garbage in the block: of 174 ms to read 20,000 files 50 are that search, which finds none."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


_parsed_again = lru_cache(1)(_parsed)


def _checked(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checked arguments of `Manifest`. Raises ValueError, KeyError, TypeError."""
    chunk_size = _number(document.get("chunk_size", CHUNK_SIZE), least=1)
    return {
        **{name: _text(document[name]) for name in _TEXTS},
        **{name: _text_or_none(document.get(name)) for name in _TEXTS_OR_NULL},
        **{name: tuple(_text(pattern) for pattern in document[name]) for name in ("include", "exclude")},
        "files": _files_from_json(document["files"], chunk_size),
        "chunk_size": chunk_size,
        "authenticated": document.get("authenticated", False) is not False,
        "unconfirmed": document.get("unconfirmed", False) is not False,
        "unknown": unknown_fields(document, ("format_version", *_FIELDS)),
    }


def _algorithms(file: ManifestFile) -> tuple[str, ...]:
    """By what a file was compared: its digests, and the checksums of its store."""
    return (*[each.algorithm for each in file.digests], *[text.partition(":")[0] for text in file.checksums])


def strongest(algorithms: Iterable[str]) -> str:
    """Return the strongest of the algorithms that a file was compared by; `size` without any."""
    return min(algorithms, key=_strength, default="size")


def _strength(name: str) -> tuple[bool, int]:
    """The place of an algorithm in order; one of a later version comes after those known here, and the size last."""
    return name == "size", _STRONGEST.index(name) if name in _STRONGEST else len(_STRONGEST)


def _file_to_json(file: ManifestFile) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": file.path, "size": file.size}
    entry["digests"] = [str(digest) for digest in file.digests]
    for name in ("validator", "shared"):
        if value := getattr(file, name):
            entry[name] = value
    if file.checksums:
        entry["checksums"] = list(file.checksums)
    entry["xxh3_128"] = list(file.chunks)
    return {**entry, **file.unknown}


def _files_from_json(entries: Sequence[Mapping[str, Any]], chunk_size: int) -> tuple[ManifestFile, ...]:
    """Return the files. Their values are checked all at once: a hit reads all of them, and three calls for each took longer."""
    _require({str}, [entry["path"] for entry in entries])
    _require({int}, [entry["size"] for entry in entries])
    _require({str}, chain.from_iterable([entry["xxh3_128"] for entry in entries]))
    _require({str, type(None)}, [entry.get("validator") for entry in entries])
    return tuple([_file_from_json(entry, chunk_size) for entry in entries])


def _file_from_json(entry: Mapping[str, Any], chunk_size: int) -> ManifestFile:
    path, size, chunks = entry["path"], entry["size"], tuple(entry["xxh3_128"])
    # Files of an older version are deleted by the paths in its manifest, and other users may be able to write the manifest.
    if path.startswith("/") or (".." in path and ".." in path.split("/")):
        raise ValueError(f"the path {path!r} leaves its directory")
    if size < 0 or len(chunks) != ceil_div(size, chunk_size):
        raise ValueError(f"{len(chunks)} chunks for {size} bytes of {path!r}")
    digests = tuple([Digest(*text.split(":", 1)) for text in entry["digests"]])
    if entry.keys() <= _OF_MOST:  # a hit reads all of them
        return ManifestFile(path, size, digests, chunks, entry.get("validator"))
    return ManifestFile(
        path=path,
        size=size,
        digests=digests,
        chunks=chunks,
        validator=entry.get("validator"),
        shared=_text_or_none(entry.get("shared")),
        checksums=_texts(entry.get("checksums", ())),
        unknown=unknown_fields(entry, _FILE_FIELDS),
    )


def _require(kinds: set[type], values: Iterable[object]) -> None:
    if wrong := {*map(type, values)} - kinds:
        raise ValueError(f"a file has a value of the wrong type {wrong.pop().__name__}")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a string")
    return value


def _texts(values: Iterable[object]) -> tuple[str, ...]:
    return tuple([_text(value) for value in values])


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)


def _number(value: object, *, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{value!r} is not an integer of at least {least}")
    return value
