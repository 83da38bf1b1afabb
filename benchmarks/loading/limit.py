"""The limit of the disk: fio reads the same files, cold and with direct I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.disk import fio
from benchmarks.loading.temperature import chill
from benchmarks.measuring import MiB

DEPTHS = (4, 16, 32)
BLOCKS = (MiB, 8 * MiB)
"""Bytes of one request of fio. It uses ordinary pages, so the kernel splits requests that span too many of them."""


@dataclass(frozen=True, slots=True)
class Limit:
    """The read rate of `files`, which have equal sizes. `block`: bytes of one request."""

    files: tuple[Path, ...]
    block: int

    @classmethod
    def found(cls, files: Sequence[Path]) -> Limit:
        """Return the limit with the fastest block size for this disk. Raises Failed."""
        return max((cls(tuple(files), block) for block in BLOCKS), key=lambda limit: limit.rate())

    def rate(self) -> float:
        """Return the rate in bytes a second with the best queue depth, as counted by fio. Raises Failed."""
        return max(self._read(depth)["bw_bytes"] for depth in DEPTHS)

    @property
    def words(self) -> list[str]:
        """The command for the least queue depth."""
        return ["fio", *self._words(DEPTHS[0])]

    def _read(self, depth: int) -> dict[str, float]:
        chill(self.files)
        read: dict[str, float] = fio(*self._words(depth))["read"]
        return read

    def _words(self, depth: int) -> list[str]:
        whole = min(file.stat().st_size for file in self.files) // self.block * self.block
        how = ["--rw=read", "--direct=1", "--ioengine=libaio", f"--iodepth={depth}", f"--bs={self.block}", "--readonly"]
        files = [f"--filename={':'.join(map(str, self.files))}", "--file_service_type=sequential"]
        return ["--name=limit", *files, f"--size={whole * len(self.files)}", *how]
