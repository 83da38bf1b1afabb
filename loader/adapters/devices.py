"""Copies tensors to an accelerator while later ones are read: `loader.adapters.torch` with `device="cuda"`.

Threads read blocks into pinned memory, which a device reads by itself. A stream of its own copies each part of a tensor to its
place on the device. A block is read into again when its copies have ended. Otherwise only streams wait for each other, on the
device: the process waits for a copy only if too much pinned memory waits to be copied.

Every step is one that torch has for any accelerator. For the processor torch has streams that do nothing, with which the tests
run the same code. It has not run on a GPU yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import torch

from fetcher.errors import UsageError
from fetcher.host.memory import memory_left
from fetcher.quantities import size
from loader.checkpoint.header import TensorInfo
from loader.errors import TooLarge, shown
from loader.reading.arena import Allocate, Arena, Memory, huge_pages
from loader.tensors.weights import REQUESTED, Order, ReadPlan, Weights, fitting_window, held_back
from loader.workers import default_threads

_SHARE = 4
"""A quarter of the window is for blocks that are being copied, the rest for reading ahead. A device takes them faster
(PCIe 4.0 brings 25 GB/s) than storage gives them."""


def find_device(name: str | torch.device) -> torch.device:
    """Return the device that tensors are to be on. Raises UsageError if this process has none such."""
    try:
        device = torch.device(name)
        if device.type != "cpu":
            _streams(device)
            device = torch.empty(0, device=device).device  # with its number, and an error if it is not there
    except (RuntimeError, AssertionError) as error:
        problem = _first_line(error)
        remedy = "check its name, its driver and what torch was built for, or load to the cpu"
        raise UsageError(f"cannot load tensors to the device {str(name)!r}: {problem}; {remedy}") from error
    return device


def copied(weights: Weights, order: Order, device: torch.device) -> Generator[tuple[TensorInfo, torch.Tensor]]:
    """Yield the header entry of each tensor, and its bytes in memory of `device`. They are ready for work that is queued on the
    stream of the device that is current now.

    Pinned memory: the window and two blocks, at most. Raises as `Weights.tensors`; TooLarge if the device is full, or if no
    memory can be pinned.
    """
    pairs = _copied(weights, order, device, plan_for(weights.way))
    yield from pairs if weights.way.verify == "end" else held_back(weights.in_order(order), pairs)


def _copied(weights: Weights, order: Order, device: torch.device, way: ReadPlan) -> Generator[tuple[TensorInfo, torch.Tensor]]:
    copies = Copies(device, most=way.window // _SHARE)
    ahead = replace(way, window=way.window - way.window // _SHARE)
    parts = weights.parts(order, way=ahead, arena=Arena(memory_for(device)))
    target = torch.empty(0)
    try:
        for info, at, view in parts:
            if at == 0:
                target = _empty(info, device)
                copies.follow()
            stop = at + view.nbytes
            copies.start(target[at:stop], view)
            del view  # `copies` keeps it as long as needed
            if stop == info.size:
                copies.precede()
                yield info, target
    finally:
        copies.finish()
        parts.close()


def plan_for(way: ReadPlan) -> ReadPlan:
    """Return how to read for a device. It can't read mapped files by itself: what would be mapped is read, unless mapping was
    requested."""
    if way.strategy != "mmap" or way.reason == REQUESTED:
        return way
    reason = f"{way.reason}; but a device copies from pinned memory, not from mapped files"
    window = fitting_window(way.window, memory_left().anonymous)
    return ReadPlan("buffered", reason, way.threads or default_threads(busy=True), window)


def memory_for(device: torch.device) -> Allocate:
    """Return the function that allocates memory which `device` reads by itself. torch keeps what it pinned, for the next time:
    `torch.accelerator.empty_host_cache()` frees it."""
    return huge_pages if device.type == "cpu" else _pinned


class Copies:
    """Copies to `device`, on a stream of their own. It keeps what is copied from until the copy has ended, and waits for copies
    only if that exceeds `most` bytes, and at the end."""

    def __init__(self, device: torch.device, *, most: int) -> None:
        self._streams = _streams(device)
        self._device = device
        self._stream = self._streams.Stream(device)
        self._most = most
        self._kept: deque[tuple[Any, memoryview]] = deque()
        self._bytes = 0

    def follow(self) -> None:
        """Begin further copies after the work that is queued now. It may still use memory that was freed and taken again."""
        self._stream.wait_stream(self._streams.current_stream(self._device))

    def start(self, target: torch.Tensor, view: memoryview) -> None:
        """Begin to copy the bytes in `view` to `target`, which is as long."""
        if not view.nbytes:
            return
        with self._streams.stream(self._stream):
            target.copy_(torch.frombuffer(view, dtype=torch.uint8), non_blocking=True)
            ended = self._streams.Event()
            ended.record(self._stream)
        self._kept.append((ended, view))
        self._bytes += view.nbytes
        while self._kept and (self._bytes > self._most or self._kept[0][0].query()):
            self._release()

    def precede(self) -> None:
        """Begin work that is queued from now on after the copies."""
        self._streams.current_stream(self._device).wait_stream(self._stream)

    def finish(self) -> None:
        """Wait for all copies."""
        while self._kept:
            self._release()

    def _release(self) -> None:
        ended, view = self._kept.popleft()
        self._bytes -= view.nbytes
        ended.synchronize()


def _streams(device: torch.device) -> Any:
    """Return torch's module of such devices (`torch.cuda`). Raises RuntimeError if it has no streams."""
    module = torch.get_device_module(device)
    if not hasattr(module, "Stream"):
        raise RuntimeError(f"torch has no streams for {device.type}")
    return module


def _empty(info: TensorInfo, device: torch.device) -> torch.Tensor:
    try:
        return torch.empty(info.size, dtype=torch.uint8, device=device)
    except torch.OutOfMemoryError as error:
        problem = f"cannot load {shown(info.name)}: {device} has no room for {size(info.size)} more"
        raise TooLarge(f"{problem}; free memory there, or load fewer tensors", path=info.file) from error


def _pinned(wanted: int) -> Memory:
    try:
        pinned: Memory = torch.empty(wanted, dtype=torch.uint8, pin_memory=True).numpy()
        return pinned
    except RuntimeError as error:
        problem = f"cannot pin {size(wanted)} of memory for reading: {_first_line(error)}"
        raise TooLarge(f"{problem}; use a smaller window, or raise the memory limit") from error


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0].rstrip(".")
