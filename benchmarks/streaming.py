"""Tensors straight from a store: `loader.open("s3://...")`, which verifies, against Run:ai's streamer, which does not.

::

    python -m benchmarks.streaming                      # 4 files of 128 MiB, nginx and SeaweedFS, 5 rounds

Both take turns, each in a process of its own that is timed after its imports. nginx answers S3's requests and ignores
signatures; SeaweedFS takes more of the processors than either client.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from benchmarks.disk import workspace
from benchmarks.installation import CHECKOUT, PATH, peers_python
from benchmarks.publishing import MiB, PublishedFile, Repository, Shape
from benchmarks.store.servers import PREFIX, by_nginx, by_seaweed

CLIENTS = CHECKOUT / "benchmarks" / "store" / "clients"
TENSOR = 16 * MiB
"""Bytes of a tensor: a layer's matrix of a model of 7 billion parameters has 32 MiB and more."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the medians of each server, and the ratio."""
    parser = argparse.ArgumentParser(description="tensors straight from a store")
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--size", type=int, default=128, help="MiB of each file")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(argv)
    peers = peers_python("store")
    with workspace(CHECKOUT / ".bench") as disk:
        repository = _checkpoint(disk / "served", Shape(given.files, given.size * MiB))
        for name, serve in (("nginx", by_nginx), ("SeaweedFS", by_seaweed)):
            with serve(repository, disk / name) as store:
                environ = {
                    **store.environment(disk),
                    "PATH": PATH,
                    "PYTHONPATH": str(CHECKOUT),
                    "RUNAI_STREAMER_S3_ENDPOINT": store.endpoint,
                    "RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING": "0",
                }
                print(f"{name}: {_compared(peers, environ, given.rounds)}", flush=True)
    return 0


def _compared(peers: Path, environ: dict[str, str], rounds: int) -> str:
    source = f"s3://crc64nvme/{PREFIX}"
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    for _ in range(rounds):
        ours.append(_outcome(sys.executable, "stream_loader.py", source, environ))
        theirs.append(_outcome(str(peers), "stream_runai.py", source, environ))
    seconds, cpu = (
        [statistics.median(each[what] for each in group) for group in (ours, theirs)] for what in ("seconds", "cpu")
    )
    ranges = [f"{min(e['seconds'] for e in group):.2f}-{max(e['seconds'] for e in group):.2f}" for group in (ours, theirs)]
    return (
        f"loader {seconds[0]:.2f} s ({ranges[0]}), {cpu[0]:.2f} CPU s; runai-model-streamer {seconds[1]:.2f} s ({ranges[1]}), "
        f"{cpu[1]:.2f} CPU s: {seconds[1] / seconds[0]:.2f} times as fast"
    )


def _outcome(python: str, client: str, source: str, environ: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run([python, str(CLIENTS / client), source], env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{client} failed: {done.stderr[-2000:]}")
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def _checkpoint(directory: Path, shape: Shape) -> Repository:
    """Write a checkpoint of random bytes."""
    directory.mkdir(parents=True)
    files = []
    for number in range(1, shape.files + 1):
        name = f"model-{number:05}-of-{shape.files:05}.safetensors"
        random = np.random.default_rng(number)
        tensors = {f"{number}.{index}": random.integers(0, 255, TENSOR, np.uint8) for index in range(shape.size // TENSOR)}
        save_file(tensors, directory / name)
        os.chmod(directory / name, 0o644)
        files.append(PublishedFile(name, (directory / name).stat().st_size, "", ""))
    return Repository(directory, shape, tuple(files))


if __name__ == "__main__":
    sys.exit(main())
