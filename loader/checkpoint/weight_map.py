"""Read `model.safetensors.index.json`, which maps tensors to files and so names the files of the checkpoint."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fetcher.values import dataclass
from loader.checkpoint.files import LOCAL, Files
from loader.checkpoint.header import MAX_HEADER
from loader.checkpoint.not_weights import misplaced
from loader.checkpoint.strict_json import parse
from loader.errors import MalformedCheckpoint, shown

SUFFIX = ".safetensors.index.json"

MAX_INDEX = MAX_HEADER
"""Bytes. An index names the same tensors as the headers. The index of DeepSeek-V3 names 91,000 tensors in 9 MB."""

_MAX_PATH = 2048
"""Bytes. The same limit as in the fetcher, within Linux's PATH_MAX of 4,096."""


@dataclass(frozen=True, slots=True)
class WeightMap:
    """The index at `path`; `files` maps the name of a tensor to the path of its file, relative to the index's directory."""

    path: str
    files: Mapping[str, str]


def read_weight_map(path: str, files: Files = LOCAL) -> WeightMap:
    """Read an index. Raises NotFound, NotReadable, LocalIOError, FileReplaced, MalformedCheckpoint.

    `metadata.total_size` is not checked: converters count shared tensors twice or in another dtype, and engines ignore it.
    """
    content = files.content(path, MAX_INDEX)
    if problem := misplaced(content):
        raise MalformedCheckpoint(problem, path=path)
    try:
        document = parse(content)
    except ValueError as error:
        raise MalformedCheckpoint(str(error), path=path) from None
    named = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(named, dict) or not named:
        raise MalformedCheckpoint("not a JSON object that maps tensors to files", path=path, field="weight_map")
    checked: set[str] = set()
    for name, file in named.items():
        if type(file) is str and file in checked:
            continue
        if problem := _problem(file):
            raise MalformedCheckpoint(f"{shown(file)} is {problem}", path=path, field=f"weight_map[{shown(name)}]")
        checked.add(file)
    return WeightMap(path, MappingProxyType(named))


def _problem(file: Any) -> str | None:
    """Return the problem of a file name, or None. Names must stay within the directory.

    Links inside the directory may lead anywhere: a snapshot of a Hub cache consists of links to `../../blobs`.
    """
    if not isinstance(file, str):
        return "not a file name"
    if file.startswith("/"):
        return "an absolute path"
    if any(part in ("", ".", "..") for part in file.split("/")):
        return "a path that leaves the directory"
    if any(unicodedata.category(character) == "Cc" for character in file):
        return "a path with control characters"
    if len(file.encode()) > _MAX_PATH:
        return "a path longer than filesystems allow"
    return None
