"""curl with ranges: one process for each, which writes at its place of the file.

`curl --parallel` gives each file one connection and cannot write at an offset. This is the best that a script around curl
can do: nothing is copied afterwards.
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
    given = parser.parse_args()
    lines = given.addresses.read_text().splitlines()
    parts = [part for line in lines for part in split(line, max(1, given.connections // len(lines)))]
    with ThreadPoolExecutor(given.connections) as pool:
        list(pool.map(partial(fetch, given.directory), parts))


def split(line: str, parts: int) -> list[tuple[str, str, int, int]]:
    """Address, name, first and last byte of each part."""
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
