"""Tensors are copied to a device while later ones are read. Without a GPU the same code runs with torch's streams for the
processor, and with streams that copy as late as a device may."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.lab.availability import impossible, require_package

require_package("torch", extra="torch")

import torch
from torch.overrides import TorchFunctionMode

from fetcher.errors import NotFound, UsageError
from fetcher.testing.origin import Origin
from loader.adapters import devices
from loader.adapters.devices import copied, plan_for
from loader.adapters.torch import load, shaped, tensors
from loader.checkpoint.dtypes import DTYPES
from loader.errors import TooLarge
from loader.tensors.weights import ReadPlan, open_weights
from tests.loader.adapters.test_torch import assert_alike, by_the_package, known, write

MiB = 1 << 20
WINDOW = 16 * MiB
"""Blocks of 2 MiB."""

SHAPES = [("BF16", (MiB + 9,)), ("F32", (100, 1000)), ("U8", (5,)), ("F16", (0, 4)), ("F4", (7, 16)), ("BOOL", (5 * MiB,))]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of tensors that are larger than a block, equal to one byte, and empty."""
    several = [(f"{number}.{dtype}", dtype, shape) for number in range(3) for dtype, shape in SHAPES]
    return write(tmp_path / "model.safetensors", several)


class LateStreams(TorchFunctionMode):
    """Stands in for `torch.cuda`: a copy is done when somebody waits for it, and never earlier."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Callable[[], object]] = []
        self.most_waiting = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.Tensor.copy_:
            return func(*args, **(kwargs or {}))
        target, source = args
        # From an address: a device does not keep what it copies from. It keeps its own memory until it has copied.
        self.waiting.append(partial(_copy_from, target, source.data_ptr()))
        self.most_waiting = max(self.most_waiting, len(self.waiting))
        return target

    def synchronize(self, count: int | None = None) -> None:
        """Do the first `count` copies that wait, or all."""
        count = len(self.waiting) if count is None else count
        now, self.waiting[:count] = self.waiting[:count], []
        for copy in now:
            copy()

    def Stream(self, _: torch.device) -> LateStreams:
        return self

    def Event(self) -> LateEvent:
        return LateEvent(self)

    @contextmanager
    def stream(self, _: object) -> Iterator[None]:
        with self:
            yield

    def current_stream(self, _: torch.device) -> LateStreams:
        return self

    def wait_stream(self, _: object) -> None:
        """Streams wait on the device: nothing is copied while the process goes on."""


def _copy_from(target: torch.Tensor, address: int) -> None:
    ctypes.memmove(target.data_ptr(), address, target.nbytes)


class LateEvent:
    def __init__(self, streams: LateStreams) -> None:
        self._streams = streams

    def record(self, _: object) -> None:
        pass

    def query(self) -> bool:
        return False

    def synchronize(self) -> None:
        """Events are waited for in the order of the copies."""
        self._streams.synchronize(1)


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> LateStreams:
    streams = LateStreams()
    monkeypatch.setattr(torch, "get_device_module", lambda _: streams)
    return streams


def on_the_processor(path: Path, order: Any = "file", **options: Any) -> dict[str, torch.Tensor]:
    """Load by the code for devices."""
    weights = open_weights(path, **{"window": WINDOW} | options)
    return {info.name: shaped(info, read) for info, read in copied(weights, order, torch.device("cpu"))}


class TestCopies:
    @pytest.mark.parametrize("strategy", ["auto", "buffered", "direct", "mmap"])
    def test_they_have_the_dtype_shape_and_bits_of_the_safetensors_package(self, path: Path, strategy: str) -> None:
        assert_alike(on_the_processor(path, strategy=strategy), by_the_package(path))

    def test_every_dtype_is_copied(self, tmp_path: Path) -> None:
        names = [dtype.name for dtype in DTYPES.values() if known(dtype)]
        path = write(tmp_path / "model.safetensors", [(name, name, (3, 8)) for name in names], header_length=3)
        assert_alike(on_the_processor(path), by_the_package(path))

    def test_each_has_aligned_memory_of_its_own(self, path: Path) -> None:
        loaded = on_the_processor(path)
        assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in loaded.values())
        assert all(tensor.data_ptr() % 64 == 0 for tensor in loaded.values())

    def test_names_are_copied_in_the_requested_order(self, path: Path) -> None:
        assert list(on_the_processor(path, ["2.U8", "0.F4"])) == ["2.U8", "0.F4"]
        with pytest.raises(NotFound, match="the checkpoint has no tensor 'x'"):
            on_the_processor(path, ["x"])


class TestAnAddress:
    """Tensors that come straight from their source go to a device in the same way."""

    @pytest.fixture
    def uri(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        with Origin(lfs_threshold=MiB) as running:
            running.add_repo("org/model", {path.name: path.read_bytes()})
            monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
            yield "hf://org/model"

    @pytest.mark.parametrize("verify", ["end", "before"])
    def test_copies_have_the_bits_of_the_file_whenever_they_are_verified(self, path: Path, uri: str, verify: str) -> None:
        weights = open_weights(uri, window=WINDOW, verify=verify)  # type: ignore[arg-type]  # one of the choices
        loaded = {info.name: shaped(info, read) for info, read in copied(weights, "file", torch.device("cpu"))}
        assert_alike(loaded, by_the_package(path))
        assert list(weights.verified_by.values()) == ["sha256"]


class TestLateCopies:
    """A device copies later than the process asks for it."""

    @pytest.mark.parametrize("strategy", ["buffered", "direct"])
    def test_memory_is_not_read_into_again_before_its_copy_ended(self, path: Path, late: LateStreams, strategy: str) -> None:
        loaded = on_the_processor(path, strategy=strategy)
        late.synchronize()
        assert_alike(loaded, by_the_package(path))

    def test_copies_wait_while_later_tensors_are_read(self, path: Path, late: LateStreams) -> None:
        on_the_processor(path)
        assert late.most_waiting > 1

    def test_memory_that_waits_to_be_copied_is_bounded(self, path: Path, late: LateStreams) -> None:
        weights = open_weights(path, window=WINDOW)
        waiting = [len(late.waiting) for _ in copied(weights, "file", torch.device("cpu"))]
        assert max(waiting) <= WINDOW // 4 // (2 * MiB) + len(SHAPES)

    def test_all_copies_have_ended_when_the_reading_ends_early(self, path: Path, late: LateStreams) -> None:
        reading = copied(open_weights(path, window=WINDOW), "file", torch.device("cpu"))
        next(reading)
        assert late.waiting
        reading.close()
        assert not late.waiting


class TestPlan:
    def test_what_would_be_mapped_is_read_because_a_device_cannot_read_a_mapping_by_itself(self) -> None:
        plan = plan_for(ReadPlan("mmap", "all of it is in the page cache", threads=0, window=WINDOW))
        assert (plan.strategy, plan.window) == ("buffered", WINDOW)
        assert plan.threads > 0
        assert plan.reason.startswith("all of it is in the page cache; but a device copies from pinned memory")

    def test_a_requested_mapping_is_kept(self) -> None:
        plan = ReadPlan("mmap", "requested", threads=0, window=WINDOW)
        assert plan_for(plan) is plan


class TestDevices:
    @pytest.mark.parametrize("name", ["mps", "meta", "nothing"])
    def test_a_device_that_is_not_here_is_refused_before_anything_is_read(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(UsageError, match=f"cannot load tensors to the device '{name}': .*; check its name, its driver"):
            tensors(tmp_path / "absent", device=name)

    def test_on_the_cpu_tensors_stay_where_they_were_read(self, path: Path) -> None:
        loaded = load(path, device="cpu", strategy="buffered")
        assert loaded["1.U8"].data_ptr() + loaded["1.U8"].nbytes == loaded["1.F4"].data_ptr()

    def test_a_full_device_is_an_error_that_names_the_tensor(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

        reading = copied(open_weights(path), "file", torch.device("cpu"))
        next(reading)
        monkeypatch.setattr(torch, "empty", refuse)
        with pytest.raises(TooLarge, match=r"cannot load '.*': cpu has no room for .*iB more; free memory there"):
            next(reading)

    def test_memory_that_cannot_be_pinned_is_an_error(self) -> None:
        if torch.cuda.is_available():
            impossible("this machine can pin memory")
        with pytest.raises(TooLarge, match=r"cannot pin 2\.0 MiB of memory for reading: .*; use a smaller window"):
            devices.memory_for(torch.device("cuda"))(2 * MiB)


class TestGpu:
    @pytest.fixture(autouse=True)
    def gpu(self) -> None:
        if not torch.cuda.is_available():
            impossible("no GPU that this build of torch can use")

    def test_tensors_on_the_gpu_have_the_bits_of_the_file(self, path: Path) -> None:
        loaded = load(path, device="cuda", window=WINDOW)
        assert all(tensor.device.type == "cuda" for tensor in loaded.values())
        assert_alike({name: tensor.cpu() for name, tensor in loaded.items()}, by_the_package(path))

    def test_memory_for_reading_is_pinned(self) -> None:
        memory = devices.memory_for(torch.device("cuda"))(2 * MiB)
        assert torch.from_numpy(memory).is_pinned()
        assert memory.ctypes.data % os.sysconf("SC_PAGE_SIZE") == 0
