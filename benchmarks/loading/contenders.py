"""The contenders: name, ways to call them, and the result to compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.installation import missing
from benchmarks.loading.commands import (
    Command,
    cat,
    copy,
    copy_by_cp,
    ours,
    peer,
    tensorized,
    vmtouch,
    warm,
)

Result = Literal["tensors", "first", "pages", "copy"]
"""All tensors in memory, the first tensor, files in the page cache, or a copy of the files."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A contender. `ways` is never empty. `needs`: a program that must be on the PATH, and its Debian package."""

    name: str
    ways: tuple[Command, ...]
    result: Result = "tensors"
    needs: tuple[str, str] | None = None

    def missing(self) -> str | None:
        """Return the remedy if the program of `needs` is missing, or None."""
        return missing(*self.needs) if self.needs else None


LOADER, BUFFERED, STREAMED = "loader", "loader, buffered", "loader, streamed"
ONE_FILE, FIRST = "loader, one file", "loader, first tensor"
SAFE_OPEN, PREFETCHED = "safe_open, copied", "safe_open, copied, prefetched as vLLM does"
SAFE_OPEN_FIRST = "safe_open, first tensor"
LOAD_FILE, LOAD_FILE_PREAD = "load_file, views touched", "load_file, pread"
RUNAI, FAST, TENSORIZER = "runai-model-streamer", "fastsafetensors", "tensorizer"
WARM, CAT, VMTOUCH = "loader warm", "cat > /dev/null", "vmtouch -t"
COPY, CP = "loader copy, verified", "cp -r"
FIO = "fio, direct"

COPYING = (RUNAI, FAST, TENSORIZER, LOAD_FILE_PREAD, SAFE_OPEN, PREFETCHED)
"""Peers whose tensors are in private memory afterwards, not views of the page cache."""
PEERS = (*COPYING, LOAD_FILE)

THROUGH_THE_CACHE = {"RUNAI_STREAMER_FS_STRATEGY": "io_uring_buffered,sync_buffered"}

CONTENDERS = {
    each.name: each
    for each in (
        Contender(LOADER, (ours("auto", "all"),)),
        Contender(BUFFERED, (ours("buffered", "all"),)),
        Contender(STREAMED, (ours("auto", "streamed"),)),
        Contender(ONE_FILE, (ours("auto", "all", one=True),)),
        Contender(FIRST, (ours("auto", "first", one=True),), result="first"),
        Contender(SAFE_OPEN, (peer("safetensors_copies"),)),
        Contender(PREFETCHED, (peer("safetensors_copies", "--prefetch"),)),
        Contender(SAFE_OPEN_FIRST, (peer("safetensors_copies", "--first", one=True),), result="first"),
        Contender(LOAD_FILE, (peer("safetensors_views"),)),
        Contender(LOAD_FILE_PREAD, (peer("safetensors_views", "--backend=pread"),)),
        Contender(
            RUNAI,
            (
                peer("runai"),
                peer("runai", variables=THROUGH_THE_CACHE),
                peer("runai", variables={**THROUGH_THE_CACHE, "RUNAI_STREAMER_CONCURRENCY": "4"}),
            ),
        ),
        Contender(FAST, (peer("fast"), peer("fast", variables={"FASTSAFETENSORS_ODIRECT": "0"}))),
        Contender(TENSORIZER, (tensorized(), tensorized("--readers=4"))),
        Contender(WARM, (warm,), result="pages"),
        Contender(CAT, (cat,), result="pages"),
        Contender(VMTOUCH, (vmtouch,), result="pages", needs=("vmtouch", "vmtouch")),
        Contender(COPY, (copy,), result="copy"),
        Contender(CP, (copy_by_cp,), result="copy"),
    )
}
