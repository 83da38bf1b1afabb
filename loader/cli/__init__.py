"""The `loader` command: options, results and exit codes around the loader's library."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (sysexits, see `fetcher.errors` and `loader.errors`)."""
    from loader.cli.running import run

    return run(argv)
