"""Labels of nodes: only in pools that ask for them, as long as the copy is there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster.controller.actions import Change
from cluster.controller.labels import MOST
from cluster.controller.world import Cache, Observation, Unknown, World
from tests.cluster.controller.building import cache, key_of, model, planned, pool, reporting, world

LABEL = f"ready.weightlift.dev/{key_of()}"
LABELLED: dict[str, Any] = {"nodes": {"n1": {LABEL: "true", "gpu": "h100"}}}


def labelled(given: World) -> dict[str, Any]:
    return {each.name: each.patch["metadata"]["labels"] for each in planned(given).actions if isinstance(each, Change)}


def given(phase: str = "Ready", *, labels: bool = True, **more: Any) -> World:
    made = world([model()], [pool(node_labels=labels)], nodes=1, caches={"n1": reporting(phase)})
    return World(**{**{name: getattr(made, name) for name in World.__slots__}, **more})


def replaced(content: str) -> Cache:
    """The NodeCache of a node whose copy is of other content than the one it shall have."""
    made = reporting("Ready")
    return replace(made, observed={key_of(): Observation("Ready", content=content)})


def test_a_node_with_a_ready_copy_is_labelled() -> None:
    assert labelled(given()) == {"n1": {LABEL: "true"}}


def test_a_pool_that_does_not_ask_for_labels_gets_none() -> None:
    assert labelled(given(labels=False)) == {}


def test_a_copy_that_is_read_into_memory_is_ready_too() -> None:
    assert labelled(given("Warming")) == {"n1": {LABEL: "true"}}


def test_a_label_is_written_once() -> None:
    assert labelled(given(**LABELLED)) == {}


@pytest.mark.parametrize(
    "no_longer",
    [
        pytest.param(given("Damaged", **LABELLED), id="the copy is damaged"),
        pytest.param(given("Evicted", **LABELLED), id="the copy was evicted"),
        pytest.param(given(caches={"n1": replaced("another")}, **LABELLED), id="another revision is wanted"),
        pytest.param(given(alive=frozenset(), **LABELLED), id="the agent is silent"),
        pytest.param(given(labels=False, **LABELLED), id="the pool asks for no labels"),
        pytest.param(given(pools={}, **LABELLED), id="the pool is gone"),
        pytest.param(given(caches={"n1": cache(observed={key_of(): Observation("Ready")})}, **LABELLED), id="nobody wants it"),
    ],
)
def test_a_label_goes_when_it_is_no_longer_true(no_longer: World) -> None:
    assert labelled(no_longer) == {"n1": {LABEL: None}}


@pytest.mark.parametrize(
    "unknown",
    [
        Unknown(pools=frozenset({"p"})),
        Unknown(caches=frozenset({"n1"})),
        Unknown(nodes=frozenset({"n1"})),
        Unknown(artifacts=frozenset({"x"})),
    ],
    ids=["the pool", "the NodeCache", "the node", "an artifact"],
)
def test_what_cannot_be_read_changes_no_label(unknown: Unknown) -> None:
    assert labelled(given("Failed", unknown=unknown, **LABELLED)) == {}


def test_labels_of_others_are_never_touched() -> None:
    assert labelled(given(nodes={"n1": {"ready.example.com/x": "true"}}, labels=False)) == {}


def test_a_pass_writes_a_bounded_number_of_nodes() -> None:
    names = [f"n{number}" for number in range(MOST + 7)]
    many = world([model()], [pool(node_labels=True)], nodes=names, caches={name: reporting("Ready") for name in names})
    assert len(labelled(many)) == MOST
