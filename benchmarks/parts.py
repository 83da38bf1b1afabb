"""How much faster several parts fetch one artifact together, when the link of each is the limit.

::

    python -m benchmarks.parts                          # 4 parts, 8 files of 32 MiB, each node at 8 MiB/s, 3 rounds
    python -m benchmarks.parts --files 1 --size 256     # what one file gains, which is cut into segments

One process and N parts take turns, each into a new cache on the same filesystem. Every part is a node: a network namespace
with a link of its own to the server. Needs root.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.namespaces import SERVER, Node, move_to_new_namespace, nodes, unavailable
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.origin import Origin

MiB = 1024 * 1024


def main(argv: Sequence[str] | None = None) -> int:
    """Print the seconds of each and the ratio of the medians."""
    parser = argparse.ArgumentParser(description="one process and N parts in turn")
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--size", type=int, default=32, help="MiB of each file")
    parser.add_argument("--rate", type=int, default=8, help="MiB per second of each node's link")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(argv)
    if why := unavailable():
        parser.error(why)
    move_to_new_namespace()
    files = {f"model-{number}.safetensors": random_bytes(f"{number}", given.size * MiB) for number in range(given.files)}
    alone, together = [], []
    with nodes(given.parts, rate=given.rate * MiB) as made, Origin(host=SERVER, lfs_threshold=MiB) as origin:
        origin.add_repo("org/model", {"config.json": b"{}", **files})
        for _ in range(given.rounds):
            alone.append(_seconds(origin, made[:1], [[]]))
            together.append(_seconds(origin, made, [["--part", f"{index}/{given.parts}"] for index in range(given.parts)]))
    one, many = statistics.median(alone), statistics.median(together)
    print(
        f"alone {one:.2f} s, {given.parts} parts {many:.2f} s: {one / many:.2f} times faster, {one / many / given.parts:.2f} N"
    )
    return 0


def _seconds(origin: Origin, made: Sequence[Node], parts: Sequence[Sequence[str]]) -> float:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as root:
        began = time.monotonic()
        running = [_started(origin, Path(root), node, words) for node, words in zip(made, parts, strict=True)]
        assert [process.wait() for process in running] == [0] * len(parts)
        return time.monotonic() - began


def _started(origin: Origin, root: Path, node: Node, words: Sequence[str]) -> subprocess.Popen[bytes]:
    command = [*node.words, sys.executable, "-m", "fetcher", "fetch", "hf://org/model", "--cache-dir", str(root)]
    environment = {**os.environ, "HF_ENDPOINT": origin.endpoint}
    return subprocess.Popen([*command, "--progress", "none", *words], env=environment, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
