"""A kill at any step of a repair: a file is the damaged one or the repaired one, and the next repair finishes."""

from __future__ import annotations

import asyncio
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from fetcher.artifact import CHUNK_SIZE, ArtifactRef
from fetcher.cache import entries, named, repair, verify
from fetcher.events import silent
from fetcher.settings import Settings
from fetcher.testing.origin import Origin
from tests.crash.conftest import OLD, WEIGHTS, Successor, Victims, assert_verified, visible

KEY = ArtifactRef("hf://org/model").key
DAMAGED = OLD | {WEIGHTS[0]: b"\xff" + OLD[WEIGHTS[0]][1:], WEIGHTS[1]: b"\xff" + OLD[WEIGHTS[1]][1:]}
PLACES: dict[str, dict[str, Any]] = {"keyed": {}, "in place": {}, "hub": {"layout": "hf-cache"}}


def repair_again(what: str, root: Path) -> None:
    entry = named(what, lambda: root).entry
    report = verify(entry, full=False, on_event=silent)
    assert asyncio.run(repair(entry, report, Settings(cache_dir=root))).ok


def damage(directory: Path) -> None:
    for name in WEIGHTS:
        with (directory / name).open("r+b") as stream:
            stream.write(b"\xff")


@pytest.mark.parametrize("kind", PLACES)
def test_a_kill_leaves_each_file_damaged_or_repaired(
    origin: Origin, victims: Victims, finish: Successor, tmp_path: Path, kind: str
) -> None:
    origin.add_repo("org/model", OLD)
    option = "dest" if kind == "in place" else "cache_dir"
    original = tmp_path / "original"
    directory = finish(uri="hf://org/model", **{option: original}, **PLACES[kind]).path.relative_to(original)
    damage(original / directory)
    number, code, seen = 0, -signal.SIGKILL, set()
    while code != 0:
        place = tmp_path / f"killed-{number}"
        shutil.copytree(original, place, symlinks=True)
        code, _, stderr = victims.run(repair=True, kill_at=number, **{option: place})
        assert code in (0, -signal.SIGKILL), stderr
        found = visible(place / directory)
        assert all(found[name] in (OLD[name], DAMAGED[name]) for name in OLD)
        seen.add(tuple(found[name] == OLD[name] for name in WEIGHTS))
        repair_again(str(place) if kind == "in place" else "hf://org/model", place)
        assert visible(place / directory) == OLD
        number += 1
        shutil.rmtree(place)
    assert seen == {(False, False), (True, False), (True, True)}


def test_a_kill_during_the_transfer_leaves_the_damaged_file(
    origin: Origin, victims: Victims, finish: Successor, tmp_path: Path
) -> None:
    origin.add_repo("org/model", OLD)
    path = finish(cache_dir=tmp_path).path
    damage(path)
    code, _, _ = victims.run(repair=True, kill_on="BytesReceived", cache_dir=tmp_path)
    assert code == -signal.SIGKILL
    assert visible(path) == DAMAGED
    origin.clear_requests()
    finish(cache_dir=tmp_path)  # its sizes are right, so it is a hit
    assert not origin.requests
    repair_again(KEY, tmp_path)
    assert visible(path) == OLD
    assert_verified(path)
    assert [entry.key for entry in entries(tmp_path, on_newer=lambda _: None)] == [KEY]
    requested = [request.byte_range for request in origin.requests if request.origin == "cdn"]
    assert sum(len(each) for each in requested if each) <= CHUNK_SIZE + len(OLD[WEIGHTS[1]])
