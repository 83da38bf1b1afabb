"""Given a cluster, then what every node shall have, what is made and removed, and what is told."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from cluster.controller.actions import Make, Remove, rendered
from cluster.controller.planning import Plan
from cluster.controller.specs import status_interval
from cluster.controller.volumes import CLAIM, VOLUME, claim, volume, volume_name
from cluster.controller.world import Described, Lease, Observation, Owned, Pod, Pool, Resolution, Unknown, World
from cluster.names import lease_of
from cluster.resources import Copies, Entry, LabelSelector, ModelCacheStatus, NodeCacheSpec, encoded
from cluster.resources.artifact import content_of, mark_of
from cluster.resources.model import Found, PoolPlacement
from cluster.resources.pool import Memory
from tests.cluster.controller.building import (
    cache,
    described,
    entries,
    found,
    key_of,
    model,
    planned,
    pool,
    reporting,
    sentence,
    told,
    world,
)
from tests.lab.availability import require_root

KEY = key_of()
CAP_IPC_LOCK = 14
M = ("a", "m")
FOUND = Found(KEY, 100, 2, "r1", "d")
CLAIMED = Owned("uid-claim", rendered=Make("", claim(M, FOUND)).rendered, key=KEY, model=M)
BOUND = Owned("uid-volume", rendered=Make("", volume(M, FOUND, pool(), "uid-claim")).rendered, key=KEY, model=M)
VOLUMES: dict[str, Any] = {"claims": {M: CLAIMED}, "volumes": {volume_name(M): BOUND}}


def doing(given: World) -> list[tuple[str, str]]:
    """The kinds that are made and removed, without those of agents."""
    actions = planned(given).actions
    return [(type(each).__name__, each.place[0]) for each in actions if each.place[0] in (CLAIM, VOLUME)]


class TestEntries:
    def test_every_node_of_the_pool_gets_an_entry_that_names_the_model_cache_and_the_pinned_answer(self) -> None:
        plan = planned(world([model()], nodes=1, artifacts={}))
        assert plan.specs["n1"].artifacts == {KEY: Entry(mark_of(described()), turn=True)}
        assert [each.document["spec"] for each in made(plan, "CacheArtifact")] == [encoded(described())]

    def test_a_model_whose_source_has_not_answered_has_no_entry(self) -> None:
        assert entries(planned(world([model()], nodes=1, resolutions={}))) == {"n1": []}

    def test_entries_of_a_model_whose_source_has_not_answered_yet_stay_after_a_restart(self) -> None:
        given = world([model()], nodes=1, resolutions={}, caches={"n1": reporting("Ready")})
        assert entries(planned(given)) == {"n1": [KEY]}

    def test_entries_of_a_model_that_is_deleted_go(self) -> None:
        assert entries(planned(world([], nodes=1, caches={"n1": reporting("Ready")}))) == {"n1": []}
        given = world([model(deleting="2026-01-01T00:00:00Z")], nodes=1, caches={"n1": reporting("Ready")})
        assert entries(planned(given)) == {"n1": []}

    def test_the_node_learns_the_bounds_of_its_pool(self) -> None:
        wanted = pool(limit="1T", min_free="5%", allow_root_filesystem=True, allowed_sources=("hf://org/",))
        spec = planned(world([], [wanted], nodes=1)).specs["n1"]
        assert spec == NodeCacheSpec("p", "1T", "5%", True, allowed_sources=("hf://org/",))

    def test_the_node_learns_what_of_its_memory_belongs_to_models(self) -> None:
        spec = planned(world([], [pool(medium="Memory", memory=Memory("1.5Gi"))], nodes=1)).specs["n1"]
        assert (spec.medium, spec.memory_budget) == ("Memory", 3 * 2**29)

    @pytest.mark.parametrize(
        ("asked", "warm"),
        [(("None", "None"), None), (("None", "PageCache"), "PageCache"), (("Locked", "PageCache"), "Locked")],
    )
    def test_of_model_caches_that_share_a_copy_the_warmest_wish_wins(self, asked: tuple[Any, Any], warm: str | None) -> None:
        models = [model(warm=asked[0]), model("x", "b", warm=asked[1])]
        (entry,) = planned(world(models, nodes=1)).specs["n1"].artifacts.values()
        assert entry.warm == warm

    def test_waves_bound_the_turns_of_each_model(self) -> None:
        specs = planned(world([model()], [pool(max_fetching=2)], nodes=9)).specs
        assert sum(bool(each.turn) for spec in specs.values() for each in spec.artifacts.values()) == 2

    def test_the_node_cache_of_a_node_that_is_gone_is_removed(self) -> None:
        given = world([], nodes=1, caches={"n1": cache(), "old": cache()})
        assert planned(given).removed == ("old",)

    @pytest.mark.parametrize(
        ("given", "removed"),
        [
            pytest.param({"alive": []}, ["old"], id="nobody renews it"),
            pytest.param({"alive": ["old"]}, [], id="its agent still lives"),
            pytest.param({"alive": [], "unknown": Unknown(nodes=frozenset({"old"}))}, [], id="its Node cannot be read"),
        ],
    )
    def test_the_lease_of_a_node_that_is_gone_is_removed(self, given: dict[str, Any], removed: list[str]) -> None:
        leases = {("weightlift", lease_of(node)): Lease(f"uid-{node}", "t") for node in ("n1", "old")}
        leases["weightlift", "weightlift-controller"] = Lease("uid-controller", "t")
        actions = planned(world([], nodes=1, leases=leases, **given)).actions
        wanted = [Remove("Lease", "weightlift", lease_of(node), f"uid-{node}") for node in removed]
        assert [each for each in actions if isinstance(each, Remove)] == wanted

    def test_the_node_caches_of_a_pool_that_is_deleted_are_removed(self) -> None:
        given = world([model()], [], nodes=1, caches={"n1": cache()})
        assert planned(given).removed == ("n1",)
        assert planned(given).specs == {}

    def test_a_node_cache_that_somebody_else_made_is_neither_written_nor_removed(self) -> None:
        plan = planned(world([], nodes=1, caches={"n1": cache(ours=False), "old": cache(ours=False)}))
        assert (plan.specs, plan.removed) == ({}, ())
        assert {each.reason for each in plan.pools["p"].conditions} == {"NotOurs", "NoOverlap"}


class TestDescriptions:
    OTHER: ClassVar = {"x.y": Described("uid-x", True, described(key="0" * 16))}

    def test_what_is_described_already_is_made_no_second_time(self) -> None:
        assert made(planned(world([model()], nodes=1)), "CacheArtifact") == []

    def test_what_no_node_cache_names_is_removed(self) -> None:
        assert removed(world([], nodes=1, artifacts=self.OTHER)) == ["x.y"]

    def test_what_a_node_cache_still_names_stays(self) -> None:
        assert removed(world([], nodes=1, caches={"n1": reporting("Ready")})) == []

    def test_what_somebody_else_made_stays(self) -> None:
        theirs = {"x.y": Described("uid-x", False, described(key="0" * 16))}
        assert removed(world([], nodes=1, artifacts=theirs)) == []

    def test_nothing_is_removed_while_a_node_cache_cannot_be_read(self) -> None:
        assert removed(world([], nodes=1, artifacts=self.OTHER, unknown=Unknown(caches=frozenset({"n1"})))) == []

    def test_an_entry_that_nobody_can_tell_whose_it_is_stays_while_a_model_cache_is_unknown(self) -> None:
        caches = {"n1": reporting("Ready")}
        unread = world([model("other")], nodes=1, resolutions={}, caches=caches, artifacts={})
        assert entries(planned(unread)) == {"n1": [KEY]}
        assert entries(planned(world([], nodes=1, caches=caches, artifacts={}))) == {"n1": []}


@pytest.mark.parametrize(("nodes", "seconds"), [(0, None), (100, None), (101, 20), (1000, 100), (1001, 200), (50_000, 1000)])
def test_nodes_of_a_large_cluster_are_told_to_report_less_often(nodes: int, seconds: int | None) -> None:
    assert status_interval(nodes) == seconds


def made(of: Plan, kind: str) -> list[Make]:
    return [each for each in of.actions if isinstance(each, Make) and each.kind == kind]


def removed(given: World) -> list[str]:
    """The names of the CacheArtifacts that are removed."""
    return [each.name for each in planned(given).actions if isinstance(each, Remove) and each.kind == "CacheArtifact"]


class TestHeld:
    def test_what_a_pod_mounts_is_held_on_its_node_only(self) -> None:
        given = world([model()], nodes=2, pods={("a", "pod"): Pod(("m",), "n1")}, **VOLUMES)
        assert {node: spec.artifacts[KEY].held for node, spec in planned(given).specs.items()} == {"n1": True, "n2": None}

    def test_a_pod_that_is_not_scheduled_yet_holds_it_everywhere(self) -> None:
        given = world([model()], nodes=2, pods={("a", "pod"): Pod(("m",))}, **VOLUMES)
        assert all(spec.artifacts[KEY].held for spec in planned(given).specs.values())

    def test_a_claim_of_another_namespace_holds_nothing(self) -> None:
        given = world([model()], nodes=1, pods={("b", "pod"): Pod(("m",), "n1")}, **VOLUMES)
        assert not planned(given).specs["n1"].artifacts[KEY].held

    def test_what_a_pod_still_mounts_stays_on_its_node_after_its_model_cache_was_deleted(self) -> None:
        given = world(
            [],
            nodes=2,
            caches={"n1": reporting("Ready"), "n2": reporting("Ready")},
            pods={("a", "pod"): Pod(("m",), "n1")},
            **VOLUMES,
        )
        plan = planned(given)
        assert entries(plan) == {"n1": [KEY], "n2": []}
        assert plan.specs["n1"].artifacts[KEY].held


class TestSharing:
    def test_two_namespaces_share_one_entry_and_the_strongest_retain_wins(self) -> None:
        older, newer = model(created="2024"), model(namespace="b", retain="Always")
        plan = planned(world([newer, older], nodes=1))
        assert plan.specs["n1"].artifacts == {KEY: Entry(mark_of(described(namespace="a")), "Always", turn=True)}

    def test_the_nodes_are_those_of_both(self) -> None:
        one = model(place=PoolPlacement("p", "Count", 1))
        everywhere = model(namespace="b")
        assert entries(planned(world([one, everywhere]))) == {node: [KEY] for node in ("n1", "n2", "n3")}

    def test_another_revision_of_one_key_is_a_conflict_that_the_older_model_cache_wins(self) -> None:
        older, newer = model(created="2024"), model(namespace="b")
        plan = planned(world([newer, older], nodes=1, resolutions={M: found(older), ("b", "m"): found(newer, revision="r2")}))
        assert plan.specs["n1"].artifacts == {KEY: Entry(mark_of(described()), turn=True)}
        assert told(plan, ("b", "m"))["RevisionConflict"] == ("True", "RevisionConflict")
        assert told(plan, ("b", "m"))["Ready"] == ("False", "RevisionConflict")
        assert "ModelCache a/m is older" in sentence(plan, "RevisionConflict", ("b", "m"))
        assert told(plan)["RevisionConflict"] == ("False", "NoConflict")

    def test_a_second_namespace_is_not_resolved_and_not_ready_before_its_own_token_has_answered(self) -> None:
        first, second = model(created="2024"), model(namespace="b")
        refused = Resolution(reason="Unauthorized", message="401", retryable=False)
        caches = {"n1": reporting("Ready")}
        plan = planned(world([first, second], nodes=1, caches=caches, resolutions={M: found(first), ("b", "m"): refused}))
        assert told(plan)["Ready"] == ("True", "Ready")
        assert told(plan, ("b", "m"))["Resolved"] == ("False", "Unauthorized")
        assert told(plan, ("b", "m"))["Ready"] == ("False", "Unauthorized")
        assert plan.models["b", "m"].claim_name is None


REFUSED: list[tuple[str, list[Any], str, str]] = [
    ("a pool that does not exist", [], "PoolMissing", "there is no CachePool p"),
    ("a pool without a namespaceSelector", [pool(namespace_selector=None)], "NamespaceNotSelected", "namespace a"),
    (
        "a pool for other namespaces",
        [pool(namespace_selector=LabelSelector({"team": "x"}))],
        "NamespaceNotSelected",
        "ask its owner",
    ),
    ("a source that the pool does not allow", [pool(allowed_sources=("s3://b/",))], "SourceNotAllowed", "s3://b/"),
]


class TestRefused:
    @pytest.mark.parametrize(("pools", "reason", "text"), [each[1:] for each in REFUSED], ids=[each[0] for each in REFUSED])
    def test_a_model_cache_that_may_not_use_its_pool_is_degraded(self, pools: Any, reason: str, text: str) -> None:
        given = world([model()], pools, nodes=1, caches={"n1": reporting("Ready")}, **VOLUMES)
        plan = planned(given)
        assert told(plan)["Degraded"] == ("True", reason)
        assert told(plan)["Ready"] == ("False", reason)
        assert text in sentence(plan, "Degraded")
        assert all(not each.artifacts for each in plan.specs.values())
        assert plan.models[M].claim_name is None
        assert ("Remove", CLAIM) in doing(given)


class TestUnknown:
    """What cannot be read is not gone."""

    def test_an_unreadable_model_cache_keeps_its_entries_and_its_volumes(self) -> None:
        given = world([], nodes=1, caches={"n1": reporting("Ready")}, unknown=Unknown(models=frozenset({M})), **VOLUMES)
        assert entries(planned(given)) == {"n1": [KEY]}
        assert doing(given) == []
        assert planned(given).models == {}

    def test_an_unreadable_pool_keeps_its_node_caches_and_its_agents(self) -> None:
        agents: dict[str, Any] = {"daemon_sets": {"weightlift-agent-p": Owned("uid")}}
        given = world(
            [model()], [], nodes=1, caches={"n1": reporting("Ready")}, unknown=Unknown(pools=frozenset({"p"})), **agents
        )
        plan = planned(given)
        assert (plan.specs, plan.removed, plan.actions, plan.models) == ({}, (), (), {})

    def test_the_last_readable_form_of_a_pool_decides_nothing(self) -> None:
        given = world([model()], nodes=1, caches={"n1": cache()}, unknown=Unknown(pools=frozenset({"p"})))
        assert planned(given).specs == {}

    def test_an_unreadable_node_cache_is_not_written(self) -> None:
        given = world([model()], nodes=2, unknown=Unknown(caches=frozenset({"n1"})))
        assert set(planned(given).specs) == {"n2"}

    def test_a_node_cache_of_an_unreadable_node_stays(self) -> None:
        given = world([], nodes=0, caches={"n1": cache()}, unknown=Unknown(nodes=frozenset({"n1"})))
        assert planned(given).removed == ()

    def test_an_unreadable_namespace_changes_nothing_for_its_models(self) -> None:
        given = world(
            [model()], nodes=1, caches={"n1": reporting("Ready")}, unknown=Unknown(namespaces=frozenset({"a"})), **VOLUMES
        )
        assert entries(planned(given)) == {"n1": [KEY]}
        assert doing(given) == []

    def test_with_an_unreadable_pod_no_claim_of_its_namespace_is_removed(self) -> None:
        unread = Unknown(pods_of=frozenset({"a"}))
        assert doing(world([], unknown=unread, **VOLUMES)) == []
        assert doing(world([model(revision="v2")], unknown=unread, **VOLUMES)) == []


class TestVolumes:
    def test_a_resolved_model_gets_a_claim_and_then_a_volume_for_this_very_claim(self) -> None:
        assert doing(world([model()])) == [("Make", CLAIM)]
        given = world([model()], claims={M: CLAIMED})
        assert doing(given) == [("Make", VOLUME)]
        (document,) = [each.document for each in planned(given).actions if each.place[0] == VOLUME and isinstance(each, Make)]
        spec = document["spec"]
        assert spec["local"] == {"path": f"/models/{KEY}"}
        assert spec["accessModes"] == ["ReadOnlyMany"]
        assert spec["persistentVolumeReclaimPolicy"] == "Retain"
        assert (spec["claimRef"]["namespace"], spec["claimRef"]["name"], spec["claimRef"]["uid"]) == (*M, "uid-claim")
        assert claim(M, FOUND)["spec"]["volumeName"] == document["metadata"]["name"]

    def test_the_volume_is_where_the_pool_is(self) -> None:
        document = volume(M, FOUND, pool(node_selector=LabelSelector({"gpu": "h100"})), "uid")
        (term,) = document["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
        assert term["matchExpressions"] == [{"key": "gpu", "operator": "In", "values": ["h100"]}]

    def test_models_with_names_that_look_alike_when_joined_have_volumes_of_their_own(self) -> None:
        assert volume_name(("a-b", "c")) != volume_name(("a", "b-c"))
        assert len(volume_name(("n" * 63, "m" * 253))) <= 253

    def test_what_is_there_is_left_alone(self) -> None:
        assert doing(world([model()], **VOLUMES)) == []

    def test_volume_and_claim_of_a_deleted_model_go_the_claim_first(self) -> None:
        assert doing(world([], **VOLUMES)) == [("Remove", CLAIM)]
        assert doing(world([], volumes=VOLUMES["volumes"])) == [("Remove", VOLUME)]

    def test_a_claim_that_a_pod_mounts_stays(self) -> None:
        assert doing(world([], pods={("a", "pod"): Pod(("m",), "n1")}, **VOLUMES)) == []

    def test_what_is_being_deleted_is_not_deleted_again(self) -> None:
        going: dict[str, Any] = {"claims": {M: replace(CLAIMED, deleting=True)}, "volumes": VOLUMES["volumes"]}
        assert doing(world([], **going)) == []

    def test_another_artifact_replaces_the_claim_once_no_pod_uses_it(self) -> None:
        changed = model(revision="v2")
        assert doing(world([changed], **VOLUMES)) == [("Remove", CLAIM)]
        used = world([changed], pods={("a", "pod"): Pod(("m",), "n1")}, **VOLUMES)
        assert doing(used) == []
        assert told(planned(used))["Progressing"] == ("True", "InUse")
        assert doing(world([changed], volumes=VOLUMES["volumes"])) == [("Remove", VOLUME)]
        assert doing(world([changed])) == [("Make", CLAIM)]

    def test_a_volume_whose_claim_a_user_deleted_is_made_anew(self) -> None:
        assert doing(world([model()], volumes=VOLUMES["volumes"])) == [("Remove", VOLUME)]

    def test_a_claim_of_somebody_else_is_told(self) -> None:
        refusal = {(CLAIM, "a", "m"): "PersistentVolumeClaim m exists and is not weightlift's; rename or delete it"}
        plan = planned(world([model()], caches={"n1": reporting("Ready")}, refusals=refusal))
        assert told(plan)["Degraded"] == ("True", "ClaimRefused")
        assert plan.models[M].claim_name is None

    def test_an_object_is_removed_by_its_uid(self) -> None:
        (removal,) = [each for each in planned(world([], **VOLUMES)).actions if isinstance(each, Remove)]
        assert removal == Remove(CLAIM, "a", "m", "uid-claim")


class TestAgents:
    def documents(self, given: World) -> dict[str, Any]:
        return {each.place[0]: each.document for each in planned(given).actions if isinstance(each, Make)}

    def pod(self, wanted: Pool) -> dict[str, Any]:
        found: dict[str, Any] = self.documents(world([], [wanted]))["DaemonSet"]["spec"]["template"]["spec"]
        return found

    def test_a_pool_gets_agents_that_see_its_root_and_nothing_else_of_the_node(self) -> None:
        wanted = pool(node_selector=LabelSelector({"gpu": "h100"}), tolerations=({"key": "x", "operator": "Exists"},))
        daemon_set = self.documents(world([], [wanted]))["DaemonSet"]
        pod = daemon_set["spec"]["template"]["spec"]
        assert [each.get("hostPath") for each in pod["volumes"]] == [{"path": "/models", "type": "Directory"}]
        (agent,) = pod["containers"]
        assert agent["volumeMounts"] == [{"name": "root", "mountPath": "/models"}]
        assert agent["args"][:2] == ["--root", "/models"]
        assert agent["ports"][0]["containerPort"] == int(agent["args"][agent["args"].index("--metrics-port") + 1])
        assert agent["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert agent["securityContext"]["readOnlyRootFilesystem"]
        assert pod["securityContext"]["runAsUser"] == 65532
        assert pod["tolerations"] == [{"key": "x", "operator": "Exists"}]
        assert not any(pod.get(each) for each in ("hostNetwork", "hostPID", "hostIPC"))
        assert pod["serviceAccountName"] == "weightlift-agent-p"

    def test_they_tolerate_nodes_with_gpus_by_default(self) -> None:
        pod = self.documents(world([]))["DaemonSet"]["spec"]["template"]["spec"]
        assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]

    def test_they_have_the_priority_that_the_pool_names_and_none_by_default(self) -> None:
        assert self.pod(pool(priority_class_name="system-node-critical"))["priorityClassName"] == "system-node-critical"
        assert "priorityClassName" not in self.pod(pool())

    def test_their_account_comes_first_and_kubernetes_collects_all_with_the_pool(self) -> None:
        documents = self.documents(world([]))
        assert list(documents) == ["ServiceAccount", "DaemonSet"]
        owners = [each["metadata"]["ownerReferences"][0]["uid"] for each in documents.values()]
        assert set(owners) == {"uid-p"}

    def test_they_are_written_again_only_when_something_changed(self) -> None:
        made = Make("", self.documents(world([]))["DaemonSet"]).rendered
        there: dict[str, Any] = {"daemon_sets": {"weightlift-agent-p": Owned("uid", rendered=made)}}
        assert self.documents(world([], **there)) == {}
        assert "DaemonSet" in self.documents(world([], [pool(resources={"limits": {"memory": "2Gi"}})], **there))

    @pytest.mark.parametrize(
        ("own", "requests", "limits"),
        [
            pytest.param(None, "67072Mi", "67584Mi", id="the agent's own, the budget, and a sixty-fourth of it for the kernel"),
            pytest.param({"limits": {"memory": "2Gi"}}, None, "68608Mi", id="what the pool gives is the agent's own"),
            pytest.param({"requests": {"cpu": 1}}, "66560Mi", None, id="without a limit of its own the agent gets none"),
            pytest.param({"limits": {"memory": "much"}}, None, "much", id="what is no quantity is the API server's to refuse"),
        ],
    )
    def test_the_budget_is_in_request_and_limit_from_the_start(
        self, own: Any, requests: str | None, limits: str | None
    ) -> None:
        (agent,) = self.pod(pool(memory=Memory("64Gi"), resources=own))["containers"]
        found = agent["resources"]
        assert found.get("requests", {}).get("memory") == requests
        assert found.get("limits", {}).get("memory") == limits

    def test_without_a_budget_the_resources_are_those_of_the_pool(self) -> None:
        (agent,) = self.pod(pool(resources={"limits": {"memory": "2Gi"}}))["containers"]
        assert agent["resources"] == {"limits": {"memory": "2Gi"}}

    def test_a_pool_that_allows_locking_gets_agents_with_that_one_capability(self) -> None:
        (agent,) = self.pod(pool(memory=Memory("1Gi", allow_locking=True)))["containers"]
        assert agent["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["IPC_LOCK", "SETGID", "SETUID"]}
        assert not agent["securityContext"]["allowPrivilegeEscalation"]
        require_root("start as root, as the container does")
        given = ["setpriv", "--bounding-set=-all,+ipc_lock,+setgid,+setuid", "--inh-caps=-all", "--no-new-privs"]
        assert agent["command"].pop() == "weightlift-agent"
        shown = subprocess.check_output([*given, *agent["command"], "cat", "/proc/self/status"], text=True)
        status = dict(line.split(":\t", 1) for line in shown.splitlines() if ":\t" in line)
        assert status["Uid"].split() == ["65532"] * 4
        assert {status[name] for name in ("CapPrm", "CapEff", "CapInh")} == {f"{1 << CAP_IPC_LOCK:016x}"}

    def test_agents_of_a_deleted_pool_are_removed(self) -> None:
        there: dict[str, Any] = {"daemon_sets": {"weightlift-agent-p": Owned("uid")}}
        assert planned(world([], [], **there)).actions == (Remove("DaemonSet", "weightlift", "weightlift-agent-p", "uid"),)


class TestTold:
    def test_ready_needs_as_many_copies_as_min_ready(self) -> None:
        caches = {"n1": reporting("Ready"), "n2": reporting("Fetching"), "n3": reporting("Queued", reason="Turn")}
        plan = planned(world([model(min_ready=2)], caches=caches))
        assert told(plan)["Ready"] == ("False", "Fetching")
        assert plan.models[M].progress == "1/3"
        plan = planned(world([model(min_ready=1)], caches=caches))
        assert told(plan)["Ready"] == ("True", "Ready")
        assert told(plan)["Progressing"] == ("True", "Fetching")
        assert told(plan)["Degraded"] == ("False", "AsExpected")

    def test_a_dead_node_is_in_no_count(self) -> None:
        caches = {"n1": reporting("Ready"), "n2": reporting("Ready")}
        plan = planned(world([model()], nodes=3, caches=caches, alive=["n1"]))
        assert plan.models[M].progress == "1/1"
        assert (plan.pools["p"].nodes, plan.pools["p"].ready) == (3, 1)

    def test_a_count_wants_its_copies_also_where_nodes_are_missing(self) -> None:
        plan = planned(world([model(place=PoolPlacement("p", "Count", 5))], caches={"n1": reporting("Ready")}))
        assert plan.models[M].progress == "1/5"

    def test_a_copy_of_another_revision_is_not_ready(self) -> None:
        seen = cache(observed={KEY: Observation("Ready", content=content_of("r0", "d"))})
        assert planned(world([model()], nodes=1, caches={"n1": seen})).models[M].progress == "0/1"

    def test_failed_nodes_are_named_at_most_ten_times_and_the_commonest_reason_is_told(self) -> None:
        broken = {f"n{number}": reporting("Failed", reason="OutOfSpace", message="no space") for number in range(1, 13)}
        caches = {**broken, "n13": reporting("Waiting", reason="Unreachable")}
        plan = planned(world([model()], nodes=13, caches=caches))
        status = plan.models[M]
        assert status.copies is not None
        assert (status.copies.failed, len(status.failed_nodes)) == (13, 10)
        assert told(plan)["Degraded"] == ("True", "OutOfSpace")
        assert sentence(plan, "Degraded") == "12 of 13 nodes, such as n1: no space"

    def test_a_full_node_is_told_with_the_numbers_of_its_agent(self) -> None:
        numbers = "needs 140 GB, and 20 GB can be made free"
        plan = planned(world([model()], nodes=1, caches={"n1": reporting("Queued", reason="Capacity", message=numbers)}))
        assert told(plan)["CapacityExceeded"] == ("True", "CapacityExceeded")
        assert numbers in sentence(plan, "CapacityExceeded")
        assert told(plan)["Ready"] == ("False", "Capacity")

    def test_a_node_that_cannot_work_counts_as_failed_with_its_reason(self) -> None:
        broken = {"n1": cache(problem=("NotAMountPoint", "/models lies on the root filesystem"))}
        plan = planned(world([model()], nodes=1, caches=broken))
        assert told(plan)["Degraded"] == ("True", "NotAMountPoint")
        assert plan.pools["p"].ready == 0

    def test_a_copy_that_is_being_warmed_is_ready_and_its_warming_goes_on(self) -> None:
        plan = planned(world([model(warm="PageCache")], nodes=1, caches={"n1": reporting("Warming")}))
        assert told(plan)["Ready"] == ("True", "Ready")
        assert told(plan)["Progressing"] == ("True", "Warming")
        assert told(plan)["Warm"] == ("False", "Warming")
        assert plan.models[M].copies == Copies(1, 1, 0, 0)

    @pytest.mark.parametrize(
        ("asked", "there", "warm"),
        [("PageCache", "PageCache", True), ("PageCache", "Locked", True), ("Locked", "PageCache", False)],
    )
    def test_a_copy_is_warm_if_it_is_kept_as_the_model_wants_it(self, asked: Any, there: Any, warm: bool) -> None:
        given = reporting("Ready", reason="" if warm else "NotLocked", warm=there)
        plan = planned(world([model(warm=asked)], nodes=1, caches={"n1": given}))
        assert told(plan)["Warm"] == (("True", "Warm") if warm else ("False", "NotLocked"))
        assert told(plan)["Degraded"] == (("False", "AsExpected") if warm else ("True", "NotLocked"))
        assert told(plan)["Progressing"] == ("False", "Complete")

    def test_a_node_without_memory_is_told_with_the_numbers_of_its_agent_and_its_copy_stays_ready(self) -> None:
        given = reporting("Ready", reason="MemoryExceeded", message="needs 9 GiB")
        plan = planned(world([model(warm="Locked")], nodes=1, caches={"n1": given}))
        assert told(plan)["CapacityExceeded"] == ("True", "MemoryExceeded")
        assert sentence(plan, "CapacityExceeded") == "1 nodes lack memory, such as n1: needs 9 GiB"
        assert told(plan)["Ready"] == ("True", "Ready")
        assert told(plan)["Degraded"] == ("True", "MemoryExceeded")

    def test_a_model_that_need_not_be_warm_has_no_such_condition(self) -> None:
        plan = planned(world([model()], nodes=1, caches={"n1": reporting("Ready", reason="MemoryExceeded")}))
        assert "Warm" not in told(plan)
        assert told(plan)["Degraded"] == ("False", "AsExpected")

    def test_a_question_that_fails_later_takes_no_copy_away(self) -> None:
        asked = replace(found(model()), reason="Unauthorized", message="401")
        plan = planned(world([model()], nodes=1, caches={"n1": reporting("Ready")}, resolutions={M: asked}))
        assert told(plan)["Ready"] == ("True", "Ready")
        assert told(plan)["Resolved"] == ("True", "Resolved")
        assert told(plan)["Degraded"] == ("True", "Unauthorized")

    def test_verified_means_digests_and_a_copy(self) -> None:
        caches = {"n1": reporting("Ready")}
        assert told(planned(world([model()], nodes=1, caches=caches)))["Verified"] == ("True", "Digests")
        assert told(planned(world([model()], nodes=1)))["Verified"] == ("Unknown", "NoCopies")
        none = replace(found(model()), digests=False)
        assert told(planned(world([model()], nodes=1, caches=caches, resolutions={M: none})))["Verified"] == (
            "False",
            "NoDigests",
        )

    def test_a_min_ready_above_the_nodes_says_so(self) -> None:
        plan = planned(world([model(min_ready=2)], nodes=1, caches={"n1": reporting("Ready")}))
        assert told(plan)["Ready"] == ("False", "TooFewNodes")

    def test_without_agents_it_says_where_to_look(self) -> None:
        plan = planned(world([model()], alive=[]))
        assert told(plan)["Ready"] == ("False", "NoNodes")
        assert "kubectl get cachepool p" in sentence(plan, "Ready")

    def test_the_command_is_the_one_that_hits(self) -> None:
        plan = planned(world([model(revision="v 1")]))
        assert plan.models[M].command == "fetcher fetch hf://org/m --cache-dir /models --revision 'v 1'"

    def test_a_reason_of_another_version_makes_no_status_invalid(self) -> None:
        plan = planned(world([model()], nodes=1, caches={"n1": reporting("Failed", reason="not a word!")}))
        assert told(plan)["Degraded"] == ("True", "notaword")

    def test_nothing_is_told_anew_if_nothing_changed(self) -> None:
        caches = {"n1": reporting("Ready")}
        first = planned(world([model()], nodes=1, caches=caches)).models[M]
        later = world([model(status=first)], nodes=1, caches=caches)
        assert planned(later).models[M] == first

    def test_a_change_has_the_time_of_the_change(self) -> None:
        first = planned(world([model()], nodes=1, resolutions={})).models[M]
        old = ModelCacheStatus(conditions=tuple(replace(each, last_transition_time="2000") for each in first.conditions))
        times = {
            each.type: each.last_transition_time for each in planned(world([model(status=old)], nodes=1)).models[M].conditions
        }
        assert times["Resolved"] == "2026-01-01T00:00:00Z"
        assert times["Degraded"] == "2000"

    def test_an_overlap_is_told_by_the_younger_pool(self) -> None:
        plan = planned(world([], [pool("p"), pool("q", created="2026")], nodes=2))
        reasons = {each.type: each.reason for each in plan.pools["q"].conditions}
        assert reasons == {"Ready": "NoNodes", "Overlap": "Overlap"}


def test_the_digest_of_a_document_depends_on_all_of_it() -> None:
    one = rendered({"metadata": {"name": "x"}, "spec": {"a": 1}})
    assert one != rendered({"metadata": {"name": "x"}, "spec": {"a": 2}})
    assert one["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "weightlift-controller"}
