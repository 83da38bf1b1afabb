"""A cache in a shared claim (`pvcRef`): what is given, and what the manager then does. Reasons and names are KServe's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from kubernetes_validate import utils as kubernetes

from cluster.kserve.importing import import_name
from cluster.kserve.manager import Plan, plan
from cluster.kserve.world import Cache, Import, Stored
from tests.cluster.kserve.worlds import cache, group, node, world

CLAIM = Stored("team", "models", "uid-of-claim", modes=("ReadWriteMany",), room=2 * 2**30)


def shared(name: str = "m", **changes: Any) -> Cache:
    spec = {"pvcRef": "models", **changes.pop("spec", {})}
    return cache(name, "team", groups=(), spec=spec, **changes)


def planned(*things: Any, claim: Stored | None = CLAIM, **more: Any) -> Plan:
    return plan(world(*things, group(), node(), stored=[claim] if claim is not None else [], **more))


def ready(found: Plan, name: str = "m") -> tuple[str, str]:
    """Status and reason of the condition Ready of a cache."""
    (patch,) = [patch["status"] for each, patch in found.statuses if each.metadata.name == name]
    (condition,) = patch["conditions"]
    return condition["status"], condition["reason"]


def copies(found: Plan) -> dict[str, int]:
    (patch,) = [patch["status"] for _, patch in found.statuses]
    return dict(patch["copies"])


def made(of: Cache | None = None, **changes: Any) -> Import:
    """The Job that the manager makes of a cache, as it is seen afterwards."""
    (document,) = planned(of or shared()).imports.create
    metadata = document["metadata"]
    (owner,) = metadata["ownerReferences"]
    found = Import(metadata["namespace"], metadata["name"], "uid-of-job", owner["uid"], metadata["annotations"])
    return replace(found, **changes)


class TestGivenPvcRef:
    def test_then_a_finalizer_and_nothing_on_any_node(self) -> None:
        found = planned(shared(finalizers=[]))
        assert [each.metadata.name for each in found.finalize] == ["m"]
        assert (found.nodes, found.volumes.create_volumes, found.volumes.create_claims) == ((), (), ())

    def test_then_one_job_with_kserves_name_arguments_and_mount(self) -> None:
        (job,) = planned(shared()).imports.create
        kubernetes.validate(job, "1.31", strict=True)
        assert (job["metadata"]["namespace"], job["metadata"]["name"]) == ("team", "m-import")
        (owner,) = job["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["controller"]) == ("LocalModelNamespaceCache", True)
        pod = job["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert (container["command"], container["args"]) == (["storage-initializer"], ["hf://org/m", "/mnt/models"])
        (mount,) = container["volumeMounts"]
        assert (mount["mountPath"], mount["subPath"]) == ("/mnt/models", "models/5df9d7cea3b612c3")
        assert pod["volumes"] == [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}]

    def test_then_the_credential_is_an_entry_of_the_storage_secret_or_a_service_account_by_name(self) -> None:
        (job,) = planned(shared(spec={"storage": {"key": "hub"}, "serviceAccountName": "reader"})).imports.create
        pod = job["spec"]["template"]["spec"]
        assert pod["serviceAccountName"] == "reader"
        secret = {"secretKeyRef": {"name": "storage-config", "key": "hub"}}
        assert pod["containers"][0]["env"] == [{"name": "STORAGE_CONFIG", "valueFrom": secret}]

    def test_then_a_second_look_makes_no_second_job(self) -> None:
        assert planned(shared(), made()).imports.create == ()

    def test_without_an_image_it_is_left_to_kserve(self) -> None:
        assert planned(shared(finalizers=[]), importing=None) == planned(importing=None)

    def test_a_long_name_of_a_cache_gives_a_name_of_63_characters(self) -> None:
        assert import_name("m") == "m-import"
        assert len(import_name("m" * 200)) == 63
        assert import_name("m" * 200) != import_name("m" * 201)


class TestGivenAClaimThatDoesNotFit:
    @pytest.mark.parametrize(
        ("claim", "reason"),
        [
            (None, "PVCNotFound"),
            (replace(CLAIM, leaving=True), "PVCNotFound"),
            (replace(CLAIM, block=True), "UnsupportedVolumeMode"),
            (replace(CLAIM, modes=("ReadWriteOnce",)), "UnsupportedAccessMode"),
            (replace(CLAIM, room=2**20), "InsufficientCapacity"),
        ],
    )
    def test_then_its_reason_is_told_and_no_job_is_made(self, claim: Stored | None, reason: str) -> None:
        found = planned(shared(), claim=claim)
        assert (ready(found), found.imports.create) == (("False", reason), ())
        assert copies(found) == {"available": 0, "total": 1, "failed": 0}

    def test_then_a_claim_of_unknown_size_is_tried(self) -> None:
        assert len(planned(shared(), claim=replace(CLAIM, room=None)).imports.create) == 1


class TestGivenAnotherCacheOfTheModelInTheClaim:
    def test_then_the_older_one_has_it(self) -> None:
        found = planned(shared("m", age=2), shared("older", age=1))
        assert [each["metadata"]["name"] for each in found.imports.create] == ["older-import"]
        assert ready(found) == ("False", "DestinationConflict")

    def test_then_another_model_may_lie_beside_it(self) -> None:
        found = planned(shared("a"), shared("b", uri="hf://org/b"))
        assert len(found.imports.create) == 2


class TestGivenAJob:
    @pytest.mark.parametrize(
        ("state", "told", "count"),
        [
            ("Pending", ("False", "ImportPending"), (0, 0)),
            ("Running", ("False", "ImportRunning"), (0, 0)),
            ("Complete", ("True", "ImportSucceeded"), (1, 0)),
            ("Failed", ("False", "ImportFailed"), (0, 1)),
        ],
    )
    def test_then_its_state_is_that_of_the_cache(self, state: Any, told: tuple[str, str], count: tuple[int, int]) -> None:
        found = planned(shared(), made(state=state, ended="2026-01-02T23:59:00Z"))
        assert ready(found) == told
        assert copies(found) == {"available": count[0], "total": 1, "failed": count[1]}
        assert found.imports.remove == ()

    def test_that_failed_then_it_makes_room_for_another_one_after_ten_minutes(self) -> None:
        failed = made(state="Failed", ended="2026-01-02T23:49:59Z")
        assert planned(shared(), failed).imports.remove == (failed,)

    def test_of_somebody_else_then_it_stays_and_is_told(self) -> None:
        found = planned(shared(), made(owner="another"))
        assert (ready(found), found.imports) == (("False", "ImportJobConflict"), replace(found.imports, create=(), remove=()))

    def test_of_another_claim_of_the_name_then_it_is_replaced(self) -> None:
        old = made(state="Complete")
        found = planned(shared(), old, claim=replace(CLAIM, uid="another"))
        assert (found.imports.remove, found.imports.create, ready(found)) == ((old,), (), ("False", "ImportPending"))
        assert planned(shared(), replace(old, leaving=True), claim=replace(CLAIM, uid="another")).imports.create == ()

    @pytest.mark.parametrize(("state", "stays"), [("Complete", True), ("Running", False), ("Failed", False)])
    def test_with_another_credential_then_only_a_complete_one_stays(self, state: Any, stays: bool) -> None:
        changed = shared(spec={"storage": {"key": "other"}})
        assert (planned(changed, made(state=state)).imports.remove == ()) is stays


class TestGivenWhatMayNotBeFetched:
    def test_then_a_source_beyond_the_claim_sources_is_told(self) -> None:
        found = planned(shared(uri="s3://bucket/m"))
        assert (ready(found), found.imports.create) == (("False", "SourceNotAllowed"), ())

    def test_then_parameters_that_would_send_a_secret_elsewhere_are_refused(self) -> None:
        found = planned(shared(spec={"storage": {"key": "k", "parameters": {"endpoint_url": "https://evil.example"}}}))
        assert (ready(found), found.imports.create) == (("False", "ImportCredentialError"), ())


class TestGivenADeletedCache:
    def test_then_its_job_goes_first_and_the_finalizer_once_it_is_gone(self) -> None:
        running = made(state="Running")
        gone = shared(deleting=True)
        assert planned(gone, running).imports.remove == (running,)
        assert planned(gone, running).release == ()
        assert planned(gone, replace(running, leaving=True)).imports.remove == ()
        assert planned(gone, replace(running, leaving=True)).release == ()
        assert planned(gone).release == (gone,)
        assert planned(gone, made(owner="another")).release == (gone,)

    def test_then_the_next_cache_of_the_claim_has_its_turn_after_it(self) -> None:
        waiting, gone = shared("next", age=2), shared("m", age=1, deleting=True)
        assert planned(waiting, gone).imports.create == ()
        assert len(planned(waiting).imports.create) == 1
