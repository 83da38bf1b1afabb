"""The cache root that a command names, and the records in it that this version cannot read."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fetcher.errors import NewerFormat
from fetcher.settings import default_cache_dir


def root_of(options: Mapping[str, Any], environ: Mapping[str, str]) -> Path:
    """Return the root of the cache. Raises ConfigurationError without a HOME."""
    root: Path = options.get("cache_dir") or default_cache_dir(environ)
    return root


def print_newer(error: NewerFormat) -> None:
    """Name a record that a later version wrote, on stderr."""
    print(error.sentence(), file=sys.stderr)
