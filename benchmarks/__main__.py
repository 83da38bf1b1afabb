"""`python -m benchmarks fetch`, from the root of a checkout."""

from __future__ import annotations

import argparse

from benchmarks.plain_path import measure, report
from fetcher.settings import parse_size


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    commands = parser.add_subparsers(dest="command", required=True)
    fetch = commands.add_parser("fetch", help="whole downloads: the fetcher, a bare aiohttp loop, hf_transfer, curl")
    fetch.add_argument("--size", type=parse_size, default="1Gi", help="of the file served; twice as much memory is needed")
    fetch.add_argument("--rounds", type=int, default=5)
    fetch.add_argument("--connections", type=int, default=4)
    given = parser.parse_args()
    options = {"size": given.size, "rounds": given.rounds, "connections": given.connections}
    print(report(measure(**options), **options))


if __name__ == "__main__":
    main()
