"""Populate memory before a contender needs it. Standard library only: this module also runs in the peers' environments."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

_MADV_POPULATE_WRITE = 23


def have_ready(size: int, meminfo: Path = Path("/proc/meminfo")) -> None:
    """Populate and free `size` bytes, at most half of the available memory. Call it just before a clock starts.

    A hypervisor reclaims free memory of its guest, and the first process that needs it waits. Of two equal loaders, the first
    in a round took four times the processor time.
    """
    available = re.search(r"^MemAvailable: +(\d+) kB$", meminfo.read_text(), re.MULTILINE)
    if most := min(size, int(available[1]) * 1024 // 2 if available else 0):
        with mmap.mmap(-1, most, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            memory.madvise(mmap.MADV_HUGEPAGE)
            memory.madvise(_MADV_POPULATE_WRITE)
