"""`loader.open`: what a checkpoint holds without reading it, and its tensors to the same bytes as the safetensors package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

import loader
from fetcher.errors import NotFound, UsageError
from fetcher.host.memory import Bound, MemoryLeft
from loader.checkpoint.dtypes import DTYPES
from loader.checkpoint.header import TensorInfo
from loader.errors import FileReplaced, MalformedCheckpoint, TooLarge
from loader.reading.strategy import Strategy
from loader.tensors import weights as module
from loader.tensors.arrays import Array, Raw
from loader.tensors.weights import Weights, part_of
from loader.workers import default_threads
from tests.loader.conftest import MiB, make_warm, resident
from tests.loader.making import content, entry, read_by_the_package

pytestmark = [pytest.mark.page_cache, pytest.mark.usefixtures("nothing_left_behind")]
every_strategy = pytest.mark.parametrize("strategy", ["buffered", "direct", "mmap"])

DRAWN = np.random.default_rng(7)
ARRAYS = {
    "b.large": DRAWN.integers(0, 255, (1024, 3000), np.uint8),
    "a.odd": DRAWN.standard_normal(1001, np.float32),
    "c.nothing": np.zeros((0, 4), np.float16),
    "d.scalar": np.array(7, np.int64),
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One shard of numpy's dtypes, on the disk."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_file(ARRAYS, path)
    return path


def contents(taken: dict[str, Array]) -> dict[str, bytes]:
    return {name: (value.data if isinstance(value, Raw) else value).tobytes() for name, value in taken.items()}


def as_the_package_reads(path: Path) -> dict[str, bytes]:
    return {name: bytes(fields["data"]) for name, fields in read_by_the_package(path.read_bytes()).items()}


class TestOpen:
    def test_names_shapes_and_dtypes_are_known_without_reading_data(self, model: Path) -> None:
        weights = loader.open(model)
        assert resident(model) < 0.5
        with safe_open(model / "model-00001-of-00002.safetensors", framework="numpy") as reference:
            for name in reference.keys():  # noqa: SIM118 - no mapping
                told = reference.get_slice(name)
                info = weights.checkpoint.tensors[name]
                assert (list(info.shape), info.dtype.name) == (told.get_shape(), told.get_dtype())

    def test_a_cold_local_checkpoint_is_read_past_the_page_cache_and_leaves_it_as_it_was(self, model: Path) -> None:
        weights = loader.open(model)
        assert weights.way.strategy == "direct"
        assert "page cache" in weights.way.reason
        weights.load()
        assert resident(model) < 0.5

    def test_one_that_other_ranks_read_too_is_read_through_it(self, model: Path) -> None:
        weights = loader.open(model, rank=0, world_size=2)
        assert weights.way.strategy == "buffered"
        weights.load()
        assert resident(model) > 0.9  # headers apart, all shards

    def test_a_resident_one_is_mapped_and_nothing_is_copied(self, model: Path) -> None:
        for path in model.iterdir():
            make_warm(path)
        weights = loader.open(model)
        assert weights.way.strategy == "mmap"
        arrays = weights.load()
        assert str(model) in Path("/proc/self/maps").read_text()
        del arrays

    def test_so_many_threads_read_as_storage_or_processors_can_use(self, model: Path) -> None:
        assert loader.open(model, strategy="buffered").way.threads == default_threads()
        assert loader.open(model, strategy="mmap").way.threads == default_threads()
        assert loader.open(model, strategy="direct").way.threads >= 8
        assert loader.open(model, threads=3).way.threads == 3
        for path in model.iterdir():
            make_warm(path)
        assert loader.open(model, strategy="buffered").way.threads == default_threads(busy=True)

    def test_what_is_all_there_is_mapped_when_it_is_asked_for(self, model: Path) -> None:
        for path in model.iterdir():
            make_warm(path)
        assert loader.open(model, strategy="mmap").way.threads == 0

    def test_what_is_asked_for_is_done(self, file: Path) -> None:
        assert loader.open(file, strategy="buffered").way.reason == "requested"

    def test_the_window_is_half_of_what_memory_is_left_at_most(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        leave(monkeypatch, 200 * MiB)
        assert loader.open(file, strategy="buffered").way.window == 100 * MiB
        assert loader.open(file, strategy="buffered", window=20 * MiB).way.window == 20 * MiB

    @pytest.mark.parametrize(("rank", "world_size"), [(1, 1), (-1, 2), (0, 0), (2, 2)])
    def test_a_rank_beyond_the_world_is_refused(self, file: Path, rank: int, world_size: int) -> None:
        with pytest.raises(UsageError, match="ranks count from 0"):
            loader.open(file, rank=rank, world_size=world_size)

    def test_a_damaged_header_is_refused_before_anything_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        path.write_bytes(content({"t": entry("U8", [9], 0, 9)}, bytes(8)))
        with pytest.raises(MalformedCheckpoint, match="the file is cut off"):
            loader.open(path)


class TestTensors:
    @every_strategy
    def test_are_the_package_s_to_the_bit_streamed_or_at_once(self, file: Path, strategy: Strategy) -> None:
        weights = loader.open(file, strategy=strategy)
        assert contents(dict(weights.tensors())) == contents(weights.load()) == as_the_package_reads(file)
        for name, array in weights.load().items():
            assert isinstance(array, np.ndarray)
            assert (array.dtype, array.shape) == (ARRAYS[name].dtype, ARRAYS[name].shape)

    @every_strategy
    def test_a_sharded_checkpoint_comes_whole(self, model: Path, strategy: Strategy) -> None:
        found = contents(loader.open(model, strategy=strategy).load())
        shards = sorted(model.glob("*.safetensors"))
        assert found == {name: data for shard in shards for name, data in as_the_package_reads(shard).items()}

    @pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
    def test_what_numpy_lacks_comes_as_bytes_with_dtype_and_shape(self, tmp_path: Path, dtype: object) -> None:
        path = tmp_path / "model.safetensors"
        bits = DTYPES[str(dtype)].bits
        data = DRAWN.integers(0, 2, bits, np.uint8).tobytes()
        path.write_bytes(content({"t": entry(str(dtype), [2, 4], 0, bits)}, data))
        found = loader.open(path).load()["t"]
        if DTYPES[str(dtype)].numpy is None:
            assert isinstance(found, Raw)
            assert (found.data.tobytes(), found.dtype.name, found.shape) == (data, str(dtype), (2, 4))
        else:
            assert isinstance(found, np.ndarray)
            assert (found.tobytes(), found.shape) == (data, (2, 4))

    def test_those_at_odd_offsets_are_right_too(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        values = np.arange(5, dtype=np.float64)
        header = {"one": entry("U8", [1], 0, 1), "five": entry("F64", [5], 1, 41)}
        path.write_bytes(content(header, b"\1" + values.tobytes()))
        assert np.array_equal(np.asarray(loader.open(path).load()["five"]), values)

    def test_may_be_written_to_without_changing_the_file(self, file: Path) -> None:
        before = file.read_bytes()
        for strategy in ("buffered", "direct", "mmap"):
            array = loader.open(file, strategy=strategy).load()["b.large"]
            assert isinstance(array, np.ndarray)
            array[:] = 0
            assert not array.any()
        assert file.read_bytes() == before

    def test_come_in_the_order_of_the_file_of_their_names_or_as_they_are_named(self, file: Path) -> None:
        weights = loader.open(file)
        in_file = list(weights.checkpoint.tensors)
        assert [name for name, _ in weights.tensors()] == in_file
        assert [name for name, _ in weights.tensors("name")] == sorted(ARRAYS)
        assert [name for name, _ in weights.tensors(["d.scalar", "a.odd"])] == ["d.scalar", "a.odd"]

    def test_one_that_is_not_there_is_named(self, file: Path) -> None:
        with pytest.raises(NotFound, match=r"no tensor 'e\.x'"):
            next(iter(loader.open(file).tensors(["a.odd", "e.x"])))

    def test_an_impossible_shape_for_numpy_is_an_error_with_its_place(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        path.write_bytes(content({"t": entry("U8", [1] * 65, 0, 1)}, b"\1"))
        with pytest.raises(MalformedCheckpoint, match=rf"{path}: 't'\.shape: numpy does not support this shape"):
            loader.open(path).load()

    def test_a_reading_may_be_left_in_the_middle(self, model: Path) -> None:
        for _ in loader.open(model).tensors():
            break

    def test_the_next_reading_uses_the_memory_of_the_last(self, model: Path) -> None:
        weights = loader.open(model, strategy="buffered")
        assert contents(weights.load()) == contents(weights.load())

    def test_a_file_replaced_since_it_was_opened_is_an_error(self, file: Path, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        path.write_bytes(file.read_bytes())
        weights = loader.open(path)
        replacement = tmp_path / "new"
        replacement.write_bytes(file.read_bytes())
        replacement.replace(path)
        with pytest.raises(FileReplaced, match=str(path)):
            weights.load()


class TestMemory:
    def test_more_than_is_left_is_refused_with_the_numbers_and_can_still_be_streamed(
        self, model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        weights = loader.open(model)
        leave(monkeypatch, MiB)
        with pytest.raises(TooLarge, match=r"cannot load 8\.0 MiB of tensors: there is memory for 1\.0 MiB \(a test\)"):
            weights.load()
        assert len(dict(weights.tensors())) == 6

    def test_what_is_mapped_needs_none(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        leave(monkeypatch, MiB)
        assert len(loader.open(model, strategy="mmap").load()) == 6


class TestParts:
    def test_each_rank_has_its_own_and_together_they_have_all(self, model: Path) -> None:
        opened_by = [loader.open(model, rank=rank, world_size=3) for rank in range(3)]
        parts = [name for weights in opened_by for name in weights.part]
        assert parts == list(opened_by[0].checkpoint.tensors)

    @given(st.lists(st.integers(0, 1000), max_size=40), st.integers(1, 9))
    def test_no_part_exceeds_its_share_by_more_than_a_tensor(self, sizes: list[int], ranks: int) -> None:
        infos = [TensorInfo(str(number), DTYPES["U8"], (size,), "f", 0, size) for number, size in enumerate(sizes)]
        parts = [part_of(infos, rank=rank, ranks=ranks) for rank in range(ranks)]
        assert [name for part in parts for name in part] == [info.name for info in infos]
        for part in parts:
            assert sum(sizes[int(name)] for name in part) <= sum(sizes) / ranks + max(sizes, default=0)


class TestPackage:
    def test_importing_it_imports_no_numpy(self) -> None:
        script = "import sys, loader, loader.cli; assert 'numpy' not in sys.modules"
        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0

    def test_it_has_what_it_says(self) -> None:
        assert all(hasattr(loader, name) for name in loader.__all__)
        assert loader.Weights is Weights
        with pytest.raises(AttributeError, match="no attribute 'close'"):
            loader.close  # noqa: B018


def leave(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """So many bytes of memory."""
    bound = Bound(count, "a test")
    monkeypatch.setattr(module, "memory_left", lambda: MemoryLeft(bound, bound))
