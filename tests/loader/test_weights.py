"""`loader.open` lists a checkpoint without reading data, and reads the same bytes as the safetensors package."""

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
    """One shard with dtypes of numpy, on disk."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_file(ARRAYS, path)
    return path


def contents(arrays: dict[str, Array]) -> dict[str, bytes]:
    return {name: (value.data if isinstance(value, Raw) else value).tobytes() for name, value in arrays.items()}


def as_the_package_reads(path: Path) -> dict[str, bytes]:
    return {name: bytes(fields["data"]) for name, fields in read_by_the_package(path.read_bytes()).items()}


class TestOpen:
    def test_names_shapes_and_dtypes_are_known_without_reading_data(self, model: Path) -> None:
        weights = loader.open(model)
        assert resident(model) < 0.5
        with safe_open(model / "model-00001-of-00002.safetensors", framework="numpy") as reference:
            for name in reference.keys():  # noqa: SIM118 - no mapping
                entry_of_package = reference.get_slice(name)
                info = weights.checkpoint.tensors[name]
                assert (list(info.shape), info.dtype.name) == (entry_of_package.get_shape(), entry_of_package.get_dtype())

    def test_a_cold_local_checkpoint_is_read_past_the_page_cache(self, model: Path) -> None:
        weights = loader.open(model)
        assert weights.way.strategy == "direct"
        assert "page cache" in weights.way.reason
        weights.load()
        assert resident(model) < 0.5

    def test_a_checkpoint_that_other_ranks_read_too_goes_through_the_page_cache(self, model: Path) -> None:
        weights = loader.open(model, rank=0, world_size=2)
        assert weights.way.strategy == "buffered"
        weights.load()
        assert resident(model) > 0.9  # all shards, except some header bytes

    def test_a_resident_checkpoint_is_mapped(self, model: Path) -> None:
        for path in model.iterdir():
            make_warm(path)
        weights = loader.open(model)
        assert weights.way.strategy == "mmap"
        arrays = weights.load()
        assert str(model) in Path("/proc/self/maps").read_text()
        del arrays

    def test_the_number_of_threads_depends_on_strategy_and_residency(self, model: Path) -> None:
        assert loader.open(model, strategy="buffered").way.threads == default_threads()
        assert loader.open(model, strategy="mmap").way.threads == default_threads()
        assert loader.open(model, strategy="direct").way.threads >= 8
        assert loader.open(model, threads=3).way.threads == 3
        for path in model.iterdir():
            make_warm(path)
        assert loader.open(model, strategy="buffered").way.threads == default_threads(busy=True)

    def test_a_resident_checkpoint_is_mapped_without_threads(self, model: Path) -> None:
        for path in model.iterdir():
            make_warm(path)
        assert loader.open(model, strategy="mmap").way.threads == 0

    def test_a_requested_strategy_is_used(self, file: Path) -> None:
        assert loader.open(file, strategy="buffered").way.reason == "requested"

    def test_the_window_takes_at_most_half_of_the_free_memory(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        leave(monkeypatch, 200 * MiB)
        assert loader.open(file, strategy="buffered").way.window == 100 * MiB
        assert loader.open(file, strategy="buffered", window=20 * MiB).way.window == 20 * MiB

    @pytest.mark.parametrize(("rank", "world_size"), [(1, 1), (-1, 2), (0, 0), (2, 2)])
    def test_a_rank_beyond_the_world_size_is_refused(self, file: Path, rank: int, world_size: int) -> None:
        with pytest.raises(UsageError, match="ranks count from 0"):
            loader.open(file, rank=rank, world_size=world_size)

    def test_a_damaged_header_is_refused_before_anything_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        path.write_bytes(content({"t": entry("U8", [9], 0, 9)}, bytes(8)))
        with pytest.raises(MalformedCheckpoint, match="the file is truncated"):
            loader.open(path)


class TestTensors:
    @every_strategy
    def test_tensors_equal_those_of_the_package_streamed_or_loaded(self, file: Path, strategy: Strategy) -> None:
        weights = loader.open(file, strategy=strategy)
        assert contents(dict(weights.tensors())) == contents(weights.load()) == as_the_package_reads(file)
        for name, array in weights.load().items():
            assert isinstance(array, np.ndarray)
            assert (array.dtype, array.shape) == (ARRAYS[name].dtype, ARRAYS[name].shape)

    @every_strategy
    def test_a_sharded_checkpoint_gives_the_tensors_of_all_shards(self, model: Path, strategy: Strategy) -> None:
        found = contents(loader.open(model, strategy=strategy).load())
        shards = sorted(model.glob("*.safetensors"))
        assert found == {name: data for shard in shards for name, data in as_the_package_reads(shard).items()}

    @pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
    def test_a_dtype_that_numpy_lacks_gives_bytes_dtype_and_shape(self, tmp_path: Path, dtype: object) -> None:
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

    def test_tensors_at_odd_offsets_are_correct(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        values = np.arange(5, dtype=np.float64)
        header = {"one": entry("U8", [1], 0, 1), "five": entry("F64", [5], 1, 41)}
        path.write_bytes(content(header, b"\1" + values.tobytes()))
        assert np.array_equal(np.asarray(loader.open(path).load()["five"]), values)

    def test_arrays_are_writable_and_the_file_does_not_change(self, file: Path) -> None:
        before = file.read_bytes()
        for strategy in ("buffered", "direct", "mmap"):
            array = loader.open(file, strategy=strategy).load()["b.large"]
            assert isinstance(array, np.ndarray)
            array[:] = 0
            assert not array.any()
        assert file.read_bytes() == before

    def test_tensors_come_in_file_order_sorted_by_name_or_as_listed(self, file: Path) -> None:
        weights = loader.open(file)
        in_file = list(weights.checkpoint.tensors)
        assert [name for name, _ in weights.tensors()] == in_file
        assert [name for name, _ in weights.tensors("name")] == sorted(ARRAYS)
        assert [name for name, _ in weights.tensors(["d.scalar", "a.odd"])] == ["d.scalar", "a.odd"]

    def test_an_unknown_tensor_is_an_error_that_names_it(self, file: Path) -> None:
        with pytest.raises(NotFound, match=r"no tensor 'e\.x'"):
            next(iter(loader.open(file).tensors(["a.odd", "e.x"])))

    def test_a_shape_that_numpy_does_not_support_is_an_error_that_names_the_tensor(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        path.write_bytes(content({"t": entry("U8", [1] * 65, 0, 1)}, b"\1"))
        with pytest.raises(MalformedCheckpoint, match=rf"{path}: 't'\.shape: numpy does not support this shape"):
            loader.open(path).load()

    def test_a_reading_can_be_abandoned_in_the_middle(self, model: Path) -> None:
        for _ in loader.open(model).tensors():
            break

    def test_a_second_load_gives_the_same_tensors(self, model: Path) -> None:
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
    def test_a_load_beyond_the_free_memory_is_refused_but_streaming_works(
        self, model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        weights = loader.open(model)
        leave(monkeypatch, MiB)
        with pytest.raises(TooLarge, match=r"cannot load 8\.0 MiB of tensors: there is memory for 1\.0 MiB \(a test\)"):
            weights.load()
        assert len(dict(weights.tensors())) == 6

    def test_mapping_needs_no_memory(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        leave(monkeypatch, MiB)
        assert len(loader.open(model, strategy="mmap").load()) == 6


class TestParts:
    def test_the_ranks_parts_cover_every_tensor_once(self, model: Path) -> None:
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
    def test_importing_the_package_does_not_import_numpy(self) -> None:
        script = "import sys, loader, loader.cli; assert 'numpy' not in sys.modules"
        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0

    def test_every_public_name_exists(self) -> None:
        assert all(hasattr(loader, name) for name in loader.__all__)
        assert loader.Weights is Weights
        with pytest.raises(AttributeError, match="no attribute 'close'"):
            loader.close  # noqa: B018


def leave(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let `count` bytes of memory be free."""
    bound = Bound(count, "a test")
    monkeypatch.setattr(module, "memory_left", lambda: MemoryLeft(bound, bound))
