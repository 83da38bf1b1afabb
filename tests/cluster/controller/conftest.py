"""A stage on the throw-away cluster, and a Hub with a public and a private model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fetcher.testing.origin import Origin
from tests.cluster.controller.kubelet import Kubelet
from tests.cluster.controller.playing import FILES, GOOD, Stage, stage


@pytest.fixture
async def cluster() -> AsyncIterator[Stage]:
    async with stage() as made:
        yield made


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(tokens=[GOOD]) as running:
        running.add_repo("org/model", FILES)
        running.add_repo("org/private", FILES, private=True, readers=[GOOD])
        yield running


@pytest.fixture
def kubelet(cluster: Stage, tmp_path: Path) -> Kubelet:
    volume = tmp_path / "volume"
    volume.mkdir()
    return Kubelet(cluster, volume)
