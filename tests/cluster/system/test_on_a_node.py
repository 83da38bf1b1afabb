"""The system as users meet it, once: image, controller, an agent's DaemonSet and a restricted pod on a real kubelet."""

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


@contextmanager
def hub(node: Node, directory: Path) -> Iterator[str]:
    """Serve `directory` as the repository demo/model in the node's network. Provides the address for pods."""
    words = [str(directory), "--repo=demo/model", f"--cdn-host={ADDRESS}"]
    command = [*node.inside, sys.executable, "-m", "fetcher.testing", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as origin:
        try:
            served = json.loads(origin.stdout.readline() if origin.stdout else "")
            hub_port, cdn_port = (int(served[name].rpartition(":")[2]) for name in ("endpoint", "cdn_endpoint"))
            with forwarding(node, ADDRESS, HUB_PORT, hub_port), forwarding(node, ADDRESS, cdn_port, cdn_port):
                yield f"http://{ADDRESS}:{HUB_PORT}"
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


def pool(root: Path) -> Resource:
    return {
        "apiVersion": "weightlift.dev/v1alpha1",
        "kind": "CachePool",
        "metadata": {"name": "all"},
        "spec": {
            "root": str(root),
            "limit": "1G",
            "allowRootFilesystem": True,
            "namespaceSelector": {},
            "allowedSources": ["hf://demo/"],
            "resources": {"requests": {"cpu": "10m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        },
    }


MODEL: Resource = {
    "apiVersion": "weightlift.dev/v1alpha1",
    "kind": "ModelCache",
    "metadata": {"name": "demo", "namespace": "team"},
    "spec": {"source": {"uri": "hf://demo/model"}, "placement": {"pools": [{"name": "all"}]}},
}


def reader(command: str) -> Resource:
    """A pod of the team that mounts the model and runs `command`, with all that the security level `restricted` wants."""
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
                    "volumeMounts": [{"name": "models", "mountPath": "/models", "readOnly": True}],
                }
            ],
            "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "demo", "readOnly": True}}],
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


def test_three_commands_and_a_restricted_pod_reads_the_model(node: Node, tmp_path: Path) -> None:
    published = make_checkpoint(tmp_path / "published", shards=2, shard_size=4 * MiB)
    root = node.directory / "models"
    root.mkdir()
    with ExitStack() as stack:
        address = stack.enter_context(hub(node, published))
        for resource in installed(address):
            apply(node, resource)
        apply(node, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})
        apply(node, pool(root))
        apply(node, MODEL)

        done = node.kubectl("-n", "team", "wait", "--for=condition=Ready", "modelcache/demo", "--timeout=110s")
        assert done.returncode == 0, node.story()

        shown = node.kubectl("-n", "team", "get", "modelcaches").stdout.splitlines()
        assert shown[0].split() == ["NAME", "READY", "BYTES", "REASON", "AGE"]
        assert shown[1].split()[:2] == ["demo", "1/1"]

        apply(node, reader("cat /models/*.safetensors | sha256sum; touch /models/x || echo read-only; sleep 300"))
        wait_until(lambda: "read-only" in node.kubectl("-n", "team", "logs", "reader").stdout, "the pod has read", timeout=60)
        whole = b"".join(path.read_bytes() for path in sorted(published.glob("*.safetensors")))
        digest = subprocess.run(["sha256sum"], input=whole, capture_output=True, check=True).stdout.decode()
        assert digest in node.kubectl("-n", "team", "logs", "reader").stdout

        # A pod that mounts the model holds it.
        def is_held() -> bool:
            entries = node.read("nodecache", "n1")["spec"]["artifacts"]
            return {key: each.get("held") for key, each in entries.items()} == {ArtifactRef("hf://demo/model").key: True}

        wait_until(is_held, "the model is held", timeout=30)

        events = node.kubectl("-n", "team", "get", "events", "-o", "json").stdout
        assert "Ready" in {each["reason"] for each in json.loads(events)["items"] if each["involvedObject"]["name"] == "demo"}
