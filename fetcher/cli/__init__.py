"""The `fetcher` command: options, output and exit codes around the engine. Imports that a cache hit does not need come late."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (sysexits, see `fetcher.errors`)."""
    from fetcher.cli.running import run

    return run(argv)
