"""The `fetcher` command: words and exit codes around the engine. Every import that a cache hit does not need comes late."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (sysexits, see `fetcher.errors`)."""
    from fetcher.cli.running import run

    return run(argv)
