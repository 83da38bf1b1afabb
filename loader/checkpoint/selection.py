"""Group the files of one directory by their names. Pure functions.

A set is one file (`model.safetensors`) or its parts (`model-00001-of-00002.safetensors`). A variant is the same weights in
another precision: `model.fp16.safetensors`, `model.fp16-00001-of-00002.safetensors`, `model-00001-of-00002.fp16.safetensors`,
with `model.safetensors.index.fp16.json` (transformers, diffusers). By default the plain weights are chosen, if they exist.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_VARIANT = r"(?:(?:fp|bf|f|nf|int|uint|i|u)[0-9]{1,2}[a-z0-9_]*|[0-9]bit|(?:non?_)?ema(?:only)?)"
"""Precisions, and the averaged weights of diffusion models. `model.visual.safetensors` is a part of a model, not a variant."""

_PART = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{1,6})-of-(?P<count>[0-9]{1,6})(?P<rest>(?:\.[A-Za-z0-9_]+){1,2})", re.DOTALL)

_INDEX = re.compile(
    rf"(?P<stem>.+?)(?:\.(?P<before>{_VARIANT}))?\.(?P<format>safetensors|bin)\.index(?:\.(?P<variant>[^./]+))?\.json",
    re.DOTALL,
)
_FILE = re.compile(rf"(?P<stem>.+?)(?:\.(?P<variant>{_VARIANT}))?", re.DOTALL)


class Part(NamedTuple):
    """Part `number` of a set of `total` files, named `{stem}-{number}-of-{total}{rest}`. Numbers keep their leading zeros."""

    stem: str
    number: str
    total: str
    rest: str

    def sibling(self, number: int) -> str:
        return f"{self.stem}-{number:0{len(self.number)}}-of-{self.total}{self.rest}"


def part_in(name: str) -> Part | None:
    match = _PART.fullmatch(name)
    return Part(match["stem"], match["number"], match["count"], match["rest"]) if match else None


def is_index(name: str, *formats: str) -> bool:
    """Return whether the name is that of an index of one of `formats` (`safetensors`, `bin`), with or without a variant."""
    match = _INDEX.fullmatch(name)
    return match is not None and match["format"] in formats


def missing_parts(names: Iterable[str]) -> Iterator[str]:
    """Yield the first missing part of each set that the names announce. Sets count from 1, or from 0 if a part 0 exists."""
    present = set(names)
    sets: dict[Part, set[int]] = defaultdict(set)
    for name in present:
        if part := part_in(name):
            sets[part._replace(number="0" * len(part.number))].add(int(part.number))
    for part, numbers in sorted(sets.items()):
        first = 0 if 0 in numbers else 1
        expected = range(first, first + int(part.total))
        if missing := next((number for number in expected if number not in numbers), None):
            yield part.sibling(missing)


def siblings(name: str) -> tuple[str, ...]:
    """Return all parts of the set whose first part is `name`, or only `name` for any other file."""
    part = part_in(name)
    if part is None or int(part.number) != 1 or int(part.total) < 1:
        return (name,)
    return tuple(part.sibling(number) for number in range(1, int(part.total) + 1))


def without_variants(names: Iterable[str], extension: str) -> set[str]:
    """Return the shards and indexes without each variant whose plain file exists."""
    labels = {name: _label(name, extension) for name in names}
    plain = {stem for stem, variant in labels.values() if not variant}
    return {name for name, (stem, variant) in labels.items() if not variant or stem not in plain}


def whole_file(index: str) -> str:
    """Return the name of the single file with all tensors of an index: `model.safetensors`."""
    match = _INDEX.fullmatch(index)
    if match is None:
        return index
    variant = match["variant"] or match["before"]
    return f"{match['stem']}{f'.{variant}' if variant else ''}.{match['format']}"


def _label(name: str, extension: str) -> tuple[str, str]:
    """Return the stem and the variant of a name."""
    if match := _INDEX.fullmatch(name):
        return match["stem"], match["variant"] or match["before"] or ""
    if part := part_in(name):
        stem, rest = part.stem, part.rest.removesuffix(extension)
        match = _FILE.fullmatch(stem + rest)
    else:
        match = _FILE.fullmatch(name.removesuffix(extension))
    return (match["stem"], match["variant"] or "") if match else (name, "")
