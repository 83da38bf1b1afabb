"""The content of a checkpoint, from its headers: the shards in the order of an engine, and every tensor."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Generic, TypeVar

from fetcher.telemetry.wording import counted
from fetcher.values import dataclass
from loader.checkpoint.files import FileIdentity, open_file, reading
from loader.checkpoint.header import TensorInfo, read_header
from loader.checkpoint.locations import Weights, locate
from loader.checkpoint.weight_map import WeightMap
from loader.errors import shown

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class AnyShard:
    """A file of a checkpoint; `tensors` in file order, from byte `data_start` to its end. `size` includes the header."""

    path: str
    size: int
    tensors: tuple[TensorInfo, ...]
    metadata: Mapping[str, str]
    data_start: int

    @property
    def data_size(self) -> int:
        """Bytes of its tensors."""
        return self.size - self.data_start


@dataclass(frozen=True, slots=True)
class Shard(AnyShard):
    """A file of this machine, identified when its header was read."""

    identity: FileIdentity

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the metadata as a dict: a mapping proxy cannot be pickled."""
        return _shard, (self.path, self.identity, self.tensors, dict(self.metadata), self.data_start)

    def reading(self, _: Sequence[TensorInfo]) -> Shard:
        """Return what is read to get these tensors: the file itself."""
        return self

    def unverified(self, _: Sequence[TensorInfo]) -> str | None:
        """Return None: a file of this machine was compared when it was fetched."""
        return None

    @property
    def verified_by(self) -> str | None:
        """None: it is not compared again."""
        return None

    def open(self) -> int:
        """Return a descriptor of exactly the file whose header was read; the caller calls `check`, then closes it.

        Raises FileReplaced if another file is at the path now, and the errors of `open_file`.
        """
        return self.identity.open(self.path)

    def check(self, descriptor: int) -> None:
        """Raise FileReplaced if the open file was modified since its header was read. Call it after reading."""
        self.identity.check(descriptor, path=self.path)


S = TypeVar("S", bound=AnyShard)


@dataclass(frozen=True, slots=True)
class Checkpoint(Generic[S]):
    """A checkpoint; `tensors` by name, in the order of reading: shard by shard, in file order."""

    shards: tuple[S, ...]
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


def read_checkpoint(source: PathLike | Sequence[PathLike]) -> Checkpoint[Shard]:
    """Read the checkpoint from a directory, one file, an index file, or a list of files.

    Each file is opened once, and only its header is read. Raises UsageError, NotFound, NotReadable, LocalIOError,
    FileReplaced, MalformedCheckpoint.
    """
    weights = locate(source)
    return checkpoint_of([read_shard(path) for path in weights.paths], weights)


def checkpoint_of(shards: Sequence[S], weights: Weights) -> Checkpoint[S]:
    """Return the checkpoint of `shards`, which are the files of `weights`."""
    tensors, duplicates = _merge(shards, weights)
    misplaced = _misplaced(weights.index, weights, tensors) if weights.index else ()
    return Checkpoint(tuple(shards), MappingProxyType(tensors), (*weights.warnings, *duplicates, *misplaced))


def read_shard(path: str) -> Shard:
    """Read the header of one file. Raises the errors of `read_checkpoint`."""
    descriptor = open_file(path)
    try:
        identity = FileIdentity.of(descriptor)
        header = read_header(reading(descriptor, path=path), size=identity.size, path=path)
        identity.check(descriptor, path=path)
    finally:
        os.close(descriptor)
    return _shard(path, identity, header.tensors, dict(header.metadata), header.data_start)


def _shard(
    path: str, identity: FileIdentity, tensors: tuple[TensorInfo, ...], metadata: dict[str, str], data_start: int
) -> Shard:
    return Shard(path, identity.size, tensors, MappingProxyType(metadata), data_start, identity)


def _checkpoint(shards: tuple[S, ...], tensors: dict[str, TensorInfo], warnings: tuple[str, ...]) -> Checkpoint[S]:
    return Checkpoint(shards, MappingProxyType(tensors), warnings)


def _merge(shards: Sequence[AnyShard], weights: Weights) -> tuple[dict[str, TensorInfo], tuple[str, ...]]:
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


def _indexed(shards: Sequence[AnyShard], weights: Weights) -> dict[str, int]:
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
