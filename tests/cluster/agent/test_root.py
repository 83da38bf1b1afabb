"""Which roots an agent refuses, and the limits that it sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.agent.root import Ground, examine, limits_of, on_root_filesystem
from cluster.agent.states import Problem
from cluster.resources import NodeCacheSpec
from fetcher.host.mounts import Mount

ROOT = Path("/mnt/nvme/weightlift")


def mount(device: str, root: str, point: str = str(ROOT)) -> Mount:
    return Mount(1, device, root, point, "ext4", "/dev/x", ())


NODE = mount("8:1", "/", "/")
KUBELET = mount("8:1", "/var/lib/kubelet/pods/u/etc-hosts", "/etc/hosts")
CASES = [
    pytest.param(mount("259:0", "/", "/mnt/nvme"), [NODE], False, id="a directory of another mount"),
    pytest.param(mount("259:0", "/"), [NODE], False, id="a mount point"),
    pytest.param(NODE, [NODE], True, id="a directory of the node's root filesystem"),
    pytest.param(mount("259:0", "/weightlift"), [KUBELET], False, id="in a pod: a directory of another mount"),
    pytest.param(mount("259:0", "/"), [KUBELET], False, id="in a pod: a mount point"),
    pytest.param(mount("8:1", str(ROOT)), [KUBELET], True, id="in a pod: the filesystem of the kubelet"),
    pytest.param(mount("8:9", str(ROOT)), [KUBELET], True, id="in a pod: the path says that its filesystem is mounted at /"),
    pytest.param(None, [], True, id="unknown counts as the node's"),
]


@pytest.mark.parametrize(("found", "of_the_node", "refused"), CASES)
def test_a_root_on_the_nodes_own_filesystem_is_recognised(found: Mount | None, of_the_node: list[Mount], refused: bool) -> None:
    assert on_root_filesystem(ROOT, found, of_the_node) == refused


def test_a_file_is_no_root(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    problem = examine(file, allow_root_filesystem=True)
    assert isinstance(problem, Problem)
    assert problem.reason == "RootMissing"


LIMITS = [
    pytest.param({}, False, ("100%", "5%"), id="a filesystem of its own keeps 5 percent free"),
    pytest.param({}, True, ("100%", "20%"), id="one that the kubelet shares keeps 20 percent free"),
    pytest.param({"limit": "1700G", "min_free": "10Gi"}, True, ("1700000000000", "10737418240"), id="what the pool says"),
]


@pytest.mark.parametrize(("spec", "shared", "limits"), LIMITS)
def test_limits(spec: dict[str, str], shared: bool, limits: tuple[str, str]) -> None:
    made = limits_of(NodeCacheSpec("pool", **spec), Ground(shared), 600.0)  # type: ignore[arg-type]  # texts only
    assert (str(made.max_size), str(made.min_free)) == limits
    assert made.min_idle == 600.0
