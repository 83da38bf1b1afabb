"""Reuse unchanged files of an earlier copy: they are linked into the new copy, which takes no time and no space.

A file is linked first and checked where it is staged, so nobody can exchange it between the check and its use.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

import xxhash

from fetcher.artifact import ByteRange
from fetcher.filesystem import file_mode, make_directory, storing
from loader.copying.artifacts import Artifact, Item, Names
from loader.copying.chunks import PIECE, round_robin
from loader.copying.record import CopyRecord
from loader.workers import OwnBuffer, run_on_threads


def reuse(artifact: Artifact, former: Path, data: Path, *, threads: int) -> frozenset[str]:
    """Link unchanged files of the earlier copy `former` into `data`, under the first name of each; return these names.

    With a manifest, every chunk is compared with it. Without, the record must name the present source file, and the copy must
    be unmodified since. Raises StoreError.
    """
    record = CopyRecord.read(former)
    linked = [names[0] for names in artifact.contents if _linked(names, former, data, record)]
    comparison = _Comparison(data)
    verifiable = [item for item in linked if item.digests]
    run_on_threads(round_robin(verifiable, files=2 * threads), comparison.compare, threads=threads)
    for path in comparison.different:
        with storing("stage the copy", str(data / path)):
            os.unlink(data / path)
    return frozenset(item.path for item in linked) - comparison.different


def _linked(names: Names, former: Path, data: Path, record: CopyRecord | None) -> bool:
    """Stage the file that one of the names has in the earlier copy. Return whether it is staged and may be unchanged."""
    staged = data / names[0].path
    for item in names:
        if not (former / item.path).is_file():
            continue
        with storing("stage the copy", str(staged)):
            make_directory(staged.parent)
        with suppress(OSError):  # without hard links the file is copied
            os.link(former / item.path, staged, follow_symlinks=False)
            if _may_be_unchanged(item, staged, record):
                return True
            os.unlink(staged)
    return False


def _may_be_unchanged(item: Item, staged: Path, record: CopyRecord | None) -> bool:
    """Check all except the digests. A file that others can write to is refused: it could change after the comparison."""
    status = os.lstat(staged)
    if not stat.S_ISREG(status.st_mode) or status.st_size != item.size or status.st_uid != os.geteuid():
        return False
    if status.st_mode & 0o022 & ~file_mode(staged.parent):
        return False
    if item.digests or not item.size:
        return True
    copied_from = record.files.get(item.path) if record is not None else None
    return copied_from == item.identity and status.st_mtime_ns == item.identity.mtime_ns


class _Comparison:
    """Compares chunks with their digests from any thread; `different` has the paths with at least one difference."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._buffer = OwnBuffer(PIECE)
        self.different: set[str] = set()

    def compare(self, piece: tuple[Item, int]) -> None:
        item, index = piece
        if item.path not in self.different and self._digest(item, index) != item.digests[index]:
            self.different.add(item.path)

    def _digest(self, item: Item, index: int) -> str | None:
        """Return the digest of a chunk, or None if it cannot be read: then the file is copied again."""
        with suppress(OSError):
            descriptor = os.open(self._data / item.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                return self._hashed(descriptor, item.chunk(index))
            finally:
                os.close(descriptor)
        return None

    def _hashed(self, descriptor: int, part: ByteRange) -> str:
        hasher, buffer, position = xxhash.xxh3_128(), self._buffer.mine, part.start
        while position < part.stop and (count := os.preadv(descriptor, [buffer[: part.stop - position]], position)):
            hasher.update(buffer[:count])
            position += count
        return hasher.hexdigest()
