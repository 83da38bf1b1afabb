"""Measure an image's size and the start of its commands in new containers.

`python coldstart.py [--engine podman] IMAGE`; `make coldstart` calls it. An idle interpreter shows the share of the container
engine and of Python.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Sequence

ROUNDS = 9
COMMANDS = (
    ("python", "-S", "-c", "pass"),
    ("fetcher", "--help"),
    ("fetcher", "key", "hf://org/m"),
    ("loader", "--help"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="podman", help="podman or docker")
    parser.add_argument("image")
    arguments = parser.parse_args()
    (image,) = json.loads(_output(arguments.engine, "image", "inspect", arguments.image))
    print(f"{arguments.image}: {image['Size'] / 1e6:.0f} MB in {len(image['RootFS']['Layers'])} layers")
    # Interleaved, so that other load on the machine affects all commands.
    times = [[_seconds(arguments.engine, arguments.image, command) for command in COMMANDS] for _ in range(ROUNDS)]
    for command, taken in zip(COMMANDS, zip(*times, strict=True), strict=True):
        print(f"{' '.join(command):28} {statistics.median(taken):6.3f} s (of {ROUNDS}: {min(taken):.3f} to {max(taken):.3f})")


def _seconds(engine: str, image: str, command: Sequence[str]) -> float:
    began = time.perf_counter()
    _output(engine, "run", "--rm", "--read-only", "--network=none", "--user=65532:65532", "--entrypoint=", image, *command)
    return time.perf_counter() - began


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
