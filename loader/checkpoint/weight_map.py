"""`model.safetensors.index.json`: which tensor is in which file, and so which files are the checkpoint."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from loader.checkpoint.files import FileIdentity, open_file, read_bytes
from loader.checkpoint.header import MAX_HEADER
from loader.checkpoint.impostors import misplaced
from loader.checkpoint.strict_json import parse
from loader.errors import MalformedCheckpoint, shown

SUFFIX = ".safetensors.index.json"

MAX_INDEX = MAX_HEADER
"""Bytes. An index names the tensors that the headers name; that of DeepSeek-V3, with 91,000, has 9 MB."""

_MAX_PATH = 2048
"""Bytes: as the fetcher takes, within Linux's PATH_MAX of 4,096."""


@dataclass(frozen=True, slots=True)
class WeightMap:
    """`files` has, for each tensor's name, the path of its file below the directory of `path`."""

    path: str
    files: Mapping[str, str]


def read_weight_map(path: str) -> WeightMap:
    """Raises NotFound, NotReadable, LocalIOError, FileReplaced, MalformedCheckpoint.

    `metadata.total_size` is not compared: converters count shared tensors twice or in another dtype, and engines ignore it.
    """
    content = _content(path)
    if problem := misplaced(content):
        raise MalformedCheckpoint(problem, path=path)
    try:
        document = parse(content)
    except ValueError as error:
        raise MalformedCheckpoint(str(error), path=path) from None
    files = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(files, dict) or not files:
        raise MalformedCheckpoint("it is no JSON object that maps tensors to files", path=path, field="weight_map")
    sound: set[str] = set()
    for name, file in files.items():
        if type(file) is str and file in sound:
            continue
        if problem := _problem(file):
            raise MalformedCheckpoint(f"{shown(file)}, {problem}", path=path, field=f"weight_map[{shown(name)}]")
        sound.add(file)
    return WeightMap(path, MappingProxyType(files))


def _content(path: str) -> bytes:
    descriptor = open_file(path)
    try:
        identity = FileIdentity.of(descriptor)
        if identity.size > MAX_INDEX:
            raise MalformedCheckpoint(f"{identity.size} bytes, more than the {MAX_INDEX} an index may have", path=path)
        content = read_bytes(descriptor, identity.size, 0, path=path)
        identity.check(descriptor, path=path)
    finally:
        os.close(descriptor)
    return content


def _problem(file: Any) -> str | None:
    """Names may not leave the directory. Where a link in it leads is its owner's business: a Hub cache's snapshot is
    nothing but links to `../../blobs`."""
    if not isinstance(file, str):
        return "which is no file's name"
    if file.startswith("/"):
        return "an absolute path"
    if any(part in ("", ".", "..") for part in file.split("/")):
        return "a path that leaves the directory"
    if any(unicodedata.category(character) == "Cc" for character in file):
        return "a path with control characters"
    if len(file.encode()) > _MAX_PATH:
        return "a path too long for a filesystem"
    return None
