"""The comparison of loaders at a tiny scale: the data, cold and warm files, the checks, and the report."""

from __future__ import annotations

import mmap
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open

from benchmarks.loading.checkpoint import Checkpoint, joined, make
from benchmarks.loading.commands import Data, Programs
from benchmarks.loading.contenders import BUFFERED, CAT, CONTENDERS, COPY, CP, FIRST, LOADER, ONE_FILE, STREAMED, WARM
from benchmarks.loading.report import report
from benchmarks.loading.running import Stage, play
from benchmarks.loading.scenarios import Scenario
from benchmarks.loading.temperature import chill, heat, residency
from benchmarks.measuring import Cost, Failed
from benchmarks.surroundings import Setting
from loader.filesystems import filesystem_of

pytestmark = pytest.mark.page_cache

SHARDS, SIZE = 2, 1024 * 1024
COLD = Scenario("cold", "cold, to tensors", (LOADER, STREAMED, ONE_FILE), "cold")
WARMED = Scenario("warm", "warm, to tensors", (BUFFERED, FIRST), "warm")
PAGES = Scenario("pages", "cold, into the page cache", (WARM, CAT), "cold")
COPIES = Scenario("copy", "warm, copied", (COPY, CP), "warm")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    directory = tmp_path_factory.mktemp("loading")
    if filesystem_of(directory).kind in ("tmpfs", "ramfs"):
        pytest.skip("temporary files are on tmpfs, which is never cold; set --basetemp to a directory on a disk")
    shards = make(directory / "shards", shards=SHARDS, size=SIZE)
    return Data(shards, joined(shards, directory / "one", shards=SHARDS, size=SIZE), directory / "tensorized")


@pytest.fixture
def programs() -> Programs:
    return Programs(str(Path(sys.executable).with_name("loader")), sys.executable)


def stage(scenario: Scenario, data: Data, programs: Programs, tmp_path: Path) -> Stage:
    return Stage(scenario, data, programs, tmp_path, tmp_path)


def costs(scenario: Scenario, data: Data, programs: Programs, tmp_path: Path) -> dict[str, list[Cost]]:
    """Run one round of each contender and return its costs."""
    measured = play(stage(scenario, data, programs, tmp_path), rounds=1)
    assert {name: each.failure for name, each in measured.items()} == dict.fromkeys(scenario.contenders)
    return {name: each.kept() for name, each in measured.items()}


class TestData:
    def test_shards_and_the_single_file_have_200_tensors_a_shard(self, data: Data) -> None:
        names: list[str] = []
        for path in data.shards.files:
            with safe_open(path, framework="numpy") as file:
                names += file.keys()
        with safe_open(data.one.files[0], framework="numpy") as file:
            assert sorted(names) == sorted(file.keys()) == sorted(data.shards.digests)
        assert len(names) == 200 * SHARDS
        assert data.shards.size == data.one.size == SHARDS * SIZE

    def test_all_tensors_differ(self, data: Data) -> None:
        assert len(set(data.shards.digests.values())) == len(data.shards.digests)

    def test_a_copy_with_one_wrong_byte_is_detected(self, data: Data, tmp_path: Path) -> None:
        for path in data.shards.directory.iterdir():
            if path.is_file():
                (tmp_path / path.name).write_bytes(path.read_bytes())
        assert data.shards.arrived(tmp_path) is None
        damaged = tmp_path / data.shards.files[1].name
        content = bytearray(damaged.read_bytes())
        content[500_000] ^= 1
        damaged.write_bytes(content)
        assert data.shards.arrived(tmp_path) == f"{damaged.name} differs"
        damaged.unlink()
        assert data.shards.arrived(tmp_path) == f"{damaged.name}: No such file or directory"


class TestTemperature:
    def test_cold_files_are_not_in_memory_and_warm_files_are(self, data: Data) -> None:
        for _ in range(2):
            heat(data.shards.files)
            assert residency(data.shards.files) == 1.0
            chill(data.shards.files)
            assert residency(data.shards.files) == 0.0

    def test_a_mapped_file_cannot_be_made_cold(self, data: Data) -> None:
        path = data.shards.files[0]
        with safe_open(path, framework="numpy") as file:
            file.keys()
            heat([path])
            with path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as mapped:
                assert mapped[::4096]
                with pytest.raises(Failed, match="stayed in memory"):
                    chill([path])


class TestContenders:
    def test_the_loader_loads_every_tensor_of_cold_files(self, data: Data, programs: Programs, tmp_path: Path) -> None:
        for cost in (each for kept in costs(COLD, data, programs, tmp_path).values() for each in kept):
            assert cost.first is not None
            assert 0 < cost.first <= cost.wall
            assert cost.beyond is not None

    def test_the_loader_loads_warm_files(self, data: Data, programs: Programs, tmp_path: Path) -> None:
        measured = costs(WARMED, data, programs, tmp_path)
        assert [len(kept) for kept in measured.values()] == [1, 1]

    def test_residency_is_measured_after_warming(self, data: Data, programs: Programs, tmp_path: Path) -> None:
        measured = costs(PAGES, data, programs, tmp_path)
        assert [cost.residency for kept in measured.values() for cost in kept] == [1.0, 1.0]

    def test_copies_are_compared_and_removed(self, data: Data, programs: Programs, tmp_path: Path) -> None:
        costs(COPIES, data, programs, tmp_path)
        assert not (tmp_path / "copy").exists()

    def test_a_wrong_tensor_fails(self, data: Data, programs: Programs, tmp_path: Path) -> None:
        other: Checkpoint = replace(data.shards, digests={**data.shards.digests, "model.norm.0.weight": "0" * 32})
        with pytest.raises(Failed, match=r"model\.norm\.0\.weight differs from the file"):
            _once(LOADER, COLD, replace(data, shards=other), programs, tmp_path)

    def test_a_missing_tensor_fails(self, data: Data, programs: Programs, tmp_path: Path) -> None:
        other = replace(data.shards, digests={**data.shards.digests, "another": "0" * 32})
        with pytest.raises(Failed, match="loaded 400 tensors instead of 401"):
            _once(LOADER, COLD, replace(data, shards=other), programs, tmp_path)

    def test_a_contender_without_output_fails(self, data: Data, programs: Programs, tmp_path: Path) -> None:
        with pytest.raises(Failed, match="no result"):
            stage(COLD, data, programs, tmp_path).run(CONTENDERS[LOADER], ["true"])


def test_the_report_has_every_contender_and_its_command(data: Data, programs: Programs, tmp_path: Path) -> None:
    results = {PAGES.name: play(stage(PAGES, data, programs, tmp_path), rounds=2)}
    setting = Setting.here(versions={}, rounds="2", scale=1 / 1024, conditions="none")
    text = report(setting, [COLD, PAGES], results, size=data.shards.size)
    assert f"| {CAT} | " in text
    assert "`loader warm SHARDS --progress=none`" in text
    assert "a trial of the bench" in text
    assert str(tmp_path) not in text


def _once(name: str, scenario: Scenario, data: Data, programs: Programs, tmp_path: Path) -> Cost:
    chosen = stage(scenario, data, programs, tmp_path)
    (command,) = chosen.entry(name).ways
    return chosen.run(CONTENDERS[name], command)
