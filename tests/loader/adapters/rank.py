"""One of several processes that load the same files at the same time: `python -m ... RANK RANKS FILE...`.

Prints `ready`, waits for a line, loads, and prints the result as JSON. `read_bytes` counts the bytes that it read from storage.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from loader.adapters.engine import Host, Settings, read_tensors


def main(rank: int, ranks: int, files: list[str]) -> None:
    print("ready", flush=True)
    sys.stdin.readline()
    before, total, count = _read_bytes(), 0, 0
    for _, tensor in read_tensors(files, Settings("buffered"), Host(rank, ranks), log=lambda _: None):
        total += int(tensor.view(torch.uint8).sum())
        count += 1
    print(json.dumps({"tensors": count, "sum": total, "read_bytes": _read_bytes() - before}))


def _read_bytes() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("read_bytes")))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
