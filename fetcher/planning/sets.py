"""Models split into parts, such as `model-00001-of-00003.gguf` or `model.gguf.part1of3`. The name of a part contains the
number of parts."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from fetcher.values import dataclass

_NUMBERS = (
    r"(?P<set>.+?)(?P<number>\d{1,6})-of-(?P<total>\d{1,6})(?P<suffix>\.[^/]+)",
    r"(?P<set>.+\.(?i:part[-_]?))(?P<number>\d{1,6})of(?P<total>\d{1,6})(?P<suffix>)",
)
_PARTS = tuple(re.compile(pattern, re.DOTALL) for pattern in _NUMBERS)


@dataclass(frozen=True, slots=True)
class SplitSet:
    """A set of which `present` of `total` parts are listed; `example` is one of them."""

    example: str
    present: int
    total: int


def incomplete_sets(paths: Iterable[str]) -> tuple[SplitSet, ...]:
    """Return the sets with some parts in `paths` and others missing."""
    parts: dict[tuple[str, int, str], dict[int, str]] = defaultdict(dict)
    for path in paths:
        if match := next(filter(None, (pattern.fullmatch(path) for pattern in _PARTS)), None):
            parts[match["set"], int(match["total"]), match["suffix"]][int(match["number"])] = path
    sets = (SplitSet(next(iter(those.values())), len(those), total) for (_, total, _), those in parts.items())
    return tuple(each for each in sets if each.present < each.total)
