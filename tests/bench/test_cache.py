"""The comparison of large and small roots, at a tiny scale."""

from __future__ import annotations

from pathlib import Path

from benchmarks.cache import FEW, FILES, compare, make_root
from fetcher.artifact import ArtifactRef
from fetcher.cache import entries
from tests.lab.command import run_fetcher


def test_the_artifacts_are_complete(tmp_path: Path) -> None:
    make_root(tmp_path, artifacts=2, chunks=2 * FILES)
    assert {each.key for each in entries(tmp_path, on_newer=refused)} == {ArtifactRef(f"hf://org/{n}").key for n in range(2)}
    assert (
        run_fetcher("fetch", "hf://org/0", "--cache-dir", tmp_path, env={"HF_ENDPOINT": "http://127.0.0.1:9"}).returncode == 0
    )


def test_the_report_has_every_median_and_both_ratios(tmp_path: Path) -> None:
    lines = compare(tmp_path, artifacts=FEW + 1, chunks=FILES, rounds=1).splitlines()
    assert len(lines) == 7
    assert list(tmp_path.iterdir()) == []


def refused(error: Exception) -> None:
    raise error
