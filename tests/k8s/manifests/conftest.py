"""A model on a loopback origin, a stand-in for an engine, and a node that runs pods."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from fetcher.testing.checkpoint import make_checkpoint
from fetcher.testing.origin import Origin
from tests.k8s.manifests import stand_in_engine
from tests.k8s.manifests.kubelet import Disks
from tests.k8s.manifests.playing import Node
from tests.lab.containers import Podman

MiB = 1024 * 1024

WEIGHTLIFT = "example.com/weightlift:0.1.0"
ENGINE = "vllm/vllm-openai:v0.33.0"
HUB = "https://huggingface.co"
PROXY = "http://proxy.example.com:3128"

SHARD = "model-00001-of-00002.safetensors"

MakeNode = Callable[..., Node]


@pytest.fixture(scope="session")
def engine_image(podman: Podman, image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Our image with the stand-in under the engine's name. The stand-in needs only Python."""
    context = tmp_path_factory.mktemp("engine")
    shutil.copy(Path(stand_in_engine.__file__), context / "vllm")
    (context / "vllm").chmod(0o755)
    (context / "Containerfile").write_text(f"FROM {image}\nCOPY vllm /usr/local/bin/vllm\n")
    name = f"{image}-engine"
    done = podman("build", "--quiet", "--format=docker", f"--tag={name}", context, timeout=300)
    assert done.returncode == 0, done.stderr
    return name


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two shards and their small files."""
    directory = make_checkpoint(tmp_path_factory.mktemp("model"), shards=2, shard_size=3 * MiB)
    return {path.name: path for path in directory.iterdir()}


@pytest.fixture(scope="session")
def published(model: Mapping[str, Path]) -> dict[str, str]:
    """The SHA-256 of each file of the model."""
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in model.items()}


@pytest.fixture
def origin(model: Mapping[str, Path]) -> Iterator[Origin]:
    with Origin(lfs_threshold=MiB) as running:
        running.add_repo("org/model", model)
        yield running


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory, which `loader copy` detects."""
    with tempfile.TemporaryDirectory(prefix="weightlift-", dir="/dev/shm") as directory:
        yield Path(directory)


@pytest.fixture
def make_node(podman: Podman, image: str, engine_image: str, tmp_path: Path, memory: Path) -> MakeNode:
    """Return a function that makes a node which fetches from an origin."""

    def make(origin: Origin, *, proxy: str = PROXY, honours_group: bool = True) -> Node:
        instead = {WEIGHTLIFT: image, ENGINE: engine_image, HUB: origin.endpoint, PROXY: proxy}
        return Node(podman, Disks(root=tmp_path, memory=memory, honours_group=honours_group), tmp_path, instead)

    return make


@pytest.fixture
def node(make_node: MakeNode, origin: Origin) -> Node:
    return make_node(origin)


def damage(file: Path) -> None:
    """Damage a file as a disk or another tenant can: other bytes, same size."""
    with file.open("r+b") as opened:
        opened.seek(MiB)
        opened.write(b"damage")
