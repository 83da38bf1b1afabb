"""Agents with `--kserve agent` on a real API server and a real origin. The test plays KServe's manager."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.client import Endpoint, endpoint_of
from cluster.client.endpoints import DAEMON_SETS, SECRETS
from cluster.kserve.kinds import LOCAL_MODEL_CACHE, LOCAL_MODEL_NODE, LOCAL_MODEL_NODE_GROUP
from cluster.kserve.names import key_of
from fetcher.testing.origin import Origin
from tests.cluster.agent.link import linked
from tests.cluster.api import KUBECONFIG, Cluster
from tests.cluster.kserve.conftest import Place
from tests.cluster.kserve.direct import asked
from tests.lab.command import end, started_command
from tests.lab.waiting import wait_until

MiB = 1024 * 1024
LOCAL_NODES, CACHES = endpoint_of(LOCAL_MODEL_NODE), endpoint_of(LOCAL_MODEL_CACHE)
AGENT = (sys.executable, "-m", "cluster.agent.main")
QUICK = (
    *("--status-interval", "100ms", "--survey-interval", "300ms", "--recheck-interval", "500ms"),
    *("--min-idle", "0s", "--retry-for", "2s"),
)


class Node:
    """One node with an agent, whose LocalModelNode the test writes."""

    def __init__(self, plane: Cluster, place: Place, origin: Origin, directory: Path) -> None:
        self.plane, self.place, self.origin = plane, place, origin
        self.name = f"{place.mark}-n"
        self.root = directory / "models"
        self.root.mkdir()
        self.kubeconfig = Path(str(KUBECONFIG))
        self.bound = False
        self.process: subprocess.Popen[str] | None = None

    def start(self, *words: str) -> None:
        self.process = started_command(
            AGENT,
            *("--kserve", "agent", "--kserve-namespace", self.place.kserve, "--kserve-source", "hf://"),
            *(() if self.bound else ("--allow-unbound-agents",)),
            *("--node", self.name, "--root", self.root, "--namespace", self.place.kserve, "--kubeconfig", self.kubeconfig),
            *("--hub-endpoint", self.origin.endpoint, "--allow-loopback", *QUICK, *words),
            *("--metrics-port", "0", "--metrics-address", "127.0.0.1"),
        )

    def stop(self) -> None:
        if self.process is not None:
            end(self.process)
            self.process = None

    def want(self, *models: dict[str, Any]) -> None:
        """Write the LocalModelNode as the manager does."""
        document = {
            "apiVersion": "serving.kserve.io/v1alpha1",
            "kind": "LocalModelNode",
            "metadata": {"name": self.name},
            "spec": {"localModels": list(models)},
        }
        self.apply(LOCAL_NODES, document)

    def apply(self, endpoint: Endpoint, document: dict[str, Any]) -> None:
        asked(self.plane.kubeconfig, lambda api: api.apply(endpoint, document))

    @property
    def statuses(self) -> dict[str, str]:
        document = asked(self.plane.kubeconfig, lambda api: api.get(LOCAL_NODES, self.name))
        found: dict[str, str] = (document.get("status") or {}).get("modelStatus") or {}
        return found

    def becomes(self, **statuses: str) -> None:
        """Wait for the statuses of the models; the names have `__` for a slash. No other model may have one."""
        expected = {name.replace("__", "/"): each for name, each in statuses.items()}

        def reported() -> bool:
            assert self.process is None or self.process.poll() is None, self.process.communicate()
            return self.statuses == expected

        try:
            wait_until(reported, f"the statuses {expected}", timeout=60)
        except AssertionError as error:
            raise AssertionError(f"{error}; they are {self.statuses}; {self.log()}") from None

    def log(self) -> str:
        """End the agent, and return what it said."""
        if self.process is None:
            return ""
        self.process.terminate()
        _, log = self.process.communicate(timeout=60)
        self.process = None
        return log

    def contents(self, uri: str) -> dict[str, bytes]:
        there = self.root / key_of(uri)
        found = (path for path in there.rglob("*") if path.is_file() and ".fetcher" not in path.parts)
        return {str(path.relative_to(there)): path.read_bytes() for path in found}


def model(name: str, uri: str, **more: Any) -> dict[str, Any]:
    return {"modelName": name, "sourceModelUri": uri, **more}


def files(size: int = 2 * MiB) -> dict[str, bytes]:
    return {"config.json": b"{}", "model.safetensors": os.urandom(size)}


def bodies(origin: Origin) -> int:
    return sum(request.origin == "cdn" for request in origin.requests)


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(lfs_threshold=MiB) as running:
        yield running


@pytest.fixture
def node(plane: Cluster, place: Place, origin: Origin, directory: Path) -> Iterator[Node]:
    made = Node(plane, place, origin, directory)
    yield made
    made.stop()


def test_rows_19_to_24_two_entries_of_one_uri_are_one_directory_and_one_download(node: Node, origin: Origin) -> None:
    published = files()
    origin.add_repo("org/m", published)
    node.want(model("a", "hf://org/m"), model("b", "hf://org/m"))
    node.start()

    node.becomes(a="ModelDownloaded", b="ModelDownloaded")

    assert node.contents("hf://org/m") == published
    assert [each.name for each in node.root.iterdir() if each.name != ".fetcher"] == [key_of("hf://org/m")]
    assert bodies(origin) == 1


def test_row_25_a_directory_that_is_missing_is_downloaded_again(node: Node, origin: Origin) -> None:
    published = files()
    origin.add_repo("org/m", published)
    node.want(model("a", "hf://org/m"))
    node.start()
    node.becomes(a="ModelDownloaded")

    (node.root / key_of("hf://org/m")).rename(node.root.parent / "elsewhere")

    wait_until(lambda: node.contents("hf://org/m") == published, "it is there again")
    node.becomes(a="ModelDownloaded")


def test_rows_28_and_29_an_entry_that_is_removed_loses_its_status_and_what_nobody_wants_is_removed(
    node: Node, origin: Origin
) -> None:
    origin.add_repo("org/m", files())
    origin.add_repo("org/n", files())
    for name in ("0123456789abcdef", "lost+found", "mine"):
        (node.root / name).mkdir()
        (node.root / name / "model.bin").write_bytes(b"bytes")
    node.want(model("a", "hf://org/m"), model("b", "hf://org/n"))
    node.start()
    node.becomes(a="ModelDownloaded", b="ModelDownloaded")

    node.want(model("a", "hf://org/m"))
    node.becomes(a="ModelDownloaded")

    # Two looks that must both miss it are half a minute apart.
    for name in ("0123456789abcdef", key_of("hf://org/n")):
        wait_until(lambda name=name: not (node.root / name).exists(), f"{name} is removed", timeout=60)  # type: ignore[misc]
    assert (node.root / "mine" / "model.bin").exists()
    assert (node.root / "lost+found" / "model.bin").exists()
    assert node.contents("hf://org/m")


def test_what_lies_there_after_a_restart_needs_no_network(node: Node, origin: Origin) -> None:
    origin.add_repo("org/m", files())
    node.want(model("a", "hf://org/m"))
    node.start()
    node.becomes(a="ModelDownloaded")
    node.stop()
    origin.clear_requests()

    node.want(model("a", "hf://org/m"), model("b", "hf://org/m"))
    node.start()

    node.becomes(a="ModelDownloaded", b="ModelDownloaded")
    assert not origin.requests


def test_without_a_local_model_node_nothing_is_removed(node: Node, origin: Origin) -> None:
    (node.root / "0123456789abcdef").mkdir()
    origin.add_repo("org/m", files())
    node.start()
    assert node.process is not None
    with pytest.raises(subprocess.TimeoutExpired):
        node.process.wait(timeout=3)

    assert (node.root / "0123456789abcdef").exists()


class TestNodeGroup:
    def test_its_storage_limit_is_enforced_before_a_byte_is_fetched(self, node: Node, origin: Origin) -> None:
        origin.add_repo("org/m", files(4 * MiB))
        self._group(node, path=node.root.parent, limit="3Mi")
        node.want(model("a", "hf://org/m", nodeGroup=node.name))
        node.start()

        node.becomes(a="ModelDownloadError")

        assert bodies(origin) == 0
        assert "OutOfSpace" in node.log()

    def test_what_no_service_uses_makes_room_though_it_was_used_more_recently(self, node: Node, origin: Origin) -> None:
        """No file of it is open: pods that have loaded a model close its files, and read them again when they restart."""
        for name in ("used", "idle", "new"):
            origin.add_repo(f"org/{name}", files(16 * MiB))
        self._group(node, path=node.root.parent, limit="40Mi")
        caches = {
            name: model(f"{node.name}-{name}", f"hf://org/{name}", nodeGroup=node.name) for name in ("used", "idle", "new")
        }
        for name in caches:
            self._cache(node, caches[name], services=["s"] if name == "used" else [])
        node.want(caches["used"])
        node.start()
        node.becomes(**{f"{node.name}-used": "ModelDownloaded"})
        node.want(caches["used"], caches["idle"])
        node.becomes(**dict.fromkeys((f"{node.name}-used", f"{node.name}-idle"), "ModelDownloaded"))

        node.want(*caches.values())

        node.becomes(
            **{f"{node.name}-used": "ModelDownloaded", f"{node.name}-new": "ModelDownloaded"},
            **{f"{node.name}-idle": "ModelDownloadPending"},
        )
        assert bodies(origin) == 3

        self._cache(node, caches["idle"], services=["s"])  # it comes back for a service, and never in the place of a used one
        node.becomes(
            **{f"{node.name}-used": "ModelDownloaded", f"{node.name}-idle": "ModelDownloaded"},
            **{f"{node.name}-new": "ModelDownloadPending"},
        )
        assert node.contents("hf://org/used")

    def test_another_directory_than_the_agents_is_an_error(self, node: Node, origin: Origin) -> None:
        origin.add_repo("org/m", files())
        self._group(node, path=Path("/mnt/elsewhere"), limit="1Gi")
        node.want(model("a", "hf://org/m", nodeGroup=node.name))
        node.start()

        node.becomes(a="ModelDownloadError")

        assert f"its node groups have another directory than {node.root}" in node.log()
        assert not origin.requests

    def _cache(self, node: Node, wanted: dict[str, Any], *, services: list[str]) -> None:
        """Write a cache with its status, as KServe's manager does."""
        head = {"apiVersion": CACHES.api_version, "kind": CACHES.kind, "metadata": {"name": wanted["modelName"]}}
        spec = {"sourceModelUri": wanted["sourceModelUri"], "modelSize": "1Gi", "nodeGroups": [node.name]}
        status = {"inferenceServices": [{"namespace": "team", "name": each} for each in services]}
        node.apply(CACHES, {**head, "spec": spec})
        asked(node.plane.kubeconfig, lambda api: api.apply(CACHES, {**head, "status": status}, subresource="status"))

    def _group(self, node: Node, *, path: Path, limit: str) -> None:
        volume = {"local": {"path": str(path)}}
        spec = {"storageLimit": limit, "persistentVolumeSpec": volume, "persistentVolumeClaimSpec": {}}
        kind = LOCAL_MODEL_NODE_GROUP
        node.apply(
            endpoint_of(kind),
            {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"name": node.name}, "spec": spec},
        )


class TestPrivateModels:
    def test_each_namespace_needs_a_credential_of_its_own(self, node: Node, origin: Origin, place: Place) -> None:
        origin.add_repo("org/m", files(), private=True, readers=["good"])
        self._secret(node, place.team, "good")
        self._secret(node, place.jobs, "wrong")
        mine = model("a", "hf://org/m", namespace=place.team, storage={"key": "hub"})
        theirs = model("b", "hf://org/m", namespace=place.jobs, storage={"key": "hub"})
        node.want(mine, theirs)
        node.start()

        node.becomes(**{f"{place.team}__a": "ModelDownloaded", f"{place.jobs}__b": "ModelDownloadError"})

    def test_a_secret_that_is_missing_is_an_error_until_it_is_there(self, node: Node, origin: Origin, place: Place) -> None:
        origin.add_repo("org/m", files(), private=True, readers=["good"])
        node.want(model("a", "hf://org/m", namespace=place.team, storage={"key": "hub"}))
        node.start()

        node.becomes(**{f"{place.team}__a": "ModelDownloadError"})
        self._secret(node, place.team, "hf_mistaken")
        self._secret(node, place.team, "good")
        node.becomes(**{f"{place.team}__a": "ModelDownloaded"})
        log = node.log()
        assert f"Secret {place.team}/storage-config does not exist; create it" in log
        assert "hf_mistaken" not in log

    def _secret(self, node: Node, namespace: str, token: str) -> None:
        data = {"hub": base64.b64encode(json.dumps({"type": "hf", "token": token}).encode()).decode()}
        metadata = {"name": "storage-config", "namespace": namespace}
        node.apply(SECRETS, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})


def test_an_api_server_that_is_away_at_the_start_is_waited_for(node: Node, origin: Origin, tmp_path: Path) -> None:
    origin.add_repo("org/m", files())
    node.want(model("a", "hf://org/m"))
    with linked(node.kubeconfig, tmp_path) as (link, node.kubeconfig):
        link.cut()
        node.start()
        wait_until(lambda: link.refused > 0, "the agent has asked", timeout=60)
        assert node.process is not None
        assert node.process.poll() is None

        link.mend()
        node.becomes(a="ModelDownloaded")


class TestRefusals:
    def test_it_does_not_run_where_agents_are_not_bound_to_their_nodes(self, node: Node, origin: Origin) -> None:
        origin.add_repo("org/m", files())
        node.want(model("a", "hf://org/m"))
        node.bound = True

        node.start()
        assert node.process is not None
        _, log = node.process.communicate(timeout=60)

        assert node.process.returncode == 78
        assert "there is no ValidatingAdmissionPolicy weightlift-kserve-agents; install it" in log.splitlines()[-1]
        assert node.statuses == {}
        assert not origin.requests

    def test_it_does_not_start_beside_kserves_own_agent(self, node: Node, place: Place) -> None:
        pods = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "x", "image": "x"}]}}
        metadata = {"name": "kserve-localmodelnode-agent", "namespace": place.kserve}
        spec = {"selector": {"matchLabels": {"app": "x"}}, "template": pods}
        node.apply(DAEMON_SETS, {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata, "spec": spec})
        node.want()

        node.start()
        assert node.process is not None
        _, log = node.process.communicate(timeout=60)

        assert node.process.returncode == 78
        assert f"KServeAgentPresent: DaemonSet {place.kserve}/kserve-localmodelnode-agent" in log.splitlines()[-1]

    def test_it_does_not_start_on_a_root_where_pods_would_not_look(self, node: Node) -> None:
        node.root = node.root.parent
        node.start()
        assert node.process is not None
        _, log = node.process.communicate(timeout=60)

        assert node.process.returncode == 64
        assert "does not end in /models" in log.splitlines()[-1]
