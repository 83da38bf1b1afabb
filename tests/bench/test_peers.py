"""Nodes on shaped links fetch one model together; the benchmark of it says what a run did not keep.

`WEIGHTLIFT_PEERS_NODES=8` plays everything with so many nodes, 256 MiB and links of 50 Mbit/s, in a quarter of an hour, and
then limits on time hold too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from benchmarks.namespaces import unavailable
from benchmarks.peers.cases import ALONE, Limit, together, troubled
from benchmarks.peers.cluster import Cluster, cluster
from benchmarks.peers.report import Played, bound, document
from benchmarks.peers.running import Case, Outcome, keep, run
from benchmarks.peers.watching import Load
from benchmarks.publishing import Shape, publish
from benchmarks.surroundings import Setting
from tests.lab.availability import missing

MiB = 1024 * 1024
MANY = int(os.environ.get("WEIGHTLIFT_PEERS_NODES", "0"))
NODES, RATE, SIZE = (MANY, 50, 256) if MANY else (3, 100, 24)
"""Nodes, Mbit/s of each link, and MiB of the model."""
LINK = RATE * 1_000_000 // 8
HONEST, LIAR = "http://10.79.0.2:8650", "http://10.79.0.4:8650"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Nodes with a link each, of which the first had the model once."""
    if why := unavailable():
        missing("network namespaces", why)
    place = tmp_path_factory.mktemp("cluster")
    repository = publish(place / "model", Shape(4, SIZE * MiB // 4))
    with cluster(place, repository, nodes=NODES + 1, origin=LINK, link=LINK) as made:
        yield made


@pytest.fixture(scope="module")
def alone(nodes: Cluster) -> Outcome:
    outcome = played(nodes, ALONE, 10.0)
    keep(nodes, nodes.nodes[0])
    return outcome


def played(nodes: Cluster, case: Case, seconds: float) -> Outcome:
    return run(nodes, case, alone=seconds, patience=100.0 * max(1, MANY))


class TestOnLinks:
    def test_one_alone_takes_everything_from_the_origin(self, nodes: Cluster, alone: Outcome) -> None:
        assert alone.wrong == []
        assert alone.sent == nodes.repository.shape.total

    def test_nodes_that_begin_together_take_most_from_each_other(self, nodes: Cluster, alone: Outcome) -> None:
        outcome = played(nodes, Case("together", NODES), alone.last)
        assert outcome.wrong == []
        assert not outcome.banned
        assert outcome.sent < nodes.repository.shape.total * NODES * 0.75
        assert any(each.keys() - {"origin"} for each in outcome.suppliers)

    def test_a_liar_is_banned_and_nobody_else_and_no_byte_is_wrong(self, nodes: Cluster, alone: Outcome) -> None:
        outcome = played(nodes, Case("a liar", NODES, liars=1), alone.last)
        assert outcome.wrong == []
        assert outcome.banned <= outcome.liars
        assert not outcome.from_liars or outcome.banned

    @pytest.mark.parametrize(
        "limit", [*together([NODES]), *troubled(NODES)] if MANY else [], ids=lambda each: each.case.name
    )  # a quarter of an hour, so only with WEIGHTLIFT_PEERS_NODES
    def test_at_full_size_the_limits_hold(self, nodes: Cluster, alone: Outcome, limit: Limit) -> None:
        outcome = played(nodes, limit.case, alone.last)
        for _ in range(2):
            if outcome.load.void:
                outcome = played(nodes, limit.case, alone.last)
        assert limit.missed(outcome, alone=alone.last, total=nodes.repository.shape.total) == []


def outcome(**given: object) -> Outcome:
    """An outcome of two nodes with nothing wrong, but for what is `given`."""
    usual = {
        "case": Case("two", 2),
        "seconds": [10.0, 11.0],
        "sent": 100,
        "suppliers": [{"origin": 50, HONEST: 50}] * 2,
        "banned": frozenset(),
        "liars": frozenset(),
        "wrong": [],
        "load": Load(busy=0.2, own=0.1, waited=0.0, memory=50 * MiB, cpu=0.1),
    }
    return Outcome(**(usual | given))  # type: ignore[arg-type]


class TestLimits:
    LIMIT = Limit(Case("two", 2), last=1.3, origin=1.05, small=True)

    def missed(self, **given: object) -> list[str]:
        return self.LIMIT.missed(outcome(**given), alone=10.0, total=100)

    def test_a_run_in_which_nothing_is_wrong_misses_nothing(self) -> None:
        assert self.missed() == []

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ({"seconds": [10.0, 13.5]}, "the last node takes 1.35 of one alone"),
            ({"sent": 106}, "the origin sends 1.060 of the model"),
            ({"wrong": ["http://x: model is missing"]}, "model is missing"),
            ({"banned": frozenset({HONEST})}, "honest peers are banned"),
            ({"liars": frozenset({LIAR}), "suppliers": [{LIAR: 10}, {}], "sent": 110}, "no liar is banned"),
            ({"load": Load(busy=0.2, own=0.1, waited=0.0, memory=257 * MiB, cpu=0.1)}, "257 MiB"),
            ({"load": Load(busy=0.2, own=0.1, waited=0.0, memory=MiB, cpu=1.1)}, "1.10 processors"),
        ],
    )
    def test_what_is_missed_is_said(self, given: dict[str, object], words: str) -> None:
        (said,) = self.missed(**given)
        assert words in said

    def test_what_came_from_a_liar_may_come_from_the_origin_again(self) -> None:
        lied = {"liars": frozenset({LIAR}), "banned": frozenset({LIAR}), "suppliers": [{LIAR: 10}, {}]}
        assert self.missed(sent=115, **lied) == []
        assert self.missed(sent=116, **lied) != []

    @pytest.mark.parametrize("load", [Load(0.9, 0.61, 0.0, 0, 0.0), Load(0.9, 0.1, 0.11, 0, 0.0)])
    def test_a_run_whose_nodes_lack_processors_is_void(self, load: Load) -> None:
        assert load.void
        assert not Load(1.0, 0.6, 0.1, 0, 0.0).void


class TestReport:
    def test_it_has_a_row_for_each_case_with_bound_and_verdict(self) -> None:
        setting = Setting.here(versions={}, rounds="1", scale=1.0, conditions="links")
        two = Limit(Case("2 with peers", 2), last=1.3)
        rows = [Played(Limit(ALONE), outcome(case=ALONE, seconds=[10.0]), ""), Played(two, outcome(sent=150), "")]
        text = document(setting, [*rows, Played(two, None, "a node\nfailed")], rate=10, total=100)
        assert "| 2 with peers | 11.0 | 1.10 | 10.5 | 1.05 | 1.500 |" in text
        assert "| 2 with peers | failed |" in text
        assert "a node failed |" in text

    def test_the_bound_of_equal_links_is_the_time_of_one_node(self) -> None:
        assert bound(8, rate=100.0, total=1000) == bound(1, rate=100.0, total=1000) > 10
