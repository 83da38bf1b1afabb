"""Metrics as numbers by series: name and labels."""

from __future__ import annotations

import re
from pathlib import Path

_SAMPLE = re.compile(r"^(\w+(?:\{[^}]*\})?) (\S+)$", re.MULTILINE)


def samples(text: str) -> dict[str, float]:
    """`fetcher_files` → 2, `fetcher_result{reason="Completed",retryable="false"}` → 1."""
    return {series: float(number) for series, number in _SAMPLE.findall(text)}


def samples_in(path: Path) -> dict[str, float]:
    """Return the samples in a file, or none if it does not exist."""
    return samples(path.read_text()) if path.exists() else {}
