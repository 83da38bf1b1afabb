"""`python -m fetcher`."""

from __future__ import annotations

from fetcher.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
