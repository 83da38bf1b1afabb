"""A Hub, the part of the controller, and a node whose agent the test starts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fetcher.testing.origin import Origin
from tests.cluster.agent.cluster import Node, Play, playing
from tests.cluster.api import cluster

MiB = 1024 * 1024


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(tokens=["good"], lfs_threshold=MiB) as running:
        yield running


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where the roots of nodes lie: on a disk. /tmp is memory on many machines."""
    with tempfile.TemporaryDirectory(prefix="weightlift-", dir="/var/tmp") as name:
        yield Path(name)


@pytest.fixture
def play(origin: Origin, directory: Path) -> Iterator[Play]:
    with playing(
        cluster(), directory, {"HF_ENDPOINT": origin.endpoint}, ["--hub-endpoint", origin.endpoint, "--allow-loopback"]
    ) as part:
        yield part


@pytest.fixture
def node(play: Play) -> Node:
    return play.node("n")
