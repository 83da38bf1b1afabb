"""A directory built beside its place and put there by one rename. Killed anywhere, it leaves nothing but `.NAME.copying`.

Whoever builds holds a flock on that directory, which ends with its process; whoever comes next removes what it finds there.
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
"""Seconds between two looks at somebody else's lock."""


@contextmanager
def staged(target: Path, *, on_wait: Callable[[], None]) -> Iterator[Path]:
    """An empty directory on the filesystem of `target`, which nobody else uses; removed with all that is left in it.

    Waits for another process that builds the same, after `on_wait`. Raises StoreError.
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
    return target.with_name(f".{target.name}.copying")


def sweep(target: Path) -> None:
    """Remove what a killed copy left, unless somebody is at it. Best effort."""
    stage = stage_of(target)
    with suppress(OSError):
        descriptor = os.open(stage, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(stage, ignore_errors=True)
        finally:
            os.close(descriptor)


def abandoned(target: Path) -> Iterator[Path]:
    """What killed copies to other names left beside `target`. Only those are named that this user may remove."""
    try:
        beside = sorted(target.parent.glob(".*.copying"))
    except OSError:
        return
    for stage in beside:
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
    """`data` becomes `target`, where nothing is, or an empty directory, or a former copy, which then is where `data` was.

    Raises OSError.
    """
    try:
        os.rename(data, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not exchange(data, target):
            # Where the filesystem can't swap, there is a moment without either.
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
            _refuse_strangers(stage, descriptor)
            if _acquired(descriptor) and _still_there(stage, descriptor):
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


def _still_there(stage: Path, descriptor: int) -> bool:
    """Who held it before removes it, with the lock; then this is the lock of nothing."""
    try:
        return os.path.samestat(os.stat(stage), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _refuse_strangers(stage: Path, descriptor: int) -> None:
    """In /dev/shm and /tmp anybody may have made it, to have a look at what is built there, or to change it."""
    sticky = os.stat(stage.parent).st_mode & stat.S_ISVTX
    owner = os.fstat(descriptor).st_uid
    if sticky and owner != os.geteuid():
        raise CannotWrite(f"{stage} belongs to UID {owner}; remove it, or copy to another name", path=str(stage))


def _empty(stage: Path) -> None:
    for entry in os.scandir(stage):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)
