"""System calls that change files below a root, a destination or a lease, and follow no symbolic link there.

Several users may write to a shared volume, and any member of its group can plant a link. So each call resolves its path below
a `base`, and fails with ELOOP or ENOTDIR at a link. Links in the path of the base itself are followed.

A takeover renames a lease's `data.<owner>`. Calls of the previous owner that name the old path then fail: this fences them. A
directory descriptor would survive the rename. So every change of staged files names `data.<owner>/<name>` on one side of a
single system call, relative to the lease's directory or to one above it. A nested directory is created under a flat name and
renamed into place. A file to be removed is renamed to a flat name first.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath

import xxhash

from fetcher.filesystem import fill, first_names, sync_descriptor, try_chmod
from fetcher.host.libc import libc

_OPENAT2 = {"x86_64": 437, "aarch64": 437}.get(os.uname().machine)
_NO_SYMLINKS, _BENEATH = 0x04, 0x08
_RETRIES = 16
"""openat2 fails with EAGAIN when something is renamed while it resolves the path; the caller has to try again."""
_UNSUPPORTED = {errno.ENOSYS, errno.EPERM, errno.EINVAL}
"""ENOSYS before Linux 5.6; EPERM from the seccomp filters of old container runtimes; EINVAL from emulations."""
_PLACING = "placing-"
"""Prefix of the flat name of a nested file while it is being placed."""
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


_MAKING = threading.Lock()
"""Held while a staged directory is made. The rename of a second thread would replace the directory of the first, or fail."""


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(base: Path, path: Path, flags: int, mode: int = 0) -> int:
    """Open `path`; return its descriptor. No component below `base` may be a link. Never blocks on a FIFO. Raises OSError."""
    with _opened(base) as top:
        return _open_at(top, _relative(base, path), flags, mode)


def read_beneath(base: Path, path: Path, *, limit: int) -> bytes:
    """Return the first `limit` bytes of a regular file. Raises OSError, also if `path` is not a regular file."""
    descriptor = open_beneath(base, path, os.O_RDONLY)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        with os.fdopen(os.dup(descriptor), "rb") as stream:
            return stream.read(min(limit, status.st_size))  # read() allocates its whole argument
    finally:
        os.close(descriptor)


def make_directories(base: Path, path: Path) -> None:
    """Create `path` and its missing parents below `base`. Each is shared with a group if its parent is. Raises OSError."""
    relative = path.relative_to(base)
    for depth in range(1, len(relative.parts) + 1):
        _make_one(base, base.joinpath(*relative.parts[:depth]))


def rename(source_base: Path, source: Path, target_base: Path, target: Path) -> None:
    """Rename `source` to `target`. A link at either path is renamed or replaced, not followed. Raises OSError."""
    with parent(source_base, source) as (above, name), parent(target_base, target) as (other, new):
        os.rename(name, new, src_dir_fd=above, dst_dir_fd=other)


def link(base: Path, source: Path, target: Path) -> None:
    """Make `target` another name of `source`, both below `base`. A link at `source` itself is not followed. Raises OSError."""
    with parent(base, source) as (above, name), parent(base, target) as (other, new):
        os.link(name, new, src_dir_fd=above, dst_dir_fd=other, follow_symlinks=False)


def symlink(base: Path, path: Path, text: str) -> None:
    """Create a symbolic link at `path` that points to `text`. It replaces another symbolic link in one step, and nothing else.

    Raises FileExistsError if anything else has that name, and OSError.
    """
    with parent(base, path) as (above, name):
        with suppress(FileExistsError):
            os.symlink(text, name, dir_fd=above)
            return
        if not stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        draft = _draft()
        os.symlink(text, draft, dir_fd=above)
        os.rename(draft, name, src_dir_fd=above, dst_dir_fd=above)


def remove(base: Path, path: Path) -> None:
    """Remove a file or a link if it exists. Raises OSError."""
    with suppress(FileNotFoundError), parent(base, path) as (above, name):
        os.unlink(name, dir_fd=above)


def remove_directory(base: Path, path: Path) -> None:
    """Remove an empty directory. Raises OSError, also if it is not empty."""
    with parent(base, path) as (above, name):
        os.rmdir(name, dir_fd=above)


def remove_tree(base: Path, path: Path) -> None:
    """Remove a directory and its contents, as far as possible. Links are removed, not followed."""
    with suppress(OSError, RecursionError), parent(base, path) as (above, name):
        shutil.rmtree(name, ignore_errors=True, dir_fd=above)


def replace_file(base: Path, path: Path, data: bytes, *, mode: int) -> None:
    """Replace the small file `path` durably and in one step. Raises OSError; no draft is left then."""
    draft = path.with_name(_draft())
    try:
        write_new(base, draft, data, mode=mode)
        rename(base, draft, base, path)
    except BaseException:
        with suppress(OSError):
            remove(base, draft)
        raise
    sync(base, path.parent)


def write_new(base: Path, path: Path, data: bytes, *, mode: int) -> None:
    """Write and sync a new file. Raises FileExistsError if the name exists, and OSError."""
    fill(open_beneath(base, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), data, mode=mode)


def sync(base: Path, directory: Path) -> None:
    """Make the names in `directory` durable. Raises OSError."""
    descriptor = open_beneath(base, directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_descriptor(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def parent(base: Path, path: Path) -> Iterator[tuple[int, str]]:
    """Yield a descriptor of the directory that holds `path`, for use in one system call, and the name in that directory."""
    descriptor = open_beneath(base, path.parent, _DIRECTORY)
    try:
        yield descriptor, path.name
    finally:
        os.close(descriptor)


class Fence:
    """Changes to files in `data`, a lease's `data.<owner>`. All raise FileNotFoundError after another owner took the lease."""

    def __init__(self, base: Path, data: Path) -> None:
        self._base = base
        self._data = data

    def create(self, path: Path, mode: int) -> int:
        """Create a file below `data` and return its descriptor, open for reading and writing. Raises OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        try:
            with _opened(self._base) as top:
                return _openat2(top, _relative(self._base, path), flags, mode)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        with self._lease() as lease:
            return self._create_flat(lease, path, flags, mode)

    def make_directories(self, path: Path) -> None:
        """Create `path` and its missing parents below `data`. Raises OSError."""
        if path == self._data:
            return
        relative = path.relative_to(self._data)
        for depth in range(1, len(relative.parts) + 1):
            each = self._data.joinpath(*relative.parts[:depth])
            with _MAKING:
                if not _is_directory(self._base, each):
                    self._make_one(each)

    def doom(self, base: Path, path: Path) -> None:
        """Remove the file or link `path`, in or outside `data`, if it exists. Raises FileNotFoundError if the lease is lost."""
        with self._lease() as lease, parent(base, path) as (above, name):
            doomed = self._flat("doomed")
            try:
                os.rename(name, doomed, src_dir_fd=above, dst_dir_fd=lease)
            except FileNotFoundError:
                os.stat(self._data.name, dir_fd=lease, follow_symlinks=False)  # raises if the lease is gone, not the file
                return
            os.unlink(doomed, dir_fd=lease)

    def place(self, source: Path, base: Path, target: Path) -> None:
        """Rename the staged file or directory `source` to `target` below `base`.

        A file in a subdirectory of `data` takes two renames. After a kill between them, `restore` undoes the first.
        """
        with self._lease() as lease:
            flat = f"{self._data.name}/{source.name}"
            if source.parent != self._data:
                flat = f"{self._data.name}/{self._placing(source)}"
                with parent(self._base, source) as (above, name):
                    os.rename(name, flat, src_dir_fd=above, dst_dir_fd=lease)
            with parent(base, target) as (other, new):
                os.rename(flat, new, src_dir_fd=lease, dst_dir_fd=other)

    def restore(self, paths: Iterable[Path]) -> None:
        """Move staged `paths` back to their names if a kill interrupted `place`."""
        if not first_names(self._data, _PLACING, limit=1):
            return
        for path in paths:
            with suppress(FileNotFoundError):
                rename(self._base, self._data / self._placing(path), self._base, path)

    def _placing(self, path: Path) -> str:
        return _PLACING + xxhash.xxh3_128_hexdigest(os.fsencode(path.relative_to(self._data)))

    def replace_file(self, base: Path, target: Path, data: bytes, *, mode: int) -> None:
        """Replace the small file `target` below `base`, from a draft in `data`."""
        self.place(self.write_draft(data, mode=mode), base, target)
        sync(base, target.parent)

    def write_draft(self, data: bytes, *, mode: int) -> Path:
        """Write and sync a new file in `data`, to be placed. Return its path, which nobody can guess. Raises OSError."""
        draft = self._data / _draft()
        fill(self.create(draft, mode), data, mode=mode)
        return draft

    def link(self, text: str, base: Path, target: Path) -> None:
        """Create a symbolic link at `target` below `base`. It replaces any file or link of that name."""
        with self._lease() as lease, parent(base, target) as (above, name):
            flat = self._flat("link")
            os.symlink(text, flat, dir_fd=lease)
            os.rename(flat, name, src_dir_fd=lease, dst_dir_fd=above)

    def _make_one(self, path: Path) -> None:
        with self._lease() as lease, parent(self._base, path) as (above, name):
            flat = self._flat("directory")
            os.mkdir(flat, dir_fd=lease)
            _share(lease, flat, self._data.name)
            os.rename(flat, name, src_dir_fd=lease, dst_dir_fd=above)

    def _create_flat(self, lease: int, path: Path, flags: int, mode: int) -> int:
        """Without openat2: create the file under a flat name, then rename it into its directory."""
        if path.parent == self._data:
            return os.open(f"{self._data.name}/{path.name}", flags | os.O_CLOEXEC | os.O_NOFOLLOW, mode, dir_fd=lease)
        flat = self._flat("new")
        with parent(self._base, path) as (above, name):
            descriptor = os.open(flat, flags | os.O_CLOEXEC | os.O_NOFOLLOW, mode, dir_fd=lease)
            try:
                os.rename(flat, name, src_dir_fd=lease, dst_dir_fd=above)
            except BaseException:
                os.close(descriptor)
                with suppress(OSError):
                    os.unlink(flat, dir_fd=lease)
                raise
            return descriptor

    def _flat(self, purpose: str) -> str:
        return f"{self._data.name}/{purpose}-{uuid.uuid4().hex}"

    @contextmanager
    def _lease(self) -> Iterator[int]:
        descriptor = open_beneath(self._base, self._data.parent, _DIRECTORY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _draft() -> str:
    """A name that nobody can guess. It stays short even if the file's own name is long."""
    return f".{uuid.uuid4().hex}.draft"


def _make_one(base: Path, path: Path) -> None:
    if _is_directory(base, path):
        return
    with suppress(FileExistsError), parent(base, path) as (above, name):
        os.mkdir(name, dir_fd=above)
        _share(above, name, ".")
    if not _is_directory(base, path):
        raise NotADirectoryError(errno.ENOTDIR, "a link or a file has the name of a directory", str(path))


def _share(above: int, name: str, example: str) -> None:
    """Set the mode of a new directory: shared with a group if `example` is."""
    shown = os.stat(example, dir_fd=above, follow_symlinks=False).st_mode
    shared = shown & (stat.S_ISGID | stat.S_IWGRP)
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    try:
        try_chmod(descriptor, 0o775 | (shown & stat.S_ISGID) if shared else 0o755)
    finally:
        os.close(descriptor)


def _is_directory(base: Path, path: Path) -> bool:
    try:
        os.close(open_beneath(base, path, _DIRECTORY))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


@contextmanager
def _opened(base: Path) -> Iterator[int]:
    descriptor = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _relative(base: Path, path: Path) -> str:
    """The part of `path` below `base`. Raises ValueError if it is not below it."""
    text, above = os.fspath(path), os.fspath(base) + "/"
    return text[len(above) :] if text.startswith(above) else os.fspath(path.relative_to(base))


def _open_at(top: int, relative: str, flags: int, mode: int) -> int:
    try:
        return _openat2(top, relative, flags, mode)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    return _walk(top, PurePath(relative), flags, mode)


def _openat2(top: int, relative: str, flags: int, mode: int) -> int:
    if _OPENAT2 is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(relative))
    how = _How(_safe_flags(flags), mode if flags & os.O_CREAT else 0, _NO_SYMLINKS | _BENEATH)
    arguments = (ctypes.c_int(top), ctypes.c_char_p(os.fsencode(relative)), ctypes.byref(how), ctypes.c_size_t(24))
    code = errno.EAGAIN
    for _ in range(_RETRIES):
        descriptor = int(libc().syscall(ctypes.c_long(_OPENAT2), *arguments))
        if descriptor >= 0:
            return descriptor
        code = ctypes.get_errno()
        if code not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(code, os.strerror(code), str(relative))


def _walk(top: int, relative: PurePath, flags: int, mode: int) -> int:
    """Open component by component, for kernels and containers without openat2."""
    if ".." in relative.parts:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(relative))
    *above, name = relative.parts or (".",)
    current = os.dup(top)
    try:
        for component in above:
            following = os.open(component, _DIRECTORY, dir_fd=current)
            os.close(current)
            current = following
        return os.open(name, _safe_flags(flags), mode, dir_fd=current)
    finally:
        os.close(current)


def _safe_flags(flags: int) -> int:
    extra = os.O_CLOEXEC | os.O_NOFOLLOW
    return flags | extra if flags & os.O_PATH else flags | extra | os.O_NONBLOCK
