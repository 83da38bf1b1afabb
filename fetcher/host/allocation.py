"""Memory allocated directly from the kernel."""

from __future__ import annotations

import mmap


def map_memory(size: int) -> memoryview:
    """Map `size` bytes outside the allocator's heap: only touched pages are resident, and all are freed together."""
    return memoryview(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
