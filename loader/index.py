"""What is in a checkpoint, without touching data: its shards in the order an engine reads them, and every tensor."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from fetcher.telemetry.wording import counted
from loader.errors import shown
from loader.files import FileIdentity, open_file
from loader.header import TensorInfo, read_header
from loader.locations import Weights, locate
from loader.weight_map import WeightMap

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Shard:
    """One file; `tensors` in the order in which they lie in it, from byte `data_start` to its end."""

    path: str
    identity: FileIdentity
    tensors: tuple[TensorInfo, ...]
    metadata: Mapping[str, str]
    data_start: int

    @property
    def size(self) -> int:
        """Bytes of the file, header and all: what warming and copying move."""
        return self.identity.size

    @property
    def data_size(self) -> int:
        """Bytes of its tensors."""
        return self.size - self.data_start

    def __reduce__(self) -> tuple[object, ...]:
        """A view of a dict can't be pickled; the dict can."""
        return _shard, (self.path, self.identity, self.tensors, dict(self.metadata), self.data_start)

    def open(self) -> int:
        """A descriptor of the very file whose header was read; the caller closes it, after `check`.

        Raises FileReplaced when another one is there by now, and what `open_file` raises.
        """
        return self.identity.open(self.path)

    def check(self, descriptor: int) -> None:
        """Raises FileReplaced when what is open was written to since its header was read. For after reading."""
        self.identity.check(descriptor, path=self.path)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`tensors` by name, shard by shard in the order in which they lie there: the order of reading."""

    shards: tuple[Shard, ...]
    tensors: Mapping[str, TensorInfo]
    warnings: tuple[str, ...] = ()
    """What its files say in two ways, and which way was taken."""

    def __reduce__(self) -> tuple[object, ...]:
        return _checkpoint, (self.shards, dict(self.tensors), self.warnings)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(shard.size for shard in self.shards)

    @property
    def data_size(self) -> int:
        """Bytes of all tensors."""
        return sum(shard.data_size for shard in self.shards)


def read_checkpoint(source: PathLike | Sequence[PathLike]) -> Checkpoint:
    """The checkpoint in a directory, in one file, behind an index file, or in a list of files.

    Each file is opened once, and only its header is read. Raises UsageError, NotFound, NotReadable, LocalIOError,
    FileReplaced, MalformedCheckpoint.
    """
    weights = locate(source)
    shards = tuple(read_shard(path) for path in weights.paths)
    tensors, doubled = _merge(shards, weights)
    misplaced = _misplaced(weights.index, weights, tensors) if weights.index else ()
    return Checkpoint(shards, MappingProxyType(tensors), (*weights.warnings, *doubled, *misplaced))


def read_shard(path: str) -> Shard:
    """Raises what `read_checkpoint` does."""
    descriptor = open_file(path)
    try:
        identity = FileIdentity.of(descriptor)
        header = read_header(descriptor, size=identity.size, path=path)
        identity.check(descriptor, path=path)
    finally:
        os.close(descriptor)
    return Shard(path, identity, header.tensors, header.metadata, header.data_start)


def _shard(
    path: str, identity: FileIdentity, tensors: tuple[TensorInfo, ...], metadata: dict[str, str], data_start: int
) -> Shard:
    return Shard(path, identity, tensors, MappingProxyType(metadata), data_start)


def _checkpoint(shards: tuple[Shard, ...], tensors: dict[str, TensorInfo], warnings: tuple[str, ...]) -> Checkpoint:
    return Checkpoint(shards, MappingProxyType(tensors), warnings)


def _merge(shards: Sequence[Shard], weights: Weights) -> tuple[dict[str, TensorInfo], tuple[str, ...]]:
    """Every tensor once, and warnings. Of a name in two shards the one counts that the index says, else the last, as vLLM and
    transformers end up with."""
    places: dict[str, int] = {}
    doubled: list[str] = []
    said = _said(shards, weights)
    for number, shard in enumerate(shards):
        for tensor in shard.tensors:
            if tensor.name in places:
                doubled.append(tensor.name)
                if said.get(tensor.name) == places[tensor.name]:
                    continue
            places[tensor.name] = number
    tensors = {
        tensor.name: tensor for number, shard in enumerate(shards) for tensor in shard.tensors if places[tensor.name] == number
    }
    return tensors, _about_doubled(doubled, tensors, weights)


def _said(shards: Sequence[Shard], weights: Weights) -> dict[str, int]:
    """Which shard the index says for each tensor."""
    if weights.index is None:
        return {}
    numbers = {shard.path: number for number, shard in enumerate(shards)}
    files = {file: numbers[weights.path_of(file)] for file in set(weights.index.files.values())}
    return {name: files[file] for name, file in weights.index.files.items()}


def _about_doubled(names: Sequence[str], tensors: Mapping[str, TensorInfo], weights: Weights) -> tuple[str, ...]:
    if not names:
        return ()
    decides = "the index decides, else the last file" if weights.index else "the last file counts"
    name = names[0]
    found = counted(len(set(names)), "tensor name")
    return (f"more than one file has {found}, such as {shown(name)}: {decides}, here {tensors[name].file}",)


def _misplaced(index: WeightMap, weights: Weights, tensors: Mapping[str, TensorInfo]) -> tuple[str, ...]:
    """Warnings for tensors that are in another file than the index says, or in none. Engines take from the index which files
    to read, and read each of them whole: a tensor counts where it is, and one that is nowhere matters to whoever wants it."""
    paths = {file: weights.path_of(file) for file in set(index.files.values())}
    moved = [name for name, file in index.files.items() if name in tensors and tensors[name].file != paths[file]]
    absent = [name for name in index.files if name not in tensors]
    return (
        *_wrongly(index, moved, "another file has it, and it is read from there"),
        *_wrongly(index, absent, "no shard has it, and asking for it is an error"),
    )


def _wrongly(index: WeightMap, names: Sequence[str], what: str) -> tuple[str, ...]:
    if not names:
        return ()
    return (f"{index.path} names {counted(len(names), 'tensor')} wrongly, such as {shown(names[0])}: {what}",)
