"""Which files a checkpoint is, from what the user names: decided as engines decide it, from the names in one directory.

vLLM and SGLang take every `*.safetensors` of the directory (subdirectories are other models or other parts of a pipeline),
drop those that `model.safetensors.index.json` does not name, and read the rest in natural order.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fetcher.errors import NotFound, UsageError
from loader.errors import from_os_error, shown
from loader.weight_map import SUFFIX, WeightMap, read_weight_map

_MAIN_INDEX = f"model{SUFFIX}"
_EXTENSION = ".safetensors"

_CONSOLIDATED = "consolidated"
"""Mistral publishes each model twice in one directory: as `model-*` for transformers, and under its own names as
`consolidated*`. Read together they take twice the memory, so those for transformers win, which the index names. (SGLang 0.5.23
decides so too; vLLM 0.33 takes the others by itself, wherever there are any: name them, or their index.)"""

_PART = re.compile(r"(.+)-[0-9]{5}-of-([0-9]{5})\.safetensors", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Weights:
    """`paths` in the order of reading. Names in `index` count from `directory`."""

    directory: str
    paths: tuple[str, ...]
    index: WeightMap | None = None

    def path_of(self, file: str) -> str:
        return os.path.join(self.directory, file)


def locate(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Weights:
    """Raises UsageError, NotFound, NotReadable, LocalIOError, FileReplaced, MalformedCheckpoint."""
    if not isinstance(source, str | os.PathLike):
        # The order of a list is whoever's made it.
        paths = tuple(os.fspath(path) for path in source)
        if not paths:
            raise UsageError("no file is named; name a directory or at least one file")
        return Weights("", paths)
    path = os.fspath(source)
    if _is_directory(path):
        return _in_directory(path)
    if path.endswith(SUFFIX):
        return _behind_index(path)
    return Weights(os.path.dirname(path), (path,))


def natural(name: str) -> tuple[list[str | int], str]:
    """The key by which `model-2` comes before `model-10`, as vLLM sorts; equal numbers by how they are written."""
    parts = re.split("([0-9]+)", name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError as error:
        raise from_os_error(error, doing="look at the kind", path=path) from error


def _in_directory(directory: str) -> Weights:
    try:
        # As with a shell's pattern, hidden files are none: `._model.safetensors` is what a Mac leaves behind.
        names = {name for name in os.listdir(directory) if not name.startswith(".")}
    except OSError as error:
        raise from_os_error(error, doing="list the files", path=directory) from error
    if index := _index(names, directory):
        return _behind_index(os.path.join(directory, index))
    found = _preferred(name for name in names if name.endswith(_EXTENSION))
    if not found:
        raise NotFound(f"no {_EXTENSION} file is in {directory}; subdirectories are not searched", path=directory)
    _refuse_missing_parts(found, directory)
    return Weights(directory, tuple(os.path.join(directory, name) for name in sorted(found, key=natural)))


def _behind_index(path: str) -> Weights:
    index = read_weight_map(path)
    directory = os.path.dirname(path)
    files = sorted(set(index.files.values()), key=natural)
    return Weights(directory, tuple(os.path.join(directory, file) for file in files), index)


def _index(names: set[str], directory: str) -> str | None:
    """Engines know one name; others (`diffusion_pytorch_model`, variants) count where there is just one."""
    if _MAIN_INDEX in names:
        return _MAIN_INDEX
    found = {name for name in names if name.endswith(SUFFIX)}
    if not all(name.startswith(_CONSOLIDATED) for name in names if name.endswith(_EXTENSION)):
        found = {name for name in found if not name.startswith(_CONSOLIDATED)}
    if len(found) > 1:
        listed = ", ".join(shown(name) for name in sorted(found))
        raise UsageError(f"{directory} has several indexes and no {_MAIN_INDEX}; name the one to read: {listed}")
    return next(iter(found), None)


def _preferred(names: Iterable[str]) -> set[str]:
    """Without Mistral's own, if there are any others."""
    found = set(names)
    return {name for name in found if not name.startswith(_CONSOLIDATED)} or found


def _refuse_missing_parts(names: set[str], directory: str) -> None:
    """Where no index says what belongs to it, a part's own name says how many there are: `model-00001-of-00004`."""
    counts = Counter((match[1], match[2]) for name in names if (match := _PART.fullmatch(name)))
    for (stem, count), found in sorted(counts.items()):
        # Some count from zero.
        if found < int(count):
            parts = (f"{stem}-{number:05}-of-{count}{_EXTENSION}" for number in range(1, int(count) + 1))
            path = os.path.join(directory, next(part for part in parts if part not in names))
            raise NotFound(f"there is no {path}, which the names of the files beside it announce; fetch it", path=path)
