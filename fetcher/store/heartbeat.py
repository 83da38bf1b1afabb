"""An owner's heartbeat: a file that the owner rewrites, and keeps locked where a lock proves something.

The lock proves a death, never a right. On a filesystem of this kernel, an owner that locked the file and no longer holds the
lock has no descriptor left, in any PID namespace. So a container that is restarted after a kill continues at once. On network
filesystems and FUSE, locks are neither trusted nor needed.

The lock is on an inode, and names can change. So a heartbeat records its inode: a copy under its name proves nothing, and the
owner notices that it no longer writes to the file it locked.

Heartbeats have a format number; without one the format is 1. A waiter only compares bytes, so it can wait for an owner of any
version. It does not take over from a later version whose heartbeat it cannot read.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fetcher.errors import NewerFormat
from fetcher.filesystem import file_mode, of_this_kernel, try_chmod, write_all
from fetcher.records import check_format
from fetcher.store.beneath import open_beneath, read_beneath, remove
from fetcher.store.layout import base_of
from fetcher.version import VERSION

FORMAT_VERSION = 1
_LARGEST = 4096
"""Bytes of a heartbeat that are read at most; ours have 321."""
_LENGTH = 320
"""Bytes that a heartbeat is padded to, so that a shorter text overwrites a longer one. Numbers have up to 20 digits."""


class Heartbeat:
    """The heartbeat at `path`, made by `create`. Its lock lasts until `close` or the end of the process."""

    def __init__(self, path: Path, descriptor: int, *, locked: bool) -> None:
        self._path = path
        self._status = os.fstat(descriptor)
        self._descriptor: int | None = descriptor
        self._locked = locked

    @classmethod
    def create(cls, path: Path, fields: Mapping[str, object] | None = None) -> Heartbeat:
        """Create and lock the file at `path`, and write `fields`. Raises OSError."""
        mode = file_mode(path.parent)
        base = base_of(path)
        descriptor = open_beneath(base, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            try_chmod(descriptor, mode)
            heartbeat = cls(path, descriptor, locked=_lock(descriptor, fcntl.LOCK_EX))
            write_all(descriptor, heartbeat._text({"counter": 0, **(fields or {})}))
        except BaseException:
            os.close(descriptor)
            with suppress(OSError):
                remove(base, path)
            raise
        if not heartbeat._locked:
            heartbeat.close()  # on NFS, a file that is removed while open stays in the directory under another name
        return heartbeat

    def moved(self, path: Path) -> None:
        """Note the new path of the heartbeat after its directory was renamed."""
        self._path = path

    def write(self, fields: Mapping[str, object]) -> None:
        """Write `fields`. Raises OSError, and FileNotFoundError if somebody removed or replaced the file: a previous owner must
        not create it again."""
        replaced = FileNotFoundError(errno.ENOENT, "another file replaced the heartbeat", str(self._path))
        try:
            descriptor = open_beneath(base_of(self._path), self._path, os.O_WRONLY)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise replaced from error
            raise
        try:
            if self._locked and not os.path.samestat(self._status, os.fstat(descriptor)):
                raise replaced
            os.pwrite(descriptor, self._text(fields), 0)
        finally:
            os.close(descriptor)

    def remove(self) -> None:
        """Remove the file if it exists. Raises OSError."""
        remove(base_of(self._path), self._path)

    def close(self) -> None:
        """Release the lock. The owner must have closed every other file before. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _text(self, fields: Mapping[str, object]) -> bytes:
        document = {"format_version": FORMAT_VERSION, "version": VERSION, **fields, "locked": self._locked}
        return json.dumps({**document, "inode": self._status.st_ino}).encode().ljust(_LENGTH) + b"\n"


def read_heartbeat(path: Path) -> bytes:
    """The first 4 KiB of the heartbeat at `path`; empty if it is missing or cannot be read."""
    try:
        return read_beneath(base_of(path), path, limit=_LARGEST)
    except OSError:
        return b""


def parse_heartbeat(heartbeat: bytes) -> dict[str, Any]:
    """The fields of a heartbeat; empty if it is damaged or of a later version."""
    try:
        check_heartbeat(heartbeat, what="")
    except NewerFormat:
        return {}
    return _fields(heartbeat)


def check_heartbeat(heartbeat: bytes, *, what: str) -> None:
    """Raise NewerFormat for the heartbeat of a later version. `what` is its path."""
    with suppress(ValueError):  # a damaged heartbeat belongs to no version
        check_format({"format_version": 1, **_fields(heartbeat)}, newest=FORMAT_VERSION, what=what)


def _fields(heartbeat: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(heartbeat)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def given_up(path: Path) -> bool:
    """Whether the owner, a process of this kernel, locked its heartbeat and has closed every descriptor since."""
    fields = parse_heartbeat(read_heartbeat(path))
    if not fields.get("locked"):
        return False
    with suppress(OSError):
        descriptor = open_beneath(base_of(path), path, os.O_RDONLY)
        try:
            inode = os.fstat(descriptor).st_ino
            return fields.get("inode", inode) == inode and _lock(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)
    return False


def _lock(descriptor: int, kind: int) -> bool:
    if not of_this_kernel(descriptor):
        return False
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
