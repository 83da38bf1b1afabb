"""A program that hashes the served files counts only if it hashed all of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.copies import Place
from benchmarks.fetching.commands import Programs, environment
from benchmarks.fetching.peers import CONTENDERS, OPENSSL, SHA256SUM
from benchmarks.fetching.running import Stage, play
from benchmarks.fetching.scenarios import Scenario
from benchmarks.fetching.server import Server
from benchmarks.publishing import Shape, publish

SHAPE = Shape(3, 1000)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    repository = publish(tmp_path / "served", SHAPE)
    server = Server("", "", repository, None, tmp_path, processor_time=lambda: 0.0)
    place = Place(repository, environment(server, tmp_path), tmp_path, tmp_path)
    return Stage(Scenario("checks", "", SHAPE, (SHA256SUM, OPENSSL)), server, Programs("", ""), place)


def test_every_file_is_hashed(stage: Stage) -> None:
    measured = play(stage, rounds=2)
    assert {name: (len(each.kept()), each.failure) for name, each in measured.items()} == {
        SHA256SUM: (2, None),
        OPENSSL: (2, None),
    }


def test_a_program_that_succeeds_and_hashes_nothing_has_failed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    idle = replace(CONTENDERS[OPENSSL], ways=(lambda _: ["true"],))
    monkeypatch.setitem(CONTENDERS, OPENSSL, idle)
    failure = play(stage, rounds=1)[OPENSSL].failure
    assert failure is not None
    assert "3 files were not hashed" in failure
