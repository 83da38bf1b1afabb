"""Repeat page-cache tests that fail because the kernel reclaimed pages (DAMON, memory pressure).

A failure of a test marked `page_cache` counts only if the kernel reclaimed no page of a file during the test. Otherwise the
test runs again. DAMON does not count its reclaims: on Linux 6.18 it took pages of a file of 8 MiB within a second of their
reading in 49 of 636 tries, and no counter of /proc/vmstat changed. If DAMON pages out, a marked test fails only if all its
tries fail.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

TRIES = 4
DAMON = Path("/sys/kernel/mm/damon/admin/kdamonds")


def reclaimed(vmstat: Path = Path("/proc/vmstat")) -> int:
    """Return the number of file pages that the kernel has reclaimed since boot, on the whole machine."""
    match = re.search(r"^pgsteal_file (\d+)$", vmstat.read_text(), re.MULTILINE)
    return int(match[1]) if match else 0


def reclaims_uncounted(kdamonds: Path = DAMON) -> bool:
    """Tell whether DAMON pages out memory that was idle for some seconds."""
    running = [path.parent for path in kdamonds.glob("*/state") if path.read_text().strip() == "on"]
    return any(path.read_text().strip() == "pageout" for each in running for path in each.glob("contexts/*/schemes/*/action"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if item.get_closest_marker("page_cache") is None:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _reports(item, nextitem):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _reports(item: pytest.Item, nextitem: pytest.Item | None) -> list[pytest.TestReport]:
    for _ in range(TRIES - 1):
        before = reclaimed()
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if not any(report.failed for report in reports) or (reclaimed() == before and not reclaims_uncounted()):
            return reports
        item._initrequest()  # type: ignore[attr-defined]  # noqa: SLF001  creates the fixtures again
    return runtestprotocol(item, nextitem=nextitem, log=False)
