"""The journal of an unfinished artifact: one line for each fact, such as a written chunk, each with its own checksum.

::

    <xxh3-64 of the rest> ["journal", {format_version, version}]       first: the release that wrote the following lines
    <xxh3-64 of the rest> ["listing", digest]                          digest of the listing that the next records belong to
    <xxh3-64 of the rest> ["file", path, {identity}]                   identity of the content that the next chunks belong to
    <xxh3-64 of the rest> ["chunk", path, index, {xxh3, supplier}]     chunk `index` is written; XXH3-128 as hex, who brought it
    <xxh3-64 of the rest> ["part", path, index, {length, xxh3}]        the first `length` bytes of chunk `index` are written
    <xxh3-64 of the rest> ["state", path, {length, sha256}]            unfinished SHA-256 of the first `length` bytes; may be 0
    <xxh3-64 of the rest> ["verified", path]                           the file has the digest that the source publishes
    <xxh3-64 of the rest> ["wrong", path, index]                       the record of chunk `index` is void
    <xxh3-64 of the rest> ["drop", path]                               all records of `path` are void
    <xxh3-64 of the rest> ["authenticated"]                            a credential is used from this line on

A line is written after the data it describes, so the journal never claims more than the kernel has received. Power loss may
still lose data: the next owner reads every chunk and compares it. Torn or damaged lines are ignored, and so are records and
fields of a later release. Unknown fields of a chunk are kept when the next owner writes its record again. A chunk without a
supplier is of an earlier release. Parts have none: what a mirror began is not kept.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import Any

import xxhash

from fetcher.artifact import ORIGIN, UNKNOWN
from fetcher.filesystem import try_chmod, write_all
from fetcher.records import check_format
from fetcher.store.beneath import open_beneath, read_beneath
from fetcher.store.layout import base_of
from fetcher.values import dataclass

FORMAT_VERSION = 1
"""The format that is written, and the newest one that is read."""
LARGEST = 1024 * 1024 * 1024
"""Bytes of a journal that are read. A chunk of 16 MiB takes some 500 with its parts, so this suffices for 30 TB."""


@dataclass(frozen=True, slots=True)
class JournalledChunk:
    """The XXH3-128 of a finished chunk, and who brought it. `unknown` holds fields of a later release."""

    xxh3: str
    unknown: Mapping[str, Any] = field(default_factory=dict)
    supplier: str = UNKNOWN

    @property
    def from_origin(self) -> bool:
        """Whether nobody but the origin sent it. Of a chunk without a supplier nobody knows."""
        return self.supplier == ORIGIN


@dataclass(frozen=True, slots=True)
class JournalledPart:
    """The first `length` bytes of an unfinished chunk, and their XXH3-128. `unknown` holds fields of a later release."""

    length: int
    xxh3: str
    unknown: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class JournalledFile:
    """One file in a journal: its identity when it was fetched, and its finished and unfinished chunks by index.

    `state` is (bytes hashed, state of the unfinished SHA-256). `verified`: the file has the digest that the source publishes.
    """

    identity: str
    chunks: dict[int, JournalledChunk] = field(default_factory=dict)
    parts: dict[int, JournalledPart] = field(default_factory=dict)
    state: tuple[int, bytes] = (0, b"")
    verified: bool = False

    def passed_on(self, index: int) -> str | None:
        """The XXH3-128 of chunk `index` if others may have it: of a file that is not verified, only what the origin sent."""
        chunk = self.chunks.get(index)
        return chunk.xxh3 if chunk is not None and (self.verified or chunk.from_origin) else None


@dataclass(slots=True)
class Journalled:
    """The combined content of journals: files by path, whether a credential was used for any, the digest of their listing."""

    files: dict[str, JournalledFile] = field(default_factory=dict)
    authenticated: bool = False
    listing: str | None = None


class Journal:
    """Appends records. Thread-safe; one instance for each lease. `version` is the release that writes."""

    def __init__(self, path: Path, *, mode: int, version: str) -> None:
        self._lock = threading.Lock()
        self._held: list[bytes] | None = None
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = open_beneath(base_of(path), path, flags, mode)
        try_chmod(self._descriptor, mode)
        self._append(["journal", {"format_version": FORMAT_VERSION, "version": version}])

    def authenticated(self) -> None:
        """Record that a credential is used from now on. Raises OSError."""
        self._append(["authenticated"])

    def listing(self, digest: str) -> None:
        """Record the digest of the listing. What is recorded before and not again does not belong to it. Raises OSError."""
        self._append(["listing", digest])

    def begin(self, path: str, identity: str) -> None:
        """Record the identity of the content that later chunks of `path` belong to. Raises OSError."""
        self._append(["file", path, {"identity": identity}])

    def chunk(self, path: str, index: int, chunk: JournalledChunk) -> None:
        """Record that chunk `index` of `path` is written. Raises OSError."""
        supplier = {} if chunk.supplier == UNKNOWN else {"supplier": chunk.supplier}
        self._append(["chunk", path, index, {"xxh3": chunk.xxh3, **supplier, **chunk.unknown}])

    def part(self, path: str, index: int, part: JournalledPart) -> None:
        """Record that the first bytes of chunk `index` of `path` are written. Raises OSError."""
        self._append(["part", path, index, {"length": part.length, "xxh3": part.xxh3, **part.unknown}])

    def state(self, path: str, position: int, state: bytes) -> None:
        """Record the unfinished SHA-256 of the first `position` bytes of `path`. Raises OSError."""
        self._append(["state", path, {"length": position, "sha256": state.hex()}])

    def verified(self, path: str) -> None:
        """Record that `path` has the digest that the source publishes. Raises OSError."""
        self._append(["verified", path])

    def wrong(self, path: str, index: int) -> None:
        """Void the record of chunk `index` of `path`. Raises OSError."""
        self._append(["wrong", path, index])

    def drop(self, path: str) -> None:
        """Void all records of `path`. Raises OSError."""
        self._append(["drop", path])

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write the records of the block at its end, in one piece: a system call for each would take longer than many a file.

        One block at a time. A record is late at worst, and then its data is fetched again. Raises OSError.
        """
        with self._lock:
            self._held = []
        try:
            yield
        finally:
            with self._lock:
                held, self._held = self._held, None
                write_all(self._descriptor, b"".join(held))

    def sync(self) -> None:
        """Make all records durable. Sync the data that they describe first. Raises OSError."""
        with self._lock:
            if self._descriptor >= 0:
                os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file. Idempotent."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _append(self, record: list[Any]) -> None:
        line = _encode(record)
        with self._lock:
            if self._held is not None:
                self._held.append(line)
            else:
                write_all(self._descriptor, line)


def read_journals(paths: Iterable[Path]) -> Journalled:
    """Read and combine the journals at `paths`; missing files are skipped. Raises NewerFormat for one of a later release."""
    journalled = Journalled()
    for path in paths:
        try:
            lines = read_beneath(base_of(path), path, limit=LARGEST).split(b"\n")
        except OSError:
            continue
        for line in lines:
            take(journalled, line, what=str(path))
    return journalled


def take(journalled: Journalled, line: bytes, *, what: str) -> Any:
    """Take the record in a line of the journal at `what`, and return it; None if there is none. Raises NewerFormat."""
    record = _decode(line)
    match record:
        case ["journal", dict(document), *_]:
            check_format(document, newest=FORMAT_VERSION, what=what)
        case ["authenticated", *_]:
            journalled.authenticated = True
        case ["listing", str(digest), *_]:
            journalled.listing = digest
        case list():
            _apply(journalled.files, record)
    return record


def _apply(files: dict[str, JournalledFile], record: list[Any]) -> None:
    match record:
        case ["file", str(path), {"identity": str(identity)}, *_]:
            if path not in files or files[path].identity != identity:
                files[path] = JournalledFile(identity)
        case ["chunk", str(path), int(index), {"xxh3": str(xxh3), **facts}, *_] if path in files:
            supplier = facts.pop("supplier", UNKNOWN)
            files[path].chunks[index] = JournalledChunk(xxh3, _named(facts), supplier if isinstance(supplier, str) else UNKNOWN)
            files[path].parts.pop(index, None)
        case ["part", str(path), int(index), {"length": int(length), "xxh3": str(xxh3), **facts}, *_] if path in files:
            files[path].parts[index] = JournalledPart(length, xxh3, _named(facts))
        case ["state", str(path), {"length": int(position), "sha256": str(state)}, *_] if path in files and _is_hex(state):
            files[path].state = (position, bytes.fromhex(state))
        case ["verified", str(path), *_] if path in files:
            files[path].verified = True
        case ["wrong", str(path), int(index), *_] if path in files:
            files[path].chunks.pop(index, None)
        case ["drop", str(path), *_]:
            files.pop(path, None)


def _named(facts: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in facts.items()}


def _is_hex(text: str) -> bool:
    return re.fullmatch(r"([0-9a-f]{2})*", text) is not None


def _encode(record: list[Any]) -> bytes:
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%s %s\n" % (xxhash.xxh3_64_hexdigest(text).encode(), text)


def _decode(line: bytes) -> Any:
    """The record in `line`; None if the line is torn or damaged, or is not JSON despite a correct checksum."""
    checksum, _, text = line.partition(b" ")
    if not text or xxhash.xxh3_64_hexdigest(text).encode() != checksum:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
