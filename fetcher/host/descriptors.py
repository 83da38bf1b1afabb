"""File descriptors: how many a process may still open, and how a command may open more."""

from __future__ import annotations

import os
import resource
from contextlib import suppress


def free_descriptors() -> int:
    """How many more this process may open now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(0, soft - len(os.listdir("/proc/self/fd")))


def raise_descriptor_limit() -> None:
    """As far as the hard limit allows. For commands alone: a program that uses the library may pass its limit on to children
    that loop over all descriptors, or that use select(2)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
