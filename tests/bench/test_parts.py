"""The benchmark of a cooperative fetch runs, and prints its ratio."""

from __future__ import annotations

import re
import subprocess
import sys

from benchmarks.namespaces import unavailable
from tests.lab.availability import missing


def test_prints_how_much_faster_the_parts_are() -> None:
    """In a process of its own, since it moves to a network namespace."""
    if why := unavailable():
        missing("network namespaces", why)
    words = ["-m", "benchmarks.parts", "--parts", "2", "--files", "2", "--size", "1", "--rate", "64", "--rounds", "1"]
    output = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True).stdout
    assert re.search(r"alone [\d.]+ s, 2 parts [\d.]+ s: [\d.]+ times faster, [\d.]+ N", output)
