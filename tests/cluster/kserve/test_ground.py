"""What is removed from the directory of a node's models."""

from __future__ import annotations

from pathlib import Path

import pytest

import fetcher
from cluster.agent.states import HOLDER
from cluster.kserve.names import key_of
from cluster.kserve.node_ground import GroundSurveyor
from fetcher import cache
from fetcher.errors import InUse


@pytest.fixture
def key(tmp_path: Path) -> str:
    """A model that the agent has fetched and holds."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_bytes(b"{}")
    fetcher.fetch(source.as_uri(), cache_dir=tmp_path / "models")
    cache.hold(tmp_path / "models", key_of(source.as_uri()), holder=HOLDER, seconds=None)
    return key_of(source.as_uri())


def test_what_nobody_wants_goes_though_an_earlier_agent_held_it(tmp_path: Path, key: str) -> None:
    GroundSurveyor(tmp_path / "models").remove(key)

    assert not (tmp_path / "models" / key).exists()


def test_what_others_hold_stays(tmp_path: Path, key: str) -> None:
    cache.hold(tmp_path / "models", key, holder="pod-1", seconds=None)

    with pytest.raises(InUse):
        GroundSurveyor(tmp_path / "models").remove(key)
    assert (tmp_path / "models" / key).exists()
