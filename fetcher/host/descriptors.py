"""The limit on file descriptors: how many are left, and how a command raises it."""

from __future__ import annotations

import os
import resource
from contextlib import suppress


def free_descriptors() -> int:
    """Return how many more descriptors this process can open now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(0, soft - len(os.listdir("/proc/self/fd")))


def raise_descriptor_limit() -> None:
    """Raise the soft limit to the hard limit. Only commands do this: a program that uses the library passes its limit on to
    children, and these may loop over all descriptors or use select(2)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
