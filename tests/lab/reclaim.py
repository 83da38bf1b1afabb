"""For tests that ask what is in the page cache, on a kernel that takes pages away as it likes (DAMON, memory pressure).

A failure counts only if the kernel took no file's page while the test ran; otherwise it runs again.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

TRIES = 4


def reclaimed(vmstat: Path = Path("/proc/vmstat")) -> int:
    """Pages of files that the kernel has taken away since it started, on the whole machine."""
    found = re.search(r"^pgsteal_file (\d+)$", vmstat.read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _told(item, nextitem):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _told(item: pytest.Item, nextitem: pytest.Item | None) -> list[pytest.TestReport]:
    for _ in range(TRIES - 1):
        before = reclaimed()
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if not any(report.failed for report in reports) or reclaimed() == before:
            return reports
        item._initrequest()  # type: ignore[attr-defined]  # noqa: SLF001  fixtures are made anew
    return runtestprotocol(item, nextitem=nextitem, log=False)
