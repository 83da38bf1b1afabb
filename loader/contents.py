"""The files that warming, pinning and evicting are about, in the order in which an engine reads them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from fetcher.artifact import ByteRange
from loader.errors import from_os_error
from loader.files import FileIdentity
from loader.index import read_checkpoint, read_shard
from loader.locations import natural
from loader.residency import Residency, glance, measure, together
from loader.weight_map import SUFFIX

_EXTENSION = ".safetensors"

_OTHER_WEIGHTS = (".bin", ".gguf", ".pt", ".pth", ".ckpt", ".onnx", ".msgpack", ".h5", ".npz", ".tensors", ".tflite", ".ot")
"""The same weights again, in formats that an engine leaves alone when there are safetensors."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file, as it was when it was looked at; `shard`: its safetensors header was read and is sound."""

    path: str
    identity: FileIdentity
    shard: bool

    @property
    def size(self) -> int:
        return self.identity.size

    def opened(self) -> AbstractContextManager[int]:
        """A descriptor of that very file. Raises FileReplaced, and what `open_file` raises."""
        return self.identity.opened(self.path)

    def residency(self, part: ByteRange | None = None, *, closely: bool) -> Residency:
        """How much of it is in memory: `measure`, or only a `glance`."""
        with self.opened() as descriptor:
            return (measure if closely else glance)(descriptor, part)


def members(paths: Sequence[str]) -> tuple[Member, ...]:
    """Of each path in turn: what lies beside the shards of a directory (engines read config and tokenizer first), then the
    shards; where there are none (GGUF), every file. A file is itself, an index file its shards. What is named twice counts
    once.

    Raises UsageError, NotFound, NotReadable, LocalIOError, FileReplaced, MalformedCheckpoint.
    """
    found: dict[tuple[int, int], Member] = {}
    for path in paths:
        for member in _behind(path):
            found.setdefault((member.identity.device, member.identity.inode), member)
    return tuple(found.values())


def look(chosen: Iterable[Member], *, closely: bool) -> list[Residency]:
    """How much of each is in memory."""
    return [member.residency(closely=closely) for member in chosen]


def total(chosen: Iterable[Member]) -> int:
    return sum(member.size for member in chosen)


def residency(chosen: Iterable[Member], *, closely: bool) -> Residency:
    return together(look(chosen, closely=closely))


def _behind(path: str) -> Iterator[Member]:
    if os.path.isdir(path):
        yield from _in_directory(path)
    elif path.endswith(SUFFIX):
        yield from _shards(path)
    elif path.endswith(_EXTENSION):
        yield Member(path, read_shard(path).identity, shard=True)
    else:
        yield _plain(path)


def _in_directory(directory: str) -> Iterator[Member]:
    """Subdirectories are other models or other parts of a pipeline; hidden files are nobody's."""
    try:
        names = [name for name in os.listdir(directory) if not name.startswith(".")]
    except OSError as error:
        raise from_os_error(error, doing="list the files", path=directory) from error
    # A directory without any weights is the checkpoint's to complain about.
    sharded = any(name.endswith((_EXTENSION, SUFFIX)) for name in names) or not any(map(_is_other_weights, names))
    for name in sorted(names, key=lambda name: (_is_other_weights(name), natural(name))):
        path = os.path.join(directory, name)
        if not (sharded and name.endswith((_EXTENSION, *_OTHER_WEIGHTS))) and _is_file(path):
            yield _plain(path)
    if sharded:
        yield from _shards(directory)


def _is_other_weights(name: str) -> bool:
    return name.endswith(_OTHER_WEIGHTS)


def _shards(path: str) -> Iterator[Member]:
    yield from (Member(shard.path, shard.identity, shard=True) for shard in read_checkpoint(path).shards)


def _is_file(path: str) -> bool:
    """A link that leads nowhere is no reason to leave the weights cold."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _plain(path: str) -> Member:
    return Member(path, FileIdentity.at(path), shard=False)
