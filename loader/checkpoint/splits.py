"""Find the parts of a split GGUF by their headers, even if the files were renamed.

llama.cpp takes the first part. It derives the names of the others from its name (`-00001-of-00003.gguf`), and refuses a part
whose header has another number.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import suppress

from fetcher.errors import NotFound, UsageError
from loader.checkpoint.files import LOCAL
from loader.checkpoint.gguf import EXTENSION, Split, read_gguf
from loader.checkpoint.selection import part_in
from loader.errors import LoadError, MalformedCheckpoint, shown


def refuse_misnamed(path: str, split: Split | None) -> None:
    """Raise MalformedCheckpoint if the name and the header of a part have different numbers."""
    part = part_in(os.path.basename(path))
    if part is None or split is None or (int(part.number), int(part.total)) == (split.number + 1, split.count):
        return
    name = f"part {int(part.number)} of {int(part.total)}"
    raise MalformedCheckpoint(f"its name says {name}, but its header says {_words(split)}; rename or fetch it again", path=path)


def refuse_missing(splits: Mapping[str, Split]) -> None:
    """Check `splits`, by path of the file: every set with a renamed part must be complete. Raises NotFound."""
    for path, split in splits.items():
        if _renamed(path):
            present = {other.number for other in splits.values() if other.count == split.count}
            _refuse_missing(path, split, present)


def parts_behind(path: str) -> list[str]:
    """Return all parts in order if `path` is a renamed first part, else only `path`.

    Raises NotFound for a part that is not in the same directory, UsageError if two files are the same part by their headers,
    and the errors of `read_gguf`.
    """
    split = read_gguf(path).split
    if split is None or split.number or not _renamed(path):
        return [path]
    parts = {0: path}
    for other in _renamed_siblings(path):
        if (number := _number(other, split.count)) is None:
            continue
        if number in parts:
            both = f"{shown(parts[number])} and {shown(other)}"
            raise UsageError(
                f"{both} are both {_words(Split(number, split.count))} by their headers; name the parts one by one"
            )
        parts[number] = other
    _refuse_missing(path, split, parts.keys())
    return [parts[number] for number in range(split.count)]


def _renamed_siblings(path: str) -> list[str]:
    directory, name = os.path.split(path)
    names = sorted(other for other in LOCAL.names(directory or ".") if other.endswith(EXTENSION) and other != name)
    return [os.path.join(directory, other) for other in names if _renamed(other)]


def _number(path: str, count: int) -> int | None:
    """Return the number of the file in a set of `count` parts. None for other files, and for files that cannot be read."""
    with suppress(LoadError, NotFound):
        split = read_gguf(path).split
        if split is not None and split.count == count:
            return split.number
    return None


def _refuse_missing(path: str, split: Split, present: Collection[int]) -> None:
    missing = next((number for number in range(split.count) if number not in present), None)
    if missing is not None:
        problem = (
            f"part {missing + 1} of {split.count} is missing: {path} is {_words(split)} by its header; fetch the model again"
        )
        raise NotFound(problem, path=path)


def _renamed(path: str) -> bool:
    return part_in(os.path.basename(path)) is None


def _words(split: Split) -> str:
    return f"part {split.number + 1} of {split.count}"
