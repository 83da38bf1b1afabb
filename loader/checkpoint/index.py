"""The content of a checkpoint, from its headers: the shards in the order of an engine, and every tensor."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from fetcher.telemetry.wording import counted
from loader.checkpoint.files import FileIdentity, open_file
from loader.checkpoint.header import TensorInfo, read_header
from loader.checkpoint.locations import Weights, locate
from loader.checkpoint.weight_map import WeightMap
from loader.errors import shown

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Shard:
    """A file of a checkpoint; `tensors` in file order, from byte `data_start` to its end."""

    path: str
    identity: FileIdentity
    tensors: tuple[TensorInfo, ...]
    metadata: Mapping[str, str]
    data_start: int

    @property
    def size(self) -> int:
        """Bytes of the file, header included: the bytes that warming and copying move."""
        return self.identity.size

    @property
    def data_size(self) -> int:
        """Bytes of its tensors."""
        return self.size - self.data_start

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the metadata as a dict: a mapping proxy cannot be pickled."""
        return _shard, (self.path, self.identity, self.tensors, dict(self.metadata), self.data_start)

    def open(self) -> int:
        """Return a descriptor of exactly the file whose header was read; the caller calls `check`, then closes it.

        Raises FileReplaced if another file is at the path now, and the errors of `open_file`.
        """
        return self.identity.open(self.path)

    def check(self, descriptor: int) -> None:
        """Raise FileReplaced if the open file was modified since its header was read. Call it after reading."""
        self.identity.check(descriptor, path=self.path)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint; `tensors` by name, in the order of reading: shard by shard, in file order."""

    shards: tuple[Shard, ...]
    tensors: Mapping[str, TensorInfo]
    warnings: tuple[str, ...] = ()
    """Contradictions between its files, and how each was resolved."""

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
    """Read the checkpoint from a directory, one file, an index file, or a list of files.

    Each file is opened once, and only its header is read. Raises UsageError, NotFound, NotReadable, LocalIOError,
    FileReplaced, MalformedCheckpoint.
    """
    weights = locate(source)
    shards = tuple(read_shard(path) for path in weights.paths)
    tensors, duplicates = _merge(shards, weights)
    misplaced = _misplaced(weights.index, weights, tensors) if weights.index else ()
    return Checkpoint(shards, MappingProxyType(tensors), (*weights.warnings, *duplicates, *misplaced))


def read_shard(path: str) -> Shard:
    """Read the header of one file. Raises the errors of `read_checkpoint`."""
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
    """Return every tensor once, and warnings.

    If two shards have the same name, the index decides; without an index the last shard wins, as in vLLM and transformers.
    """
    owners: dict[str, int] = {}
    duplicates: list[str] = []
    indexed = _indexed(shards, weights)
    for number, shard in enumerate(shards):
        for tensor in shard.tensors:
            if tensor.name in owners:
                duplicates.append(tensor.name)
                if indexed.get(tensor.name) == owners[tensor.name]:
                    continue
            owners[tensor.name] = number
    tensors = {
        tensor.name: tensor for number, shard in enumerate(shards) for tensor in shard.tensors if owners[tensor.name] == number
    }
    return tensors, _duplicate_warning(duplicates, tensors, weights)


def _indexed(shards: Sequence[Shard], weights: Weights) -> dict[str, int]:
    """Return the number of the shard that the index names for each tensor."""
    if weights.index is None:
        return {}
    numbers = {shard.path: number for number, shard in enumerate(shards)}
    files = {file: numbers[weights.path_of(file)] for file in set(weights.index.files.values())}
    return {name: files[file] for name, file in weights.index.files.items()}


def _duplicate_warning(names: Sequence[str], tensors: Mapping[str, TensorInfo], weights: Weights) -> tuple[str, ...]:
    if not names:
        return ()
    rule = "the index decides, or else the last file" if weights.index else "the last file wins"
    name = names[0]
    amount = counted(len(set(names)), "tensor name")
    return (f"{amount} in more than one file, such as {shown(name)}: {rule}; {shown(name)} is read from {tensors[name].file}",)


def _misplaced(index: WeightMap, weights: Weights, tensors: Mapping[str, TensorInfo]) -> tuple[str, ...]:
    """Return warnings for tensors that are in another file than the index says, or in no file.

    Engines take the list of files from the index and read each file whole. So a tensor is read from the file that has it, and
    a missing tensor is an error only for a reader that asks for it.
    """
    paths = {file: weights.path_of(file) for file in set(index.files.values())}
    moved = [name for name, file in index.files.items() if name in tensors and tensors[name].file != paths[file]]
    absent = [name for name in index.files if name not in tensors]
    return (
        *_index_warning(index, moved, "another file has it; it is read from there"),
        *_index_warning(index, absent, "no shard has it; asking for it is an error"),
    )


def _index_warning(index: WeightMap, names: Sequence[str], what: str) -> tuple[str, ...]:
    if not names:
        return ()
    return (f"{index.path} is wrong about {counted(len(names), 'tensor')}, such as {shown(names[0])}: {what}",)
