"""An owner's sign of life: a file that it rewrites, and keeps locked where a lock proves something.

What the lock proves is a death, never a right: where the file lies on a filesystem of this very kernel, an owner that had
locked it and holds the lock no longer has no descriptor left, whichever PID namespace it was in. So a container that was killed
and is started again goes on at once. On a network, or FUSE, no lock is trusted, nor missed.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fetcher.filesystem import allow, file_mode, of_this_kernel, write_all
from fetcher.store.beneath import open_beneath, read_beneath, remove
from fetcher.store.layout import base_of

_LARGEST = 4096
"""Bytes of a sign that are read: ours have 161."""


class Sign:
    """At `path`, made by `create`. Its lock lasts until `close`, or until the process is gone."""

    def __init__(self, path: Path, descriptor: int, *, locked: bool) -> None:
        self._path = path
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
        """Raises FileNotFoundError when somebody removed it: a former owner must not bring its file back."""
        descriptor = open_beneath(base_of(self._path), self._path, os.O_WRONLY)
        try:
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
        return json.dumps({**fields, "locked": self._locked}).encode().ljust(160) + b"\n"


def read_sign(path: Path) -> bytes:
    """Its first 4 KiB; empty when there is none, or it can't be read."""
    try:
        return read_beneath(base_of(path), path, limit=_LARGEST)
    except OSError:
        return b""


def parse_sign(sign: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(sign)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def given_up(path: Path) -> bool:
    """Whether the owner, a process of this kernel, had locked its sign and has closed everything since."""
    if not parse_sign(read_sign(path)).get("locked"):
        return False
    with suppress(OSError):
        descriptor = open_beneath(base_of(path), path, os.O_RDONLY)
        try:
            return _lock(descriptor, fcntl.LOCK_SH)
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
