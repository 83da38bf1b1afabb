"""A fetch that takes files from another artifact is killed, and continued by the next one."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.settings import Dedupe
from fetcher.testing.origin import Origin
from tests.crash.conftest import NEW as TUNED
from tests.crash.conftest import OLD, WEIGHTS, Successor, Victims, assert_verified, visible

URI = "hf://org/tuned"


@pytest.fixture
def root(origin: Origin, finish: Successor, tmp_path: Path) -> Path:
    """A root with a model, whose first shard and tokenizer the tuned model has too."""
    origin.add_repo("org/model", OLD)
    origin.add_repo("org/tuned", TUNED)
    finish(cache_dir=tmp_path)
    return tmp_path


@pytest.mark.parametrize("dedupe", ["clone", "link"])
@pytest.mark.parametrize("moment", [{"kill_on": "Shared"}, {"kill_on": "Planned"}, {"kill_at": 0}, {"kill_at": 1}], ids=str)
def test_a_kill_leaves_no_artifact_and_both_are_intact_in_the_end(
    root: Path, victims: Victims, finish: Successor, dedupe: Dedupe, moment: dict[str, object]
) -> None:
    place = root / ArtifactRef(URI).key
    assert victims.run(uri=URI, cache_dir=root, dedupe=dedupe, **moment)[0] == -signal.SIGKILL
    assert not place.exists()
    artifact = finish(URI, cache_dir=root, dedupe=dedupe)
    assert visible(place) == TUNED
    assert artifact.bytes_fetched < len(TUNED[WEIGHTS[0]])
    for each in (place, root / ArtifactRef("hf://org/model").key):
        assert_verified(each)
