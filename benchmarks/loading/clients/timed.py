"""Time loading inside the loading process, without its imports, which cost more.

The clock starts just before the first file is opened and stops when the last tensor is in memory. It includes allocation of the
destination; no tensor is freed before. Afterwards every tensor is hashed, and the parent compares digests. Standard library and
xxhash only: this module also runs in the peers' environment.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import xxhash

from benchmarks.memory import have_ready

MEMORY = "BENCH_MEMORY"
"""Variable with the bytes of memory to populate."""

PAGE = 4096
_RESET_HIGH_WATER_MARK = "5"

Tensor = TypeVar("Tensor")


def timed(
    outcome: Path,
    load: Callable[[], Iterable[tuple[str, Tensor]]],
    content: Callable[[Tensor], memoryview],
    *,
    keep: bool = True,
    first_alone: bool = False,
) -> None:
    """Run `load` and write its cost to `outcome` as JSON: seconds, bytes, and the digest of each tensor.

    `keep`: keep all tensors, as an engine does; otherwise each tensor is freed when the next one arrives, and a second, untimed
    run is hashed. `first_alone`: stop after the first tensor.
    """
    kept: dict[str, Tensor] = {}
    first = None
    gc.collect()
    have_ready(int(os.environ.get(MEMORY, "0")))
    _reset_high_water_mark()
    resident, usage = _memory("VmRSS"), resource.getrusage(resource.RUSAGE_SELF)
    began = time.perf_counter()
    for name, tensor in load():
        if first is None:
            first = time.perf_counter() - began
        if keep or first_alone:
            kept[name] = tensor
        if first_alone:
            break
    wall = time.perf_counter() - began
    used, peak = resource.getrusage(resource.RUSAGE_SELF), _memory("VmHWM")
    held = sum(content(tensor).nbytes for tensor in kept.values())
    tensors = kept.items() if kept else load()
    faults, major = used.ru_minflt - usage.ru_minflt, used.ru_majflt - usage.ru_majflt
    result = {
        "wall": wall,
        "first": first,
        "cpu": used.ru_utime + used.ru_stime - usage.ru_utime - usage.ru_stime,
        "faults": faults + major,
        "major_faults": major,
        "resident": peak,
        "beyond": max(0, peak - resident - held),
        "digests": {name: xxhash.xxh3_128_hexdigest(content(tensor)) for name, tensor in tensors},
    }
    outcome.write_text(json.dumps(result))


def touch(content: memoryview) -> None:
    """Read every page of a mapped tensor, as a copy to an accelerator does."""
    content[::PAGE].tobytes()


def _reset_high_water_mark() -> None:
    """Reset VmHWM, so that it measures only the load."""
    Path("/proc/self/clear_refs").write_text(_RESET_HIGH_WATER_MARK)


def _memory(field: str) -> int:
    """Return a field of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)
