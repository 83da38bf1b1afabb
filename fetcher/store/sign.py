"""An owner's sign of life: a file that it rewrites, and keeps locked where a lock proves something.

What the lock proves is a death, never a right: where the file lies on a filesystem of this very kernel, an owner that had
locked it and holds the lock no longer has no descriptor left, whichever PID namespace it was in. So a container that was killed
and is started again goes on at once. On a network, or FUSE, no lock is trusted, nor missed.

The lock is on an inode, and names can change. So a sign says which inode it is: a copy that was put in its place proves
nothing, and its owner notices that it no longer writes to the file it had locked.

Signs have a format number. A waiter only compares bytes, so it waits for an owner of any version; it does not take over from a
later one whose sign it can't read. Signs without a number are of format 1.
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

from fetcher import __version__
from fetcher.errors import NewerFormat
from fetcher.filesystem import allow, file_mode, of_this_kernel, write_all
from fetcher.records import check_format
from fetcher.store.beneath import open_beneath, read_beneath, remove
from fetcher.store.layout import base_of

FORMAT_VERSION = 1
_LARGEST = 4096
"""Bytes of a sign that are read: ours have 257."""
_LENGTH = 256
"""Bytes that a sign is filled up to, with room for numbers of 20 digits: a shorter text must not leave the end of a longer."""


class Sign:
    """At `path`, made by `create`. Its lock lasts until `close`, or until the process is gone."""

    def __init__(self, path: Path, descriptor: int, *, locked: bool) -> None:
        self._path = path
        self._status = os.fstat(descriptor)
        self._descriptor: int | None = descriptor
        self._locked = locked

    @classmethod
    def create(cls, path: Path) -> Sign:
        """Raises OSError."""
        mode = file_mode(path.parent)
        base = base_of(path)
        descriptor = open_beneath(base, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            allow(descriptor, mode)
            sign = cls(path, descriptor, locked=_lock(descriptor, fcntl.LOCK_EX))
            write_all(descriptor, sign._text({"counter": 0}))
        except BaseException:
            os.close(descriptor)
            with suppress(OSError):
                remove(base, path)
            raise
        if not sign._locked:
            sign.close()  # on NFS a file that is removed while it is open stays in the directory under another name
        return sign

    def moved(self, path: Path) -> None:
        """The directory it was made in has another name now."""
        self._path = path

    def write(self, fields: Mapping[str, object]) -> None:
        """Raises FileNotFoundError when somebody removed or replaced it: a former owner must not bring its file back."""
        replaced = FileNotFoundError(errno.ENOENT, "another file is in the place of the sign", str(self._path))
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
        remove(base_of(self._path), self._path)

    def close(self) -> None:
        """Nothing else is open any more."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _text(self, fields: Mapping[str, object]) -> bytes:
        document = {"format_version": FORMAT_VERSION, "version": __version__, **fields, "locked": self._locked}
        return json.dumps({**document, "inode": self._status.st_ino}).encode().ljust(_LENGTH) + b"\n"


def read_sign(path: Path) -> bytes:
    """Its first 4 KiB; empty when there is none, or it can't be read."""
    try:
        return read_beneath(base_of(path), path, limit=_LARGEST)
    except OSError:
        return b""


def parse_sign(sign: bytes) -> dict[str, Any]:
    """What it says; nothing where it is damaged, or of a later version."""
    try:
        check_sign(sign, what="")
    except NewerFormat:
        return {}
    return _fields(sign)


def check_sign(sign: bytes, *, what: str) -> None:
    """Raises NewerFormat for the sign of a later version. `what` is its path."""
    with suppress(ValueError):  # a damaged one is nobody's
        check_format({"format_version": 1, **_fields(sign)}, newest=FORMAT_VERSION, what=what)


def _fields(sign: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(sign)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def given_up(path: Path) -> bool:
    """Whether the owner, a process of this kernel, had locked its sign and has closed everything since."""
    fields = parse_sign(read_sign(path))
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
