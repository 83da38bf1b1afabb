"""When an artifact is read and compared again."""

from __future__ import annotations

from cluster.agent.scrubbing import Schedule


def due(schedule: Schedule, now: float, *ready: str, chance: float = 0.0) -> str | None:
    return schedule.due(ready, now=now, chance=lambda: chance)


def test_each_artifact_comes_due_once_in_an_interval() -> None:
    schedule = Schedule(100.0)
    assert due(schedule, 0.0, "a", "b") is None
    assert schedule.next() == 100.0
    assert due(schedule, 100.0, "a", "b") == "a"
    schedule.read("a", now=130.0)
    assert due(schedule, 130.0, "a", "b") == "b"
    schedule.read("b", now=150.0)
    assert due(schedule, 229.0, "a", "b") is None
    assert due(schedule, 230.0, "a", "b") == "a"


def test_what_was_adopted_comes_due_at_a_moment_of_its_own() -> None:
    schedule = Schedule(100.0)
    chances = iter([0.75, 0.25])
    assert schedule.due(["a", "b"], now=0.0, chance=lambda: next(chances)) is None
    assert due(schedule, 25.0, "a", "b") == "a"
    schedule.read("a", now=25.0)
    assert due(schedule, 74.0, "a", "b") is None
    assert due(schedule, 75.0, "a", "b") == "b"


def test_what_is_no_longer_ready_is_forgotten() -> None:
    schedule = Schedule(100.0)
    due(schedule, 0.0, "a")
    assert due(schedule, 100.0) is None
    assert schedule.next() is None


def test_all_can_be_made_due() -> None:
    schedule = Schedule(100.0)
    due(schedule, 0.0, "a", "b")
    schedule.hasten()
    assert due(schedule, 1.0, "a", "b") == "a"
