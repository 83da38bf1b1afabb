"""KServe's contract of local models, row by row: what is given, and what the manager then does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from cluster.kserve.kinds import ModelStatus
from cluster.kserve.local_nodes import NodeWrite
from cluster.kserve.manager import Plan, plan
from cluster.kserve.reading import read_service
from cluster.kserve.world import Options, Stored, Unreadable, World
from cluster.resources import encoded
from tests.cluster.kserve.worlds import JOBS, cache, entry, group, local_node, node, service, world


def nodes_of(found: Plan) -> dict[str, list[dict[str, Any]]]:
    return {each.name: encoded(each.models) for each in found.nodes}


def volumes_of(found: Plan) -> list[str]:
    return [each["metadata"]["name"] for each in found.volumes.create_volumes]


def claims_of(found: Plan) -> list[tuple[str, str]]:
    return [(each["metadata"]["namespace"], each["metadata"]["name"]) for each in found.volumes.create_claims]


def status_of(found: Plan, name: str = "m") -> Mapping[str, Any]:
    patches = [patch["status"] for each, patch in found.statuses if each.metadata.name == name]
    return patches[0] if patches else {}


def stored(name: str, namespace: str = "", *, owner: str = "", **more: Any) -> Stored:
    return Stored(namespace, name, f"uid-of-{name}", owner, **more)


class TestRow1CacheCreatedThenItHasAFinalizer:
    @pytest.mark.parametrize("namespace", ["", "team"])
    def test_of_its_kind(self, namespace: str) -> None:
        new = cache(namespace=namespace, finalizers=[])

        assert plan(world(new, group())).finalize == (new,)

    def test_once(self) -> None:
        assert plan(world(cache(), group())).finalize == ()


class TestRow2CacheThenAVolumeAndAClaimForEachNodeGroup:
    def test_by_kserves_names(self) -> None:
        found = plan(world(cache(groups=("gpu", "cpu")), group("gpu"), group("cpu")))

        assert volumes_of(found) == ["m-cpu-download", "m-gpu-download"]
        assert claims_of(found) == [(JOBS, "m-cpu"), (JOBS, "m-gpu")]

    def test_bound_to_each_other_and_owned_by_the_cache(self) -> None:
        made = plan(world(cache(), group())).volumes
        (volume,), (claim,) = made.create_volumes, made.create_claims

        assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
        assert volume["spec"] == group().spec.persistent_volume_spec
        for each in (volume, claim):
            (owner,) = each["metadata"]["ownerReferences"]
            assert (owner["apiVersion"], owner["kind"], owner["name"]) == ("serving.kserve.io/v1alpha1", "LocalModelCache", "m")
            assert owner["controller"] is True

    def test_what_exists_stays_as_it_is(self) -> None:
        there = [stored("m-gpu-download", owner="uid--m"), stored("m-gpu", JOBS, owner="uid--m")]

        assert plan(world(cache(), group(), stored=there)).volumes == plan(world()).volumes

    def test_a_group_that_is_missing_does_not_keep_the_others_waiting(self) -> None:
        found = plan(world(cache(groups=("gone", "gpu")), group("gpu")))

        assert volumes_of(found) == ["m-gpu-download"]


class TestRow3CacheOfANamespaceThenTheNamesHaveTheNamespace:
    def test_and_the_volume_has_no_owner(self) -> None:
        made = plan(world(cache(namespace="team"), group())).volumes
        (volume,), (claim,) = made.create_volumes, made.create_claims

        assert volume["metadata"]["name"] == claim["metadata"]["name"] == "m-gpu-team-download"
        assert claim["metadata"]["namespace"] == JOBS
        assert "ownerReferences" not in volume["metadata"]
        assert "ownerReferences" not in claim["metadata"], "an owner must be in the same namespace"

    def test_but_a_claim_beside_its_cache_has_it_as_owner(self) -> None:
        (claim,) = plan(world(cache(namespace=JOBS), group())).volumes.create_claims

        assert claim["metadata"]["ownerReferences"][0]["kind"] == "LocalModelNamespaceCache"


class TestRow4ReadyNodeThatMatchesThenItHasTheEntry:
    def test_in_a_new_local_model_node(self) -> None:
        assert nodes_of(plan(world(cache(), group(), node()))) == {"n1": [entry()]}

    def test_beside_what_is_there(self) -> None:
        found = plan(world(cache("a"), cache("b", uri="hf://org/b"), group(), node(), local_node("n1", entry("a"))))

        assert nodes_of(found) == {"n1": [entry("a"), entry("b", uri="hf://org/b")]}

    def test_with_namespace_and_credential(self) -> None:
        more: dict[str, Any] = {"serviceAccountName": "reader", "storage": {"key": "store", "parameters": {"bucket": "b"}}}

        found = plan(world(cache(namespace="team", spec=more), group(), node()))

        assert nodes_of(found) == {"n1": [entry(namespace="team", **more)]}

    def test_and_not_on_nodes_of_other_labels(self) -> None:
        assert plan(world(cache(), group(), node(label="cpu"))).nodes == ()

    def test_of_two_groups_the_first_that_matches_counts(self) -> None:
        both = world(cache(groups=("a", "b")), group("b", label="gpu"), group("a", label="gpu"), node())

        assert nodes_of(plan(both)) == {"n1": [entry(group="a")]}

    def test_and_a_second_plan_writes_nothing(self) -> None:
        more = {"storage": {}, "serviceAccountName": ""}

        assert plan(world(cache(spec=more), group(), node(), local_node("n1", entry()))).nodes == ()


class TestRow5NodeThatIsNotReady:
    def test_then_no_local_model_node_and_its_status_says_so(self) -> None:
        found = plan(world(cache(), group(), node(ready=False)))

        assert found.nodes == ()
        assert status_of(found)["nodeStatus"] == {"n1": "NodeNotReady"}

    def test_then_a_status_that_has_a_value_stays(self) -> None:
        before = cache(status={"nodeStatus": {"n1": "NodeDownloaded"}})

        found = plan(world(before, group(), node(ready=False), local_node("n1", entry(), m="ModelDownloadError")))

        assert status_of(found)["nodeStatus"] == {"n1": "NodeDownloaded"}

    def test_then_it_keeps_its_entries_and_gets_no_new_ones(self) -> None:
        found = plan(world(cache("a"), cache("b", uri="hf://b/b"), group(), node(ready=False), local_node("n1", entry("a"))))

        assert found.nodes == ()


class TestRow6NodeAddedOrReady:
    def test_then_it_is_reconciled_whichever_of_the_groups_it_belongs_to(self) -> None:
        found = plan(world(cache(groups=("cpu", "gpu")), group("cpu"), group("gpu"), node(label="gpu")))

        assert nodes_of(found) == {"n1": [entry(group="gpu")]}


class TestRow7ModelStatusChanges:
    @pytest.mark.parametrize(
        ("model", "expected"),
        [
            ("", "NodeDownloadPending"),
            ("ModelDownloadPending", "NodeDownloadPending"),
            ("ModelDownloading", "NodeDownloading"),
            ("ModelDownloaded", "NodeDownloaded"),
            ("ModelDownloadError", "NodeDownloadError"),
        ],
    )
    def test_then_the_nodes_status_follows(self, model: ModelStatus, expected: str) -> None:
        found = plan(world(cache(), group(), node(), local_node("n1", entry(), m=model)))

        assert status_of(found)["nodeStatus"] == {"n1": expected}

    def test_then_copies_are_counted_anew(self) -> None:
        nodes = [
            local_node("n1", entry(), m="ModelDownloaded"),
            local_node("n2", entry(), m="ModelDownloadError"),
            local_node("n3", entry()),
        ]

        found = plan(world(cache(), group(), node("n1"), node("n2"), node("n3"), *nodes))

        assert status_of(found)["copies"] == {"available": 1, "total": 3, "failed": 1}


def test_row_8_two_groups_with_a_node_each_both_downloaded_then_copies_are_2_2_0() -> None:
    found = plan(
        world(
            cache(groups=("gpu", "cpu")),
            group("gpu"),
            group("cpu"),
            node("n1"),
            node("n2", label="cpu"),
            local_node("n1", entry(), m="ModelDownloaded"),
            local_node("n2", entry(group="cpu"), m="ModelDownloaded"),
        )
    )

    assert status_of(found)["copies"] == {"available": 2, "total": 2, "failed": 0}


def test_row_9_several_models_on_a_node_then_one_local_model_node_with_status_keys_name_and_namespace_name() -> None:
    there = local_node("n1", entry(), entry(namespace="team"), m="ModelDownloaded", team__m="ModelDownloadError")
    found = plan(world(cache(), cache(namespace="team"), group(), node(), there))

    assert found.nodes == ()
    assert {each.metadata.namespace: patch["status"]["nodeStatus"] for each, patch in found.statuses} == {
        "": {"n1": "NodeDownloaded"},
        "team": {"n1": "NodeDownloadError"},
    }


class TestRow10ServiceLabelledForTheModel:
    def test_then_it_is_in_the_status(self) -> None:
        found = plan(world(cache(), group(), services=[service("s", "team")]))

        assert status_of(found)["inferenceServices"] == [{"namespace": "team", "name": "s"}]

    def test_then_its_namespace_has_a_volume_and_a_claim(self) -> None:
        found = plan(world(cache(), group(), services=[service("s", "team"), service("t", "team")]))

        assert volumes_of(found) == ["m-gpu-download", "m-gpu-team"]
        assert claims_of(found) == [(JOBS, "m-gpu"), ("team", "m-gpu")]
        made = found.volumes.create_claims[-1]
        assert made["spec"]["volumeName"] == "m-gpu-team"
        assert made["metadata"]["ownerReferences"][0]["name"] == "m"

    @pytest.mark.parametrize(
        ("annotations", "claims"),
        [({}, ["m-gpu"]), ({"nodegroup": "cpu"}, ["m-cpu"]), ({"nodegroup": "unknown"}, [])],
        ids=["without one, the first", "as its annotation says", "a group that the cache lacks"],
    )
    def test_the_node_group_is(self, annotations: dict[str, str], claims: list[str]) -> None:
        both = cache(groups=("gpu", "cpu"))

        found = plan(world(both, group("gpu"), group("cpu"), services=[service(**annotations)]))

        assert [name for namespace, name in claims_of(found) if namespace == "team"] == claims

    def test_where_others_manage_volumes_nothing_is_made_for_services(self) -> None:
        options = Options(JOBS, disable_volume_management=True)

        assert volumes_of(plan(world(cache(), group(), services=[service()], options=options))) == ["m-gpu-download"]


class TestServicesForLanguageModels:
    def test_are_listed_by_themselves_and_have_volumes_too(self) -> None:
        language = replace(service("s", "team"), kind="LLMInferenceService")

        found = plan(world(cache(), group(), services=[language]))

        assert status_of(found)["llmInferenceServices"] == [{"namespace": "team", "name": "s"}]
        assert ("team", "m-gpu") in claims_of(found)

    def test_use_the_caches_of_their_adapters(self) -> None:
        annotations = {
            "internal.serving.kserve.io/localmodel-lora": '{"a": {"cache": "m"}, "b": {"cache": "n", "namespace": "team"}}'
        }
        document = {"metadata": {"namespace": "team", "name": "s", "annotations": annotations}}
        language = read_service("LLMInferenceService", document)

        found = plan(world(cache(), cache("n", "team", uri="hf://org/n"), group(), services=[language]))

        assert {("team", "m-gpu"), ("team", "n-gpu")} <= set(claims_of(found))

    def test_whose_adapters_cannot_be_read_keep_what_is_there(self) -> None:
        there = [stored("m-gpu", "team", owner="uid--m", partner=("", "m-gpu-team"))]
        with pytest.raises(ValueError, match="localmodel-lora"):
            read_service("LLMInferenceService", {"metadata": {"namespace": "team", "name": "s", "annotations": _BROKEN}})

        found = plan(world(cache(), group(), stored=there, unreadable=Unreadable(users=frozenset({"team"}))))

        assert found.volumes.remove_claims == ()


_BROKEN = {"internal.serving.kserve.io/localmodel-lora": "[1]"}


class TestRow11CacheOfANamespaceAndAServiceOfAnotherNamespace:
    def test_then_it_is_not_listed_and_nothing_is_created(self) -> None:
        found = plan(world(cache(namespace="team"), group(), services=[service("s", "others", of="team")]))

        assert volumes_of(found) == ["m-gpu-team-download"]
        assert "inferenceServices" not in status_of(found)

    def test_and_a_cache_of_the_cluster_with_the_same_name_does_not_take_its_services(self) -> None:
        found = plan(world(cache(), cache(namespace="team"), group(), services=[service("s", "team", of="team")]))

        users = {each.metadata.namespace: patch["status"].get("inferenceServices") for each, patch in found.statuses}
        assert users == {"": None, "team": [{"namespace": "team", "name": "s"}]}


class TestRow12LastUserInANamespaceGone:
    def test_then_the_claim_goes_and_the_volume_waits_for_the_next_one(self) -> None:
        there = [
            stored("m-gpu-team", owner="uid--m", partner=("team", "m-gpu")),
            stored("m-gpu", "team", owner="uid--m", partner=("", "m-gpu-team")),
        ]

        found = plan(world(cache(), group(), stored=there)).volumes

        assert [each.id for each in found.remove_claims] == [("team", "m-gpu")]
        assert found.remove_volumes == ()

    def test_then_the_volume_of_a_namespaced_cache_goes_too(self) -> None:
        there = [
            stored("m-gpu-team", partner=("team", "m-gpu")),
            stored("m-gpu", "team", owner="uid-team-m", partner=("", "m-gpu-team")),
        ]

        found = plan(world(cache(namespace="team"), group(), stored=there)).volumes

        assert [each.id for each in found.remove_claims] == [("team", "m-gpu")]
        assert [each.name for each in found.remove_volumes] == ["m-gpu-team"]

    def test_then_the_next_user_gets_the_volume_freed_of_its_old_claim(self) -> None:
        there = [stored("m-gpu-team", owner="uid--m", partner=("team", "m-gpu"), released=True)]

        found = plan(world(cache(), group(), stored=there, services=[service()]))

        assert [each.name for each in found.volumes.free] == ["m-gpu-team"]
        assert ("team", "m-gpu") in claims_of(found)

    def test_and_a_volume_of_somebody_else_with_that_name_stays(self) -> None:
        there = [stored("m-gpu-team", partner=("team", "theirs")), stored("m-gpu", "team", partner=("", "theirs"))]

        found = plan(world(cache(namespace="team"), group(), stored=there)).volumes

        assert found.remove_claims == ()
        assert found.remove_volumes == ()


class TestRow15CacheDeleted:
    def test_then_its_entry_and_its_volumes_go_and_the_finalizer_last(self) -> None:
        there = [stored("m-gpu-download", owner="uid--m"), stored("m-gpu", JOBS, owner="uid--m")]

        found = plan(world(cache(deleting=True), group(), node(), local_node("n1", entry()), stored=there))

        assert nodes_of(found) == {"n1": []}
        assert [each.name for each in found.volumes.remove_claims] == ["m-gpu"]
        assert [each.name for each in found.volumes.remove_volumes] == ["m-gpu-download"]
        assert found.release == ()
        assert found.statuses == ()

    def test_then_the_finalizer_goes_once_nothing_is_left(self) -> None:
        deleted = cache(deleting=True)
        there = [stored("m-gpu", JOBS, owner="uid--m", leaving=True)]

        assert plan(world(deleted, group(), node(), local_node("n1"), stored=there)).release == (deleted,)

    def test_then_it_ends_also_if_its_node_groups_are_gone(self) -> None:
        deleted = cache(deleting=True)
        first = plan(world(deleted, node(), local_node("n1", entry())))
        then = plan(world(deleted, node(), local_node("n1")))

        assert nodes_of(first) == {"n1": []}
        assert first.release == (), "a node still has the entry"
        assert then.release == (deleted,)

    def test_then_the_volumes_of_a_namespaced_cache_go_by_their_names(self) -> None:
        there = [
            stored("m-gpu-team-download", partner=(JOBS, "m-gpu-team-download")),
            stored("m-gpu-team-download", JOBS, partner=("", "m-gpu-team-download")),
            stored("m-gpu-team", ours=True),
        ]

        found = plan(world(cache(namespace="team", deleting=True), stored=there))

        assert [each.name for each in found.volumes.remove_volumes] == ["m-gpu-team-download", "m-gpu-team"]
        assert [each.id for each in found.volumes.remove_claims] == [(JOBS, "m-gpu-team-download")]
        assert found.release == ()

    def test_then_a_finalizer_of_others_is_not_ours_to_remove(self) -> None:
        assert plan(world(cache(deleting=True, finalizers=["others"]))).release == ()


class TestFaultsOfKServe:
    def test_a_status_drops_nodes_that_are_gone_and_the_total_with_them(self) -> None:
        before = cache(status={"nodeStatus": {"n1": "NodeDownloaded", "gone": "NodeDownloaded"}, "copies": {"total": 2}})

        found = plan(world(before, group(), node(), local_node("n1", entry(), m="ModelDownloaded")))

        assert status_of(found)["nodeStatus"] == {"n1": "NodeDownloaded", "gone": None}
        assert status_of(found)["copies"] == {"available": 1, "total": 1, "failed": 0}

    def test_the_local_model_node_of_a_node_that_is_gone_is_removed(self) -> None:
        left = local_node("gone", entry())

        assert plan(world(cache(), group(), left)).gone == (left,)

    def test_no_status_is_written_without_a_difference(self) -> None:
        current = {"nodeStatus": {"n1": "NodeDownloaded"}, "copies": {"available": 1, "total": 1, "failed": 0}}

        found = plan(world(cache(status=current), group(), node(), local_node("n1", entry(), m="ModelDownloaded")))

        assert found.statuses == ()

    def test_a_node_that_leaves_a_group_loses_the_entry(self) -> None:
        found = plan(world(cache(), group(), node(label="cpu"), local_node("n1", entry())))

        assert nodes_of(found) == {"n1": []}


class TestWhatIsNotKnownStays:
    @pytest.mark.parametrize("unreadable", [Unreadable(), Unreadable(groups=frozenset({"gpu"}))], ids=["deleted", "unreadable"])
    def test_the_entries_of_a_group_that_is(self, unreadable: Unreadable) -> None:
        groups = [group()] if unreadable.groups else []
        before = cache(status={"nodeStatus": {"n1": "NodeDownloaded"}, "copies": {"available": 1, "total": 1, "failed": 0}})
        there = [
            stored("m-gpu-download", owner="uid--m", partner=(JOBS, "m-gpu")),
            stored("m-gpu", JOBS, owner="uid--m", partner=("", "m-gpu-download")),
        ]
        nodes = [node(), local_node("n1", entry(), m="ModelDownloaded")]

        found = plan(world(before, *groups, *nodes, stored=there, unreadable=unreadable))

        assert found == plan(world())

    def test_the_entries_and_volumes_of_a_cache_that_cannot_be_read(self) -> None:
        there = [stored("m-gpu-download", owner="uid--m"), stored("m-gpu", JOBS, owner="uid--m")]
        unreadable = Unreadable(caches=frozenset({("", "m")}))

        found = plan(world(group(), node(), local_node("n1", entry()), stored=there, unreadable=unreadable))

        assert found == plan(world())

    def test_entries_without_any_cache_go(self) -> None:
        assert plan(world(node(), local_node("n1", entry()))).nodes == (NodeWrite("n1", (), local_node("n1", entry())),)


def carried_out(before: World, found: Plan) -> World:
    """The cluster after the plan: what a second look sees."""
    models = {each.name: local_node(each.name, *encoded(each.models)) for each in found.nodes}
    volumes = {
        each["metadata"]["name"]: stored(each["metadata"]["name"], owner=_owner(each), ours=True)
        for each in found.volumes.create_volumes
    }
    claims = {
        (each["metadata"]["namespace"], each["metadata"]["name"]): stored(
            each["metadata"]["name"], each["metadata"]["namespace"], owner=_owner(each), ours=True
        )
        for each in found.volumes.create_claims
    }
    return World(
        before.options,
        before.caches,
        before.groups,
        before.nodes,
        {**before.local_nodes, **models},
        before.services,
        volumes,
        claims,
    )


def _owner(document: dict[str, Any]) -> str:
    owners = document["metadata"].get("ownerReferences", [{"uid": ""}])
    return str(owners[0]["uid"])


def test_a_plan_that_was_carried_out_leaves_nothing_but_statuses() -> None:
    before = world(
        cache(groups=("gpu", "cpu")),
        cache(namespace="team"),
        group("gpu"),
        group("cpu"),
        node("n1"),
        node("n2", label="cpu"),
        services=[service("s", "team"), service("t", "team", of="team"), service("u", "b", nodegroup="cpu")],
    )

    again = plan(carried_out(before, plan(before)))

    assert replace(again, statuses=()) == plan(world())
