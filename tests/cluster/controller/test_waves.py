"""Given what nodes report of a model, then who may fetch it now."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.controller.waves import Wave, is_settled, wave
from cluster.controller.world import Observation

KEY = "0123456789abcdef"
NODES = [f"n{number}" for number in range(1, 6)]
READY, FETCHING = Observation("Ready"), Observation("Fetching")
UNAUTHORIZED = Observation("Failed", "Unauthorized")


def waved(observed: dict[str, Observation], *, limit: int = 2, **more: set[str]) -> Wave:
    seen = {"alive": set(NODES), "held": set[str](), "before": set[str](), "yielded": set[str](), **more}
    return wave(KEY, NODES, observed, limit=limit, **seen)


def test_at_most_the_limit_of_nodes_has_a_turn() -> None:
    assert len(waved({}).turns) == 2


def test_a_turn_is_kept_until_the_copy_is_ready() -> None:
    assert waved({}, before={"n4", "n5"}).turns == {"n4", "n5"}
    assert waved({"n4": FETCHING}, before={"n4", "n5"}).turns == {"n4", "n5"}


def test_a_ready_node_makes_room_for_the_next_and_keeps_its_turn_for_repairs() -> None:
    after = waved({"n4": READY}, before={"n4", "n5"})
    assert {"n4", "n5"} < after.turns
    assert len(after.turns) == 3


def test_a_node_on_which_a_pod_waits_comes_first() -> None:
    for node in NODES:
        assert waved({}, limit=1, held={node}).turns == {node}


def test_a_dead_node_has_no_turn_and_takes_none_from_others() -> None:
    assert waved({}, alive={"n1", "n3"}, before={"n2", "n4"}).turns == {"n1", "n3"}


def test_what_fails_everywhere_is_asked_for_by_a_few_nodes_only() -> None:
    failed = waved({"n1": UNAUTHORIZED, "n2": UNAUTHORIZED}, before={"n1", "n2"})
    assert failed == Wave(frozenset({"n1", "n2"}), frozenset())


def test_a_node_that_fails_where_another_succeeded_gives_its_turn_away_once() -> None:
    observed = {"n3": READY, "n1": UNAUTHORIZED, "n2": UNAUTHORIZED}
    first = waved(observed, before={"n1", "n2", "n3"})
    assert first.turns == {"n3", "n4", "n5"}
    assert first.yielding == {"n1", "n2"}
    again = waved({**observed, "n4": UNAUTHORIZED}, before={"n3", "n1", "n4"}, yielded={"n1", "n2", "n4"})
    assert again.turns == {"n1", "n3", "n4"}
    assert again.yielding == set()


@pytest.mark.parametrize(
    "phase", [Observation("Queued", "Capacity"), Observation("Failed", "CapacityExceeded"), Observation("Evicted")]
)
def test_a_node_without_room_asks_nobody_and_so_takes_no_turn_from_others(phase: Observation) -> None:
    assert len(waved({"n1": phase, "n2": phase}, before={"n1", "n2"}).turns) == 4


def test_models_of_one_lane_take_the_nodes_in_one_order_and_lanes_differ() -> None:
    def first(key: str) -> frozenset[str]:
        seen: set[str] = set()
        return wave(key, NODES, {}, limit=1, alive=NODES, held=seen, before=seen, yielded=seen).turns

    assert first("0003" + "0" * 12) == first("000b" + "1" * 12)
    assert len({first(f"{lane:04x}" + "0" * 12) for lane in range(8)}) > 2


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**32), st.floats(0, 0.5))
def test_there_are_never_more_turns_than_allowed_and_in_the_end_all_is_ready(
    count: int, limit: int, seed: int, failing: float
) -> None:
    """Agents that fetch in any order, fail by chance and try again, die and come back."""
    chance = random.Random(seed)
    nodes = [f"n{number}" for number in range(count)]
    observed: dict[str, Observation] = {}
    turns, yielded = frozenset[str](), frozenset[str]()
    dead: set[str] = set()
    for step in range(40 * count):
        if step < 20 * count:
            dead = {node for node in dead if chance.random() < 0.5} | {node for node in nodes if chance.random() < 0.05}
        else:
            dead, failing = set(), 0.0
        alive = set(nodes) - dead
        after = wave(KEY, nodes, observed, limit=limit, alive=alive, held=set(), before=turns, yielded=yielded)
        turns, yielded = after.turns, yielded | after.yielding
        asking = [node for node in turns if node not in observed or not is_settled(observed[node])]
        assert len(asking) <= limit
        for node in nodes:
            if node not in turns and node in observed and observed[node].phase != "Ready":
                observed[node] = Observation("Queued", "Turn")
        for node in asking:
            if node in alive and chance.random() < 0.5:
                observed[node] = UNAUTHORIZED if chance.random() < failing else READY
        if all(node in observed and observed[node].phase == "Ready" for node in nodes):
            return
    pytest.fail(f"not ready after all steps: {observed}")
