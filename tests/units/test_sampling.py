"""A random sample of chunks, and the rate at which threads read them."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from fetcher.engine.pace import ReadingPace
from fetcher.planning.sampling import sampled

COUNTS = {"config.json": 1, "empty": 0, "model.safetensors": 199}


@pytest.mark.parametrize(("percent", "number"), [(0.001, 1), (0.5, 1), (1, 2), (1.1, 3), (50, 100), (100, 200)])
def test_a_sample_has_its_percentage_rounded_up(percent: float, number: int) -> None:
    chosen = sampled(COUNTS, percent, Random(1))
    assert sum(map(len, chosen.values())) == number
    assert list(chosen) == list(COUNTS)
    assert all(0 <= index < COUNTS[name] for name, indexes in chosen.items() for index in indexes)
    assert all(indexes == sorted(set(indexes)) for indexes in chosen.values())


def test_an_artifact_without_chunks_has_an_empty_sample() -> None:
    assert sampled({"empty": 0}, 10, Random(1)) == {"empty": []}


def test_every_chunk_is_chosen_at_some_time() -> None:
    randomness, seen = Random(1), Counter[tuple[str, int]]()
    for _ in range(200):
        seen.update((name, index) for name, indexes in sampled(COUNTS, 10, randomness).items() for index in indexes)
    assert len(seen) == 200


def test_reading_waits_for_what_was_read() -> None:
    clock = Clock()
    pace = ReadingPace(100.0, clock=clock.now, sleep=clock.sleep)
    for count in (50, 250, 100):
        pace.spend(count)
    assert clock.seconds == 4.0


def test_a_pause_is_no_credit() -> None:
    clock = Clock()
    pace = ReadingPace(100.0, clock=clock.now, sleep=clock.sleep)
    clock.sleep(60.0)
    pace.spend(200)
    assert clock.seconds == 62.0


def test_without_a_limit_nothing_waits() -> None:
    clock = Clock()
    ReadingPace(None, clock=clock.now, sleep=clock.sleep).spend(10**12)
    assert clock.seconds == 0.0


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
