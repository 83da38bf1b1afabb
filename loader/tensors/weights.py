"""An open checkpoint. Names, shapes and dtypes are available at once; tensors are read at the speed of the storage.

::

    weights = loader.open("/models/5df9d7cea3b612c3")
    weights.checkpoint.tensors["lm_head.weight"].shape
    for name, array in weights.tensors():          # later ones are being read meanwhile
        ...
    arrays = weights.load()                        # all of them

The address of an artifact (`s3://bucket/model`, `hf://org/model`, ...) is read from its source in the same way, without a disk.
"""

from __future__ import annotations

import functools
import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from fetcher.errors import DigestUnavailable, NotFound, UsageError
from fetcher.host.memory import Bound, memory_left
from fetcher.quantities import size
from fetcher.usage import note_use
from fetcher.values import dataclass
from loader.addresses import is_remote
from loader.checkpoint.header import TensorInfo
from loader.checkpoint.index import Checkpoint, PathLike, Shard, read_checkpoint
from loader.errors import TooLarge, shown
from loader.filesystems import filesystem_of
from loader.reading.arena import Arena
from loader.reading.blocks import Job
from loader.reading.reader import WINDOW, block_size, read, read_all
from loader.reading.strategy import Mode, Strategy, choose_strategy, is_warm
from loader.residency.model_files import ModelFile, residency
from loader.residency.page_cache import Residency
from loader.tensors.arrays import Array, array
from loader.workers import default_threads

if TYPE_CHECKING:
    from loader.remote.shards import RemoteShard

Order = Literal["file", "name"] | Sequence[str]
"""`file`: in the order of the files, the fastest. `name`: sorted by name. A list of names: only these, in this order."""

Verify = Literal["end", "before"]
"""When the tensors of a remote file are delivered. `end`: at once; if the file then differs from what is published of it, the
reading fails before its last tensors. `before`: after all of the file was compared, which takes memory for a whole file."""

_logger = logging.getLogger(__name__)

T = TypeVar("T")

REQUESTED = "requested"
"""The reason of a strategy that the caller chose."""

_DIRECT_THREADS = 8

_LEAST_WINDOW = 64 * 1024 * 1024
"""Bytes. A smaller window keeps too few requests in flight for a disk."""


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """How tensors are read, and why. `threads` threads read at most `window` bytes ahead. With 0 threads each tensor is read on
    request: enough for mapping resident files, which takes 30 ms a GiB."""

    strategy: Mode
    reason: str
    threads: int
    window: int
    verify: Verify = "end"


def open_weights(
    source: PathLike | Sequence[PathLike],
    *,
    strategy: Strategy | Literal["auto"] = "auto",
    threads: int | None = None,
    window: int = WINDOW,
    rank: int = 0,
    world_size: int = 1,
    verify: Verify = "end",
    on_warning: Callable[[str], None] = _logger.warning,
    **options: Any,
) -> Weights:
    """Open the checkpoint in a directory, a file, an index file, a list of files, or at an address. Reads only headers.

    `strategy`, `threads`: chosen by filesystem, page-cache residency and free memory, unless set. `window`: the most bytes to
    read ahead; reduced if the cgroup has less memory. `rank` of `world_size`: the number of this process among those on this
    host that read the same files. Each reads its own `part`, which stays in the page cache for the others.

    For an address: `verify`, and `options` of `fetcher.api.open_source`, such as `revision` and `credentials`. Every process
    receives what it reads by itself.

    `on_warning` receives contradictions in the files, with the choice made. By default they are logged.

    Raises UsageError, NotFound, NotReadable, LocalIOError, FileReplaced, MalformedCheckpoint; for an address SourceError.
    """
    if not 0 <= rank < world_size:
        raise UsageError(f"rank {rank} is not valid for world size {world_size}: ranks count from 0")
    checkpoint: Checkpoint[Any]
    if is_remote(source):
        checkpoint, way = _remote(str(source), strategy, threads, window, verify, options)
    else:
        if options or verify != "end":
            raise UsageError(f"{next(iter(options), 'verify')} is for an address; a fetch has verified the files of a path")
        checkpoint = read_checkpoint(source)
        if isinstance(source, (str, os.PathLike)):
            note_use(source)
        way = _way(checkpoint, strategy, threads=threads, window=window, reread=world_size > 1)
    for warning in checkpoint.warnings:
        on_warning(warning)
    return Weights(checkpoint, way, part_of(checkpoint.tensors.values(), rank=rank, ranks=world_size))


class Weights:
    """Made by `loader.open`. It keeps no file open between readings, so there is nothing to close.

    Memory is reference-counted by the views of it, and reused after the last one is released (see `loader.reading.arena`).
    `part`: the names of the tensors that this rank reads; all of them without ranks.
    """

    def __init__(self, checkpoint: Checkpoint[Any], way: ReadPlan, part: tuple[str, ...]) -> None:
        self.checkpoint = checkpoint
        self.way = way
        self.part = part
        self.fallbacks: Mapping[str, str] = {}
        """The files that the last reading did not read by `way.strategy`, with the reason."""
        self.unverified: dict[str, str] = {}
        """The remote files that the last reading did not compare with a digest or checksum, with the reason."""
        self.verified_by: dict[str, str] = {}
        """The other remote files of the last reading, with what they are compared with: `sha256`, `crc64nvme`, ..."""
        self._arena = Arena()

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the checkpoint and the way to read it, without memory. A child process must start its own reading: an iterator
        belongs to the process that created it."""
        return Weights, (self.checkpoint, self.way, self.part)

    def tensors(self, order: Order = "file") -> Iterator[tuple[str, Array]]:
        """Yield name and array of each tensor. At most `way.window` bytes are read ahead.

        Raises TooLarge, FileReplaced, LocalIOError, and NotFound for an unknown name. For an address SourceError,
        DigestMismatch, and DigestUnavailable if options require what is not published or only a part is read.
        """
        # starmap keeps no reference to a delivered array, so its memory is idle when the consumer releases it.
        return starmap(_named, self.stream(order))

    def load(self, order: Order = "file") -> dict[str, Array]:
        """Return all arrays by name. Raises as `tensors`; TooLarge before anything is read."""
        return dict(starmap(_named, self.everything(order)))

    def stream(self, order: Order = "file") -> Generator[tuple[TensorInfo, memoryview]]:
        """Yield the header entry and the writable bytes of each tensor. Raises as `tensors`."""
        infos, way = self.in_order(order), self.way
        jobs = self._jobs(infos)
        with read(jobs, window=way.window, threads=way.threads, mode=way.strategy, arena=self._arena) as reading:
            self.fallbacks = reading.fallbacks
            # `starmap` and generators keep no reference to a delivered view, which would keep its memory.
            delivered = ((info, next(reading)[1]) for info in infos)
            yield from delivered if way.verify == "end" else held_back(infos, delivered)

    def parts(self, order: Order, *, way: ReadPlan, arena: Arena) -> Generator[tuple[TensorInfo, int, memoryview]]:
        """Yield each tensor in parts of at most a block: its header entry, and the position and the bytes of the part.

        So the memory of `arena` is blocks of one size, whatever the sizes of the tensors. `way`: how to read, instead of
        `self.way`. An empty tensor is one empty part. Raises as `tensors`.
        """
        infos, largest = self.in_order(order), block_size(way.window)
        whole = zip(infos, self._jobs(infos), strict=True)
        parts = [(info, job, at) for info, job in whole for at in range(0, info.size or 1, largest)]
        jobs = [Job(job.source, job.offset + at, min(largest, job.length - at)) for _, job, at in parts]
        with read(jobs, window=way.window, threads=way.threads, mode=way.strategy, arena=arena) as reading:
            self.fallbacks = reading.fallbacks
            for info, _, at in parts:
                yield info, at, next(reading)[1]

    def everything(self, order: Order = "file") -> list[tuple[TensorInfo, memoryview]]:
        """Return the header entry and the writable bytes of every tensor. Raises as `load`."""
        infos = self.in_order(order)
        if self.way.strategy != "mmap":
            _refuse_excess(sum(info.size for info in infos), memory_left().anonymous)
        jobs = self._jobs(infos)
        views = read_all(jobs, threads=self.way.threads, mode=self.way.strategy, arena=self._arena)
        return list(zip(infos, views, strict=True))

    def _jobs(self, infos: Sequence[TensorInfo]) -> list[Job]:
        of_files: dict[str, list[TensorInfo]] = {}
        for info in infos:
            of_files.setdefault(info.file, []).append(info)
        shards = {shard.path: shard for shard in self.checkpoint.shards}
        self.unverified, self.verified_by = {}, {}
        for path, members in of_files.items():
            if reason := shards[path].unverified(members):
                self.unverified[path] = reason
            elif way := shards[path].verified_by:
                self.verified_by[path] = way
        if self.way.verify == "before" and self.unverified:
            path, reason = next(iter(self.unverified.items()))
            raise DigestUnavailable(f"{path} cannot be verified before its tensors are used: {reason}", path=path)
        sources = {path: shards[path].reading(members) for path, members in of_files.items()}
        return [Job(sources[info.file], info.start, info.size) for info in infos]

    def in_order(self, order: Order) -> Sequence[TensorInfo]:
        """Return the header entries that an order selects. Raises NotFound for an unknown name."""
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


def held_back(infos: Sequence[TensorInfo], delivered: Iterator[tuple[TensorInfo, T]]) -> Iterator[tuple[TensorInfo, T]]:
    """Yield what is `delivered`, the tensors of a file after its last one: then all of the file was compared."""
    missing = Counter(info.file for info in infos)
    held: deque[tuple[TensorInfo, T]] = deque()
    for pair in delivered:
        held.append(pair)
        missing[pair[0].file] -= 1
        del pair
        while held and not missing[held[0][0].file]:
            yield held.popleft()


def _remote(
    uri: str,
    strategy: Strategy | Literal["auto"],
    threads: int | None,
    window: int,
    verify: Verify,
    options: dict[str, Any],
) -> tuple[Checkpoint[RemoteShard], ReadPlan]:
    from loader.remote.shards import THREADS, open_checkpoint  # late: paths need no network

    if strategy != "auto":
        raise UsageError(f"strategy {strategy} is for files of this machine; leave it out for an address")
    checkpoint = open_checkpoint(uri, {"max_concurrency": threads or THREADS, **options})
    window = fitting_window(window, memory_left().anonymous)
    return checkpoint, ReadPlan("stream", "the bytes come from the source, not from a disk", threads or THREADS, window, verify)


def _way(
    checkpoint: Checkpoint[Shard], strategy: Strategy | Literal["auto"], *, threads: int | None, window: int, reread: bool
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


def _members(checkpoint: Checkpoint[Shard]) -> list[ModelFile]:
    return [ModelFile(shard.path, shard.identity, shard=True) for shard in checkpoint.shards]


def _refuse_excess(wanted: int, left: Bound) -> None:
    if wanted > left.bytes:
        raise TooLarge(
            f"cannot load {size(wanted)} of tensors: there is memory for {size(left.bytes)} ({left.reason}); raise that limit, "
            "or stream them with `tensors`"
        )
