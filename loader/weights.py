"""A checkpoint that is open: what it holds, at once; what its tensors are, as fast as the storage gives them.

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
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import Literal

from fetcher.errors import NotFound, UsageError
from fetcher.host.memory import Bound, memory_left
from fetcher.quantities import size
from loader.arena import Arena
from loader.arrays import Array, array
from loader.blocks import Job
from loader.contents import Member, residency
from loader.crew import default_threads
from loader.errors import TooLarge, shown
from loader.filesystems import Strategy, choose_strategy, filesystem_of, is_warm
from loader.header import TensorInfo
from loader.index import Checkpoint, PathLike, read_checkpoint
from loader.reader import WINDOW, read, read_all
from loader.residency import Residency

Order = Literal["file", "name"] | Sequence[str]
"""`file`: as they lie in the files, the fastest; `name`: sorted; or just these, in this order."""

_logger = logging.getLogger(__name__)

_DIRECT_THREADS = 8

_LEAST_WINDOW = 64 * 1024 * 1024
"""Bytes. With less, a disk is not asked for enough at once."""


@dataclass(frozen=True, slots=True)
class Way:
    """How to read, and why so. `threads` read ahead, `window` bytes at most; without any, tensors are read as they are asked
    for, as is what is there to be mapped: 30 ms a GiB are nothing that somebody else had to do."""

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
    """The checkpoint in a directory, in one file, behind an index file, or in a list of files. Only headers are read.

    `strategy`, `threads`: chosen by where the files lie, what of them is in memory, and what memory is left, unless given.
    `window`: bytes read ahead at most, less where the cgroup leaves less. `rank` of `world_size` processes on this host that
    read the same files: each has a `part` of its own, and what one reads stays in the page cache for the others.

    `on_warning` gets what the files say in two ways, and which way was taken; by default the log.

    Raises UsageError, NotFound, NotReadable, LocalIOError, FileReplaced, MalformedCheckpoint.
    """
    if not 0 <= rank < world_size:
        raise UsageError(f"rank {rank} is none of {world_size}: ranks count from 0")
    checkpoint = read_checkpoint(source)
    for warning in checkpoint.warnings:
        on_warning(warning)
    way = _way(checkpoint, strategy, threads=threads, window=window, reread=world_size > 1)
    return Weights(checkpoint, way, part_of(checkpoint.tensors.values(), rank=rank, ranks=world_size))


class Weights:
    """Made by `loader.open`. Nothing is held open between readings, so there is nothing to close.

    Memory belongs to whoever looks at it, and is used again for what is read later as soon as nobody does (see
    `loader.arena`). `part`: the names that this rank reads for all; everything without ranks.
    """

    def __init__(self, checkpoint: Checkpoint, way: Way, part: tuple[str, ...]) -> None:
        self.checkpoint = checkpoint
        self.way = way
        self.part = part
        self.fallbacks: Mapping[str, str] = {}
        """Files that were read in another way than `way.strategy` in the last reading, and why."""
        self._arena = Arena()

    def __reduce__(self) -> tuple[object, ...]:
        """Another process gets what to read and how, and memory of its own. Whoever has it in a child, forked or spawned,
        begins a reading there: an iterator stays with the process that began it."""
        return Weights, (self.checkpoint, self.way, self.part)

    def tensors(self, order: Order = "file") -> Iterator[tuple[str, Array]]:
        """Name and array of each, while later ones are being read: at most `way.window` ahead.

        Raises TooLarge, FileReplaced, LocalIOError; NotFound for a name that is not there.
        """
        # No frame of ours holds on to what it has handed out: it is idle as soon as the taker lets go of it.
        return starmap(_named, self.stream(order))

    def load(self, order: Order = "file") -> dict[str, Array]:
        """All arrays at once. Raises what `tensors` does, TooLarge before anything is read."""
        return dict(starmap(_named, self.everything(order)))

    def stream(self, order: Order = "file") -> Generator[tuple[TensorInfo, memoryview]]:
        """As `tensors`: the bytes of each, which may be written to."""
        infos, way = self._in_order(order), self.way
        jobs = _jobs(self.checkpoint, infos)
        with read(jobs, window=way.window, threads=way.threads, mode=way.strategy, arena=self._arena) as reading:
            self.fallbacks = reading.fallbacks
            for info in infos:
                yield info, next(reading)[1]  # no name for it here, which would keep it alive

    def everything(self, order: Order = "file") -> list[tuple[TensorInfo, memoryview]]:
        """As `load`: the bytes."""
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
    """The names of those that one of `ranks` reads. They lie side by side; each tensor is in one part, and no part is larger
    than its share by more than a tensor."""
    found = list(tensors)
    if ranks == 1:
        return tuple(info.name for info in found)
    total = sum(info.size for info in found)
    names, before = [], 0
    for info in found:
        middle = before + info.size // 2
        if min(middle * ranks // max(total, 1), ranks - 1) == rank:
            names.append(info.name)
        before += info.size
    return tuple(names)


def _way(
    checkpoint: Checkpoint, strategy: Strategy | Literal["auto"], *, threads: int | None, window: int, reread: bool
) -> Way:
    """Memory limits take milliseconds to find, and residency of a large checkpoint takes seconds: each is asked at most once,
    and only where it decides."""
    place, reason = filesystem_of(Path(checkpoint.shards[0].path)), "it was asked for"
    resident = functools.cache(lambda: residency(_members(checkpoint), closely=False))
    left = functools.cache(memory_left)
    if strategy == "auto":
        strategy, reason = choose_strategy(place.kind, resident(), lambda: left().pages, checkpoint.size, reread=reread)
    if threads is None:
        threads = _threads(strategy, resident, network=place.network)
    if strategy != "mmap":  # which takes no memory
        window = min(window, max(_LEAST_WINDOW, left().anonymous.bytes // 2))
    return Way(strategy, reason, threads, window)


def _threads(strategy: Strategy, resident: Callable[[], Residency], *, network: bool) -> int:
    """From the page cache, 2 GiB came in 0.45 s with one thread for each of two processors, and in 0.53 to 1.42 with four. Past
    it, while one first clears a huge page, others ask the disk: 1.15 s with eight, 1.18 to 1.23 with four, twelve no less."""
    if strategy == "mmap" and resident().complete:
        return 0
    if strategy == "direct":
        return max(_DIRECT_THREADS, default_threads(network=network))
    busy = strategy == "buffered" and is_warm(resident())
    return default_threads(network=network and not busy, busy=busy)


def _members(checkpoint: Checkpoint) -> list[Member]:
    return [Member(shard.path, shard.identity, shard=True) for shard in checkpoint.shards]


def _jobs(checkpoint: Checkpoint, infos: Iterable[TensorInfo]) -> list[Job]:
    shards = {shard.path: shard for shard in checkpoint.shards}
    return [Job(shards[info.file], info.start, info.size) for info in infos]


def _refuse_excess(wanted: int, left: Bound) -> None:
    if wanted > left.bytes:
        raise TooLarge(
            f"the tensors take {size(wanted)}, and there is memory for {size(left.bytes)} ({left.reason}); raise that, or take "
            "them one after the other with `tensors`"
        )
