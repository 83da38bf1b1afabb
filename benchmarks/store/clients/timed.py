"""Time a load inside its process, after its imports."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Iterator


def timed(sizes: Callable[[], Iterator[int]]) -> None:
    """Run `sizes`, which yields the bytes of each tensor, and print seconds, CPU seconds and the sum of bytes as JSON."""
    began, before = time.monotonic(), _cpu()
    total = sum(sizes())
    print(json.dumps({"seconds": time.monotonic() - began, "cpu": _cpu() - before, "bytes": total}))


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
