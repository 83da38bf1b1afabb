"""The kinds as a real API server takes them, and as our types read them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.resources import CACHE_POOL, MODEL_CACHE, NODE_CACHE, LabelSelector, Requirement, decoded, encoded
from cluster.resources.crds import KINDS, crd, files
from cluster.resources.schema import schema_of
from tests.cluster.api import Cluster, cluster
from tests.lab.waiting import wait_until

POOL: dict[str, Any] = {
    "apiVersion": "weightlift.dev/v1alpha1",
    "kind": "CachePool",
    "metadata": {"name": "test-h100"},
    "spec": {"root": "/mnt/nvme/weightlift", "nodeSelector": {"matchLabels": {"pool": "h100"}}, "limit": "1700G"},
}
MODEL: dict[str, Any] = {
    "apiVersion": "weightlift.dev/v1alpha1",
    "kind": "ModelCache",
    "metadata": {"name": "test-m", "namespace": "default"},
    "spec": {"source": {"uri": "hf://org/m", "revision": "main"}, "placement": {"pools": [{"name": "test-h100"}]}},
}
ARTIFACT: dict[str, Any] = {
    "apiVersion": "weightlift.dev/v1alpha1",
    "kind": "CacheArtifact",
    "metadata": {"name": "0123456789abcdef.fedcba9876543210"},
    "spec": {"pool": "p", "key": "0123456789abcdef", "namespace": "default", "model": "test-m", "bytes": 1},
}
NODE: dict[str, Any] = {
    "apiVersion": "weightlift.dev/v1alpha1",
    "kind": "NodeCache",
    "metadata": {"name": "test-n1"},
    "spec": {
        "pool": "test-h100",
        "artifacts": {"0123456789abcdef": {"mark": "fedcba9876543210", "turn": True}},
    },
}


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy of `document` with `value` at `path`, such as `source.uri` below `spec`."""
    result = copy.deepcopy(document)
    *parents, name = path.split(".")
    place = result["spec"]
    for each in parents:
        place = place[int(each)] if each.isdigit() else place.setdefault(each, {})
    place[name] = value
    return result


@pytest.fixture(scope="module")
def api() -> Iterator[Cluster]:
    """A cluster with our kinds, without objects of them."""
    found = cluster()
    for kind in KINDS:
        assert found.apply(crd(kind)) == ""
    for document in (POOL, MODEL, ARTIFACT, NODE):
        # The first write to a new kind can take some seconds.
        wait_until(lambda document=document: found.apply(document, "--dry-run=server") == "", "the kinds are served")  # type: ignore[misc]
    yield found
    for kind in KINDS:
        found.run("delete", kind.plural, "--all", "--all-namespaces", "--wait=false")


CLAIMED = changed({**MODEL, "metadata": {"name": "test-c", "namespace": "default"}}, "placement", {"claim": {"name": "models"}})

ACCEPTED = [
    pytest.param(POOL, id="a pool"),
    pytest.param(changed(POOL, "limit", "80%"), id="a limit in percent"),
    pytest.param(changed(POOL, "minFree", "1.5Ti"), id="a size with a fraction"),
    pytest.param(changed(POOL, "allowedSources", ["hf://", "hf://org/", "https://models.example/v1/"]), id="prefixes"),
    pytest.param(changed(POOL, "tolerations", [{"key": "nvidia.com/gpu", "operator": "Exists"}]), id="tolerations"),
    pytest.param(changed(POOL, "priorityClassName", "system-node-critical"), id="a priority"),
    pytest.param(changed(POOL, "nodeSelector", {}), id="a pool of all nodes"),
    pytest.param(changed(POOL, "memory", {"budget": "200Gi", "allowLocking": True}), id="memory for models"),
    pytest.param(changed(changed(POOL, "medium", "Memory"), "memory", {"budget": "0.5Ti"}), id="a pool in memory"),
    pytest.param(changed(MODEL, "warm", "Locked"), id="a model that is locked in memory"),
    pytest.param(MODEL, id="a model"),
    pytest.param(changed(MODEL, "placement.pools", [{"name": "p", "mode": "Count", "replicas": 2}]), id="two copies"),
    pytest.param(changed(MODEL, "auth", {"secretKeyRef": {"name": "hub", "key": "HF_TOKEN"}}), id="a token"),
    pytest.param(changed(MODEL, "source.uri", "hf://org/m@v1.0"), id="a revision in the URI"),
    pytest.param(changed(MODEL, "refreshPolicy", "OnChange"), id="a model that follows its branch"),
    pytest.param(ARTIFACT, id="an artifact"),
    pytest.param(changed(MODEL, "placement", {"claim": {"name": "models", "parts": 4}}), id="a claim of the user's"),
    pytest.param(changed(MODEL, "placement", {"claimTemplate": {}}), id="a claim of ours"),
    pytest.param(changed(CLAIMED, "size", "140Gi"), id="a size"),
    pytest.param(changed(CLAIMED, "auth", {"serviceAccountName": "reader"}), id="a service account"),
    pytest.param(changed(POOL, "nodeLabels", True), id="a pool with labels on nodes"),
    pytest.param(NODE, id="a node"),
]

REFUSED = [
    pytest.param(changed(MODEL, "placement", {}), "give one of pools, claim and claimTemplate", id="no place"),
    pytest.param(changed(CLAIMED, "placement.claimTemplate", {}), "give one of pools", id="two places"),
    pytest.param(changed(CLAIMED, "source.uri", "pvc://other/m"), "a claim already", id="a claim as the source of a claim"),
    pytest.param(changed(CLAIMED, "minReady", 2), "minReady is 1", id="two copies in a claim"),
    pytest.param(changed(CLAIMED, "warm", "PageCache"), "warm is for pools", id="a claim in memory"),
    pytest.param(changed(CLAIMED, "size", "lots"), "spec.size", id="a size that is none"),
    pytest.param(changed(CLAIMED, "placement.claim.parts", 0), "parts", id="no part"),
    pytest.param(changed(MODEL, "auth", {"serviceAccountName": "reader"}), "is for a claim", id="an account for agents"),
    pytest.param(
        changed(CLAIMED, "auth", {"serviceAccountName": "a", "secretRef": {"name": "b"}}), "give one of", id="two credentials"
    ),
    pytest.param(changed(POOL, "root", "models"), "spec.root", id="a root that is no absolute path"),
    pytest.param(changed(POOL, "root", "/"), "spec.root", id="the root of the filesystem"),
    pytest.param(changed(POOL, "root", "/mnt/../etc"), "must not contain", id="a root with .."),
    pytest.param(changed(POOL, "limit", "lots"), "spec.limit", id="a limit that is no size"),
    pytest.param(changed(POOL, "limit", "101%"), "spec.limit", id="more than the whole filesystem"),
    pytest.param(changed(POOL, "allowedSources", ["https://"]), "allowedSources", id="all web servers"),
    pytest.param(changed(POOL, "allowedSources", ["https://a.example"]), "allowedSources", id="a prefix of a host's name"),
    pytest.param(changed(POOL, "allowedSources", ["file:///"]), "allowedSources", id="the node's own files"),
    pytest.param(changed(POOL, "medium", "Memory"), "medium Memory needs memory.budget", id="a medium without a bound"),
    pytest.param(
        changed(changed(POOL, "medium", "Memory"), "memory", {"budget": "0.0Gi"}),
        "needs memory.budget",
        id="a bound of nothing",
    ),
    pytest.param(changed(POOL, "memory", {"budget": "80%"}), "memory.budget", id="a part of a memory that nobody knows"),
    pytest.param(changed(MODEL, "warm", "Hot"), "spec.warm", id="a warmth that is none"),
    pytest.param(
        changed(POOL, "priorityClassName", "Node Critical"), "spec.priorityClassName", id="a priority that is no name"
    ),
    pytest.param(changed(POOL, "maxFetching", 0), "maxFetching", id="a pool that may not fetch"),
    pytest.param(
        changed(POOL, "nodeSelector", {"matchExpressions": [{"key": "a", "operator": "In"}]}),
        "In and NotIn need values",
        id="In without values",
    ),
    pytest.param(changed(MODEL, "source", {"uri": "org/m"}), "spec.source.uri", id="a URI without a scheme"),
    pytest.param(changed(MODEL, "source.uri", "https://u:p@h/m"), "spec.source.uri", id="a password in a URI"),
    pytest.param(changed(MODEL, "source.uri", "https://h/m?sig=x"), "spec.source.uri", id="a signed address"),
    pytest.param(changed(MODEL, "placement", {"pools": []}), "spec.placement.pools", id="no pool"),
    pytest.param(changed(MODEL, "placement.pools.0.mode", "Count"), "needs replicas", id="Count without replicas"),
    pytest.param(changed(MODEL, "placement.pools.0.replicas", 2), "takes none", id="replicas on all nodes"),
    pytest.param(changed(MODEL, "auth", {}), "give one of", id="a credential that is nothing"),
    pytest.param(changed(MODEL, "retain", "Sometimes"), "spec.retain", id="a word that is none"),
    pytest.param(changed(MODEL, "refreshInterval", "0h"), "refreshInterval", id="a refresh without a pause"),
    pytest.param(changed(MODEL, "refreshPolicy", "Always"), "refreshPolicy", id="a policy that is none"),
    pytest.param(changed(MODEL, "minReady", 0), "spec.minReady", id="ready without a copy"),
    pytest.param(changed(NODE, "artifacts", {"../../etc": {"mark": "0" * 16}}), "cache key", id="a key that is a path"),
    pytest.param(changed(NODE, "artifacts", {"0" * 16: {"mark": "../x"}}), "mark", id="a mark that is a path"),
    pytest.param(changed(ARTIFACT, "key", "x"), "spec.key", id="an artifact without a cache key"),
]


class TestServer:
    @pytest.mark.parametrize("document", ACCEPTED)
    def test_accepts(self, api: Cluster, document: dict[str, Any]) -> None:
        assert api.apply(document, "--dry-run=server") == ""

    @pytest.mark.parametrize(("document", "complaint"), REFUSED)
    def test_refuses(self, api: Cluster, document: dict[str, Any], complaint: str) -> None:
        assert complaint in api.apply(document, "--dry-run=server")

    @pytest.mark.parametrize(
        ("document", "path", "value"),
        [
            pytest.param(POOL, "root", "/elsewhere", id="the root of a pool"),
            pytest.param(MODEL, "source.uri", "hf://org/other", id="the URI of a model"),
            pytest.param(ARTIFACT, "bytes", 2, id="what an artifact is"),
        ],
    )
    def test_refuses_to_change(self, api: Cluster, document: dict[str, Any], path: str, value: str) -> None:
        assert api.apply(document) == ""

        assert "cannot be changed" in api.apply(changed(document, path, value))

    def test_refuses_to_move_a_model_between_a_pool_and_a_claim(self, api: Cluster) -> None:
        assert api.apply(CLAIMED) == ""

        refusal = api.apply(changed(CLAIMED, "placement", {"claimTemplate": {}}))

        assert "does not move" in refusal
        assert api.run("delete", "modelcaches.weightlift.dev", "test-c").returncode == 0

    def test_writes_defaults_so_that_users_see_them(self, api: Cluster) -> None:
        assert api.apply(MODEL) == ""

        shown = api.run("get", "modelcaches.weightlift.dev", "test-m", "-o", "jsonpath={.spec.retain} {.spec.minReady}")

        assert shown.stdout == "WhenPossible 1"

    def test_lists_all_kinds_by_their_category(self, api: Cluster) -> None:
        for document in (POOL, MODEL, ARTIFACT, NODE):
            assert api.apply(document) == ""

        # Discovery lags a moment behind a new kind.
        def shown() -> str:
            return api.run("get", "weightlift", "-o", "name").stdout

        wait_until(lambda: len(shown().split()) == 4, "all kinds are found by their category")


def test_the_manifests_are_those_of_the_types() -> None:
    stale = [path.name for path, text in files().items() if path.read_text() != text]

    assert not stale, "run python -m cluster.resources.crds"


class TestTypes:
    def test_read_what_the_server_sends(self) -> None:
        model = MODEL_CACHE.read(MODEL)

        assert model.metadata.namespace == "default"
        assert model.spec.source.uri == "hf://org/m"
        assert model.spec.placement.pools[0].mode == "AllNodes"
        assert model.status.conditions == ()

    @pytest.mark.parametrize("kind", [CACHE_POOL, NODE_CACHE, MODEL_CACHE], ids=lambda kind: kind.name)
    def test_survive_the_way_there_and_back(self, kind: Any) -> None:
        document = {"CachePool": POOL, "NodeCache": NODE, "ModelCache": MODEL}[kind.name]
        spec = decoded(kind.spec, document["spec"])

        assert decoded(kind.spec, encoded(spec)) == spec

    def test_ignore_fields_of_a_later_version(self) -> None:
        assert CACHE_POOL.read(changed(POOL, "later", 1)).spec == CACHE_POOL.read(POOL).spec

    def test_take_the_default_for_null(self) -> None:
        assert CACHE_POOL.read(changed(POOL, "maxFetching", None)).spec.max_fetching == 8

    def test_name_the_field_that_cannot_be_read(self) -> None:
        with pytest.raises(ValueError, match="artifacts: mark: 7 is no str"):
            NODE_CACHE.read(changed(NODE, "artifacts", {"0" * 16: {"mark": 7}}))

    def test_have_a_schema_or_are_refused(self) -> None:
        with pytest.raises(TypeError, match="no dataclass"):
            schema_of(int, defaults=True)


@pytest.mark.parametrize(
    ("requirement", "labels", "matches"),
    [
        (Requirement("a", "In", ("x", "y")), {"a": "y"}, True),
        (Requirement("a", "In", ("x",)), {}, False),
        (Requirement("a", "NotIn", ("x",)), {}, True),
        (Requirement("a", "NotIn", ("x",)), {"a": "x"}, False),
        (Requirement("a", "Exists"), {"a": ""}, True),
        (Requirement("a", "DoesNotExist"), {"a": ""}, False),
    ],
)
def test_a_selector_means_what_kubernetes_means(requirement: Requirement, labels: dict[str, str], matches: bool) -> None:
    assert LabelSelector({}, (requirement,)).matches(labels) is matches


def test_an_empty_selector_matches_everything() -> None:
    assert LabelSelector().matches({})
