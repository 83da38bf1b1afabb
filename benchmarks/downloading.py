"""Downloads that several comparisons have: the bare loop, which is the limit of a client, and `kserve-storage`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.publishing import MiB

CLIENTS = Path(__file__).parent / "clients"
BUFFER = MiB
"""Bytes that the bare loop collects before a write: the fastest of 64 KiB (0.76 CPU seconds for 512 MiB), 256 KiB (0.63),
1 MiB (0.55) and 4 MiB (0.59), medians of 6 interleaved rounds on 2 x Xeon at 2.50 GHz."""


def range_length(total: int, connections: int) -> int:
    """Return the bytes of a request for `total` bytes: the fetcher's rule, four for each connection within bounds."""
    return max(16 * MiB, min(64 * MiB, total // (4 * connections)))


def write_addresses(target: Path, files: Iterable[tuple[str, str, int]]) -> None:
    """Write the address, name and size of each file, for the bare loop and its like."""
    target.write_text("".join(f"{url}\t{name}\t{size}\n" for url, name, size in files))


def bare_loop(addresses: str | Path, destination: Path, *, connections: int, total: int) -> Sequence[str]:
    numbers = [f"--connections={connections}", f"--range={range_length(total, connections)}", f"--buffer={BUFFER}"]
    return [sys.executable, str(CLIENTS / "bare_loop.py"), str(addresses), str(destination), *numbers]


def kserve(python: str, source: str, destination: Path) -> Sequence[str]:
    return [python, str(CLIENTS / "kserve.py"), source, str(destination)]
