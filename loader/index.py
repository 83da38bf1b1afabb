"""What is in a checkpoint, without touching data: its shards in the order an engine reads them, and every tensor."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from loader.errors import MalformedCheckpoint, shown
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
    tensors = _merge(shards)
    if weights.index is not None:
        _refuse_misplaced(weights.index, weights, tensors)
    return Checkpoint(shards, MappingProxyType(tensors))


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


def _merge(shards: Sequence[Shard]) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    for shard in shards:
        mine = {tensor.name: tensor for tensor in shard.tensors}
        if twice := tensors.keys() & mine.keys():
            name = min(twice)
            problem = f"it is in {tensors[name].file} too; which of the two counts can't be told"
            raise MalformedCheckpoint(f"{problem}: name the files to read", path=shard.path, field=shown(name))
        tensors |= mine
    return tensors


def _refuse_misplaced(index: WeightMap, weights: Weights, tensors: Mapping[str, TensorInfo]) -> None:
    """A tensor that lies elsewhere than the index says, or nowhere. What the index does not mention stays: engines take
    from the index which files to read, and read each of them whole."""
    paths = {file: weights.path_of(file) for file in set(index.files.values())}
    for name, file in index.files.items():
        found = tensors.get(name)
        if found is None or found.file != paths[file]:
            where = f"it is in {found.file}" if found else "no shard has it"
            problem = f"said to be in {shown(file)}, but {where}"
            raise MalformedCheckpoint(problem, path=index.path, field=f"weight_map[{shown(name)}]")
