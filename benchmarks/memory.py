"""Memory that is really there when a contender asks for it. Standard library only: it runs in the peers' environments too."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

_MADV_POPULATE_WRITE = 23


def have_ready(size: int, meminfo: Path = Path("/proc/meminfo")) -> None:
    """Take `size` bytes, half of what is available at most, and give them back.

    A hypervisor takes free memory away from its guest, and whoever needs it first waits for it: of two loaders alike, the one
    that came first in a round took four times the processor time. To be called just before a clock begins.
    """
    available = re.search(r"^MemAvailable: +(\d+) kB$", meminfo.read_text(), re.MULTILINE)
    if most := min(size, int(available[1]) * 1024 // 2 if available else 0):
        with mmap.mmap(-1, most, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            memory.madvise(mmap.MADV_HUGEPAGE)
            memory.madvise(_MADV_POPULATE_WRITE)
