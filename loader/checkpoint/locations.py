"""Choose the files of a checkpoint by the names in one directory, as engines do.

vLLM and SGLang take every `*.safetensors` of the directory, drop the files that `model.safetensors.index.json` does not name,
and read the rest in natural order. They ignore subdirectories, which hold other models or parts of a pipeline. Variants
(`model.fp16`) are left out if the plain weights exist, as in transformers and diffusers.

Compared with transformers 5.24 on seventeen trees. It reads `model.safetensors`, else `model.safetensors.index.json`, else
`pytorch_model.bin`, and knows no other names. The choices differ in three cases. If a complete `model.safetensors` and a
complete indexed set exist, engines take the set and transformers takes the file. Engines also read other safetensors next to
`model.safetensors` (`adapter_model`, training states). transformers refuses `consolidated`, a single adapter or variant, and
parts without an index.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

from fetcher.errors import NotFound, UsageError
from fetcher.values import dataclass
from loader.checkpoint.files import LOCAL, Files
from loader.checkpoint.selection import is_index, missing_parts, whole_file, without_variants
from loader.checkpoint.trees import snapshot_of
from loader.checkpoint.weight_map import SUFFIX, WeightMap, read_weight_map
from loader.errors import shown

EXTENSION = ".safetensors"

OTHER_WEIGHTS = (".bin", ".gguf", ".pt", ".pth", ".ckpt", ".onnx", ".msgpack", ".h5", ".npz", ".tensors", ".tflite", ".ot")
"""Other formats of the same weights. Engines ignore them if there are safetensors."""

_MAIN_INDEX = f"model{SUFFIX}"

_CONSOLIDATED = "consolidated"
"""Mistral publishes each model twice in one directory: `model-*` for transformers, which the index names, and `consolidated*`.
Reading both takes twice the memory, so the files for transformers win, as in SGLang 0.5.23. vLLM 0.33 prefers `consolidated*`:
to read the same files, name them or their index."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The files of a checkpoint: `paths` in the order of reading. Names in `index` are relative to `directory`."""

    directory: str
    paths: tuple[str, ...]
    index: WeightMap | None = None
    warnings: tuple[str, ...] = ()

    def path_of(self, file: str) -> str:
        return os.path.join(self.directory, file)


def locate(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Weights:
    """Return the files of the checkpoint in a directory, behind an index, in one file, or in a list of files.

    Raises UsageError, NotFound, NotReadable, LocalIOError, FileReplaced, MalformedCheckpoint.
    """
    if not isinstance(source, str | os.PathLike):
        # A list keeps the order of the caller.
        paths = tuple(dict.fromkeys(os.fspath(path) for path in source))
        if not paths:
            raise UsageError("the list of files is empty; give a directory or at least one file")
        return Weights("", paths)
    path = os.fspath(source)
    if LOCAL.is_directory(path):
        return in_directory(snapshot_of(path))
    if is_index(os.path.basename(path), "safetensors"):
        return behind_index(path)
    return Weights(os.path.dirname(path), (path,))


def natural(name: str) -> tuple[list[str | int], str]:
    """Return the sort key of vLLM: `model-2` comes before `model-10`. Equal numbers are sorted as text."""
    parts = re.split("([0-9]+)", name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def is_weight(name: str) -> bool:
    return name.endswith((EXTENSION, *OTHER_WEIGHTS))


def in_directory(directory: str, files: Files = LOCAL) -> Weights:
    """Return the safetensors that an engine takes from the directory. Raises the errors of `locate`."""
    names = without_variants(filter(_is_relevant, files.names(directory)), EXTENSION)
    shards = {name for name in names if name.endswith(EXTENSION)}
    if index := _index(names - shards, shards, directory):
        return _indexed(directory, index, shards, files)
    chosen = _without_consolidated(shards) or shards
    if not chosen:
        raise _no_weights(directory, files)
    refuse_missing_parts(chosen, directory)
    return Weights(directory, tuple(os.path.join(directory, name) for name in sorted(chosen, key=natural)))


def behind_index(path: str, files: Files = LOCAL) -> Weights:
    """Return the files that an index names, of safetensors or another format.

    Raises NotFound for the first missing file, and the errors of `locate`.
    """
    index = read_weight_map(path, files)
    directory = os.path.dirname(path)
    paths = tuple(os.path.join(directory, file) for file in sorted(set(index.files.values()), key=natural))
    for file in paths:
        if not files.exists(file):
            raise NotFound(f"{file} is missing{files.why_missing(file)}; {path} names it; fetch the model again", path=file)
    return Weights(directory, paths, index)


def refuse_missing_parts(names: Iterable[str], directory: str) -> None:
    """Raise NotFound if a part is missing that the name of another part announces: `model-00001-of-00004`."""
    if (missing := next(missing_parts(names), None)) is not None:
        path = os.path.join(directory, missing)
        raise NotFound(f"{path} is missing; the names of the other parts announce it; fetch the model again", path=path)


def refuse_incomplete(root: str, files: Iterable[str]) -> None:
    """Check `files` below `root`: each set that an index or the name of a part announces must be complete.

    Raises NotFound, and the errors of `read_weight_map`.
    """
    groups: dict[str, list[str]] = {}
    for file in files:
        directory, name = os.path.split(file)
        groups.setdefault(directory, []).append(name)
    for below_root, names in groups.items():
        directory = os.path.join(root, below_root) if below_root else root
        for name in names:
            if is_index(name, "safetensors", "bin"):
                _check_set(os.path.join(directory, name), alone=not any(map(is_weight, names)))
        refuse_missing_parts(names, directory)


def _check_set(index: str, *, alone: bool) -> None:
    """Check the shards of an index. If none exists but other weights do, the index is about another format of the model."""
    if alone or _has_any(index, LOCAL):
        behind_index(index)


def _is_relevant(name: str) -> bool:
    return name.endswith(EXTENSION) or is_index(name, "safetensors")


def _indexed(directory: str, name: str, shards: set[str], files: Files) -> Weights:
    """Return the files of the index, or the merged file if no shard exists: transformers does the same."""
    path = os.path.join(directory, name)
    merged = whole_file(name)
    if merged in shards and not _has_any(path, files):
        warning = f"no shard that {path} names exists; {merged} is read instead"
        return Weights(directory, (os.path.join(directory, merged),), warnings=(warning,))
    return behind_index(path, files)


def _has_any(index: str, files: Files) -> bool:
    """Whether any of the files that the index names is there."""
    directory = os.path.dirname(index)
    return any(files.exists(os.path.join(directory, file)) for file in set(read_weight_map(index, files).files.values()))


def _index(indexes: set[str], files: set[str], directory: str) -> str | None:
    """Return the index to use. An index of another name (`diffusion_pytorch_model`, variants) is used if it is the only one."""
    if _MAIN_INDEX in indexes:
        return _MAIN_INDEX
    candidates = _without_consolidated(indexes) if _without_consolidated(files) else indexes
    if len(candidates) > 1:
        listed = ", ".join(shown(name) for name in sorted(candidates))
        raise UsageError(f"{directory} has several indexes and no {_MAIN_INDEX}; name the one to read: {listed}")
    return next(iter(candidates), None)


def _without_consolidated(names: Iterable[str]) -> set[str]:
    return {name for name in names if not name.startswith(_CONSOLIDATED)}


def _no_weights(directory: str, files: Files) -> NotFound:
    inside = [os.path.relpath(each, directory) for each in files.below(directory) if any(map(_is_relevant, files.names(each)))]
    listed = ", ".join(shown(path) for path in inside[:8])
    hint = f"name a subdirectory that has some: {listed}" if inside else "its subdirectories have none either"
    return NotFound(f"{directory} has no {EXTENSION} files; {hint}", path=directory)
