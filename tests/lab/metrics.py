"""Metrics as a test reads them: a number for each series, by its name and its labels."""

from __future__ import annotations

import re
from pathlib import Path

_SAMPLE = re.compile(r"^(\w+(?:\{[^}]*\})?) (\S+)$", re.MULTILINE)


def samples(text: str) -> dict[str, float]:
    """`fetcher_files` → 2, `fetcher_result{reason="Completed",retryable="false"}` → 1."""
    return {series: float(number) for series, number in _SAMPLE.findall(text)}


def samples_in(path: Path) -> dict[str, float]:
    """Of a file; nothing while there is none."""
    return samples(path.read_text()) if path.exists() else {}
