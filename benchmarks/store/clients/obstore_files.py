"""`obstore` over all objects below a prefix: `obstore_files.py BUCKET PREFIX DIRECTORY --part BYTES --workers N`."""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
from obstore.store import S3Store


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bucket")
    parser.add_argument("prefix")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--part", type=int, required=True, help="bytes of one request")
    parser.add_argument("--workers", type=int, required=True)
    arguments = parser.parse_args()
    store = S3Store(arguments.bucket)
    parts = []
    for each in obstore.list(store, arguments.prefix).collect():
        descriptor = os.open(arguments.directory / Path(each["path"]).name, os.O_WRONLY | os.O_CREAT, 0o644)
        starts = range(0, each["size"], arguments.part)
        parts += [(each["path"], descriptor, start, min(start + arguments.part, each["size"])) for start in starts]

    def fetch(part: tuple[str, int, int, int]) -> None:
        path, descriptor, start, end = part
        os.pwrite(descriptor, obstore.get_range(store, path, start=start, end=end), start)

    with ThreadPoolExecutor(arguments.workers) as pool:
        list(pool.map(fetch, parts))


if __name__ == "__main__":
    main()
