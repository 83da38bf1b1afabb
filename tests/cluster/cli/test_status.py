"""`fetcher cluster status`: what people see of a cluster."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster.cli.looking import access_of
from cluster.cli.overview import Copy, ModelState, Overview, overview_of
from cluster.client import Api, endpoint_of
from cluster.resources import MODEL_CACHE, NODE_CACHE
from fetcher.cli.clusters import table
from fetcher.errors import ConfigurationError
from tests.cluster.client.test_access import kubeconfig
from tests.cluster.faults import Front, Refuse, Send
from tests.lab.command import run_fetcher

KEY, OTHER = "0123456789abcdef", "fedcba9876543210"


def model_of(name: str = "llama", namespace: str = "team", **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "weightlift.dev/v1alpha1",
        "kind": "ModelCache",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"source": {"uri": "hf://org/m"}, "placement": {"pools": [{"name": "p"}]}},
        "status": status,
    }


def node_of(name: str, *observed: dict[str, Any], wanted: Sequence[str] = (), **status: Any) -> dict[str, Any]:
    """A NodeCache with entries of the keys `wanted`. What is observed has its key beside its phase."""
    return {
        "apiVersion": "weightlift.dev/v1alpha1",
        "kind": "NodeCache",
        "metadata": {"name": name},
        "spec": {"pool": "p", "artifacts": {key: {"mark": "0" * 16} for key in wanted}},
        "status": {"artifacts": {each["key"]: {k: v for k, v in each.items() if k != "key"} for each in observed}, **status},
    }


def condition(status: str, reason: str, message: str = "") -> dict[str, Any]:
    moment = "2026-01-01T00:00:00Z"
    return {"type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": moment}


def overview(models: list[dict[str, Any]], nodes: list[dict[str, Any]]) -> Overview:
    return overview_of(map(MODEL_CACHE.read, models), map(NODE_CACHE.read, nodes))


def copies(model: dict[str, Any], *nodes: dict[str, Any]) -> dict[str, str]:
    return {copy.node: copy.phase for copy in overview([model], list(nodes)).models[0].copies}


FOUND: dict[str, Any] = {"artifact": {"key": KEY, "bytes": 3 * 2**30, "files": 2}}


class TestACopy:
    def test_has_the_phase_that_its_agent_reports(self) -> None:
        assert copies(model_of(**FOUND), node_of("n1", {"key": KEY, "phase": "Fetching"})) == {"n1": "Fetching"}

    def test_is_unknown_before_its_agent_reports(self) -> None:
        assert copies(model_of(**FOUND), node_of("n1", wanted=[KEY])) == {"n1": "Unknown"}

    def test_belongs_to_each_model_of_its_key(self) -> None:
        node = node_of("n1", {"key": KEY, "phase": "Ready"}, wanted=[KEY])

        assert copies(model_of(**FOUND), node) == {"n1": "Ready"}

    def test_of_another_model_is_none_of_this_one(self) -> None:
        node = node_of("n1", {"key": OTHER, "phase": "Ready"}, wanted=[OTHER])

        assert copies(model_of(**FOUND), node) == {}


def many(number: int, *, failed: int | None = None, name: str = "gke-pool-h100-{}") -> Overview:
    nodes = tuple(Copy(name.format(each), "Failed" if each == failed else "Ready") for each in range(number))
    return Overview((ModelState("team", "llama", "hf://org/m", "1/2", 2**30, "main", "Ready", "", nodes),), ())


class TestTheTable:
    def test_has_a_row_for_each_model_and_a_column_for_each_node(self) -> None:
        nodes = [
            node_of("n1", {"key": KEY, "phase": "Ready"}),
            node_of("n2", {"key": KEY, "phase": "Ready"}, {"key": OTHER, "phase": "Queued"}),
        ]
        models = [
            model_of(**FOUND, progress="2/2", conditions=[condition("True", "Ready")]),
            model_of("qwen", artifact={"key": OTHER, "bytes": 10, "files": 1}),
        ]

        rows, hidden = table(overview(models, nodes), None)

        assert rows == [
            {"MODEL": "team/llama", "READY": "2/2", "SIZE": "3.0 GiB", "REASON": "Ready", "n2": "Ready", "n1": "Ready"},
            {"MODEL": "team/qwen", "READY": "-", "SIZE": "10 B", "REASON": "-", "n2": "Queued", "n1": "-"},
        ]
        assert hidden == 0

    def test_shows_all_nodes_where_nothing_limits_its_width(self) -> None:
        rows, hidden = table(many(1000), None)

        assert (len(rows[0]), hidden) == (1004, 0)

    def test_shortens_the_names_of_nodes_before_it_leaves_some_out(self) -> None:
        rows, hidden = table(many(3), 70)

        assert list(rows[0])[4:] == ["…0", "…1", "…2"]
        assert hidden == 0

    @pytest.mark.parametrize("width", [10, 40, 80, 81, 82, 83, 84, 85, 86, 200])
    def test_leaves_out_what_does_not_fit(self, width: int) -> None:
        rows, hidden = table(many(100), width)

        shown = len(rows[0]) - 4
        assert shown + hidden == 100
        assert shown == 0 or sum(max(len(name), len(text)) + 2 for name, text in rows[0].items()) <= width

    def test_shows_the_nodes_first_that_somebody_should_look_at(self) -> None:
        rows, _ = table(many(100, failed=73), 80)

        assert list(rows[0].items())[4] == ("…73", "Failed")

    def test_keeps_names_that_have_nothing_in_common(self) -> None:
        state = ModelState("t", "m", "u", "", None, "", "", "", (Copy("alpha" * 10, "Ready"), Copy("beta" * 10, "Ready")))

        rows, hidden = table(Overview((state,), ()), 40)

        assert (list(rows[0]), hidden) == (["MODEL", "READY", "SIZE", "REASON"], 2)

    def test_of_no_models_is_empty(self) -> None:
        assert table(Overview((), ()), 80) == ([], 0)


@pytest.fixture
async def objects(api: Api, front: Front, namespace: str, unique: str) -> AsyncIterator[str]:
    """A model with a copy on one node, and a failure on another one. Returns its `namespace/name`."""
    models, nodes = endpoint_of(MODEL_CACHE), endpoint_of(NODE_CACHE)
    title, key = f"{namespace}/{unique}", uuid.uuid4().hex[:16]
    ready = condition("True", "Ready", "minReady copies exist")
    model = model_of(unique, namespace, artifact={**FOUND["artifact"], "key": key}, progress="1/2", conditions=[ready])
    failed = {"key": key, "phase": "Failed", "reason": "Unauthorized", "message": "the Hub wants a token\x1b[2J"}
    root = condition("False", "RootMissing", "there is no /mnt/nvme/weightlift")
    caches = [
        node_of(f"{unique}-n1", {"key": key, "phase": "Ready"}, wanted=[key], used=3, capacity=10),
        node_of(f"{unique}-n2", failed, wanted=[key], conditions=[root]),
    ]
    await api.create(models, model)
    await api.apply(models, {**model, "spec": {}} | {"status": model["status"]}, subresource="status")
    made = []
    for each in caches:
        made.append(await api.create(nodes, each))
        await api.apply(nodes, {key: value for key, value in each.items() if key != "spec"}, subresource="status")
    yield title
    front.heal()
    for document in made:
        await api.delete(nodes, document["metadata"]["name"], uid=document["metadata"]["uid"])


class TestStatus:
    def test_shows_the_models_and_the_nodes_that_are_wrong(
        self, front: Front, objects: str, unique: str, tmp_path: Path
    ) -> None:
        done = run_fetcher("cluster", "status", "--kubeconfig", front.kubeconfig(tmp_path / "config"))

        assert (done.returncode, done.stderr) == (0, "")
        titles = done.stdout.splitlines()[0].split()
        assert titles[:4] == ["MODEL", "READY", "SIZE", "REASON"]
        assert {f"{unique}-n1", f"{unique}-n2"} <= set(titles)
        [row] = [line.split() for line in done.stdout.splitlines() if line.startswith(objects)]
        assert row[:5] == [objects, "1/2", "3.0", "GiB", "Ready"]
        assert {"Ready", "Failed"} <= set(row[5:])
        assert f"{unique}-n2  RootMissing  there is no /mnt/nvme/weightlift" in done.stdout

    def test_of_a_namespace_shows_its_models_alone(self, front: Front, objects: str, namespace: str, tmp_path: Path) -> None:
        config = front.kubeconfig(tmp_path / "config")

        done = run_fetcher("cluster", "status", "--namespace", "kube-system", env={"KUBECONFIG": str(config)})

        assert (done.returncode, done.stderr) == (0, "there are no ModelCaches\n")
        assert objects not in done.stdout

    def test_of_a_model_says_why_a_copy_is_missing(self, front: Front, objects: str, unique: str, tmp_path: Path) -> None:
        done = run_fetcher("cluster", "status", "--model", objects, "--kubeconfig", front.kubeconfig(tmp_path / "config"))

        assert done.returncode == 0
        assert done.stdout.splitlines() == [
            "uri       hf://org/m",
            "revision  -",
            "size      3.0 GiB",
            "ready     1/2 Ready minReady copies exist",
            f"{'NODE':{len(unique) + 3}}  PHASE   REASON        MESSAGE",
            f"{unique}-n2  Failed  Unauthorized  the Hub wants a token\\x1b[2J",
            f"{unique}-n1  Ready   -             -",
        ]

    def test_is_json_for_programs(self, front: Front, objects: str, unique: str, tmp_path: Path) -> None:
        done = run_fetcher("cluster", "status", "--json", "--kubeconfig", front.kubeconfig(tmp_path / "config"))

        shown = json.loads(done.stdout)
        [model] = [each for each in shown["models"] if f"{each['namespace']}/{each['name']}" == objects]
        assert (model["uri"], model["ready"], model["bytes"], model["reason"]) == ("hf://org/m", "1/2", 3 * 2**30, "Ready")
        assert [(copy["node"], copy["phase"], copy["reason"]) for copy in model["copies"]] == [
            (f"{unique}-n1", "Ready", ""),
            (f"{unique}-n2", "Failed", "Unauthorized"),
        ]
        [node] = [each for each in shown["nodes"] if each["name"] == f"{unique}-n1"]
        assert (node["pool"], node["used"], node["capacity"], node["reason"]) == ("p", 3, 10, "")

    def test_without_the_right_to_see_nodes_shows_the_models(self, front: Front, objects: str, tmp_path: Path) -> None:
        front.fail(Refuse(403, message="nodecaches is forbidden"), path="/nodecaches")

        done = run_fetcher("cluster", "status", "--kubeconfig", front.kubeconfig(tmp_path / "config"))

        assert done.returncode == 0
        assert objects in done.stdout
        assert "nodes are not shown: list nodecaches: nodecaches is forbidden" in done.stderr

    @pytest.mark.usefixtures("plane")
    def test_of_a_model_that_is_not_there_is_an_error(self, front: Front, tmp_path: Path) -> None:
        done = run_fetcher("cluster", "status", "--model", "gone", "--kubeconfig", front.kubeconfig(tmp_path / "config"))

        assert done.returncode == 66
        assert done.stderr.startswith("NotFound: get modelcaches default/gone: ")

    def test_of_a_cluster_without_weightlift_says_what_to_do(self, front: Front, tmp_path: Path) -> None:
        front.fail(Refuse(404, message="the server could not find the requested resource"))

        done = run_fetcher("cluster", "status", "--kubeconfig", front.kubeconfig(tmp_path / "config"))

        assert done.returncode == 66
        assert "weightlift is not installed; kubectl apply -k k8s/system/base installs it" in done.stderr

    def test_of_a_cluster_that_does_not_answer_is_one_sentence(self, front: Front, tmp_path: Path) -> None:
        config = front.kubeconfig(tmp_path / "config")
        with front.away():
            done = run_fetcher("cluster", "status", "--kubeconfig", config)

        assert done.returncode == 69
        assert done.stderr.startswith("Unavailable: list modelcaches: ")
        assert done.stderr.count("\n") == 1

    def test_names_what_it_cannot_read(self, front: Front, objects: str, unique: str, tmp_path: Path) -> None:
        later = {"items": [{"metadata": {"name": "later"}, "spec": {"pool": 1}}], "metadata": {}}
        front.fail(Send([json.dumps(later).encode()]), path="/nodecaches")

        done = run_fetcher("cluster", "status", "--kubeconfig", front.kubeconfig(tmp_path / "config"))

        assert done.returncode == 0
        assert "NodeCache later is of another version, and cannot be read: pool: 1 is no str" in done.stderr

    def test_is_the_only_thing_there_is_to_do(self) -> None:
        done = run_fetcher("cluster", "destroy")

        assert done.returncode == 64
        assert done.stderr == "Usage: 'destroy' is nothing to do with a cluster; write fetcher cluster status\n"

    def test_without_the_extra_says_how_to_install_it(self, tmp_path: Path) -> None:
        (tmp_path / "yaml.py").write_text("raise ImportError")
        kubeconfig(tmp_path / "config")

        done = run_fetcher("cluster", "status", "--kubeconfig", tmp_path / "config", env={"PYTHONPATH": str(tmp_path)})

        assert done.returncode == 78
        assert done.stderr == "Configuration: reading a kubeconfig needs pyyaml; pip install 'weightlift[cluster]'\n"


class TestTheKubeconfig:
    def test_that_is_given_counts_first(self, tmp_path: Path) -> None:
        given = kubeconfig(tmp_path / "given", cluster={"server": "http://given"})
        listed = kubeconfig(tmp_path / "listed", cluster={"server": "http://listed"})

        assert access_of(given, {"KUBECONFIG": str(listed)}).server == "http://given"

    def test_of_the_variable_may_be_several_of_which_some_are_missing(self, tmp_path: Path) -> None:
        listed = kubeconfig(tmp_path / "listed", cluster={"server": "http://listed"})

        assert access_of(None, {"KUBECONFIG": f"{tmp_path}/gone:{listed}"}).server == "http://listed"

    def test_of_the_variable_that_is_missing_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="gone"):
            access_of(None, {"KUBECONFIG": f"{tmp_path}/gone"})

    def test_is_by_default_that_of_the_user(self, tmp_path: Path) -> None:
        (tmp_path / ".kube").mkdir()
        kubeconfig(tmp_path / ".kube" / "config", cluster={"server": "http://usual"})

        assert access_of(None, {"HOME": str(tmp_path)}).server == "http://usual"

    def test_that_is_missing_everywhere_means_a_pod(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="this is no pod"):
            access_of(None, {"HOME": str(tmp_path)})
