"""The system calls that the store uses, each with its guarantee and the filesystems that lack it.

All raise OSError; callers wrap them in `storing`, which turns it into an error that says what failed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import stat
import struct
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from fetcher.errors import CannotWrite, LocalIOError, from_os_error
from fetcher.host.libc import TMPFS, filesystem_type, libc

MOST_NAMES = 1000
"""Limit on the names that are read from a directory of ours: a lease has 3, and one more for each owner that was killed."""
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_FALLOC_FL_KEEP_SIZE = 1
_FICLONE = 0x40049409
_FICLONERANGE = 0x4020940D
_RENAMEAT2 = {"x86_64": 316, "aarch64": 276}.get(os.uname().machine)
_UNSUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.ENOTTY, errno.EPERM, errno.ETXTBSY}

# statfs(2) f_type of filesystems that several hosts share: a heartbeat may arrive late on them.
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
    """Turn an OSError in the block into a StoreError; `doing` completes "cannot ...".

    `os.walk` and `shutil.rmtree` raise RecursionError for directories that are nested a thousand deep.
    """
    try:
        yield
    except OSError as error:
        raise from_os_error(error, doing=doing, path=path) from error
    except RecursionError as error:
        raise LocalIOError(f"cannot {doing}: directories are nested too deep; remove them", path=path) from error
    except UnicodeEncodeError as error:
        name = ascii(error.object)
        raise CannotWrite(f"cannot {doing}: this locale cannot represent {name}; set PYTHONUTF8=1", path=path) from error


def exchange(one: Path, other: Path) -> bool:
    """Swap two paths atomically (`renameat2(RENAME_EXCHANGE)`). Return False if this is not supported (NFS, older kernels)."""
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
    """Reserve `size` bytes for a file without changing its length. Return False if the filesystem does not support this.

    Raises ENOSPC at once instead of after hours. `posix_fallocate` would write zeros on filesystems without support. tmpfs is
    skipped: it would fill every page with zeros before the write (0.4 s a GiB), and free space is checked before.
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
    """Make `target` share all blocks of `source`, copy on write (xfs, btrfs). Return False if this is not supported."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


def clone_range(source: int, target: int, size: int, *, at: int) -> bool:
    """Make the `size` bytes of `target` from `at` share all blocks of `source`. Return False if this is not supported.

    `at` is a multiple of the block size.
    """
    try:
        fcntl.ioctl(target, _FICLONERANGE, struct.pack("qQQQ", source, 0, size, at))
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


def open_for_writing(descriptor: int) -> bool:
    """Return whether any process has the file open for writing. `descriptor` is open for reading only.

    The kernel refuses a read lease on such a file. It tells the file's owner and root on a local filesystem, and nobody else:
    then the answer is False. On a network filesystem the refusal has other reasons.
    """
    if not of_this_kernel(descriptor):
        return False
    try:
        # A writer that comes within the lease causes this signal, which is ignored by default. SIGIO would end the process.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    return False


def clones(directory: Path) -> bool:
    """Return whether files in `directory` can share blocks. Tries it with two unnamed files of one block. Raises OSError."""
    import tempfile  # takes 2 ms to import, and is needed only here

    with tempfile.TemporaryFile(dir=directory) as one, tempfile.TemporaryFile(dir=directory) as other:
        write_all(one.fileno(), bytes(4096))
        return clone(one.fileno(), other.fileno())


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Filesystems without this call (some FUSE, CIFS) are accepted."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_descriptor(descriptor)
    finally:
        os.close(descriptor)


def sync_descriptor(directory: int) -> None:
    """Make the names in an open directory durable, as `sync_directory` does."""
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise


def fill(descriptor: int, data: bytes, *, mode: int) -> None:
    """Write, sync and close a new file. Raises OSError; the file is closed in any case."""
    try:
        write_all(descriptor, data)
        try_chmod(descriptor, mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, data: bytes, *, mode: int) -> None:
    """Replace the small file `path` atomically and durably: write a draft, sync it, rename it, sync the directory."""
    draft = path.with_name(f".{uuid.uuid4().hex}.draft")  # process ids repeat across pods, and the name must not be guessable
    try:
        fill(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode), data, mode=mode)
        os.rename(draft, path)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise
    sync_directory(path.parent)


def write_whole(path: Path, text: str) -> None:
    """Replace the small file `path` atomically, in UTF-8, readable by everybody. Raises OSError.

    It is not synced, since its content is outdated after a power loss. A lone surrogate is written as an escape.
    """
    draft = path.with_name(f".{uuid.uuid4().hex}.draft")
    try:
        with draft.open("xb") as stream:
            stream.write(text.encode(errors="backslashreplace"))
            try_chmod(stream.fileno(), 0o644)
        draft.replace(path)
    except BaseException as error:
        with suppress(OSError):
            draft.unlink()
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error  # the user does not know the draft
        raise


def mark(status: os.stat_result) -> str:
    """Return a text that identifies a file and its state: it changes when the file is written or replaced."""
    return f"{status.st_dev}-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"


def write_all(descriptor: int, data: bytes) -> None:
    """Call write(2) until all of `data` is written."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def filled(descriptor: int, into: memoryview, position: int) -> bool:
    """Fill `into` from `position` of an open file. Return whether the file has so many bytes. Raises OSError."""
    done = 0
    while done < len(into) and (count := os.preadv(descriptor, [into[done:]], position + done)):
        done += count
    return done == len(into)


def try_chmod(target: int | Path, mode: int) -> None:
    """Set the mode regardless of the umask. A refusal is ignored (CIFS, some FUSE, another owner's file)."""
    with suppress(OSError):
        os.chmod(target, mode)


def file_mode(parent: Path) -> int:
    """Return 0644, with group write if a group shares the parent directory (setgid or group-writable)."""
    return 0o664 if _shared_by_group(parent) else 0o644


def directory_mode(parent: Path) -> int:
    """Return 0755, with group write and the parent's setgid bit if a group shares the parent directory."""
    if not _shared_by_group(parent):
        return 0o755
    return 0o775 | (os.stat(parent).st_mode & stat.S_ISGID)


def _shared_by_group(parent: Path) -> bool:
    return bool(os.stat(parent).st_mode & (stat.S_ISGID | stat.S_IWGRP))


def make_directory(path: Path) -> None:
    """Create `path` and its missing parents, each with the `directory_mode` of its parent."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        mode = directory_mode(directory.parent)
        with suppress(FileExistsError):
            os.mkdir(directory, 0o777)
            try_chmod(directory, mode)


def network_filesystem(path: Path) -> str | None:
    """Return the kind of network filesystem of `path`; None for a local one."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _NETWORK_MAGIC.get(filesystem_type(descriptor))
    finally:
        os.close(descriptor)


def of_this_kernel(descriptor: int) -> bool:
    """Return whether only this kernel changes the file, and no other machine or FUSE process: ext2 to 4, xfs, btrfs, f2fs,
    tmpfs, overlay."""
    return filesystem_type(descriptor) in _OF_THIS_KERNEL


def free_bytes(path: Path) -> int | None:
    """Return the bytes that an ordinary user can still write on the filesystem of `path`; None if unknown (some FUSE)."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize if status.f_blocks else None


def sync_filesystem(path: Path) -> None:
    """Write back everything on the filesystem of `path` (`syncfs`), so that it frees deleted blocks. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _checked(libc().syncfs(ctypes.c_int(descriptor)), str(path))
    finally:
        os.close(descriptor)


def free_inodes(path: Path) -> int | None:
    """Return how many files can still be created there; None if there is no fixed number (btrfs, NFS)."""
    status = os.statvfs(path)
    return status.f_favail if status.f_files else None


def first_names(directory: Path, *beginnings: str, limit: int = MOST_NAMES) -> list[str]:
    """Return up to `limit` names in `directory` that begin with one of `beginnings`, in any order. Raises OSError.

    Without `beginnings` any name counts. The limit bounds memory: other users may create any number of names there.
    """
    with os.scandir(directory) as entries:
        return list(islice((entry.name for entry in entries if entry.name.startswith(beginnings or "")), limit))


def existing_parent(path: Path) -> Path:
    """Return the nearest existing directory at or above `path`."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
