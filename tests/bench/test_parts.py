"""The benchmark of a cooperative fetch runs, and prints its ratio."""

from __future__ import annotations

import re

import pytest

from benchmarks.parts import main


def test_prints_how_much_faster_the_parts_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--parts", "2", "--files", "2", "--size", "1", "--rate", "64", "--rounds", "1"]) == 0
    assert re.search(r"alone [\d.]+ s, 2 parts [\d.]+ s: [\d.]+ times faster, [\d.]+ N", capsys.readouterr().out)
