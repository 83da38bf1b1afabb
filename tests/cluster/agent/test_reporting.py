"""Which changes of a status are worth a write."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.agent.reporting import differs, status_of
from cluster.agent.states import Problem, Survey
from cluster.resources import NodeCacheStatus, Observed
from cluster.resources.conditions import status_of as condition

KEY = "0123456789abcdef"
SURVEY = Survey(used=1000, capacity=100_000)
READY = status_of([Observed(KEY, "Ready", revision="r")], SURVEY, 1)


CASES = [
    pytest.param(None, READY, True, True, id="the first status"),
    pytest.param(READY, READY, False, False, id="nothing changed"),
    pytest.param(READY, status_of([Observed(KEY, "Damaged")], SURVEY, 1), True, True, id="another phase"),
    pytest.param(READY, status_of([], SURVEY, 1), True, True, id="an artifact less"),
    pytest.param(READY, status_of(READY.artifacts, SURVEY, 2), False, False, id="only the generation"),
    pytest.param(READY, status_of(READY.artifacts, Survey(problem=Problem("IOError", "x")), 1), True, True, id="a condition"),
    pytest.param(READY, replace(READY, used=50_000), True, False, id="bytes while a fetch runs"),
    pytest.param(READY, replace(READY, used=50_000), False, True, id="bytes while none runs"),
    pytest.param(READY, replace(READY, used=1001), False, False, id="a few bytes"),
]


@pytest.mark.parametrize(("before", "now", "busy", "written"), CASES)
def test_given_two_statuses(before: NodeCacheStatus | None, now: NodeCacheStatus, busy: bool, written: bool) -> None:
    assert differs(before, now, busy=busy) == written


def test_a_root_above_its_capacity_says_so() -> None:
    assert condition(status_of([], Survey(used=2, capacity=1), 1).conditions, "OverLimit") == "True"
    assert condition(status_of([], Survey(used=1, capacity=1), 1).conditions, "OverLimit") == "Unknown"
