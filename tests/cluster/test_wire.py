"""JSON merge patches: what is written of an object is what makes the one of the other."""

from __future__ import annotations

import random
from typing import Any

import pytest

from cluster.resources import merge_patch, patched

CASES = [
    pytest.param({}, {}, {}, id="nothing changed"),
    pytest.param({"a": 1}, {"a": 2}, {"a": 2}, id="another value"),
    pytest.param({"a": 1}, {}, {"a": None}, id="a field that goes"),
    pytest.param({"m": {"a": 1, "b": 2}}, {"m": {"a": 1, "b": 3}}, {"m": {"b": 3}}, id="one entry of a map"),
    pytest.param({"m": {"a": {"x": 1}}}, {"m": {}}, {"m": {"a": None}}, id="an entry that goes"),
    pytest.param({"l": [1, 2]}, {"l": [1]}, {"l": [1]}, id="a list as a whole"),
    pytest.param({"a": {"x": 1}}, {"a": 1}, {"a": 1}, id="a value in the place of a map"),
    pytest.param({"a": 1}, {"a": {"x": 1}}, {"a": {"x": 1}}, id="a map in the place of a value"),
]


@pytest.mark.parametrize(("before", "now", "patch"), CASES)
def test_given_two_objects(before: dict[str, Any], now: dict[str, Any], patch: dict[str, Any]) -> None:
    assert merge_patch(before, now) == patch
    assert patched(before, patch) == now


def test_a_patch_between_any_two_objects_makes_the_one_of_the_other() -> None:
    chance = random.Random(7)

    def some(depth: int) -> dict[str, Any]:
        names = chance.sample("abcde", chance.randint(0, 4))
        return {name: some(depth - 1) if depth and chance.random() < 0.6 else chance.randint(0, 2) for name in names}

    for _ in range(500):
        before, now = some(3), some(3)
        assert patched(before, merge_patch(before, now)) == now
