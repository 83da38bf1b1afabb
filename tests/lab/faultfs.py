"""A FUSE filesystem that fails on demand: it passes operations through to a directory, except as its rules say.

The program, `python -m tests.lab.faultfs SOURCE MOUNT RULES PAGES [fold|preserve]`, runs in the foreground until unmounted.
RULES is a JSON file (a list of `Rule`). Replacing it by a rename takes effect with the next operation and resets all counts.
`tests.lab.faults` starts the program and writes the rules.

PAGES is one of `PAGES`. The default mount uses direct_io, so that failing or short reads and writes reach the caller without
the page cache. With `fold` and `preserve`, names that differ only in case, in Unicode form or in dots at their end are one
name, and no name has a colon, as on vfat and CIFS. `renameat2` flags are refused with EINVAL, as on a network filesystem.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mfusepy

Operation = Literal["open", "create", "read", "write", "fallocate", "fsync", "rename", "unlink", "mkdir"]

Pages = Literal["uncached", "dropped at each open", "kept"]
PAGES: dict[Pages, dict[str, bool]] = {
    "uncached": {"direct_io": True},
    "dropped at each open": {},
    "kept": {"kernel_cache": True},
}
"""Page-cache behaviour, and the mount options for it."""

_STAT_FIELDS = ("st_mode", "st_ino", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks")


@dataclass(frozen=True, slots=True)
class Rule:
    """Fail or shorten operations on paths that contain `match`, after `after` bytes.

    `error` is an errno. Without it, `short` is the maximum bytes of a read or write. `times`: how often, None for no limit.
    """

    operation: Operation
    match: str = ""
    error: int | None = None
    short: int | None = None
    after: int = 0
    times: int | None = None


class Rules:
    """The rules in the file at `path`, and their counts since the file was replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: tuple[int, int] | None = None
        self._rules: list[Rule] = []
        self._bytes: list[int] = []
        self._hits: list[int] = []

    def apply(self, operation: Operation, path: str, size: int = 0) -> int:
        """Return how many of `size` bytes the operation can transfer. Raises the OSError of the first rule that has one."""
        self._reload()
        for index, rule in enumerate(self._rules):
            if rule.operation == operation and rule.match in path and self._hit(index, rule, size):
                if rule.error is not None:
                    raise OSError(rule.error, os.strerror(rule.error))
                return min(size, rule.short if rule.short is not None else size)
        return size

    def _hit(self, index: int, rule: Rule, size: int) -> bool:
        self._bytes[index] += size
        if rule.after and self._bytes[index] <= rule.after:
            return False
        self._hits[index] += 1
        return rule.times is None or self._hits[index] <= rule.times

    def _reload(self) -> None:
        status = self._path.stat()
        if self._version != (version := (status.st_ino, status.st_mtime_ns)):
            self._rules = [Rule(**fields) for fields in json.loads(self._path.read_text())]
            self._bytes = [0] * len(self._rules)
            self._hits = [0] * len(self._rules)
            self._version = version


_UTIME_NOW, _UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
"""What utimensat(2) calls the present time, and a time that stays."""


class Passthrough(mfusepy.Operations):
    """Applies the rules, then does the operation on SOURCE."""

    use_ns = True

    def __init__(self, source: Path, rules: Rules) -> None:
        self._source = str(source)
        self._rules = rules

    def _at(self, path: str) -> str:
        return self._source + path

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        status = os.fstat(fh) if fh is not None else os.lstat(self._at(path))
        times = {name: getattr(status, f"{name}_ns") for name in ("st_atime", "st_mtime", "st_ctime")}
        return {name: getattr(status, name) for name in _STAT_FIELDS} | times

    def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, int], int]]:
        # use_ino passes inode numbers on, and readers skip entries with the number 0.
        return [(name, self._entry(f"{path}/{name}"), 0) for name in (".", "..", *os.listdir(self._at(path)))]

    def _entry(self, path: str) -> dict[str, int]:
        status = os.lstat(self._at(path))
        return {"st_mode": status.st_mode, "st_ino": status.st_ino}

    def readlink(self, path: str) -> str:
        return os.readlink(self._at(path))

    def statfs(self, path: str) -> dict[str, int]:
        status = os.statvfs(self._at(path))
        return {name: getattr(status, name) for name in dir(status) if name.startswith("f_") and name != "f_fsid"}

    def open(self, path: str, flags: int) -> int:
        self._rules.apply("open", path)
        return os.open(self._at(path), flags & ~os.O_DIRECT)

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        self._rules.apply("create", path)
        return os.open(self._at(path), os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, self._rules.apply("read", path, size), offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data[: self._rules.apply("write", path, len(data))], offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(fh if fh is not None else self._at(path), length)
        return 0

    def fallocate(self, path: str, mode: int, offset: int, size: int, fh: int) -> int:
        self._rules.apply("fallocate", path, size)
        if mode:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        os.posix_fallocate(fh, offset, size)
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self._rules.apply("fsync", path)
        (os.fdatasync if datasync else os.fsync)(fh)
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        self._rules.apply("fsync", path)
        directory = os.open(self._at(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return 0

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def rename(self, old: str, new: str) -> int:
        self._rules.apply("rename", old)
        os.rename(self._at(old), self._at(new))
        return 0

    def unlink(self, path: str) -> int:
        self._rules.apply("unlink", path)
        os.unlink(self._at(path))
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        self._rules.apply("mkdir", path)
        os.mkdir(self._at(path), mode)
        return 0

    def rmdir(self, path: str) -> int:
        os.rmdir(self._at(path))
        return 0

    def symlink(self, target: str, source: str) -> int:
        os.symlink(source, self._at(target))
        return 0

    def link(self, target: str, source: str) -> int:
        os.link(self._at(source), self._at(target))
        return 0

    def chmod(self, path: str, mode: int) -> int:
        os.chmod(self._at(path), mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        os.chown(self._at(path), uid, gid, follow_symlinks=False)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        status, now = os.lstat(self._at(path)), time.time_ns()
        before = (status.st_atime_ns, status.st_mtime_ns)
        chosen = [
            {_UTIME_NOW: now, _UTIME_OMIT: old}.get(new, new) for new, old in zip(times or (now, now), before, strict=True)
        ]
        os.utime(self._at(path), ns=(chosen[0], chosen[1]), follow_symlinks=False)
        return 0


class Folding(Passthrough):
    """Stores every name in lower case, in Unicode's composed form, and without dots and spaces at its end.

    Like vfat, it has no names with a colon.
    """

    def _at(self, path: str) -> str:
        if ":" in path:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        names = unicodedata.normalize("NFC", path.casefold()).split("/")
        return self._source + "/".join(name.rstrip(". ") for name in names)


class Preserving(Folding):
    """Keeps the first spelling of a name, and finds it by any other, like ext4 with casefold, vfat and CIFS."""

    def _at(self, path: str) -> str:
        folded = super()._at(path)[len(self._source) :].split("/")[1:]
        written = path.split("/")[1:]
        stored = self._source
        for name, spelling in zip(folded, written, strict=True):
            stored += "/" + self._spelled(stored, name, spelling)
        return stored.rstrip("/")

    def _spelled(self, directory: str, name: str, spelling: str) -> str:
        with suppress(OSError):
            for entry in os.listdir(directory):
                if unicodedata.normalize("NFC", entry.casefold()).rstrip(". ") == name:
                    return entry
        return spelling


class _Fuse(mfusepy.FUSE):
    def rename_fuse_3(self, old: bytes, new: bytes, flags: int) -> int:
        """Refuse flags: the binding drops them, so that RENAME_EXCHANGE and RENAME_NOREPLACE would be plain renames."""
        return -errno.EINVAL if flags else int(self.rename_fuse_2(old, new))


def main(arguments: Sequence[str]) -> None:
    source, mount, rules = map(Path, arguments[:3])
    options: dict[str, Any] = next(options for pages, options in PAGES.items() if pages == arguments[3])
    operations = {"fold": Folding, "preserve": Preserving}.get("".join(arguments[4:]), Passthrough)
    os.umask(0)  # the kernel has applied the umask of the caller
    _Fuse(
        operations(source, Rules(rules)), str(mount), foreground=True, nothreads=True, fsname="faultfs", use_ino=True,
        attr_timeout=0, entry_timeout=0, **options,
    )  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
