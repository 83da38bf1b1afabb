"""Memory from the kernel itself."""

from __future__ import annotations

import mmap


def pages(size: int) -> memoryview:
    """Memory of its own, not the allocator's: what is resident is what was touched, and all of it goes at once."""
    return memoryview(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
