"""Which roots an agent refuses, and the limits that it sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.agent.root import Ground, examine, limits_of, of_another_medium, on_root_filesystem
from cluster.agent.states import Problem
from cluster.resources import Medium, NodeCacheSpec
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
    problem = examine(file, "Disk", allow_root_filesystem=True)
    assert isinstance(problem, Problem)
    assert problem.reason == "RootMissing"


MEDIA = [
    pytest.param("tmpfs", "Memory", False, id="a tmpfs is memory"),
    pytest.param("ext4", "Memory", True, id="a disk is none"),
    pytest.param("ramfs", "Memory", True, id="nor is what has no bound"),
    pytest.param("ext4", "Disk", False, id="a disk is a disk"),
    pytest.param("nfs4", "Disk", False, id="and so is what a server has"),
    pytest.param("tmpfs", "Disk", True, id="a tmpfs is no disk, and its bytes are in no budget"),
    pytest.param("ramfs", "Disk", True, id="nor is a ramfs"),
]


@pytest.mark.parametrize(("kind", "medium", "refused"), MEDIA)
def test_memory_is_a_tmpfs_and_a_disk_is_anything_else(kind: str, medium: Medium, refused: bool) -> None:
    problem = of_another_medium(ROOT, Mount(1, "0:40", "/", str(ROOT), kind, "x", ()), medium)
    assert (problem is not None) == refused
    assert problem is None or problem.reason == "MediumMismatch"


BOUNDS = [
    pytest.param(None, 300, 300, id="the budget"),
    pytest.param("200", 300, 200, id="or the limit, if that is less"),
    pytest.param("90%", 300, 300, id="or the budget, if the limit is a larger part of the tmpfs"),
    pytest.param("10%", 300, 100, id="or that part, if it is less"),
    pytest.param(None, 3000, 1000, id="or the size of the tmpfs"),
]


@pytest.mark.parametrize(("limit", "budget", "most"), BOUNDS)
def test_budget_limit_and_tmpfs_bound_what_lies_in_memory(limit: str | None, budget: int, most: int) -> None:
    spec = NodeCacheSpec("pool", limit, medium="Memory", memory_budget=budget)
    size = limits_of(spec, Ground(shared=False, size=1000), 600.0).max_size
    assert size is not None
    assert size.of(1000) == most


LIMITS = [
    pytest.param({}, False, ("100%", "5%"), id="a filesystem of its own keeps 5 percent free"),
    pytest.param({}, True, ("100%", "20%"), id="one that the kubelet shares keeps 20 percent free"),
    pytest.param({"limit": "1700G", "min_free": "10Gi"}, True, ("1700000000000", "10737418240"), id="what the pool says"),
]


@pytest.mark.parametrize(("spec", "shared", "limits"), LIMITS)
def test_limits(spec: dict[str, str], shared: bool, limits: tuple[str, str]) -> None:
    made = limits_of(NodeCacheSpec("pool", **spec), Ground(shared, 1000), 600.0)  # type: ignore[arg-type]  # texts only
    assert (str(made.max_size), str(made.min_free)) == limits
    assert made.min_idle == 600.0
