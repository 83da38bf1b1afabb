"""The system as users meet it, once: image, controller, a DaemonSet, a claim's Job and a restricted pod on a real kubelet."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.testing.checkpoint import make_checkpoint
from tests.cluster.system.node import ADDRESS, Node, forwarding, running_node
from tests.cluster.system.test_manifests import UNBOUND
from tests.k8s.conftest import base_image as base_image
from tests.k8s.conftest import image as image
from tests.k8s.conftest import podman as podman
from tests.k8s.manifests.rendering import Resource, render
from tests.lab.containers import Podman
from tests.lab.waiting import wait_until

pytestmark = pytest.mark.timeout(400, func_only=True)  # the image may have to be built

IMAGE = "example.com/weightlift:0.1.0"
NAMESPACE = "weightlift-system"
HUB_PORT = 8080
MiB = 1024 * 1024
CLAIMS_ALLOWED = ("weightlift-claims", "--clusterrole=weightlift-claims", f"--serviceaccount={NAMESPACE}:weightlift-controller")
DIGESTS = "cat /demo/*.safetensors | sha256sum; cat /claimed/*/*.safetensors | sha256sum"
"""A volume of a pool is the model's directory; a claim is a cache root."""


@contextmanager
def hub(node: Node, directory: Path) -> Iterator[tuple[str, str]]:
    """Serve `directory` as the repository demo/model in the node's network. Provides the addresses of Hub and CDN for pods."""
    words = [str(directory), "--repo=demo/model", f"--cdn-host={ADDRESS}"]
    command = [*node.inside, sys.executable, "-m", "fetcher.testing", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as origin:
        try:
            served = json.loads(origin.stdout.readline() if origin.stdout else "")
            hub_port, cdn_port = (int(served[name].rpartition(":")[2]) for name in ("endpoint", "cdn_endpoint"))
            with forwarding(node, ADDRESS, HUB_PORT, hub_port), forwarding(node, ADDRESS, cdn_port, cdn_port):
                yield f"http://{ADDRESS}:{HUB_PORT}", f"http://{ADDRESS}:{cdn_port}"
        finally:
            origin.terminate()
            origin.wait(timeout=10)


def installed(hub_address: str) -> Iterator[Resource]:
    """Yield what `kubectl apply -k` sends, for a Hub of the test and without what Kubernetes 1.20 lacks."""
    for resource in copy.deepcopy(render(UNBOUND)):
        if resource["kind"] == "PodDisruptionBudget":  # policy/v1 came with 1.21
            continue
        if resource["kind"] == "Deployment":
            (container,) = resource["spec"]["template"]["spec"]["containers"]
            container["env"].append({"name": "WEIGHTLIFT_HUB_ENDPOINT", "value": hub_address})
            container["imagePullPolicy"] = "Never"
        yield resource


def pool(root: Path, cdn: str) -> Resource:
    """A pool for models of a Hub whose CDN has a private address, so that its redirects are followed only if that is named."""
    return {
        "apiVersion": "weightlift.dev/v1alpha1",
        "kind": "CachePool",
        "metadata": {"name": "all"},
        "spec": {
            "root": str(root),
            "limit": "1G",
            "allowRootFilesystem": True,
            "namespaceSelector": {},
            "allowedSources": ["hf://demo/", f"{cdn}/"],
            "memory": {"budget": "64Mi", "allowLocking": True},
            "resources": {"requests": {"cpu": "10m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        },
    }


def model(name: str, placement: Resource, **more: str) -> Resource:
    return {
        "apiVersion": "weightlift.dev/v1alpha1",
        "kind": "ModelCache",
        "metadata": {"name": name, "namespace": "team"},
        "spec": {"source": {"uri": "hf://demo/model"}, "placement": placement, **more},
    }


def volume(directory: Path) -> Resource:
    """What somebody's storage provides for the claim of a template."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "shared"},
        "spec": {
            "storageClassName": "shared",
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteMany"],
            "hostPath": {"path": str(directory)},
        },
    }


def reader(command: str) -> Resource:
    """A pod of the team that mounts both models and runs `command`, with all that the security level `restricted` wants."""
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "reader", "namespace": "team"},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "reader",
                    "image": "localhost/busybox:1",
                    "command": ["sh", "-c", command],
                    "securityContext": restricted,
                    "volumeMounts": [{"name": each, "mountPath": f"/{each}", "readOnly": True} for each in ("demo", "claimed")],
                }
            ],
            "volumes": [
                {"name": each, "persistentVolumeClaim": {"claimName": each, "readOnly": True}} for each in ("demo", "claimed")
            ],
        },
    }


def condition(document: Resource, kind: str) -> dict[str, Any]:
    found = (each for each in document.get("status", {}).get("conditions", ()) if each["type"] == kind)
    return next(found, {})


@pytest.fixture(scope="module")
def node(podman: Podman, image: str) -> Iterator[Node]:
    """A node with the image, and the system installed for a Hub that serves one model."""
    with running_node() as found:
        found.take_image(podman, image, IMAGE)
        yield found


def apply(node: Node, resource: Resource) -> None:
    # A kind can be applied a moment after its CRD.
    wait_until(
        lambda: node.kubectl("apply", "--validate=false", "-f", "-", document=resource).returncode == 0, "applied", timeout=30
    )


def is_ready(node: Node, workload: str) -> bool:
    """Whether the readiness probes of all pods of a workload answer."""
    return node.kubectl("-n", NAMESPACE, "rollout", "status", workload, "--timeout=20s").returncode == 0


def locked(node: Node) -> int:
    """Bytes that the agent's process has locked, as the kernel counts them."""
    words = ("-n", NAMESPACE, "exec", "daemonset/weightlift-agent-all", "-c", "agent", "--", "grep", "VmLck", "/proc/1/status")
    told = node.kubectl(*words).stdout.split()
    return int(told[1]) * 1024 if told else 0


def test_three_commands_and_a_restricted_pod_reads_the_model(node: Node, tmp_path: Path) -> None:
    published = make_checkpoint(tmp_path / "published", shards=2, shard_size=4 * MiB)
    root, shared = node.directory / "models", node.directory / "shared"
    root.mkdir()
    shared.mkdir()
    shared.chmod(0o777)  # Kubernetes gives a hostPath to no group
    with ExitStack() as stack:
        address, cdn = stack.enter_context(hub(node, published))
        for resource in installed(address):
            apply(node, resource)
        apply(node, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})
        allowed = node.kubectl("-n", "team", "create", "rolebinding", *CLAIMS_ALLOWED)
        assert allowed.returncode == 0, allowed.stderr
        apply(node, pool(root, cdn))
        for workload in ("deployment/weightlift-controller", "daemonset/weightlift-agent-all"):
            wait_until(lambda each=workload: is_ready(node, each), f"{workload} is ready", timeout=90)  # type: ignore[misc]
        apply(node, volume(shared))
        apply(node, model("demo", {"pools": [{"name": "all"}]}, warm="Locked"))
        apply(node, model("claimed", {"claimTemplate": {"storageClassName": "shared"}}))

        for goal, name in (("Ready", "demo"), ("Warm", "demo"), ("Ready", "claimed")):
            done = node.kubectl("-n", "team", "wait", f"--for=condition={goal}", f"modelcache/{name}", "--timeout=110s")
            assert done.returncode == 0, (goal, name, node.story())

        shown = node.kubectl("-n", "team", "get", "modelcaches").stdout.splitlines()
        assert shown[0].split() == ["NAME", "READY", "SIZE", "REVISION", "REASON", "AGE"]
        assert [each.split()[:2] for each in shown[1:]] == [["claimed", "1/1"], ["demo", "1/1"]]

        whole = b"".join(path.read_bytes() for path in sorted(published.glob("*.safetensors")))
        assert locked(node) >= len(whole)

        apply(node, reader(f"{DIGESTS}; touch /demo/x || echo read-only; sleep 300"))
        wait_until(lambda: "read-only" in node.kubectl("-n", "team", "logs", "reader").stdout, "the pod has read", timeout=60)
        digest = subprocess.run(["sha256sum"], input=whole, capture_output=True, check=True).stdout.decode()
        assert node.kubectl("-n", "team", "logs", "reader").stdout.count(digest) == 2

        # A pod that mounts the model holds it.
        def is_held() -> bool:
            entries = node.read("nodecache", "n1")["spec"]["artifacts"]
            return {key: each.get("held") for key, each in entries.items()} == {ArtifactRef("hf://demo/model").key: True}

        wait_until(is_held, "the model is held", timeout=30)

        events = node.kubectl("-n", "team", "get", "events", "-o", "json").stdout
        assert "Ready" in {each["reason"] for each in json.loads(events)["items"] if each["involvedObject"]["name"] == "demo"}
