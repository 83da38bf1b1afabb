"""The parts of a split GGUF, by their headers: a file that was renamed is still part 2 of 3.

llama.cpp is given the first part. It makes the names of the others from its name (`-00001-of-00003.gguf`), and refuses a part
whose header has another number.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import suppress

from fetcher.errors import NotFound, UsageError
from loader.errors import LoadError, MalformedCheckpoint, shown
from loader.gguf import EXTENSION, Split, read_gguf
from loader.locations import visible_names
from loader.selection import part_in


def refuse_misnamed(path: str, split: Split | None) -> None:
    """Raises MalformedCheckpoint for a part whose name says another number than its header."""
    part = part_in(os.path.basename(path))
    if part is None or split is None or (int(part.number), int(part.total)) == (split.number + 1, split.count):
        return
    name = f"part {int(part.number)} of {int(part.total)}"
    raise MalformedCheckpoint(f"its name says {name}, and its header {_words(split)}; rename it, or fetch it again", path=path)


def refuse_missing(splits: Mapping[str, Split]) -> None:
    """Of files by path: every set that the header of a renamed part announces must be whole. Raises NotFound."""
    for path, split in splits.items():
        if _renamed(path):
            present = {other.number for other in splits.values() if other.count == split.count}
            _refuse_gap(path, split, present)


def parts_behind(path: str) -> list[str]:
    """All parts, in order, where `path` is a renamed first part; else just `path`.

    Raises NotFound for a part that is not beside it, UsageError where two files say that they are the same part, and what
    `read_gguf` raises of `path`.
    """
    split = read_gguf(path).split
    if split is None or split.number or not _renamed(path):
        return [path]
    found = {0: path}
    for other in _renamed_beside(path):
        if (number := _number(other, split.count)) is None:
            continue
        if number in found:
            both = f"{shown(found[number])} and {shown(other)}"
            raise UsageError(f"{both} are {_words(Split(number, split.count))}, by their headers; name the parts one by one")
        found[number] = other
    _refuse_gap(path, split, found.keys())
    return [found[number] for number in range(split.count)]


def _renamed_beside(path: str) -> list[str]:
    directory, name = os.path.split(path)
    names = sorted(other for other in visible_names(directory or ".") if other.endswith(EXTENSION) and other != name)
    return [os.path.join(directory, other) for other in names if _renamed(other)]


def _number(path: str, count: int) -> int | None:
    """Which part of a set of `count` it is. What is broken or no GGUF is another matter."""
    with suppress(LoadError, NotFound):
        split = read_gguf(path).split
        if split is not None and split.count == count:
            return split.number
    return None


def _refuse_gap(path: str, split: Split, present: Collection[int]) -> None:
    lacking = next((number for number in range(split.count) if number not in present), None)
    if lacking is not None:
        problem = f"{path} is {_words(split)} by its header, and no file beside it is part {lacking + 1}; fetch it"
        raise NotFound(problem, path=path)


def _renamed(path: str) -> bool:
    return part_in(os.path.basename(path)) is None


def _words(split: Split) -> str:
    return f"part {split.number + 1} of {split.count}"
