"""Build a directory next to its target, then move it there with one rename. A kill leaves only `.NAME.copying` behind.

The builder holds a flock on that directory. The kernel releases it when the process ends. The next builder removes leftovers.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fetcher.errors import CannotWrite
from fetcher.filesystem import exchange, make_directory, storing, sync_directory

_POLL = 0.2
"""Seconds between two attempts to take the lock."""


@contextmanager
def staged(target: Path, *, on_wait: Callable[[], None]) -> Iterator[Path]:
    """Provide an empty directory on the filesystem of `target` that no other process uses, and remove it at the end.

    If another process builds the same target, calls `on_wait` once and waits for it. Raises StoreError.
    """
    stage = stage_of(target)
    with storing("stage the copy", str(stage)):
        descriptor = _locked(stage, on_wait)
    try:
        with storing("stage the copy", str(stage)):
            _empty(stage)
            data = stage / "data"
            make_directory(data)
        yield data
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        os.close(descriptor)


def stage_of(target: Path) -> Path:
    """Return the staging directory of `target`."""
    return target.with_name(f".{target.name}.copying")


def sweep(target: Path) -> None:
    """Remove what a killed copy left, unless a process is using it. Ignores errors."""
    stage = stage_of(target)
    with suppress(OSError):
        descriptor = os.open(stage, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(stage, ignore_errors=True)
        finally:
            os.close(descriptor)


def abandoned(target: Path) -> Iterator[Path]:
    """Yield what killed copies to other names left next to `target`, if this user is allowed to remove it."""
    try:
        stages = sorted(target.parent.glob(".*.copying"))
    except OSError:
        return
    for stage in stages:
        with suppress(OSError):
            if stage != stage_of(target) and _is_abandoned(stage):
                yield stage


def _is_abandoned(stage: Path) -> bool:
    descriptor = os.open(stage, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return os.geteuid() in (0, os.fstat(descriptor).st_uid) and _acquired(descriptor)
    finally:
        os.close(descriptor)


def put_in_place(data: Path, target: Path, *, durable: bool) -> None:
    """Move `data` to `target`, which may be missing, an empty directory, or an earlier copy.

    An earlier copy moves into the stage, which is removed later. Raises OSError.
    """
    try:
        os.rename(data, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not exchange(data, target):
            # Without an atomic exchange, `target` is missing for a moment.
            os.rename(target, data.with_name("former"))
            os.rename(data, target)
    if durable:
        sync_directory(target.parent)


def _locked(stage: Path, on_wait: Callable[[], None]) -> int:
    waited = False
    while True:
        make_directory(stage)
        descriptor = os.open(stage, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _refuse_other_owners(stage, descriptor)
            if _acquired(descriptor) and _is_current(stage, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if not waited:
            on_wait()
            waited = True
        time.sleep(_POLL)


def _acquired(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_current(stage: Path, descriptor: int) -> bool:
    """Return whether the locked directory is still at its path. The previous holder removes it before it unlocks."""
    try:
        return os.path.samestat(os.stat(stage), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _refuse_other_owners(stage: Path, descriptor: int) -> None:
    """Refuse a stage of another user in /dev/shm or /tmp: its owner could read or change the copy."""
    sticky = os.stat(stage.parent).st_mode & stat.S_ISVTX
    owner = os.fstat(descriptor).st_uid
    if sticky and owner != os.geteuid():
        raise CannotWrite(f"{stage} belongs to UID {owner}; remove it, or copy to another directory", path=str(stage))


def _empty(stage: Path) -> None:
    for entry in os.scandir(stage):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)
