"""A failed page-cache test runs again only if the kernel may have reclaimed pages."""

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

{mark}
def test_it(fresh):
    assert not fresh
    fresh.append(1)
    seen.append(1)
    assert len(seen) == 3
"""
MARK = "@pytest.mark.page_cache"


@pytest.mark.parametrize(
    ("mark", "counted", "uncounted", "passed"),
    [
        pytest.param(MARK, True, False, 1, id="the kernel counted pages"),
        pytest.param(MARK, False, True, 1, id="DAMON pages out"),
        pytest.param(MARK, False, False, 0, id="no page was reclaimed"),
        pytest.param("", True, True, 0, id="a test without the marker"),
    ],
)
def test_a_failed_test_runs_again_only_if_pages_were_reclaimed(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, mark: str, counted: bool, uncounted: bool, passed: int
) -> None:
    count = iter(range(100))
    monkeypatch.setattr(reclaim, "reclaimed", lambda: next(count) if counted else 0)
    monkeypatch.setattr(reclaim, "reclaims_uncounted", lambda: uncounted)
    pytester.makepyfile(FAILS_TWICE.format(mark=mark))
    pytester.makeconftest("from tests.lab.reclaim import pytest_runtest_protocol")
    pytester.makeini("[pytest]\nmarkers = page_cache: about the page cache")
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:asyncio")
    result.assert_outcomes(passed=passed, failed=1 - passed)


def test_the_number_of_reclaimed_pages_is_read(tmp_path: Path) -> None:
    (tmp_path / "vmstat").write_text("pgscan_file 7\npgsteal_file 42\npgsteal_anon 3\n")
    assert reclaim.reclaimed(tmp_path / "vmstat") == 42
    assert reclaim.reclaimed() >= 0


@pytest.mark.parametrize(
    ("state", "action", "pages_out"), [("on", "pageout", True), ("off", "pageout", False), ("on", "stat", False)]
)
def test_damon_counts_only_if_it_pages_out(tmp_path: Path, state: str, action: str, pages_out: bool) -> None:
    scheme = tmp_path / "0/contexts/0/schemes/0"
    scheme.mkdir(parents=True)
    (tmp_path / "0/state").write_text(f"{state}\n")
    (scheme / "action").write_text(f"{action}\n")
    assert reclaim.reclaims_uncounted(tmp_path) is pages_out


def test_a_kernel_without_damon_has_no_uncounted_reclaims(tmp_path: Path) -> None:
    assert not reclaim.reclaims_uncounted(tmp_path / "none")
