"""Given pools and nodes, then each node belongs to one pool, and each model to some of its nodes."""

from __future__ import annotations

from cluster.controller.placing import assigned, chosen
from cluster.resources import LabelSelector
from cluster.resources.model import PoolPlacement
from tests.cluster.controller.building import pool

NODES = {"n1": {"gpu": "h100"}, "n2": {"gpu": "h100", "disk": "big"}, "n3": {"gpu": "l4"}}
H100, BIG = LabelSelector({"gpu": "h100"}), LabelSelector({"disk": "big"})
FIVE = tuple(f"n{number}" for number in range(1, 6))
TWO = PoolPlacement("p", "Count", 2)


class TestPools:
    def test_a_pool_has_the_nodes_that_it_selects(self) -> None:
        assert assigned([pool("h100", node_selector=H100)], NODES).nodes == {"h100": ("n1", "n2")}

    def test_a_node_that_two_pools_select_belongs_to_the_older_one_and_the_other_reports_it(self) -> None:
        older = pool("z", node_selector=BIG, created="2024-01-01T00:00:00Z")
        result = assigned([pool("h100", node_selector=H100), older], NODES)
        assert result.nodes == {"z": ("n2",), "h100": ("n1",)}
        assert result.overlaps == {"z": (), "h100": ("n2",)}

    def test_of_pools_of_one_second_the_first_by_name_wins(self) -> None:
        assert assigned([pool("b"), pool("a")], {"n1": {}}).nodes == {"a": ("n1",), "b": ()}

    def test_no_node_belongs_to_nobody(self) -> None:
        assert assigned([], NODES).nodes == {}


class TestCounts:
    def choose(self, placement: PoolPlacement = TWO, nodes: tuple[str, ...] = FIVE, **given: set[str]) -> tuple[str, ...]:
        seen = {"alive": set(nodes), "ready": set[str](), "wanted": set[str](), **given}
        return chosen(placement, "0123456789abcdef", nodes, **seen)

    def test_all_nodes_are_all_nodes(self) -> None:
        assert self.choose(PoolPlacement("p")) == FIVE

    def test_a_count_has_so_many_nodes_and_the_same_ones_each_time(self) -> None:
        assert len(self.choose()) == 2
        assert self.choose() == self.choose(nodes=FIVE[::-1])

    def test_a_count_above_the_nodes_has_them_all(self) -> None:
        assert self.choose(PoolPlacement("p", "Count", 9)) == FIVE

    def test_ready_copies_are_kept_wherever_they_are(self) -> None:
        for first in FIVE:
            for second in set(FIVE) - {first}:
                assert set(self.choose(ready={first, second})) == {first, second}

    def test_a_node_that_was_chosen_before_is_kept_while_it_fetches(self) -> None:
        assert set(self.choose(ready={"n1"}, wanted={"n1", "n4"})) == {"n1", "n4"}

    def test_a_dead_node_is_replaced_even_if_its_copy_was_ready(self) -> None:
        assert "n1" not in self.choose(ready={"n1"}, alive=set(FIVE) - {"n1"})

    def test_a_new_node_takes_over_no_copy(self) -> None:
        before = self.choose()
        assert self.choose(nodes=(*FIVE, "n6"), wanted=set(before)) == before

    def test_models_spread_over_the_nodes(self) -> None:
        one = PoolPlacement("p", "Count", 1)
        used = {chosen(one, f"{key:016x}", FIVE, alive=FIVE, ready=(), wanted=())[0] for key in range(64)}
        assert used == set(FIVE)
