"""The files of a model that are warmed, held or dropped, in the order in which an engine reads them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from fetcher.artifact import ByteRange
from fetcher.errors import NotFound
from fetcher.values import dataclass
from loader.checkpoint.files import LOCAL, FileIdentity
from loader.checkpoint.gguf import EXTENSION as GGUF
from loader.checkpoint.gguf import Split, read_gguf
from loader.checkpoint.index import read_shard
from loader.checkpoint.locations import (
    EXTENSION,
    OTHER_WEIGHTS,
    behind_index,
    in_directory,
    is_weight,
    natural,
    refuse_incomplete,
    refuse_missing_parts,
)
from loader.checkpoint.not_weights import LARGEST_POINTER, refuse_misplaced, refuse_pointer
from loader.checkpoint.selection import is_index, siblings
from loader.checkpoint.splits import parts_behind, refuse_misnamed, refuse_missing
from loader.checkpoint.trees import below
from loader.errors import from_os_error
from loader.residency.page_cache import Residency, glance, measure, together

_PIPELINE = "model_index.json"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file and its identity at the time of the listing. `shard`: it is safetensors, and its header was checked. `split`:
    which part of a split GGUF it is."""

    path: str
    identity: FileIdentity
    shard: bool
    split: Split | None = None

    @property
    def size(self) -> int:
        return self.identity.size

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Open this very file and yield its descriptor. An OSError in the block becomes an error of the loader's tree.

        Raises FileReplaced, and the errors of `open_file`."""
        with self.identity.opened(self.path) as descriptor:
            try:
                yield descriptor
            except OSError as error:
                raise from_os_error(error, doing="read the content", path=self.path) from error

    def residency(self, part: ByteRange | None = None, *, closely: bool) -> Residency:
        """Return how much of the file is in memory: by `measure`, or by the cheaper `glance`."""
        with self.opened() as descriptor:
            return (measure if closely else glance)(descriptor, part)


def model_files(paths: Sequence[str]) -> tuple[ModelFile, ...]:
    """Return the files behind the paths, in reading order, each file once.

    - A directory: its other files first (engines read config and tokenizer before weights), then its shards, or every file of
      weights if it has no safetensors (GGUF).
    - A directory without weights, a pipeline of components, a Hub cache: the directories below it.
    - An index file: its shards. The first part of a split GGUF: all parts. Any other file: itself.

    Reads headers and refuses an incomplete model. `read_checkpoint` decides between duplicate tensors. Raises UsageError,
    NotFound, NotReadable, LocalIOError, FileReplaced, MalformedCheckpoint.
    """
    return _once(member for path in paths for member in _behind(path))


Layout = tuple[FileIdentity | tuple[str, tuple[str, ...]], ...]
"""For each path: the identity of the file, or each directory read and the names in it."""


def layout(paths: Sequence[str]) -> Layout:
    """Return what `model_files` chooses from. While this and the chosen files stay equal, so does the choice.

    Compares names, not times: many network filesystems never change the time of a directory. Dangling links are left out.
    Raises UsageError, NotFound, NotReadable, LocalIOError.
    """
    return tuple(place for path in paths for place in _layout(path))


def _layout(path: str) -> Layout:
    if not LOCAL.is_directory(path):
        return (FileIdentity.at(path),)
    return tuple((directory, _names(directory)) for directory in _directories(path))


def _names(directory: str) -> tuple[str, ...]:
    return tuple(sorted(name for name in LOCAL.names(directory) if os.path.exists(os.path.join(directory, name))))


def present(paths: Sequence[str]) -> tuple[ModelFile, ...]:
    """Return every file of each directory, also of a damaged or incomplete model: for `loader drop`.

    Raises UsageError, NotFound, NotReadable, LocalIOError, and MalformedCheckpoint if a path is not a regular file.
    """
    return _once(member for path in paths for member in _present(path))


def _once(members: Iterable[ModelFile]) -> tuple[ModelFile, ...]:
    chosen: dict[tuple[int, int], ModelFile] = {}
    for member in members:
        chosen.setdefault((member.identity.device, member.identity.inode), member)
    return tuple(chosen.values())


def look(chosen: Iterable[ModelFile], *, closely: bool) -> list[Residency]:
    """Return how much of each file is in memory."""
    return [member.residency(closely=closely) for member in chosen]


def total(chosen: Iterable[ModelFile]) -> int:
    """Return the size of all files together, in bytes."""
    return sum(member.size for member in chosen)


def residency(chosen: Iterable[ModelFile], *, closely: bool) -> Residency:
    """Return how much of all files together is in memory."""
    return together(look(chosen, closely=closely))


def _behind(path: str) -> Iterator[ModelFile]:
    if LOCAL.is_directory(path):
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


def _in_tree(root: str) -> Iterator[ModelFile]:
    """Subdirectories are read only if the directory has no weights: otherwise they are other models or copies (`original/`)."""
    members = [member for directory in _directories(root) for member in _in_directory(directory)]
    if not any(is_weight(member.path) for member in members):
        raise NotFound(f"found no weights in {root} or below it; name the directory that holds the weights", path=root)
    yield from members


def _directories(root: str) -> list[str]:
    return [root, *below(root)] if _is_tree(root) else [root]


def _is_tree(root: str) -> bool:
    return _is_pipeline(root) or not any(map(_is_weight_or_index, LOCAL.names(root)))


def _is_pipeline(directory: str) -> bool:
    """Diffusers reads only the components. A single file of weights next to them holds the same weights."""
    return _PIPELINE in LOCAL.names(directory) and any(
        any(map(_is_weight_or_index, LOCAL.names(place))) for place in below(directory)
    )


def _in_directory(directory: str) -> Iterator[ModelFile]:
    names = LOCAL.names(directory)
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
    """The weights in other formats. Raises NotFound if a part is missing that an index or a part's name announces."""
    refuse_incomplete(directory, names)
    return [os.path.join(directory, name) for name in sorted(weights, key=natural)]


def _with_all_parts(members: list[ModelFile]) -> list[ModelFile]:
    refuse_missing({member.path: member.split for member in members if member.split})
    return members


def _present(path: str) -> Iterator[ModelFile]:
    places = [path]
    if LOCAL.is_directory(path):
        places = [
            os.path.join(directory, name)
            for directory in (path, *below(path))
            for name in sorted(LOCAL.names(directory), key=natural)
            if _is_file(os.path.join(directory, name))
        ]
    for place in places:
        yield ModelFile(place, FileIdentity.at(place), shard=place.endswith(EXTENSION))


def _is_weight_or_index(name: str) -> bool:
    return is_weight(name) or is_index(name, "safetensors", "bin")


def _is_file(path: str) -> bool:
    """False for a dangling link: it must not prevent the weights from being warmed."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _member(path: str) -> ModelFile:
    """A file of weights. Raises MalformedCheckpoint if its content is recognizably not of its format."""
    if path.endswith(EXTENSION):
        return ModelFile(path, read_shard(path).identity, shard=True)
    if path.endswith(GGUF):
        read = read_gguf(path)
        refuse_misnamed(path, read.split)
        return ModelFile(path, read.identity, shard=False, split=read.split)
    if path.endswith(OTHER_WEIGHTS):
        refuse_misplaced(path)
    return _plain(path)


def _plain(path: str) -> ModelFile:
    identity = FileIdentity.at(path)
    if identity.size < LARGEST_POINTER:
        refuse_pointer(path)
    return ModelFile(path, identity, shard=False)
