"""Models in claims: given a claim, Jobs and what their pods told → Jobs, claims and conditions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from kubernetes_validate import utils as kubernetes

from cluster.controller.actions import Change, Make, Remove
from cluster.controller.hydrating import requested
from cluster.controller.jobs import job_name
from cluster.controller.planning import Plan
from cluster.controller.reading import read_fetch, read_target, read_told
from cluster.controller.world import Fetch, Model, Name, Pod, Target, Told, Unknown, World
from cluster.resources.model import Auth, ClaimPlacement, ClaimTemplate, Found, SecretKey, SecretName, Verification
from fetcher.errors import CannotWrite, NotFound, OutOfSpace, Unreachable
from tests.cluster.controller.building import MOMENT, found, key_of, model, planned, sentence, told, world

M = ("a", "m")
CLAIM = ("a", "models")
USERS = Target("uid-claim")
MADE = Target("uid-claim", made_for=M)
AS_ACCOUNT = Auth(service_account_name="reader")
REVISION = "r1"


def claimed(**spec: Any) -> Model:
    return model(place=spec.pop("place", ClaimPlacement("models")), **spec)


def cluster(of: Model, target: Target | None = USERS, **more: Any) -> World:
    named = of.spec.placement.claim
    place = ("a", named.name if named is not None else "m")
    return world([of], [], nodes=0, artifacts={}, targets={place: target} if target is not None else {}, **more)


def makes(of: Plan, kind: str) -> list[Any]:
    return [each.document for each in of.actions if isinstance(each, Make) and each.place[0] == kind]


def the_job(given: World) -> Any:
    (document,) = makes(planned(given), "Job")
    return document


def fetch(given: World, **more: Any) -> dict[Name, Fetch]:
    """The Job that is made for the given cluster, as it is read later."""
    document = the_job(given)
    metadata = {**document["metadata"], "uid": "uid-job"}
    return {("a", metadata["name"]): replace(read_fetch({**document, "metadata": metadata}), **more)}


def saying(jobs: dict[Name, Fetch], reason: str = "Completed", message: str = "", **more: Any) -> dict[Name, Told]:
    (job,) = jobs
    return {("a", "pod"): Told(job, "2026-01-01T00:00:00Z", reason, message, **more)}


def hydrated(of: Model, target: Target = USERS, *, revision: str = REVISION) -> Model:
    """The same ModelCache after its Job has completed, and its status was written."""
    given = cluster(of, target)
    jobs = fetch(given, state="Complete")
    after = cluster(of, target, fetches=jobs, told=saying(jobs, revision=revision))
    return replace(of, status=planned(after).models[M])


class TestClaims:
    def test_a_claim_of_the_users_gets_a_job_and_nothing_else(self) -> None:
        (action,) = planned(cluster(claimed())).actions
        assert isinstance(action, Make)
        assert action.place[0] == "Job"

    def test_a_missing_claim_is_degraded_and_not_made(self) -> None:
        plan = planned(cluster(claimed(), None))
        assert plan.actions == ()
        assert told(plan)["Degraded"] == ("True", "ClaimMissing")
        assert told(plan)["Ready"] == ("False", "ClaimMissing")
        assert "create it" in sentence(plan, "Degraded")

    def test_a_claim_that_is_being_deleted_is_missing(self) -> None:
        plan = planned(cluster(claimed(), replace(USERS, deleting=True)))
        assert (plan.actions, told(plan)["Degraded"]) == ((), ("True", "ClaimMissing"))

    def test_the_claim_of_a_deleted_model_cache_stays(self) -> None:
        assert planned(world([], [], nodes=0, targets={CLAIM: USERS})).actions == ()

    def test_a_source_that_is_not_allowed_gets_no_job(self) -> None:
        plan = planned(cluster(claimed(uri="s3://bucket/m")))
        assert plan.actions == ()
        assert told(plan)["Degraded"] == ("True", "SourceNotAllowed")
        assert "--claim-sources" in sentence(plan, "Degraded")

    def test_a_job_waits_for_the_answer_of_the_source(self) -> None:
        plan = planned(cluster(claimed(), resolutions={}))
        assert plan.actions == ()
        assert told(plan)["Resolved"] == ("Unknown", "Resolving")
        assert told(plan)["Ready"] == ("False", "Queued")

    def test_a_source_that_refuses_is_told_before_a_job_is_made(self) -> None:
        refused = replace(found(claimed()), found=None, reason="Unauthorized", message="401")
        plan = planned(cluster(claimed(), resolutions={M: refused}))
        assert plan.actions == ()
        assert told(plan)["Degraded"] == ("True", "Unauthorized")

    def test_an_answer_to_a_former_question_makes_no_job(self) -> None:
        given = cluster(claimed(revision="v2"), resolutions={M: found(claimed())})
        assert planned(given).actions == ()

    def test_a_job_that_the_api_server_refuses_is_told(self) -> None:
        given = cluster(claimed())
        place = ("Job", "a", the_job(given)["metadata"]["name"])
        plan = planned(replace(given, refusals={place: "create jobs: not allowed"}))
        assert makes(plan, "Job") == []
        assert told(plan)["Degraded"] == ("True", "JobRefused")
        line = "kubectl -n a create rolebinding weightlift-claims --clusterrole=weightlift-claims --serviceaccount=weightlift:"
        assert line in sentence(plan, "Degraded")


class TestTemplates:
    def test_the_listing_decides_what_the_claim_requests(self) -> None:
        plan = planned(cluster(claimed(place=ClaimTemplate()), None))
        (document,) = makes(plan, "PersistentVolumeClaim")
        assert document["spec"]["accessModes"] == ["ReadWriteMany"]
        assert document["spec"]["resources"]["requests"] == {"storage": requested(100)}
        assert "ownerReferences" not in document["metadata"]
        assert makes(plan, "Job") == []
        kubernetes.validate(document, "1.31", strict=True)

    def test_a_request_has_room_for_the_model_and_its_journal(self) -> None:
        assert requested(10 * 1024**3) == "11329Mi"

    def test_the_size_of_the_model_cache_decides_before_the_listing(self) -> None:
        wanted = claimed(place=ClaimTemplate(storage_class_name="nfs"), size="140Gi")
        (document,) = makes(planned(cluster(wanted, None, resolutions={})), "PersistentVolumeClaim")
        assert document["spec"]["resources"]["requests"] == {"storage": "140Gi"}
        assert document["spec"]["storageClassName"] == "nfs"

    def test_without_an_answer_and_a_size_nothing_is_made(self) -> None:
        assert planned(cluster(claimed(place=ClaimTemplate()), None, resolutions={})).actions == ()

    def test_a_source_that_only_the_job_may_ask_needs_a_size(self) -> None:
        plan = planned(cluster(claimed(place=ClaimTemplate(), auth=AS_ACCOUNT), None, resolutions={}))
        assert (plan.actions, told(plan)["Degraded"]) == ((), ("True", "SizeUnknown"))

    def test_a_claim_of_somebody_else_is_told(self) -> None:
        refusals = {("PersistentVolumeClaim", *M): "PersistentVolumeClaim m exists and is not weightlift's"}
        plan = planned(cluster(claimed(place=ClaimTemplate()), None, refusals=refusals))
        assert (plan.actions, told(plan)["Degraded"]) == ((), ("True", "ClaimRefused"))

    @pytest.mark.parametrize(
        ("retention", "steps"), [("Retain", []), ("Delete", [Remove("PersistentVolumeClaim", *M, "uid-claim")])]
    )
    def test_the_claim_of_a_deleted_model_cache_goes_only_if_that_is_wanted(self, retention: str, steps: list[Any]) -> None:
        target = replace(MADE, goes=retention == "Delete")
        assert list(planned(world([], [], nodes=0, targets={M: target})).actions) == steps

    @pytest.mark.parametrize(
        "more",
        [
            pytest.param({"pods": {("a", "pod"): Pod(("m",), "n1")}}, id="a pod mounts it"),
            pytest.param({"unknown": Unknown(pods_of=frozenset({"a"}))}, id="a pod cannot be read"),
            pytest.param({"unknown": Unknown(models=frozenset({M}))}, id="its ModelCache cannot be read"),
        ],
    )
    def test_a_claim_stays_as_long_as_somebody_may_use_it(self, more: Any) -> None:
        assert planned(world([], [], nodes=0, targets={M: replace(MADE, goes=True)}, **more)).actions == ()

    def test_a_changed_retention_is_written_to_the_claim(self) -> None:
        wanted = hydrated(claimed(place=ClaimTemplate()), MADE)
        spec = replace(wanted.spec, placement=claimed(place=ClaimTemplate(retention="Delete")).spec.placement)
        (change,) = planned(cluster(replace(wanted, spec=spec), MADE)).actions
        patch = {"metadata": {"annotations": {"weightlift.dev/retention": "Delete"}}}
        assert change == Change("PersistentVolumeClaim", *M, patch)

    def test_its_volume_is_kept_in_any_case(self) -> None:
        wanted, bound = hydrated(claimed(place=ClaimTemplate()), MADE), replace(MADE, volume="pv-1")
        (change,) = planned(cluster(wanted, bound)).actions
        assert isinstance(change, Change)
        assert change.place == ("PersistentVolume", "", "pv-1")
        assert change.patch["spec"] == {"persistentVolumeReclaimPolicy": "Retain"}
        assert planned(cluster(wanted, bound, retained=frozenset({"pv-1"}))).actions == ()


class TestAttempts:
    """What happens to Jobs."""

    def test_a_running_job_is_left_alone(self) -> None:
        given = cluster(claimed())
        plan = planned(replace(given, fetches=fetch(given)))
        assert plan.actions == ()
        assert told(plan)["Progressing"] == ("True", "Fetching")
        assert told(plan)["Ready"] == ("False", "Fetching")

    def test_a_controller_that_was_restarted_makes_the_same_job(self) -> None:
        given = cluster(claimed())
        assert the_job(given) == the_job(cluster(claimed()))

    def test_jobs_of_models_with_long_names_have_names_of_their_own(self) -> None:
        names = {the_job(cluster(claimed(name=f"{'m' * 60}{each}")))["metadata"]["name"] for each in "ab"}
        assert len(names) == 2
        assert all(len(each) <= 63 - len("-63-xxxxx") for each in names)
        assert job_name("a.b", "d", 1) == "a-b-fetch-d-1"

    def test_a_job_that_completed_makes_the_model_ready(self) -> None:
        given = cluster(claimed())
        jobs = fetch(given, state="Complete")
        plan = planned(replace(given, fetches=jobs, told=saying(jobs, revision=REVISION)))
        status = plan.models[M]
        assert plan.actions == ()
        assert told(plan)["Ready"] == ("True", "Ready")
        assert told(plan)["Verified"] == ("True", "Digests")
        assert (status.claim_name, status.progress) == ("models", "1/1")
        assert status.command == "fetcher fetch hf://org/m --cache-dir /models"
        assert status.artifact is not None
        assert (status.artifact.key, status.artifact.revision, status.artifact.bytes) == (key_of(), REVISION, 100)

    def test_a_branch_that_moved_before_its_job_ran_is_told_as_the_job_found_it(self) -> None:
        given = cluster(claimed())
        jobs = fetch(given, state="Complete")
        artifact = planned(replace(given, fetches=jobs, told=saying(jobs, revision="moved", bytes=7))).models[M].artifact
        assert artifact == Found(key_of(), 7, 0, "moved")

    def test_after_its_job_is_gone_no_other_one_is_made(self) -> None:
        plan = planned(cluster(hydrated(claimed())))
        assert plan.actions == ()
        assert told(plan)["Ready"] == ("True", "Ready")

    def test_it_stays_ready_while_a_restarted_controller_waits_for_the_source(self) -> None:
        plan = planned(cluster(hydrated(claimed()), resolutions={}))
        assert (plan.actions, told(plan)["Ready"]) == ((), ("True", "Ready"))

    def test_another_claim_of_the_same_name_holds_nothing(self) -> None:
        plan = planned(cluster(hydrated(claimed()), Target("uid-other")))
        assert len(makes(plan, "Job")) == 1
        assert told(plan)["Ready"] == ("False", "Fetching")
        assert plan.models[M].claim_name is None

    CHANGES = (
        pytest.param({"revision": "v2"}, id="another revision"),
        pytest.param({"verification": Verification("Digest")}, id="more verification"),
    )

    @pytest.mark.parametrize("change", CHANGES)
    def test_a_change_is_fetched_while_the_old_copy_stays_ready(self, change: Any) -> None:
        old = hydrated(claimed())
        new = replace(claimed(**change), status=old.status)
        given = cluster(new)
        plan = planned(given)
        assert len(makes(plan, "Job")) == 1
        assert told(plan)["Ready"] == ("True", "Ready")
        assert told(plan)["Progressing"] == ("True", "Fetching")
        assert plan.models[M].artifact == old.status.artifact
        jobs = fetch(given, state="Complete")
        after = planned(replace(given, fetches=jobs, told=saying(jobs, revision="new")))
        assert after.models[M].hydrated != old.status.hydrated
        assert told(after)["Progressing"] == ("False", "Complete")

    def test_a_job_for_what_is_no_longer_wanted_is_removed(self) -> None:
        jobs = fetch(cluster(claimed(revision="v1")))
        given = cluster(claimed(revision="v2"), fetches=jobs)
        assert [type(each) for each in planned(given).actions] == [Remove, Make]

    def test_a_branch_is_followed_only_if_that_is_wanted(self) -> None:
        for policy, count in (("IfNotPresent", 0), ("OnChange", 1)):
            old = hydrated(claimed(refresh_policy=policy), revision="r1")
            newer = {M: found(old, revision="r2", digest="e")}
            assert len(makes(planned(cluster(old, resolutions=newer)), "Job")) == count

    @pytest.mark.parametrize(
        ("error", "after", "count"),
        [
            (Unreachable, "2025-12-31T23:59:30Z", 0),
            (Unreachable, "2025-12-31T23:58:59Z", 1),
            (NotFound, "2025-12-31T23:58:59Z", 0),
            (NotFound, "2025-12-31T22:59:59Z", 1),
        ],
    )
    def test_a_failed_job_is_followed_by_another_one_after_a_while(self, error: Any, after: str, count: int) -> None:
        given = cluster(claimed())
        jobs = fetch(given, state="Failed", ended=after)
        said = saying(jobs, error.reason, "no such thing", retryable=error.retryable)
        plan = planned(replace(given, fetches=jobs, told=said))
        made = makes(plan, "Job")
        assert len(made) == count
        assert all(each["metadata"]["name"].endswith("-2") for each in made)
        assert told(plan)["Degraded"] == ("True", error.reason)
        assert sentence(plan, "Degraded") == "no such thing"
        assert told(plan)["Ready"] == ("False", error.reason)

    def test_each_failure_doubles_the_wait_up_to_an_hour(self) -> None:
        given = cluster(claimed())
        for attempt, ended, count in (
            (3, "2025-12-31T23:56:30Z", 0),
            (3, "2025-12-31T23:56:00Z", 1),
            (50, "2025-12-31T23:00:00Z", 1),
        ):
            jobs = fetch(given, state="Failed", ended=ended, attempt=attempt)
            assert len(makes(planned(replace(given, fetches=jobs)), "Job")) == count

    def test_a_claim_without_room_says_so(self) -> None:
        given = cluster(claimed())
        jobs = fetch(given, state="Failed", ended=MOMENT)
        said = saying(jobs, OutOfSpace.reason, "needs 140 GB, and 20 GB are free", retryable=False)
        plan = planned(replace(given, fetches=jobs, told=said))
        assert told(plan)["CapacityExceeded"] == ("True", "CapacityExceeded")
        assert "140 GB" in sentence(plan, "CapacityExceeded")

    def test_a_pod_that_cannot_start_is_told_while_its_job_runs(self) -> None:
        given = cluster(claimed())
        jobs = fetch(given)
        said = saying(jobs, "CreateContainerConfigError", 'secret "hub" not found', ended=False)
        plan = planned(replace(given, fetches=jobs, told=said))
        assert told(plan)["Degraded"] == ("True", "CreateContainerConfigError")
        assert told(plan)["Progressing"] == ("True", "Fetching")

    @pytest.mark.parametrize("state", ["Running", "Failed"])
    def test_a_pod_that_waits_does_not_hide_why_the_one_before_it_failed(self, state: Any) -> None:
        given = cluster(claimed())
        jobs = fetch(given, state=state, ended=MOMENT)
        failed = saying(jobs, CannotWrite.reason, "read-only", retryable=False)
        ((job, _),) = jobs.items()
        waits = Told(job, "2026-01-01T00:00:09Z", "Unschedulable", "0/3 nodes", ended=False)
        plan = planned(replace(given, fetches=jobs, told={("a", "a-retry"): waits, **failed, ("a", "retry"): waits}))
        assert told(plan)["Degraded"] == ("True", "CannotWrite")
        assert sentence(plan, "Degraded") == "read-only"

    def test_a_job_that_completed_after_a_failure_tells_what_it_fetched(self) -> None:
        given = cluster(claimed(auth=AS_ACCOUNT), resolutions={})
        jobs = fetch(given, state="Complete")
        failed = {("a", "z"): replace(*saying(jobs, "Unreachable", "gone").values(), since="2026-01-01T00:00:09Z")}
        plan = planned(replace(given, fetches=jobs, told={**saying(jobs, revision=REVISION, bytes=7), **failed}))
        artifact = plan.models[M].artifact
        assert artifact is not None
        assert (artifact.revision, artifact.bytes) == (REVISION, 7)
        assert told(plan)["Degraded"] == ("False", "AsExpected")

    def test_the_failure_of_a_refresh_takes_no_copy_away(self) -> None:
        old = hydrated(claimed())
        given = cluster(replace(claimed(revision="v2"), status=old.status))
        jobs = fetch(given, state="Failed", ended=MOMENT)
        plan = planned(replace(given, fetches=jobs, told=saying(jobs, "Unreachable", "gone")))
        assert told(plan)["Ready"] == ("True", "Ready")
        assert told(plan)["Degraded"] == ("True", "Unreachable")
        assert plan.models[M].hydrated == old.status.hydrated

    def test_a_job_without_a_word_of_its_pods_tells_what_kubernetes_says(self) -> None:
        given = cluster(claimed())
        jobs = fetch(given, state="Failed", ended=MOMENT, message="BackoffLimitExceeded: Job has reached the limit")
        assert told(planned(replace(given, fetches=jobs)))["Degraded"] == ("True", "BackoffLimitExceeded")

    def test_what_only_the_job_may_ask_is_known_from_its_last_word(self) -> None:
        given = cluster(claimed(auth=AS_ACCOUNT), resolutions={})
        jobs = fetch(given, state="Complete")
        plan = planned(replace(given, fetches=jobs, told=saying(jobs, revision=REVISION, bytes=7)))
        artifact = plan.models[M].artifact
        assert artifact is not None
        assert (artifact.key, artifact.revision, artifact.bytes) == (key_of(), REVISION, 7)
        assert told(plan)["Resolved"] == ("Unknown", "NotAsked")


class TestJob:
    """What the pod may do, and what it is told."""

    def pod(self, **spec: Any) -> Any:
        return the_job(cluster(claimed(**spec)))["spec"]["template"]["spec"]

    def container(self, **spec: Any) -> Any:
        (container,) = self.pod(**spec)["containers"]
        return container

    @pytest.mark.parametrize("version", ["1.31", kubernetes.latest_version()])
    @pytest.mark.parametrize("parts", [1, 4])
    def test_is_valid_for_kubernetes(self, version: str, parts: int) -> None:
        document = the_job(cluster(claimed(place=ClaimPlacement("models", parts), auth=Auth(secret_ref=SecretName("hub")))))
        kubernetes.validate(document, version, strict=True)

    def test_runs_restricted(self) -> None:
        pod, container = self.pod(), self.container()
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert [list(each) for each in pod["volumes"]] == [["name", "persistentVolumeClaim"]]
        assert not any(pod.get(each) for each in ("hostNetwork", "hostPID", "hostIPC"))

    def test_goes_with_its_model_cache_and_a_day_after_its_end(self) -> None:
        document = the_job(cluster(claimed()))
        assert document["metadata"]["ownerReferences"][0]["uid"] == "uid-m"
        assert document["spec"]["ttlSecondsAfterFinished"] == 86400

    def test_fetches_what_is_asked_for_in_the_words_of_the_command(self) -> None:
        words = self.container(revision="v1", verification=Verification("Digest"), refresh_policy="OnChange")["args"]
        assert words == [
            "fetch", "hf://org/m", "--cache-dir=/models", "--revision=v1", "--require-digests", "--resolved=r1"
        ]  # fmt: skip

    def test_kubernetes_replaces_nothing_in_its_words(self) -> None:
        assert self.container(revision="$(HF_TOKEN)")["args"][-1] == "--revision=$$(HF_TOKEN)"

    def test_several_parts_are_an_indexed_job_on_different_nodes(self) -> None:
        document = the_job(cluster(claimed(place=ClaimPlacement("models", 4))))
        spec = document["spec"]
        assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 4, 4)
        assert spec["template"]["spec"]["containers"][0]["args"][-1] == "--parts=4"
        assert spec["template"]["spec"]["topologySpreadConstraints"][0]["topologyKey"] == "kubernetes.io/hostname"
        assert "completionMode" not in the_job(cluster(claimed()))["spec"]

    def test_runs_as_the_account_that_the_model_cache_names(self) -> None:
        assert self.pod(auth=AS_ACCOUNT)["serviceAccountName"] == "reader"
        assert "serviceAccountName" not in self.pod()

    def test_a_token_comes_from_its_secret_and_is_in_no_word(self) -> None:
        container = self.container(auth=Auth(secret_key_ref=SecretKey("hub", "token")))
        assert container["env"] == [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}]
        assert all("token" not in each for each in container["args"])

    STORES = (
        ("https://models.example/m", "SOURCE_TOKEN", "models.example-headers"),
        ("s3://bucket/m", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"),
        ("gs://bucket/m", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_QUOTA_PROJECT"),
        ("az://container/m", "AZURE_STORAGE_KEY", "AZURE_CLIENT_SECRET"),
        ("oci://registry.example/m", "DOCKER_CONFIG", "DOCKER_CONFIG"),
    )

    @pytest.mark.parametrize(("uri", "one", "other"), STORES)
    def test_a_secret_of_several_keys_is_given_as_the_store_takes_it(self, uri: str, one: str, other: str) -> None:
        document = the_job_of(uri, Auth(secret_ref=SecretName("store")))
        kubernetes.validate(document, "1.31", strict=True)
        names = [each["name"] for each in document["spec"]["template"]["spec"]["containers"][0]["env"]]
        assert {one, other} <= set(names)


def the_job_of(uri: str, auth: Auth) -> Any:
    from cluster.controller.jobs import Means, job

    return job(claimed(uri=uri, auth=auth), "models", "0123456789ab", 1, 1, Means("example.com/weightlift:0.1.0"))


POD: dict[str, Any] = {
    "metadata": {"namespace": "a", "name": "p", "labels": {"job-name": "j"}, "creationTimestamp": "2026-01-01T00:00:00Z"}
}


class TestReading:
    """Objects of Kubernetes as the controller keeps them."""

    def of(self, state: Any) -> Told | None:
        return read_told({**POD, "status": {"containerStatuses": [{"state": state}]}})

    def test_the_last_word_of_a_pod_is_the_result_of_fetcher(self) -> None:
        message = '{"reason": "NotFound", "message": "gone", "retryable": false, "bytes": 0}\n'
        told = self.of({"terminated": {"exitCode": 66, "message": message}})
        assert told == Told(("a", "j"), "2026-01-01T00:00:00Z", "NotFound", "gone", retryable=False)

    def test_a_pod_that_was_killed_says_what_kubernetes_says(self) -> None:
        told = self.of({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})
        assert told is not None
        assert (told.reason, told.message, told.retryable) == ("OOMKilled", "the container ended with code 137", True)

    @pytest.mark.parametrize("message", ["[" * 100_000, "[1]", "{", '{"bytes": "x"}'])
    def test_a_word_that_is_no_result_is_read_too(self, message: str) -> None:
        assert self.of({"terminated": {"exitCode": 1, "message": message}}) is not None

    def test_a_pod_that_works_says_nothing(self) -> None:
        assert self.of({"running": {}}) is None
        assert self.of({"waiting": {"reason": "ContainerCreating"}}) is None

    def test_a_pod_that_no_node_takes_says_so(self) -> None:
        conditions = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]
        told = read_told({**POD, "status": {"conditions": conditions}})
        assert told is not None
        assert (told.reason, told.message, told.ended) == ("Unschedulable", "0/3 nodes", False)

    def test_a_claim_counts_as_ours_only_with_our_label(self) -> None:
        metadata = {
            "uid": "u", "namespace": "a", "name": "m",
            "annotations": {"weightlift.dev/retention": "Delete", "weightlift.dev/model": "m"},
        }  # fmt: skip
        assert read_target({"metadata": metadata}).made_for is None
        ours = {**metadata, "labels": {"app.kubernetes.io/managed-by": "weightlift-controller"}}
        assert read_target({"metadata": ours}) == Target("u", M, goes=True)
