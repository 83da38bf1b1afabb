"""Fetches of different keys in one bounded root, in every order of their steps with few switches: the limit holds."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.store.accounting import MARGIN
from fetcher.store.lease import Lease
from tests.model.scheduling import LEAST, SECONDS, SWITCHES, Fault, Scheduler, hooked, schedules, within
from tests.model.store import SIZE, BoundedStore

REFS = tuple(ArtifactRef(f"hf://org/{name}") for name in ("a", "b", "c"))
LIMIT = 2 * SIZE + MARGIN


def explore(root: Path, *, faults: Sequence[Fault], switches: int = SWITCHES, seconds: float = SECONDS) -> None:
    """Three fetches of three keys start together, and there is room for two. Raises AssertionError with the schedule."""
    running: list[Scheduler | None] = [None]
    with hooked(lambda: running[0], network=False):
        for schedule in within(seconds, schedules(120, len(REFS), switches=switches, faults=faults), least=LEAST):
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir()
            store = BoundedStore(root)
            actors = [partial(store.fetch, ref) for ref in REFS]
            scheduler = running[0] = Scheduler(actors)
            scheduler.run(schedule)
            running[0] = None
            told = f"after {scheduler.results} by the schedule {schedule}"
            assert not any(isinstance(each, Exception) for each in scheduler.results), told
            assert store.largest <= LIMIT, f"{store.largest} bytes are above the limit {told}"


def test_three_fetches_of_three_keys_stay_below_the_limit(root: Path) -> None:
    explore(root, faults=["crash"])


def test_the_model_finds_a_fetch_that_promises_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lease, "reserve", lambda *_: None)
    with pytest.raises(AssertionError, match="above the limit"):
        explore(root, faults=[], switches=2, seconds=float("inf"))
