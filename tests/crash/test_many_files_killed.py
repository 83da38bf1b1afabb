"""A kill among thousands of small files: only incomplete files are fetched again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fetcher.store.journal import read_journals
from fetcher.testing.origin import Origin
from tests.crash.conftest import fetched_files, visible
from tests.lab.waiting import wait_until

LONG = bool(os.environ.get("WEIGHTLIFT_CHAOS_ROUNDS"))
COUNT = 10_000 if LONG else 1500
FILES = {f"{number % 100}/{number}.json": b"%d" % number * 20 for number in range(COUNT)}
PAGES = COUNT // 1000 + 2
"""Requests for the commit and its listing."""
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
from fetcher.cli import main
sys.exit(main())
"""
PLACES = {"keyed": ("--cache-dir",), "in place": ("--dest",), "hf-cache": ("--layout", "hf-cache", "--cache-dir")}


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    with Origin() as running:
        running.add_repo("org/model", FILES)
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


@pytest.mark.timeout(600 if LONG else 120)
@pytest.mark.parametrize("place", PLACES)
def test_only_missing_files_are_fetched_after_a_kill(place: str, many: Origin, tmp_path: Path) -> None:
    """With 256 descriptors, and one or two requests per missing file."""
    command = [sys.executable, "-c", LIMITED, "fetch", "hf://org/model", *PLACES[place], str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as victim:
        try:
            wait_until(lambda: len(fetched_files(many)) >= COUNT // 2, "half of the files were asked for", timeout=100)
        finally:
            victim.kill()
    journalled = read_journals(tmp_path.rglob("journal.*")).files
    complete = {Path(path).name for path, file in journalled.items() if file.chunks}
    assert COUNT // 4 < len(complete) < COUNT
    many.clear_requests()

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert not fetched_files(many) & complete
    assert len(many.requests) <= 2 * (COUNT - len(complete)) + PAGES
    assert visible(Path(done.stdout.strip())) == FILES
    assert not list(tmp_path.glob(".fetcher/staging/*"))
