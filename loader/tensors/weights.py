"""An open checkpoint. Names, shapes and dtypes are available at once; tensors are read at the speed of the storage.

::

    weights = loader.open("/models/5df9d7cea3b612c3")
    weights.checkpoint.tensors["lm_head.weight"].shape
    for name, array in weights.tensors():          # later ones are being read meanwhile
        ...
    arrays = weights.load()                        # all of them
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import Literal

from fetcher.errors import NotFound, UsageError
from fetcher.host.memory import Bound, memory_left
from fetcher.quantities import size
from fetcher.usage import note_use
from loader.checkpoint.header import TensorInfo
from loader.checkpoint.index import Checkpoint, PathLike, Shard, read_checkpoint
from loader.errors import TooLarge, shown
from loader.filesystems import filesystem_of
from loader.reading.arena import Arena
from loader.reading.blocks import Job
from loader.reading.reader import WINDOW, block_size, read, read_all
from loader.reading.strategy import Strategy, choose_strategy, is_warm
from loader.residency.model_files import ModelFile, residency
from loader.residency.page_cache import Residency
from loader.tensors.arrays import Array, array
from loader.workers import default_threads

Order = Literal["file", "name"] | Sequence[str]
"""`file`: in the order of the files, the fastest. `name`: sorted by name. A list of names: only these, in this order."""

_logger = logging.getLogger(__name__)

REQUESTED = "requested"
"""The reason of a strategy that the caller chose."""

_DIRECT_THREADS = 8

_LEAST_WINDOW = 64 * 1024 * 1024
"""Bytes. A smaller window keeps too few requests in flight for a disk."""


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """How tensors are read, and why. `threads` threads read at most `window` bytes ahead. With 0 threads each tensor is read on
    request: enough for mapping resident files, which takes 30 ms a GiB."""

    strategy: Strategy
    reason: str
    threads: int
    window: int


def open_weights(
    source: PathLike | Sequence[PathLike],
    *,
    strategy: Strategy | Literal["auto"] = "auto",
    threads: int | None = None,
    window: int = WINDOW,
    rank: int = 0,
    world_size: int = 1,
    on_warning: Callable[[str], None] = _logger.warning,
) -> Weights:
    """Open the checkpoint in a directory, a file, an index file, or a list of files. Reads only headers.

    `strategy`, `threads`: chosen by filesystem, page-cache residency and free memory, unless set. `window`: the most bytes to
    read ahead; reduced if the cgroup has less memory. `rank` of `world_size`: the number of this process among those on this
    host that read the same files. Each reads its own `part`, which stays in the page cache for the others.

    `on_warning` receives contradictions in the files, with the choice made. By default they are logged.

    Raises UsageError, NotFound, NotReadable, LocalIOError, FileReplaced, MalformedCheckpoint.
    """
    if not 0 <= rank < world_size:
        raise UsageError(f"rank {rank} is not valid for world size {world_size}: ranks count from 0")
    checkpoint = read_checkpoint(source)
    for warning in checkpoint.warnings:
        on_warning(warning)
    if isinstance(source, (str, os.PathLike)):
        note_use(source)
    way = _way(checkpoint, strategy, threads=threads, window=window, reread=world_size > 1)
    return Weights(checkpoint, way, part_of(checkpoint.tensors.values(), rank=rank, ranks=world_size))


class Weights:
    """Made by `loader.open`. It keeps no file open between readings, so there is nothing to close.

    Memory is reference-counted by the views of it, and reused after the last one is released (see `loader.reading.arena`).
    `part`: the names of the tensors that this rank reads; all of them without ranks.
    """

    def __init__(self, checkpoint: Checkpoint, way: ReadPlan, part: tuple[str, ...]) -> None:
        self.checkpoint = checkpoint
        self.way = way
        self.part = part
        self.fallbacks: Mapping[str, str] = {}
        """The files that the last reading did not read by `way.strategy`, with the reason."""
        self._arena = Arena()

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the checkpoint and the way to read it, without memory. A child process must start its own reading: an iterator
        belongs to the process that created it."""
        return Weights, (self.checkpoint, self.way, self.part)

    def tensors(self, order: Order = "file") -> Iterator[tuple[str, Array]]:
        """Yield name and array of each tensor. At most `way.window` bytes are read ahead.

        Raises TooLarge, FileReplaced, LocalIOError, and NotFound for an unknown name.
        """
        # starmap keeps no reference to a delivered array, so its memory is idle when the consumer releases it.
        return starmap(_named, self.stream(order))

    def load(self, order: Order = "file") -> dict[str, Array]:
        """Return all arrays by name. Raises as `tensors`; TooLarge before anything is read."""
        return dict(starmap(_named, self.everything(order)))

    def stream(self, order: Order = "file") -> Generator[tuple[TensorInfo, memoryview]]:
        """Yield the header entry and the writable bytes of each tensor. Raises as `tensors`."""
        infos, way = self._in_order(order), self.way
        jobs = _jobs(self.checkpoint, infos)
        with read(jobs, window=way.window, threads=way.threads, mode=way.strategy, arena=self._arena) as reading:
            self.fallbacks = reading.fallbacks
            for info in infos:
                yield info, next(reading)[1]  # not bound to a name, which would keep the memory

    def parts(self, order: Order, *, way: ReadPlan, arena: Arena) -> Generator[tuple[TensorInfo, int, memoryview]]:
        """Yield each tensor in parts of at most a block: its header entry, and the position and the bytes of the part.

        So the memory of `arena` is blocks of one size, whatever the sizes of the tensors. `way`: how to read, instead of
        `self.way`. An empty tensor is one empty part. Raises as `tensors`.
        """
        largest, shards = block_size(way.window), _shards(self.checkpoint)
        parts = [(info, at) for info in self._in_order(order) for at in range(0, info.size or 1, largest)]
        jobs = [Job(shards[info.file], info.start + at, min(largest, info.size - at)) for info, at in parts]
        with read(jobs, window=way.window, threads=way.threads, mode=way.strategy, arena=arena) as reading:
            self.fallbacks = reading.fallbacks
            for info, at in parts:
                yield info, at, next(reading)[1]

    def everything(self, order: Order = "file") -> list[tuple[TensorInfo, memoryview]]:
        """Return the header entry and the writable bytes of every tensor. Raises as `load`."""
        infos = self._in_order(order)
        if self.way.strategy != "mmap":
            _refuse_excess(sum(info.size for info in infos), memory_left().anonymous)
        jobs = _jobs(self.checkpoint, infos)
        views = read_all(jobs, threads=self.way.threads, mode=self.way.strategy, arena=self._arena)
        return list(zip(infos, views, strict=True))

    def _in_order(self, order: Order) -> Sequence[TensorInfo]:
        tensors = self.checkpoint.tensors
        if order == "file":
            return list(tensors.values())
        names = sorted(tensors) if order == "name" else order
        if absent := [name for name in names if name not in tensors]:
            raise NotFound(f"the checkpoint has no tensor {shown(absent[0])}")
        return [tensors[name] for name in names]


def _named(info: TensorInfo, view: memoryview) -> tuple[str, Array]:
    return info.name, array(info, view)


def part_of(tensors: Iterable[TensorInfo], *, rank: int, ranks: int) -> tuple[str, ...]:
    """Return the names of the adjacent tensors that rank `rank` of `ranks` reads. Each tensor is in one part. A part exceeds
    its fair share by a tensor at most."""
    infos = list(tensors)
    if ranks == 1:
        return tuple(info.name for info in infos)
    total = sum(info.size for info in infos)
    names, before = [], 0
    for info in infos:
        middle = before + info.size // 2
        if min(middle * ranks // max(total, 1), ranks - 1) == rank:
            names.append(info.name)
        before += info.size
    return tuple(names)


def _way(
    checkpoint: Checkpoint, strategy: Strategy | Literal["auto"], *, threads: int | None, window: int, reread: bool
) -> ReadPlan:
    """Choose what is not set. Memory limits take milliseconds to find, and the residency of a large checkpoint seconds: each is
    looked up at most once, and only if it decides."""
    filesystem, reason = filesystem_of(Path(checkpoint.shards[0].path)), REQUESTED
    resident = functools.cache(lambda: residency(_members(checkpoint), closely=False))
    left = functools.cache(memory_left)
    if strategy == "auto":
        strategy, reason = choose_strategy(filesystem.kind, resident(), lambda: left().pages, checkpoint.size, reread=reread)
    if threads is None:
        threads = _threads(strategy, resident, network=filesystem.network)
    if strategy != "mmap":  # mapping takes no memory
        window = fitting_window(window, left().anonymous)
    return ReadPlan(strategy, reason, threads, window)


def fitting_window(window: int, left: Bound) -> int:
    """Return the bytes to read ahead: `window`, but at most half of the memory left."""
    return min(window, max(_LEAST_WINDOW, left.bytes // 2))


def _threads(strategy: Strategy, resident: Callable[[], Residency], *, network: bool) -> int:
    """From the page cache, two processors read 2 GiB in 0.45 s with two threads, and in 0.53 to 1.42 with four. Past it, some
    threads clear huge pages while others read: 1.15 s with eight, 1.18 to 1.23 with four, no less with twelve."""
    if strategy == "mmap" and resident().complete:
        return 0
    if strategy == "direct":
        return max(_DIRECT_THREADS, default_threads(network=network))
    busy = strategy == "buffered" and is_warm(resident())
    return default_threads(network=network and not busy, busy=busy)


def _members(checkpoint: Checkpoint) -> list[ModelFile]:
    return [ModelFile(shard.path, shard.identity, shard=True) for shard in checkpoint.shards]


def _jobs(checkpoint: Checkpoint, infos: Iterable[TensorInfo]) -> list[Job]:
    shards = _shards(checkpoint)
    return [Job(shards[info.file], info.start, info.size) for info in infos]


def _shards(checkpoint: Checkpoint) -> dict[str, Shard]:
    return {shard.path: shard for shard in checkpoint.shards}


def _refuse_excess(wanted: int, left: Bound) -> None:
    if wanted > left.bytes:
        raise TooLarge(
            f"cannot load {size(wanted)} of tensors: there is memory for {size(left.bytes)} ({left.reason}); raise that limit, "
            "or stream them with `tensors`"
        )
