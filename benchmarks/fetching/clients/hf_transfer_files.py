"""`hf_transfer` over all files. It downloads one file at a time and holds the GIL, so concurrent files need processes."""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import hf_transfer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("addresses", type=Path, help="lines of URL, name and size, separated by tabs")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--max-files", type=int, required=True, help="hf_transfer's name for connections")
    parser.add_argument("--chunk-size", type=int, required=True)
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    lines = arguments.addresses.read_text().splitlines()
    one = partial(download, arguments.directory, arguments.max_files, arguments.chunk_size)
    if arguments.processes == 1:
        for line in lines:
            one(line)
    else:
        with ProcessPoolExecutor(arguments.processes) as pool:
            list(pool.map(one, lines, chunksize=max(1, len(lines) // arguments.processes // 16)))


def download(directory: Path, max_files: int, chunk_size: int, line: str) -> None:
    url, name, _ = line.split("\t")
    failures = min(3, max_files)  # more are refused
    hf_transfer.download(url, str(directory / name), max_files, chunk_size, parallel_failures=failures, max_retries=5)


if __name__ == "__main__":
    main()
