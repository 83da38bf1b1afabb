"""Given who has an artifact and who fetches it, then whom each node that fetches is told of."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from cluster.controller.neighbours import ENOUGH, Candidate, neighbours
from cluster.resources.node import MOST_PEERS

KEY = "0123456789abcdef"


def address(number: int) -> str:
    return f"https://10.0.{number // 250}.{number % 250 + 1}:8650"


def candidates(count: int, *, ready: int = 0, zones: int = 0) -> dict[str, Candidate]:
    """Nodes n0, n1, ..., of which the first `ready` are complete, in turn in each of the zones."""
    return {
        f"n{number}": Candidate(address(number), f"zone-{number % zones}" if zones else "", number < ready)
        for number in range(count)
    }


def told(found: dict[str, Candidate], **before: tuple[str, ...]) -> dict[str, set[str]]:
    fetching = {node: before.get(node, ()) for node, each in found.items() if not each.ready}
    return {node: set(addresses) for node, addresses in neighbours(KEY, fetching, found).items()}


def test_a_few_nodes_are_told_of_all_others_and_not_of_themselves() -> None:
    every = {address(number) for number in range(8)}
    assert told(candidates(8)) == {f"n{number}": every - {address(number)} for number in range(8)}


def test_a_node_alone_is_told_of_nobody() -> None:
    assert told(candidates(1)) == {}


def test_a_node_that_nobody_can_be_told_of_is_told_of_others_all_the_same() -> None:
    assert set(neighbours(KEY, {"new": ()}, candidates(2, ready=2))["new"]) == {address(0), address(1)}


def test_of_many_a_node_is_told_of_a_bounded_number_and_none_of_too_many_nodes() -> None:
    found = told(candidates(500))
    assert {len(each) for each in found.values()} == {MOST_PEERS}
    asked = Counter(each for addresses in found.values() for each in addresses)
    assert max(asked.values()) == MOST_PEERS


def test_who_is_complete_comes_before_who_fetches_too() -> None:
    complete = {address(number) for number in range(10)}
    for each in told(candidates(200, ready=10)).values():
        assert complete < each


def test_the_own_zone_comes_first() -> None:
    found = candidates(60, ready=30, zones=3)
    zones = {each.address: each.zone for each in found.values()}
    for node, addresses in told(found).items():
        assert {zones[each] for each in addresses} == {found[node].zone}


def test_where_the_own_zone_has_too_few_others_fill_up() -> None:
    found = {**candidates(40, ready=20, zones=2), "lonely": Candidate(address(99), "zone-9")}
    assert len(told(found)["lonely"]) == MOST_PEERS


def test_whom_a_node_was_told_of_stays_as_long_as_it_is_there() -> None:
    few = candidates(17)
    before = {node: tuple(sorted(each)) for node, each in told(few).items()}
    many = candidates(200, ready=0)
    assert {node: each for node, each in told(many, **before).items() if node in few} == {
        node: set(each) for node, each in before.items()
    }
    gone = {node: each for node, each in many.items() if node != "n3"}
    assert told(gone, **before)["n0"] == set(before["n0"]) - {address(3)}


def test_too_few_are_filled_up() -> None:
    before = tuple(address(number) for number in range(1, ENOUGH))
    now = told(candidates(200), n0=before)["n0"]
    assert set(before) < now
    assert len(now) == MOST_PEERS


def test_an_address_that_a_node_has_no_more_is_not_told() -> None:
    found = candidates(3)
    moved = {**found, "n1": replace(found["n1"], address=address(77))}
    assert told(moved, n0=(address(1), address(2)))["n0"] == {address(77), address(2)}
