"""A cluster with one real node, n1: kubelet, containerd and runc, in a network namespace of its own. Root only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.availability import missing, program, require_root
from tests.lab.containers import Podman

LAB = Path(__file__).parents[4] / "shared" / "lab" / "cluster" / "cluster"
ADDRESS = "10.99.0.1"
"""The node's, which its pods reach."""
_SERVICE = "10.0.0.1"
"""Of the API server's Service: what pods are told."""
_PORT = 18443
_NAMESPACE = "wl-system"


@dataclass(frozen=True, slots=True)
class Node:
    """The cluster, spoken to as people do, and its node."""

    directory: Path

    @property
    def inside(self) -> list[str]:
        """The words before a command that runs in the node's network."""
        return ["nsenter", f"--net=/run/netns/{_NAMESPACE}"]

    def kubectl(self, *words: str, document: Mapping[str, Any] | str | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl to its end, whatever its exit code. `document` is its stdin."""
        text = document if isinstance(document, str) or document is None else json.dumps(document)
        kubectl = [program("kubectl", package="kubernetes-client"), f"--kubeconfig={self.directory}/pki/admin.kubeconfig"]
        return subprocess.run(
            [*self.inside, *kubectl, *words], input=text, capture_output=True, text=True, timeout=120, check=False
        )

    def read(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any]:
        """Return an object; an empty one if it does not exist."""
        done = self.kubectl("get", kind, name, "-n", namespace, "-o", "json")
        document: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
        return document

    def story(self) -> str:
        """What happened, for a test that failed."""
        asked = (
            ("get", "pods,daemonsets,pvc", "-A", "-o", "wide"),
            ("get", "events", "-A", "--sort-by=.lastTimestamp"),
            ("get", "modelcaches,nodecaches,cachepools", "-A", "-o", "yaml"),
            ("-n", "weightlift-system", "logs", "--prefix", "-l", "app.kubernetes.io/name=weightlift", "--tail=40"),
        )
        return "\n".join(self.kubectl(*words).stdout[-6000:] for words in asked)

    def take_image(self, podman: Podman, image: str, name: str) -> None:
        """Give the node an image of podman, called `name` there."""
        with tempfile.TemporaryDirectory() as directory:
            archive = f"{directory}/image.tar"
            assert podman("tag", image, name).returncode == 0
            saved = podman("save", "--format=oci-archive", f"--output={archive}", name, timeout=300)
            assert saved.returncode == 0, saved.stderr
            done = subprocess.run(
                [self.program("ctr"), "-a", f"{self.directory}/containerd.sock", "-n", "k8s.io", "images", "import", archive],
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert done.returncode == 0, done.stderr

    def program(self, name: str) -> str:
        """Return one of the node's own programs."""
        return f"{os.environ.get('BIN_CACHE', '/var/cache/weightlift-cluster')}/node/usr/bin/{name}"


@contextmanager
def running_node() -> Iterator[Node]:
    """Start the cluster, and end it with everything it started."""
    require_root("run a kubelet")
    if not LAB.exists():
        missing("a Kubernetes node", "it comes with the lab, which continuous integration has")
    # Below /var/tmp: the path of containerd's socket must be short, and images need a disk.
    with tempfile.TemporaryDirectory(prefix="wl-", dir="/var/tmp") as name, ExitStack() as stack:
        environment = {**os.environ, "PORT": str(_PORT), "NETNS": _NAMESPACE}

        def lab(*words: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run([LAB, *words], env=environment, capture_output=True, text=True, timeout=300, check=False)

        # Its own end leaves the network of a node that never came up.
        stack.callback(subprocess.run, ["ip", "netns", "delete", _NAMESPACE], capture_output=True, timeout=30, check=False)
        stack.callback(lab, "down", name)
        up = lab("up", name, "--node")
        assert up.returncode == 0, up.stderr
        node = Node(Path(name))
        stack.enter_context(_service(node))
        yield node


@contextmanager
def _service(node: Node) -> Iterator[None]:
    """Let pods reach the API server at the address of its Service, which kube-proxy does elsewhere."""
    subprocess.run([*node.inside, "ip", "address", "add", f"{_SERVICE}/32", "dev", "lo"], check=True, timeout=10)
    with forwarding(node, _SERVICE, 443, _PORT):
        yield


@contextmanager
def forwarding(node: Node, address: str, port: int, to: int) -> Iterator[None]:
    """Forward connections to an address of the node to a port of its loopback."""
    words = [sys.executable, "-m", "tests.cluster.system.forward", address, str(port), "127.0.0.1", str(to)]
    process = subprocess.Popen([*node.inside, *words], cwd=Path(__file__).parents[3])
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)
