"""Which chunks of an unfinished artifact are written: one line a fact, each with its own checksum.

::

    <xxh3-64 of the rest> ["file", path, identity]        what the following chunks of `path` are part of
    <xxh3-64 of the rest> ["chunk", path, index, xxh3]    chunk `index` is written; XXH3-128 as hex
    <xxh3-64 of the rest> ["part", path, index, n, xxh3]  so are the first n bytes of chunk `index`
    <xxh3-64 of the rest> ["state", path, n, hex]         SHA-256 of the first n bytes in the making, to go on from; n may be 0
    <xxh3-64 of the rest> ["drop", path]                  all of `path` is void

A line follows the write it describes, so the journal never promises more than was handed to the kernel; what power loss may
still take away is found when the next owner reads each chunk and compares. A torn or damaged line is ignored.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from fetcher.filesystem import allow, write_all


@dataclass(slots=True)
class JournalledFile:
    """What a journal says of one file: the identity it had when fetched, chunk index → XXH3-128, and of chunks that are not
    finished index → (bytes from the chunk's start, their XXH3-128). `state` is (bytes hashed, SHA-256 in the making)."""

    identity: str
    chunks: dict[int, str] = field(default_factory=dict)
    parts: dict[int, tuple[int, str]] = field(default_factory=dict)
    state: tuple[int, bytes] = (0, b"")


class Journal:
    """Appends records. Safe to call from several threads; one instance a lease."""

    def __init__(self, path: Path, *, mode: int) -> None:
        self._lock = threading.Lock()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, mode)
        allow(self._descriptor, mode)

    def begin(self, path: str, identity: str) -> None:
        self._append(["file", path, identity])

    def chunk(self, path: str, index: int, digest: str) -> None:
        self._append(["chunk", path, index, digest])

    def part(self, path: str, index: int, length: int, digest: str) -> None:
        self._append(["part", path, index, length, digest])

    def state(self, path: str, position: int, state: bytes) -> None:
        self._append(["state", path, position, state.hex()])

    def drop(self, path: str) -> None:
        self._append(["drop", path])

    def sync(self) -> None:
        """Make what was recorded durable. Call it after syncing the data it speaks of."""
        with self._lock:
            if self._descriptor >= 0:
                os.fdatasync(self._descriptor)

    def close(self) -> None:
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _append(self, record: list[Any]) -> None:
        with self._lock:
            write_all(self._descriptor, _encode(record))


def read_journals(paths: Iterable[Path]) -> dict[str, JournalledFile]:
    """What the journals at `paths` say together; a missing file says nothing."""
    files: dict[str, JournalledFile] = {}
    for path in paths:
        try:
            lines = path.read_bytes().split(b"\n")
        except OSError:
            continue
        for line in lines:
            record = _decode(line)
            if record is not None:
                _apply(files, record)
    return files


def _apply(files: dict[str, JournalledFile], record: list[Any]) -> None:
    match record:
        case ["file", str(path), str(identity)]:
            if path not in files or files[path].identity != identity:
                files[path] = JournalledFile(identity)
        case ["chunk", str(path), int(index), str(digest)] if path in files:
            files[path].chunks[index] = digest
            files[path].parts.pop(index, None)
        case ["part", str(path), int(index), int(length), str(digest)] if path in files:
            files[path].parts[index] = (length, digest)
        case ["state", str(path), int(position), str(state)] if path in files:
            files[path].state = (position, bytes.fromhex(state))
        case ["drop", str(path)]:
            files.pop(path, None)


def _encode(record: list[Any]) -> bytes:
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%s %s\n" % (xxhash.xxh3_64_hexdigest(text).encode(), text)


def _decode(line: bytes) -> list[Any] | None:
    checksum, _, text = line.partition(b" ")
    if not text or xxhash.xxh3_64_hexdigest(text).encode() != checksum:
        return None
    record: list[Any] = json.loads(text)
    return record
