"""What is known of the cluster, and since when."""

from __future__ import annotations

import pytest

from cluster.controller.liveness import Liveness
from cluster.controller.observing import stays
from cluster.controller.planning import takes_away
from cluster.controller.reading import read_cache, read_owned, read_pod
from cluster.controller.world import Lease, Name, Observation, Pod
from cluster.resources import Entry
from tests.cluster.controller.building import cache, model, planned, reporting, world


def renewed(text: str) -> dict[Name, Lease]:
    """The Lease of the agent of n1."""
    return {("weightlift", "weightlift-agent.n1"): Lease("uid", text)}


class TestLiveness:
    def test_an_agent_lives_while_its_lease_changes(self) -> None:
        liveness = Liveness(300)
        assert liveness.look(renewed("t1"), 0) == {"n1"}
        assert liveness.look(renewed("t2"), 290) == {"n1"}
        assert liveness.look(renewed("t2"), 589) == {"n1"}
        assert liveness.look(renewed("t2"), 590) == frozenset()
        assert liveness.look(renewed("t3"), 600) == {"n1"}

    def test_the_time_in_a_lease_means_nothing(self) -> None:
        assert Liveness(300).look(renewed("1970-01-01T00:00:00Z"), 1e6) == {"n1"}

    def test_a_lease_that_is_gone_and_other_leases_mean_no_agent(self) -> None:
        liveness = Liveness(300)
        liveness.look(renewed("t1"), 0)
        assert liveness.look({("weightlift", "weightlift-controller"): Lease("uid", "t1")}, 1) == frozenset()


class TestRemovals:
    """While our kinds are being removed, their objects vanish, and that takes nothing away."""

    @pytest.mark.parametrize(("found", "stay"), [([], False), ([True], False), ([False], True)])
    def test_a_kind_that_is_missing_or_being_deleted_does_not_stay(self, found: list[bool], *, stay: bool) -> None:
        assert stays(found) is stay

    def test_a_plan_that_removes_an_entry_or_an_object_is_known(self) -> None:
        gone = world([], nodes=1, caches={"n1": reporting("Ready")})
        assert takes_away(planned(gone), gone)
        other = world([], nodes=0, caches={"n1": cache()})
        assert takes_away(planned(other), other)
        same = world([model()], nodes=1, caches={"n1": reporting("Ready")})
        assert not takes_away(planned(same), same)


class TestReading:
    def test_a_node_cache_keeps_what_decides(self) -> None:
        wanted = {"mark": "1" * 16, "turn": True, "unknown": 5}
        seen = {"phase": "Failed", "reason": "Unauthorized", "message": "401"}
        document = {
            "metadata": {"name": "n1", "uid": "u", "resourceVersion": "3", "labels": {}},
            "spec": {"pool": "p", "artifacts": {"0" * 16: wanted}},
            "status": {
                "artifacts": {"0" * 16: seen},
                "used": 9,
                "conditions": [{"type": "Ready", "status": "False", "reason": "RootMissing"}],
            },
        }
        found = read_cache(document)
        assert found.spec.artifacts == {"0" * 16: Entry("1" * 16, turn=True)}
        assert found.observed == {"0" * 16: Observation("Failed", "Unauthorized", "401")}
        assert (found.ours, found.used, found.problem) == (False, 9, ("RootMissing", ""))

    def test_a_node_cache_that_cannot_be_read_is_an_error_and_no_empty_one(self) -> None:
        document = {
            "metadata": {"uid": "u", "resourceVersion": "3"},
            "spec": {"pool": "p", "artifacts": {"0" * 16: {"mark": 7}}},
        }
        with pytest.raises(ValueError, match="required field"):
            read_cache({**document, "spec": {"pool": "p", "artifacts": {"0" * 16: {}}}})
        with pytest.raises(ValueError, match="mark"):
            read_cache(document)

    def test_a_pod_that_has_ended_uses_nothing(self) -> None:
        spec = {"nodeName": "n1", "volumes": [{"persistentVolumeClaim": {"claimName": "m"}}, {"emptyDir": {}}]}
        assert read_pod({"spec": spec, "status": {"phase": "Running"}}) == Pod(("m",), "n1")
        assert read_pod({"spec": spec, "status": {"phase": "Succeeded"}}) == Pod()

    def test_an_object_that_is_being_deleted_says_so(self) -> None:
        assert read_owned({"metadata": {"uid": "u", "deletionTimestamp": "2026"}}).deleting
