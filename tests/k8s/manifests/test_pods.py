"""Every workload of `k8s/overlays` runs: the model is fetched, and the engine reads it, read-only, or does not start."""

from __future__ import annotations

import json
import stat
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from pathlib import Path
from urllib.error import URLError

import pytest
import trustme

from fetcher.testing.faults import Fault
from fetcher.testing.interruptions import Reset
from fetcher.testing.origin import Origin
from tests.k8s.manifests.conftest import SHARD, MakeNode, damage
from tests.k8s.manifests.kubelet import PODS, Disks, uid_of
from tests.k8s.manifests.playing import Node, PlayedPod
from tests.k8s.manifests.rendering import K8S, OVERLAYS, Resource, named, pod_spec, render, workloads
from tests.lab.command import run_fetcher
from tests.lab.containers import Podman
from tests.lab.proxy import running_proxy
from tests.lab.waiting import wait_until

MiB = 1024 * 1024
KEY = "759d2c8a9177d6ad"
NOBODY = 65532
TOKEN = "hf_invented"
MEMORY_OF_NODE = "/dev/shm/weightlift"  # noqa: S108 - in the manifests
HUB_SECRET: Resource = {"kind": "Secret", "metadata": {"name": "hub"}, "stringData": {"token": TOKEN}}

PLAIN = ("init-container", "memory-node", "memory-pod", "page-cache")
WITH_MORE = (
    "corporate",
    "gated",
    "hydrate",
    "no-fsgroup",
    "node-cache",
    "peers",
    "shared-cache",
    "shared-volume",
    "user-claim",
)
"""Overlays with their own test."""


def overlay(name: str) -> tuple[Resource, ...]:
    return render(K8S / "overlays" / name)


@contextmanager
def everything_played(node: Node, resources: tuple[Resource, ...]) -> Iterator[PlayedPod]:
    """Run Jobs to their end, wait for DaemonSets to be ready, then run the engine until the block ends."""
    with ExitStack() as stack:
        for workload in workloads(resources):
            pod = stack.enter_context(node.playing(workload, resources))
            assert pod.started, pod.output
            if workload["kind"] in ("Job", "CronJob"):
                assert set(pod.exit_codes().values()) == {0}
            elif workload["kind"] == "DaemonSet":
                wait_until(is_ready, f"the pod of {workload['metadata']['name']} is ready")
            else:
                yield pod


def is_ready() -> bool:
    """Send the readiness probe of a DaemonSet. The pod's network is the machine's."""
    try:
        with urllib.request.urlopen("http://127.0.0.1:9090/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


class TestOverlays:
    def test_every_overlay_has_a_test(self) -> None:
        assert sorted((*PLAIN, *WITH_MORE)) == [path.name for path in OVERLAYS]

    @pytest.mark.parametrize("name", PLAIN)
    def test_the_engine_reads_the_published_model_read_only(self, node: Node, published: Mapping[str, str], name: str) -> None:
        with everything_played(node, overlay(name)) as engine:
            report = engine.report()

        assert report["files"] == published
        assert report["path"] == f"/models/{KEY}"
        assert (report["uid"], report["writable"]) == (NOBODY, False)

    def test_after_the_job_the_servers_init_container_sends_no_request(
        self, node: Node, origin: Origin, published: Mapping[str, str]
    ) -> None:
        resources = overlay("shared-volume")
        with node.playing(named(resources, "Job", "prefetch"), resources) as job:
            assert job.exit_codes() == {"fetch": 0}
        origin.clear_requests()

        with node.playing(named(resources, "Deployment", "engine"), resources) as engine:
            assert engine.started, engine.output
            assert engine.report()["files"] == published

        assert origin.requests == ()

    def test_a_users_claim_gets_the_model_under_its_key_and_keeps_other_files(
        self, node: Node, published: Mapping[str, str]
    ) -> None:
        resources, claim = overlay("user-claim"), node.disks.claim("my-models")
        (claim / "notes").write_text("mine")

        with everything_played(node, resources) as engine:
            assert engine.report()["files"] == published

        assert (claim / KEY / ".fetcher" / "manifest.json").is_file()
        assert (claim / "notes").read_text() == "mine"
        assert not [each for each in resources if each["kind"] == "PersistentVolumeClaim"]

    def test_a_volume_without_fsgroup_support_gets_the_group_and_keeps_its_owner(
        self, make_node: MakeNode, origin: Origin, published: Mapping[str, str]
    ) -> None:
        node = make_node(origin, honours_group=False)
        owner = node.disks.claim("models").stat().st_uid

        with everything_played(node, overlay("no-fsgroup")) as engine:
            assert engine.report()["files"] == published

        root = node.disks.claim("models").stat()
        assert (root.st_uid, root.st_gid, stat.S_IMODE(root.st_mode)) == (owner, NOBODY, 0o2775)

    def test_a_gated_repository_is_fetched_with_the_token_of_a_secret(
        self, make_node: MakeNode, model: Mapping[str, Path], published: Mapping[str, str]
    ) -> None:
        with Origin(lfs_threshold=MiB) as origin:
            origin.add_repo("org/model", model, gated=True, readers=[TOKEN])
            with everything_played(make_node(origin), (*overlay("gated"), HUB_SECRET)) as engine:
                assert engine.report()["files"] == published
                assert TOKEN not in engine.logs()

    def test_a_model_is_fetched_by_a_proxy_with_a_private_authority_and_a_token_file(
        self, make_node: MakeNode, model: Mapping[str, Path], published: Mapping[str, str]
    ) -> None:
        with Origin(lfs_threshold=MiB, tls=("hub", "cdn")) as origin, running_proxy() as proxy:
            origin.add_repo("org/model", model, gated=True, readers=[TOKEN])
            authority = {"ca.crt": origin.ca_file.read_text()}
            bundle = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca-bundle"}, "data": authority}
            resources = (*overlay("corporate"), HUB_SECRET, bundle)

            with everything_played(make_node(origin, proxy=proxy.url), resources) as engine:
                assert engine.report()["files"] == published

        assert {f"https://{target}" for target in proxy.tunnels} == {origin.endpoint, origin.cdn_endpoint}


def assert_no_engine_ran(pod: PlayedPod) -> None:
    assert not pod.started
    assert pod.container("engine").logs() == ""


class TestFailures:
    def test_a_missing_repository_ends_the_job_with_a_final_exit_code(self, node: Node, origin: Origin) -> None:
        origin.remove_repo(origin.add_repo("org/model", {}))
        resources = overlay("shared-volume")

        with node.playing(named(resources, "Job", "prefetch"), resources) as job:
            assert job.exit_codes() == {"fetch": 77}  # the Hub does not distinguish private and missing repositories
            assert job.container("fetch").logs().splitlines()[-1].startswith("Unauthorized: ")

    def test_a_server_never_starts_without_its_model(self, node: Node, origin: Origin) -> None:
        origin.remove_repo(origin.add_repo("org/model", {}))
        resources = overlay("shared-volume")

        with node.playing(named(resources, "Deployment", "engine"), resources) as pod:
            assert_no_engine_ran(pod)

        assert not list(node.disks.claim("models").glob("*/config.json"))

    def test_an_unprepared_volume_fails_with_a_message_about_fsgroup(self, make_node: MakeNode, origin: Origin) -> None:
        node, resources = make_node(origin, honours_group=False), overlay("shared-volume")

        with node.playing(named(resources, "Job", "prefetch"), resources) as job:
            assert job.exit_codes() == {"fetch": 73}
            assert "fsGroup" in job.container("fetch").logs().splitlines()[-1]

    def test_an_engine_does_not_start_without_the_model_in_the_nodes_memory(self, node: Node) -> None:
        resources = overlay("memory-node")

        with node.playing(named(resources, "Deployment", "engine"), resources) as pod:
            assert_no_engine_ran(pod)
            assert pod.container("verify").wait() == 66

    def test_an_engine_does_not_start_with_a_changed_copy(self, node: Node, origin: Origin) -> None:
        resources, memory = overlay("memory-node"), node.disks.path_of_node(MEMORY_OF_NODE)
        run_fetcher("fetch", "hf://org/model", "--cache-dir", memory, env={"HF_ENDPOINT": origin.endpoint})
        damage(memory / KEY / SHARD)

        with node.playing(named(resources, "Deployment", "engine"), resources) as pod:
            assert_no_engine_ran(pod)
            assert pod.container("verify").wait() == 65


class TestNodeCache:
    """Pods of one node share a bounded cache. A model is held for as long as its pod exists."""

    def holds(self, node: Node) -> list[str]:
        usage = node.disks.path_of_node("/var/lib/weightlift") / ".fetcher" / "usage"
        return [path.name for path in usage.glob(f"{KEY}.hold.*")]

    def test_the_model_is_held_until_the_pod_is_gone(self, node: Node, published: Mapping[str, str]) -> None:
        resources = overlay("node-cache")
        daemons, engines = named(resources, "DaemonSet", "node-cache"), named(resources, "Deployment", "engine")
        with node.playing(daemons, resources) as daemon:
            assert daemon.started, daemon.output
            with node.playing(engines, resources) as engine:
                report = engine.report()
                assert (report["files"], report["writable"]) == (published, False)
                assert self.holds(node) == [f"{KEY}.hold.{uid_of(engine.name)}"]
        limits = json.loads((node.disks.path_of_node("/var/lib/weightlift") / ".fetcher" / "root.json").read_text())
        assert (limits["max_size"], limits["min_free"]) == ("80%", "15%")

        with node.playing(daemons, resources) as daemon:
            wait_until(lambda: "removed" in daemon.container("gc").logs(), "the daemon has looked for garbage")
            assert len(self.holds(node)) == 1, "the pod still exists"
        (node.disks.path_of_node(PODS) / uid_of(engine.name)).rmdir()
        with node.playing(daemons, resources) as daemon:
            wait_until(lambda: "removed" in daemon.container("gc").logs(), "the daemon has looked for garbage")
            assert self.holds(node) == []

    def test_an_engine_does_not_start_before_the_cache_is_prepared(self, node: Node) -> None:
        resources = overlay("node-cache")
        node.disks.path_of_node("/var/lib/weightlift").chmod(0o755)
        with node.playing(named(resources, "Deployment", "engine"), resources) as pod:
            assert_no_engine_ran(pod)


class TestPeers:
    """Nodes whose pods take the model from each other. Here they have one network: one server at a time."""

    @pytest.fixture
    def peers(self) -> tuple[Resource, ...]:
        return (*overlay("peers"), peer_secret(trustme.CA()))

    @pytest.fixture
    def nodes(self, podman: Podman, node: Node, tmp_path: Path, memory: Path) -> list[Node]:
        """Two nodes, to which the name of the Service is this machine."""
        instead = {**node.instead, "dns+https://peers:8650": "dns+https://localhost:8650"}
        roots = [tmp_path / name for name in ("one", "two")]
        return [Node(podman, Disks(root=root, memory=memory / root.name), tmp_path, instead) for root in roots]

    def test_the_second_node_takes_the_model_from_the_first(
        self, nodes: list[Node], origin: Origin, published: Mapping[str, str], peers: tuple[Resource, ...]
    ) -> None:
        daemons, engines = named(peers, "DaemonSet", "node-cache"), named(peers, "Deployment", "engine")
        one, two = nodes
        with two.playing(daemons, peers) as prepared:
            assert prepared.started, prepared.output
        with one.playing(daemons, peers) as daemon:
            assert daemon.started, daemon.output
            wait_until(lambda: "https://" in daemon.container("serve").logs(), "the server listens")
            with one.playing(engines, peers) as engine:
                assert engine.report()["files"] == published
                assert "what this node has is passed on" in engine.container("fetch").logs()
            origin.faults.add(Fault(Reset(), path="/resolve/"))
            with two.playing(engines, peers) as engine:
                assert engine.report()["files"] == published
                assert "found 1 of 1 peers" in engine.container("fetch").logs()

    def test_who_has_the_certificate_of_another_authority_takes_nothing(
        self, nodes: list[Node], origin: Origin, published: Mapping[str, str], peers: tuple[Resource, ...]
    ) -> None:
        daemons, engines = named(peers, "DaemonSet", "node-cache"), named(peers, "Deployment", "engine")
        strange = (*overlay("peers"), peer_secret(trustme.CA()))
        one, two = nodes
        with two.playing(daemons, peers) as prepared:
            assert prepared.started, prepared.output
        with one.playing(daemons, peers) as daemon, one.playing(engines, peers) as engine:
            assert daemon.started, daemon.output
            assert engine.report()["files"] == published
            with two.playing(engines, strange) as other:
                assert other.report()["files"] == published
                assert "certificate verify failed" in other.container("fetch").logs()


def peer_secret(authority: trustme.CA) -> Resource:
    """The Secret with a certificate for all peers. Their Service is `localhost` here."""
    issued = authority.issue_cert("peers", "localhost")
    texts = {
        "ca.crt": authority.cert_pem.bytes(),
        "tls.crt": b"".join(blob.bytes() for blob in issued.cert_chain_pems),
        "tls.key": issued.private_key_pem.bytes(),
    }
    data = {name: text.decode() for name, text in texts.items()}
    return {"kind": "Secret", "metadata": {"name": "weightlift-peers"}, "stringData": data}


class TestTidy:
    def test_garbage_is_shown_every_night_and_stays_until_the_user_decides(self, node: Node) -> None:
        resources = overlay("shared-cache")
        with node.playing(named(resources, "Job", "prefetch"), resources) as job:
            assert job.exit_codes() == {"fetch": 0}
        left = node.disks.claim("models") / ".fetcher" / "old" / f"{KEY}-rev.1600000000000000000"
        left.mkdir(parents=True)
        with node.playing(named(resources, "CronJob", "gc"), resources) as nightly:
            assert nightly.exit_codes() == {"gc": 0}
            assert "1 would be removed" in nightly.container("gc").logs()
        assert left.exists()

    def test_a_damaged_file_is_found_by_the_nightly_sample(self, node: Node) -> None:
        resources = overlay("shared-cache")
        with node.playing(named(resources, "Job", "prefetch"), resources) as job:
            assert job.exit_codes() == {"fetch": 0}
        with node.playing(named(resources, "CronJob", "scrub"), resources) as nightly:
            assert nightly.exit_codes() == {"scrub": 0}
        (node.disks.claim("models") / KEY / SHARD).write_bytes(b"cut")
        with node.playing(named(resources, "CronJob", "scrub"), resources) as nightly:
            assert nightly.exit_codes() == {"scrub": 65}
            assert SHARD in nightly.container("scrub").logs()


class TestHydrate:
    def test_the_pods_of_an_indexed_job_fill_one_volume_together(self, node: Node, published: Mapping[str, str]) -> None:
        resources = overlay("hydrate")
        job = named(resources, "Job", "prefetch")
        assert (job["spec"]["completionMode"], job["spec"]["completions"], job["spec"]["parallelism"]) == ("Indexed", 4, 4)
        with ThreadPoolExecutor(4) as pool:
            codes = list(pool.map(lambda index: run_part(node, job, resources, index), range(4)))
        assert codes == [{"fetch": 0}] * 4
        with node.playing(named(resources, "Deployment", "engine"), resources) as engine:
            assert engine.report()["files"] == published


def run_part(node: Node, job: Resource, resources: tuple[Resource, ...], index: int) -> dict[str, int]:
    """Run one pod of an Indexed Job to its end, with the variable that its controller sets. Return the exit codes."""
    part = deepcopy(job)
    pod_spec(part)["containers"][0].setdefault("env", []).append({"name": "JOB_COMPLETION_INDEX", "value": str(index)})
    with node.playing(part, resources) as pod:
        return pod.exit_codes()
