"""A failure is a finding unless the kernel took pages away meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab import reclaim

pytest_plugins = ["pytester"]

FAILS_TWICE = """
import pytest
seen = []

@pytest.fixture
def fresh():
    return []

def test_it(fresh):
    assert not fresh
    fresh.append(1)
    seen.append(1)
    assert len(seen) == 3
"""


@pytest.mark.parametrize(("takes", "passed"), [(True, 1), (False, 0)])
def test_what_failed_runs_again_only_if_pages_were_taken(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, takes: bool, passed: int
) -> None:
    count = iter(range(100))
    monkeypatch.setattr(reclaim, "reclaimed", lambda: next(count) if takes else 0)
    pytester.makepyfile(FAILS_TWICE)
    pytester.makeconftest("from tests.lab.reclaim import pytest_runtest_protocol")
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:asyncio")
    result.assert_outcomes(passed=passed, failed=1 - passed)


def test_the_kernels_count_is_read(tmp_path: Path) -> None:
    (tmp_path / "vmstat").write_text("pgscan_file 7\npgsteal_file 42\npgsteal_anon 3\n")
    assert reclaim.reclaimed(tmp_path / "vmstat") == 42
    assert reclaim.reclaimed() >= 0
