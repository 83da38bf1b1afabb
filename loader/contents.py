"""The files that warming, pinning and evicting are about, in the order in which an engine reads them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from fetcher.artifact import ByteRange
from fetcher.errors import NotFound
from loader.errors import from_os_error
from loader.files import FileIdentity
from loader.gguf import EXTENSION as GGUF
from loader.gguf import Split, read_gguf
from loader.impostors import LARGEST_POINTER, refuse_misplaced, refuse_pointer
from loader.index import read_shard
from loader.locations import (
    EXTENSION,
    OTHER_WEIGHTS,
    behind_index,
    in_directory,
    is_directory,
    is_weight,
    natural,
    refuse_incomplete,
    refuse_missing_parts,
    visible_names,
)
from loader.residency import Residency, glance, measure, together
from loader.selection import is_index, siblings
from loader.splits import parts_behind, refuse_misnamed, refuse_missing
from loader.trees import below

_PIPELINE = "model_index.json"


@dataclass(frozen=True, slots=True)
class Member:
    """One file, as it was when it was looked at; `shard`: its safetensors header was read and is sound. `split`: which part of
    a split GGUF it is."""

    path: str
    identity: FileIdentity
    shard: bool
    split: Split | None = None

    @property
    def size(self) -> int:
        return self.identity.size

    @contextmanager
    def opened(self) -> Iterator[int]:
        """A descriptor of that very file. An OSError of the block is raised as the error that it means.

        Raises FileReplaced, and what `open_file` raises."""
        with self.identity.opened(self.path) as descriptor:
            try:
                yield descriptor
            except OSError as error:
                raise from_os_error(error, doing="read the content", path=self.path) from error

    def residency(self, part: ByteRange | None = None, *, closely: bool) -> Residency:
        """How much of it is in memory: `measure`, or only a `glance`."""
        with self.opened() as descriptor:
            return (measure if closely else glance)(descriptor, part)


def members(paths: Sequence[str]) -> tuple[Member, ...]:
    """Of each path in turn: what lies beside the shards of a directory (engines read config and tokenizer first), then the
    shards; where there are none (GGUF), every file. A directory without weights of its own, a pipeline of components and a Hub
    cache are the directories below. A file is itself, an index file its shards, the first part of a split GGUF all parts. What
    is named twice counts once.

    Headers are read, and what is incomplete is refused; which tensor counts is for `read_checkpoint`. Raises UsageError,
    NotFound, NotReadable, LocalIOError, FileReplaced, MalformedCheckpoint.
    """
    return _once(member for path in paths for member in _behind(path))


Layout = tuple[FileIdentity | tuple[str, tuple[str, ...]], ...]
"""Of each path: the file itself, or every directory that is looked at, with its names."""


def layout(paths: Sequence[str]) -> Layout:
    """What `members` chooses from. It chooses the same as long as this and the files that it chose stay equal.

    Names, not times: many network filesystems never change the time of a directory. A link that leads nowhere is no name.
    Raises UsageError, NotFound, NotReadable, LocalIOError.
    """
    return tuple(place for path in paths for place in _layout(path))


def _layout(path: str) -> Layout:
    if not is_directory(path):
        return (FileIdentity.at(path),)
    return tuple((directory, _names(directory)) for directory in _directories(path))


def _names(directory: str) -> tuple[str, ...]:
    return tuple(sorted(name for name in visible_names(directory) if os.path.exists(os.path.join(directory, name))))


def present(paths: Sequence[str]) -> tuple[Member, ...]:
    """As `members`, sound or not, complete or not, every file of each directory: for evicting.

    Raises UsageError, NotFound, NotReadable, LocalIOError, MalformedCheckpoint for what is no regular file.
    """
    return _once(member for path in paths for member in _present(path))


def _once(found: Iterable[Member]) -> tuple[Member, ...]:
    chosen: dict[tuple[int, int], Member] = {}
    for member in found:
        chosen.setdefault((member.identity.device, member.identity.inode), member)
    return tuple(chosen.values())


def look(chosen: Iterable[Member], *, closely: bool) -> list[Residency]:
    """How much of each is in memory."""
    return [member.residency(closely=closely) for member in chosen]


def total(chosen: Iterable[Member]) -> int:
    return sum(member.size for member in chosen)


def residency(chosen: Iterable[Member], *, closely: bool) -> Residency:
    return together(look(chosen, closely=closely))


def _behind(path: str) -> Iterator[Member]:
    if is_directory(path):
        yield from _in_tree(path)
    elif is_index(os.path.basename(path), "safetensors", "bin"):
        yield from map(_member, behind_index(path).paths)
    else:
        yield from map(_member, _with_siblings(path))


def _with_siblings(path: str) -> list[str]:
    directory, name = os.path.split(path)
    if not name.endswith(GGUF):
        return [path]
    names = siblings(name)
    if len(names) == 1:
        return parts_behind(path)
    places = {sibling: os.path.join(directory, sibling) for sibling in names}
    refuse_missing_parts((sibling for sibling, place in places.items() if os.path.exists(place)), directory)
    return list(places.values())


def _in_tree(root: str) -> Iterator[Member]:
    """Where a directory has weights, its subdirectories are other models, or the same weights again (`original/`)."""
    found = [member for directory in _directories(root) for member in _in_directory(directory)]
    if not any(is_weight(member.path) for member in found):
        raise NotFound(f"no weights are in {root} or below it; name the directory that has some", path=root)
    yield from found


def _directories(root: str) -> list[str]:
    return [root, *below(root)] if _is_tree(root) else [root]


def _is_tree(root: str) -> bool:
    return _is_pipeline(root) or not any(map(_is_weight_or_index, visible_names(root)))


def _is_pipeline(directory: str) -> bool:
    """Diffusers reads the components, and nothing else. A single file of weights beside them holds the same again."""
    return _PIPELINE in visible_names(directory) and any(
        any(map(_is_weight_or_index, visible_names(place))) for place in below(directory)
    )


def _in_directory(directory: str) -> Iterator[Member]:
    names = visible_names(directory)
    others = {name for name in names if name.endswith(OTHER_WEIGHTS)}
    shards = {name for name in names if name.endswith(EXTENSION)}
    for name in sorted(set(names) - others - shards, key=natural):
        path = os.path.join(directory, name)
        if _is_file(path):
            yield _plain(path)
    if _is_pipeline(directory):
        return
    if shards or any(is_index(name, "safetensors") for name in names):
        yield from map(_member, in_directory(directory).paths)
    else:
        yield from _with_all_parts([_member(path) for path in _complete(names, others, directory)])


def _complete(names: Sequence[str], weights: set[str], directory: str) -> list[str]:
    """The weights that are no safetensors, all of them. Raises NotFound for what an index or the name of a part announces."""
    refuse_incomplete(directory, names)
    return [os.path.join(directory, name) for name in sorted(weights, key=natural)]


def _with_all_parts(found: list[Member]) -> list[Member]:
    refuse_missing({member.path: member.split for member in found if member.split})
    return found


def _present(path: str) -> Iterator[Member]:
    places = [path]
    if is_directory(path):
        places = [
            os.path.join(directory, name)
            for directory in (path, *below(path))
            for name in sorted(visible_names(directory), key=natural)
            if _is_file(os.path.join(directory, name))
        ]
    for place in places:
        yield Member(place, FileIdentity.at(place), shard=place.endswith(EXTENSION))


def _is_weight_or_index(name: str) -> bool:
    return is_weight(name) or is_index(name, "safetensors", "bin")


def _is_file(path: str) -> bool:
    """A link that leads nowhere is no reason to leave the weights cold."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _member(path: str) -> Member:
    """A file of weights. Raises MalformedCheckpoint unless its content is of its format, as far as that can be told."""
    if path.endswith(EXTENSION):
        return Member(path, read_shard(path).identity, shard=True)
    if path.endswith(GGUF):
        read = read_gguf(path)
        refuse_misnamed(path, read.split)
        return Member(path, read.identity, shard=False, split=read.split)
    if path.endswith(OTHER_WEIGHTS):
        refuse_misplaced(path)
    return _plain(path)


def _plain(path: str) -> Member:
    identity = FileIdentity.at(path)
    if identity.size < LARGEST_POINTER:
        refuse_pointer(path)
    return Member(path, identity, shard=False)
