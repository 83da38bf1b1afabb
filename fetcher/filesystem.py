"""The system calls the store rests on, each with what it promises and where it does not exist.

All raise OSError; callers wrap what they do in `storing`, which says in words what failed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from fetcher.errors import CannotWrite, LocalIOError, from_os_error
from fetcher.host.libc import TMPFS, filesystem_type, libc

MOST_NAMES = 1000
"""Names of a directory that are looked at where we leave a few: a lease has 3, and one more for each owner that was killed."""
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_FALLOC_FL_KEEP_SIZE = 1
_FICLONE = 0x40049409
_RENAMEAT2 = {"x86_64": 316, "aarch64": 276}.get(platform.machine())
_UNSUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.ENOTTY, errno.EPERM, errno.ETXTBSY}

# statfs(2) f_type of filesystems that several hosts see: their sign of life may arrive late.
_NETWORK_MAGIC = {
    0x6969: "nfs",
    0xFF534D42: "cifs",
    0xFE534D42: "smb2",
    0x00C36400: "ceph",
    0x0BD00BD0: "lustre",
    0x47504653: "gpfs",
    0x65735546: "fuse",
    0x01021997: "9p",
    0x7461636F: "ocfs2",
    0x01161970: "gfs2",
    0x6A656A63: "virtiofs",
}
_OF_THIS_KERNEL = {0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, TMPFS, 0x794C7630}


def _checked(result: int, path: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)


@contextmanager
def storing(doing: str, path: str | None = None) -> Iterator[None]:
    """Turn an OSError into the StoreError that says it; `doing` completes "cannot ...".

    A RecursionError comes from `os.walk` and `shutil.rmtree`, at directories that are nested a thousand deep.
    """
    try:
        yield
    except OSError as error:
        raise from_os_error(error, doing=doing, path=path) from error
    except RecursionError as error:
        raise LocalIOError(f"cannot {doing}: directories are nested too deep there; remove them", path=path) from error
    except UnicodeEncodeError as error:
        name = ascii(error.object)
        raise CannotWrite(f"cannot {doing}: this locale has no way to write {name}; set PYTHONUTF8=1", path=path) from error


def exchange(one: Path, other: Path) -> bool:
    """Swap two paths in one step (`renameat2(RENAME_EXCHANGE)`); False where the filesystem can't (NFS, older kernels)."""
    if _RENAMEAT2 is None:
        return False
    try:
        _checked(
            libc().syscall(
                ctypes.c_long(_RENAMEAT2),
                ctypes.c_int(_AT_FDCWD),
                ctypes.c_char_p(os.fsencode(one)),
                ctypes.c_int(_AT_FDCWD),
                ctypes.c_char_p(os.fsencode(other)),
                ctypes.c_uint(_RENAME_EXCHANGE),
            ),
            str(one),
        )
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


def reserve(descriptor: int, size: int) -> bool:
    """Reserve `size` bytes for a file without changing its length; False where the filesystem has no such thing.

    Raises ENOSPC at once instead of after hours. `posix_fallocate` would write zeros where this is not supported. On tmpfs it
    is left out: there it fills every page with zeros that the write overwrites (0.4 s a GiB), and space was compared before.
    """
    if size == 0:
        return True
    if filesystem_type(descriptor) == TMPFS:
        return False
    while libc().fallocate(descriptor, _FALLOC_FL_KEEP_SIZE, 0, size) != 0:
        code = ctypes.get_errno()
        if code in _UNSUPPORTED:
            return False
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
    return True


def clone(source: int, target: int) -> bool:
    """Make `target` share all of `source`'s blocks, copy on write (xfs, btrfs); False where that can't be."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. A filesystem that has no such call (some FUSE, CIFS) is let off."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_descriptor(descriptor)
    finally:
        os.close(descriptor)


def sync_descriptor(directory: int) -> None:
    """As `sync_directory`, of one that is open."""
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise


def fill(descriptor: int, data: bytes, *, mode: int) -> None:
    """Write, sync and close a new file. Raises OSError; it is closed in any case."""
    try:
        write_all(descriptor, data)
        allow(descriptor, mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, data: bytes, *, mode: int) -> None:
    """Replace the small file `path` in one step: written beside it, synced, renamed, the directory synced."""
    draft = path.with_name(f".{uuid.uuid4().hex}.draft")  # pods share process ids, and nobody may guess the name
    try:
        fill(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode), data, mode=mode)
        os.rename(draft, path)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise
    sync_directory(path.parent)


def write_whole(path: Path, text: str) -> None:
    """Replace the small file `path` in one step, in UTF-8, readable to everybody. Raises OSError.

    It is not synced: after a power loss it says nothing true anyway. Half a surrogate pair is written as an escape.
    """
    draft = path.with_name(f".{uuid.uuid4().hex}.draft")
    try:
        with draft.open("xb") as stream:
            stream.write(text.encode(errors="backslashreplace"))
            allow(stream.fileno(), 0o644)
        draft.replace(path)
    except BaseException as error:
        with suppress(OSError):
            draft.unlink()
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error  # nobody knows the draft
        raise


def mark(status: os.stat_result) -> str:
    """Which file this is, and in which state: equal for an open file and its names until somebody writes or replaces it."""
    return f"{status.st_dev}-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"


def write_all(descriptor: int, data: bytes) -> None:
    """write(2) until everything is written."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def allow(target: int | Path, mode: int) -> None:
    """chmod, whatever the umask; filesystems that refuse it (CIFS, some FUSE, another owner's file) are let off."""
    with suppress(OSError):
        os.chmod(target, mode)


def file_mode(parent: Path) -> int:
    """0644, and group write where the parent directory is shared by a group (setgid or group-writable)."""
    return 0o664 if _shared_by_group(parent) else 0o644


def directory_mode(parent: Path) -> int:
    """0755, and group write (with setgid kept) where the parent directory is shared by a group."""
    if not _shared_by_group(parent):
        return 0o755
    return 0o775 | (os.stat(parent).st_mode & stat.S_ISGID)


def _shared_by_group(parent: Path) -> bool:
    return bool(os.stat(parent).st_mode & (stat.S_ISGID | stat.S_IWGRP))


def make_directory(path: Path) -> None:
    """`path` and its missing parents, each with `directory_mode` of the one above it."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        mode = directory_mode(directory.parent)
        with suppress(FileExistsError):
            os.mkdir(directory, 0o777)
            allow(directory, mode)


def network_filesystem(path: Path) -> str | None:
    """The kind of network filesystem `path` lies on; None on a local one."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _NETWORK_MAGIC.get(filesystem_type(descriptor))
    finally:
        os.close(descriptor)


def of_this_kernel(descriptor: int) -> bool:
    """Whether no other machine, and no process behind FUSE, has a say in what happens to a file: ext2 to 4, xfs, btrfs, f2fs,
    tmpfs, overlay."""
    return filesystem_type(descriptor) in _OF_THIS_KERNEL


def free_bytes(path: Path) -> int | None:
    """What an ordinary user may still write on the filesystem of `path`; None where it does not say (some FUSE)."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize if status.f_blocks else None


def free_inodes(path: Path) -> int | None:
    """How many files may still be made there; None where there is no fixed number (btrfs, NFS)."""
    status = os.statvfs(path)
    return status.f_favail if status.f_files else None


def first_names(directory: Path, *beginnings: str, limit: int = MOST_NAMES) -> list[str]:
    """The first names in `directory` that begin with one of `beginnings` (any name without one), in no order. Raises OSError.

    Others may write there too: however many names they leave, no more than `limit` are held.
    """
    with os.scandir(directory) as entries:
        return list(islice((entry.name for entry in entries if entry.name.startswith(beginnings or "")), limit))


def existing_parent(path: Path) -> Path:
    """The nearest directory at or above `path` that is there."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
