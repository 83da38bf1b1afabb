"""Which files a checkpoint is, from what the user names: decided as engines decide it, from the names in one directory.

vLLM and SGLang take every `*.safetensors` of the directory (subdirectories are other models or other parts of a pipeline),
drop those that `model.safetensors.index.json` does not name, and read the rest in natural order. Variants (`model.fp16`) are
left out where the weights are there without one, as transformers and diffusers leave them out.

Compared with transformers 5.24 on seventeen trees. It reads `model.safetensors`, else `model.safetensors.index.json`, else
`pytorch_model.bin`, and knows no other names. The choice is the same but for these trees: of a whole `model.safetensors` beside
a whole indexed set, engines take the set and transformers takes the one file. Engines read other safetensors beside
`model.safetensors` too (`adapter_model`, states of training); transformers does not. It refuses `consolidated`, an adapter or a
variant alone, and parts without an index.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fetcher.errors import NotFound, UsageError
from loader.errors import dangling, from_os_error, shown
from loader.selection import is_index, missing_parts, whole_file, without_variants
from loader.trees import below, snapshot_of
from loader.weight_map import SUFFIX, WeightMap, read_weight_map

EXTENSION = ".safetensors"

OTHER_WEIGHTS = (".bin", ".gguf", ".pt", ".pth", ".ckpt", ".onnx", ".msgpack", ".h5", ".npz", ".tensors", ".tflite", ".ot")
"""The same weights again, in formats that an engine leaves alone when there are safetensors."""

_MAIN_INDEX = f"model{SUFFIX}"

_CONSOLIDATED = "consolidated"
"""Mistral publishes each model twice in one directory: as `model-*` for transformers, and under its own names as
`consolidated*`. Read together they take twice the memory, so those for transformers win, which the index names. (SGLang 0.5.23
decides so too; vLLM 0.33 takes the others by itself, wherever there are any: name them, or their index.)"""


@dataclass(frozen=True, slots=True)
class Weights:
    """`paths` in the order of reading. Names in `index` count from `directory`."""

    directory: str
    paths: tuple[str, ...]
    index: WeightMap | None = None
    warnings: tuple[str, ...] = ()

    def path_of(self, file: str) -> str:
        return os.path.join(self.directory, file)


def locate(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Weights:
    """Raises UsageError, NotFound, NotReadable, LocalIOError, FileReplaced, MalformedCheckpoint."""
    if not isinstance(source, str | os.PathLike):
        # The caller chose the order of the list.
        paths = tuple(dict.fromkeys(os.fspath(path) for path in source))
        if not paths:
            raise UsageError("no file is named; name a directory or at least one file")
        return Weights("", paths)
    path = os.fspath(source)
    if is_directory(path):
        return in_directory(snapshot_of(path))
    if is_index(os.path.basename(path), "safetensors"):
        return behind_index(path)
    return Weights(os.path.dirname(path), (path,))


def natural(name: str) -> tuple[list[str | int], str]:
    """The key by which `model-2` comes before `model-10`, as vLLM sorts; equal numbers by how they are written."""
    parts = re.split("([0-9]+)", name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def is_directory(path: str) -> bool:
    """Raises NotFound, NotReadable, LocalIOError."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError as error:
        raise from_os_error(error, doing="look at the kind", path=path) from error


def is_weight(name: str) -> bool:
    return name.endswith((EXTENSION, *OTHER_WEIGHTS))


def visible_names(directory: str) -> list[str]:
    """Without hidden ones: `._model.safetensors` is a leftover of a Mac. Raises as `is_directory` does."""
    try:
        return [name for name in os.listdir(directory) if not name.startswith(".")]
    except OSError as error:
        raise from_os_error(error, doing="list the files", path=directory) from error


def in_directory(directory: str) -> Weights:
    """The safetensors that an engine takes from it. Raises as `locate` does."""
    names = without_variants(filter(_counts, visible_names(directory)), EXTENSION)
    files = {name for name in names if name.endswith(EXTENSION)}
    if index := _index(names - files, files, directory):
        return _indexed(directory, index, files)
    found = _preferred(files)
    if not found:
        raise _nothing_in(directory)
    refuse_missing_parts(found, directory)
    return Weights(directory, tuple(os.path.join(directory, name) for name in sorted(found, key=natural)))


def behind_index(path: str) -> Weights:
    """The files that an index names, of safetensors or another format. Raises NotFound for the first that is not there, and
    as `locate` does."""
    index = read_weight_map(path)
    directory = os.path.dirname(path)
    paths = tuple(os.path.join(directory, file) for file in sorted(set(index.files.values()), key=natural))
    for file in paths:
        if not os.path.exists(file):
            raise NotFound(f"there is no {file}{dangling(file)}, which {path} names; fetch it", path=file)
    return Weights(directory, paths, index)


def refuse_missing_parts(names: Iterable[str], directory: str) -> None:
    """Where no index says what belongs to it, a part's own name says how many there are: `model-00001-of-00004`."""
    if (missing := next(missing_parts(names), None)) is not None:
        path = os.path.join(directory, missing)
        raise NotFound(f"there is no {path}, which the names of the files beside it announce; fetch it", path=path)


def refuse_incomplete(root: str, files: Iterable[str]) -> None:
    """Of `files` below `root`: every set that an index or the name of a part announces must be whole. Raises NotFound, and what
    reading an index raises."""
    groups: dict[str, list[str]] = {}
    for file in files:
        directory, name = os.path.split(file)
        groups.setdefault(directory, []).append(name)
    for below_root, names in groups.items():
        directory = os.path.join(root, below_root) if below_root else root
        for name in names:
            if is_index(name, "safetensors", "bin"):
                _refuse_half(os.path.join(directory, name), alone=not any(map(is_weight, names)))
        refuse_missing_parts(names, directory)


def _refuse_half(index: str, *, alone: bool) -> None:
    """An index none of whose shards is there, beside other weights, is about another format of the model."""
    directory = os.path.dirname(index)
    if alone or any(os.path.exists(os.path.join(directory, file)) for file in _files_of(index)):
        behind_index(index)


def _counts(name: str) -> bool:
    return name.endswith(EXTENSION) or is_index(name, "safetensors")


def _indexed(directory: str, name: str, files: set[str]) -> Weights:
    """An index none of whose shards are there was left behind when they were merged: transformers takes the merged file."""
    path = os.path.join(directory, name)
    merged = whole_file(name)
    if merged in files and not any(os.path.exists(os.path.join(directory, file)) for file in _files_of(path)):
        warning = f"{path} names shards of which none is there; {merged} beside it is read instead"
        return Weights(directory, (os.path.join(directory, merged),), warnings=(warning,))
    return behind_index(path)


def _files_of(index: str) -> set[str]:
    return set(read_weight_map(index).files.values())


def _index(indexes: set[str], files: set[str], directory: str) -> str | None:
    """Engines know one name; others (`diffusion_pytorch_model`, variants) count where there is just one."""
    if _MAIN_INDEX in indexes:
        return _MAIN_INDEX
    found = indexes
    if not all(name.startswith(_CONSOLIDATED) for name in files):
        found = {name for name in found if not name.startswith(_CONSOLIDATED)}
    if len(found) > 1:
        listed = ", ".join(shown(name) for name in sorted(found))
        raise UsageError(f"{directory} has several indexes and no {_MAIN_INDEX}; name the one to read: {listed}")
    return next(iter(found), None)


def _preferred(names: Iterable[str]) -> set[str]:
    """Without Mistral's own, if there are any others."""
    found = set(names)
    return {name for name in found if not name.startswith(_CONSOLIDATED)} or found


def _nothing_in(directory: str) -> NotFound:
    inside = [os.path.relpath(place, directory) for place in below(directory) if any(map(_counts, visible_names(place)))]
    listed = ", ".join(shown(place) for place in inside[:8])
    hint = f"name one of its subdirectories that have some: {listed}" if inside else "subdirectories have none either"
    return NotFound(f"no {EXTENSION} file is in {directory}; {hint}", path=directory)
