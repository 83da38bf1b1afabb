"""curl with ranges: one process for each range, which writes at its offset in the file.

`curl --parallel` uses one connection for each file and cannot write at an offset. This is the fastest script around curl:
nothing is copied afterwards.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("addresses", type=Path, help="lines of URL, name and size, separated by tabs")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--connections", type=int, required=True)
    arguments = parser.parse_args()
    lines = arguments.addresses.read_text().splitlines()
    parts = [part for line in lines for part in split(line, max(1, arguments.connections // len(lines)))]
    with ThreadPoolExecutor(arguments.connections) as pool:
        list(pool.map(partial(fetch, arguments.directory), parts))


def split(line: str, parts: int) -> list[tuple[str, str, int, int]]:
    """Return address, name, first and last byte of each part."""
    url, name, size = line.split("\t")
    length = -(-int(size) // parts)
    return [(url, name, start, min(start + length, int(size)) - 1) for start in range(0, int(size), length)]


def fetch(directory: Path, part: tuple[str, str, int, int]) -> None:
    url, name, first, last = part
    descriptor = os.open(directory / name, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.lseek(descriptor, first, os.SEEK_SET)
        words = ["curl", "--silent", "--show-error", "--fail", "--range", f"{first}-{last}", url]
        subprocess.run(words, stdout=descriptor, check=True)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main()
