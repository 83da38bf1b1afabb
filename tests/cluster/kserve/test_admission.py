"""KServe's contract of local models at admission, row by row: what is given, and what a webhook then answers."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from cluster.kserve.admission import marks, patch_of_service, pod_uri, refuse_deletion, refuse_source, storage_uri
from cluster.kserve.names import key_of, local_uri
from cluster.kserve.world import Service
from tests.cluster.kserve.worlds import URI, cache, service

PLAIN = Service("team", "s", {"app": "s"}, {"note": "a"})
SOURCE, CLAIM = "internal.serving.kserve.io/localmodel-sourceuri", "internal.serving.kserve.io/localmodel-pvc-name"
LABEL, NAMESPACE = "internal.serving.kserve.io/localmodel", "internal.serving.kserve.io/localmodel-namespace"


class TestRow16DeletedWhileAServiceStillHasTheLabel:
    def test_then_it_is_denied_and_the_service_is_named(self) -> None:
        assert refuse_deletion(cache(), [service("s", "team"), service("t", "team")]) == (
            "LocalModelCache m is used by InferenceService team/s and 1 more; delete what uses it first"
        )

    @pytest.mark.parametrize(
        "other",
        [service(uses="other"), service(of="team"), PLAIN],
        ids=["of another cache", "of a namespace's cache with that name", "of none"],
    )
    def test_but_not_for_a_service(self, other: Service) -> None:
        assert refuse_deletion(cache(), [other]) is None

    def test_also_of_a_cache_of_a_namespace(self) -> None:
        refused = refuse_deletion(cache(namespace="team"), [service("s", "team", of="team")])

        assert refused is not None
        assert refused.startswith("LocalModelNamespaceCache team/m is used by InferenceService team/s;")


class TestRow17UriThatAnotherLocalModelCacheHas:
    def test_then_it_is_denied(self) -> None:
        assert refuse_source(cache("new"), [cache("old")]) == "LocalModelCache old already has hf://org/m; use that one"

    def test_but_allowed_while_it_is_being_deleted(self) -> None:
        assert refuse_source(cache("new", deleting=True), [cache("old")]) is None

    def test_and_caches_of_namespaces_may_share_one(self) -> None:
        assert refuse_source(cache("new", "team"), [cache("old"), cache("other", "team")]) is None
        assert refuse_source(cache("new"), [cache("old", "team")]) is None

    def test_and_it_may_keep_its_own(self) -> None:
        assert refuse_source(cache(), [cache(), cache("other", uri="hf://org/other")]) is None

    def test_and_the_sentence_shows_no_secret(self) -> None:
        signed = "https://host/m?sig=secret"

        assert "secret" not in (refuse_source(cache("new", uri=signed), [cache("old", uri=signed)]) or "")


class TestRows33And34ServiceAdmittedWithAMatch:
    def test_then_it_has_labels_and_annotations(self) -> None:
        assert marks(PLAIN, URI, [cache()]) == ({LABEL: "m"}, {SOURCE: URI, CLAIM: "m-gpu"})

    def test_then_those_of_its_own_namespace_first(self) -> None:
        labels, annotations = marks(PLAIN, URI, [cache(), cache("near", "team"), cache("far", "others")])

        assert labels == {LABEL: "near", NAMESPACE: "team"}
        assert annotations[CLAIM] == "near-gpu"

    def test_then_the_claim_of_the_node_group_that_it_asks_for(self) -> None:
        asking = replace(PLAIN, annotations={"serving.kserve.io/nodegroup": "cpu"})

        assert marks(asking, URI, [cache(), cache("b", groups=("gpu", "cpu"), age=1)])[1][CLAIM] == "b-cpu"

    @pytest.mark.parametrize(
        ("given", "uri", "of"),
        [
            pytest.param(PLAIN, "hf://org/model", cache(), id="another model"),
            pytest.param(PLAIN, None, cache(), id="no model"),
            pytest.param(PLAIN, URI, cache(deleting=True), id="a cache that is being deleted"),
            pytest.param(PLAIN, URI, cache(namespace="others"), id="a cache of another namespace"),
            pytest.param(
                replace(PLAIN, annotations={"serving.kserve.io/disable-localmodel": "true"}), URI, cache(), id="disabled"
            ),
        ],
    )
    def test_but_none_for(self, given: Service, uri: str | None, of: Any) -> None:
        assert marks(given, uri, [of]) == ({}, {})

    def test_the_patch_adds_them_beside_what_is_there(self) -> None:
        assert patched(PLAIN, URI, [cache()]) == (
            {"app": "s", LABEL: "m"},
            {"note": "a", SOURCE: URI, CLAIM: "m-gpu"},
        )

    def test_the_patch_makes_the_place_where_there_is_none(self) -> None:
        assert patched(Service("team", "s"), URI, [cache()]) == ({LABEL: "m"}, {SOURCE: URI, CLAIM: "m-gpu"})

    def test_the_patch_takes_them_away_where_nothing_matches_any_more(self) -> None:
        marked = Service("team", "s", {LABEL: "m", NAMESPACE: "team"}, {SOURCE: URI, CLAIM: "m-gpu", "note": "a"})

        assert patched(marked, "hf://org/other", [cache()]) == ({}, {"note": "a"})

    def test_nothing_changes_what_is_right(self) -> None:
        marked = Service("team", "s", {LABEL: "m"}, {SOURCE: URI, CLAIM: "m-gpu"})

        assert patch_of_service(marked, URI, [cache()]) == []

    def test_then_its_pods_find_the_model_below_the_claim(self) -> None:
        annotations = {SOURCE: URI, CLAIM: "m-gpu"}

        assert pod_uri({LABEL: "m"}, annotations, f"{URI}/sub/dir") == f"pvc://m-gpu/models/{key_of(URI)}/sub/dir"
        assert pod_uri({LABEL: "m"}, annotations, URI) == f"pvc://m-gpu/models/{key_of(URI)}/"
        assert pod_uri({}, annotations, URI) is None
        assert pod_uri({LABEL: "m"}, annotations, "hf://org/model") is None

    def test_a_uri_that_the_cache_does_not_have_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="does not have"):
            local_uri(URI, "m-gpu", "hf://org/model")


@pytest.mark.parametrize(
    ("document", "uri"),
    [
        ({"spec": {"predictor": {"minReplicas": 1, "model": {"storageUri": URI}}}}, URI),
        ({"spec": {"predictor": {"sklearn": {"storageUri": URI}}}}, URI),
        ({"kind": "LLMInferenceService", "spec": {"model": {"uri": URI}}}, URI),
        ({"spec": {"predictor": {"model": {"storageUri": "a://b"}, "sklearn": {"storageUri": URI}}}}, None),
        ({"spec": {"predictor": {"model": {}}}}, None),
        ({"spec": 1}, None),
        ({}, None),
    ],
    ids=["a model", "a model of a named framework", "a language model", "two", "none", "no object", "nothing"],
)
def test_the_model_of_a_service_is_found_in(document: dict[str, Any], uri: str | None) -> None:
    assert storage_uri(document) == uri


def patched(before: Service, uri: str, caches: list[Any]) -> tuple[dict[str, str], dict[str, str]]:
    """The labels and annotations after the JSON patch, carried out as RFC 6902 says."""
    document: dict[str, Any] = {"metadata": {}}
    for name in ("labels", "annotations"):
        if getattr(before, name):
            document["metadata"][name] = dict(getattr(before, name))
    document = copy.deepcopy(document)
    for step in patch_of_service(before, uri, caches):
        *above, last = [part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]]
        place = document
        for part in above:
            place = place[part]
        if step["op"] == "add":
            place[last] = step["value"]
        else:
            del place[last]
    return document["metadata"].get("labels", {}), document["metadata"].get("annotations", {})
