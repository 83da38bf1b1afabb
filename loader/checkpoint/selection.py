"""Which files of one directory belong together, by their names alone. Pure.

A set is one file (`model.safetensors`) or its parts (`model-00001-of-00002.safetensors`). A variant is the same weights in
another precision: `model.fp16.safetensors`, `model.fp16-00001-of-00002.safetensors`, `model-00001-of-00002.fp16.safetensors`,
with `model.safetensors.index.fp16.json` (transformers, diffusers). Who asks for none gets the weights without a variant, if
there are any.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_VARIANT = r"(?:(?:fp|bf|f|nf|int|uint|i|u)[0-9]{1,2}[a-z0-9_]*|[0-9]bit|(?:non?_)?ema(?:only)?)"
"""Precisions, and the averaged weights of diffusion models. `model.visual.safetensors` is a part of a model, no variant."""

_PART = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{1,6})-of-(?P<count>[0-9]{1,6})(?P<rest>(?:\.[A-Za-z0-9_]+){1,2})", re.DOTALL)

_INDEX = re.compile(
    rf"(?P<stem>.+?)(?:\.(?P<before>{_VARIANT}))?\.(?P<format>safetensors|bin)\.index(?:\.(?P<variant>[^./]+))?\.json",
    re.DOTALL,
)
_FILE = re.compile(rf"(?P<stem>.+?)(?:\.(?P<variant>{_VARIANT}))?", re.DOTALL)


class Part(NamedTuple):
    """`number` of `total` files that belong together; `{stem}-{number}-of-{total}{rest}` is its name, in digits so wide."""

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
    """Whether it maps tensors to files of one of `formats` (`safetensors`, `bin`), a variant's included."""
    match = _INDEX.fullmatch(name)
    return match is not None and match["format"] in formats


def missing_parts(names: Iterable[str]) -> Iterator[str]:
    """What the names of parts announce and is not among them: the first of each set. Some count from zero."""
    present = set(names)
    sets: dict[Part, set[int]] = defaultdict(set)
    for name in present:
        if part := part_in(name):
            sets[part._replace(number="0" * len(part.number))].add(int(part.number))
    for part, numbers in sorted(sets.items()):
        first = 0 if 0 in numbers else 1
        wanted = range(first, first + int(part.total))
        if lacking := next((number for number in wanted if number not in numbers), None):
            yield part.sibling(lacking)


def siblings(name: str) -> tuple[str, ...]:
    """All parts of the set whose first part is called `name`; just `name` for any other file."""
    part = part_in(name)
    if part is None or int(part.number) != 1 or int(part.total) < 1:
        return (name,)
    return tuple(part.sibling(number) for number in range(1, int(part.total) + 1))


def without_variants(names: Iterable[str], extension: str) -> set[str]:
    """Shards and indexes, without the variants of what is there without one."""
    found = {name: _label(name, extension) for name in names}
    plain = {stem for stem, variant in found.values() if not variant}
    return {name for name, (stem, variant) in found.items() if not variant or stem not in plain}


def whole_file(index: str) -> str:
    """The one file that holds what the shards of an index hold: `model.safetensors`."""
    match = _INDEX.fullmatch(index)
    if match is None:
        return index
    variant = match["variant"] or match["before"]
    return f"{match['stem']}{f'.{variant}' if variant else ''}.{match['format']}"


def _label(name: str, extension: str) -> tuple[str, str]:
    """Stem and variant."""
    if match := _INDEX.fullmatch(name):
        return match["stem"], match["variant"] or match["before"] or ""
    if part := part_in(name):
        stem, rest = part.stem, part.rest.removesuffix(extension)
        match = _FILE.fullmatch(stem + rest)
    else:
        match = _FILE.fullmatch(name.removesuffix(extension))
    return (match["stem"], match["variant"] or "") if match else (name, "")
