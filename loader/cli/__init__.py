"""The `loader` command: words and exit codes around what keeps weights where an engine finds them fast."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (sysexits, see `fetcher.errors` and `loader.errors`)."""
    from loader.cli.running import run

    return run(argv)
