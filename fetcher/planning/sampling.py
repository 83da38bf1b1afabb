"""Chooses a random sample of the chunks of an artifact."""

from __future__ import annotations

import math
from collections.abc import Mapping
from random import Random


def sampled(counts: Mapping[str, int], percent: float, randomness: Random) -> dict[str, list[int]]:
    """Return the indexes of `percent` of all chunks by file, in order. `counts` is the number of chunks of each file.

    Each chunk is equally likely. There is at least one, if there are any.
    """
    total = sum(counts.values())
    chosen = set(randomness.sample(range(total), min(total, max(1, math.ceil(total * percent / 100)))))
    result: dict[str, list[int]] = {}
    start = 0
    for name, count in counts.items():
        result[name] = [index for index in range(count) if start + index in chosen]
        start += count
    return result
