"""Who is to blame for a file with a wrong digest, of the mirrors that brought chunks of it. Pure.

The digest tells that a file is wrong, and not where. A chunk of each mirror, fetched again from the origin, tells at a small
price who sends other bytes, unless it does so now and then only. So there are three steps::

    one chunk of each mirror     if there are several
    all chunks of a mirror       whose chunk was another one
    all chunks of a mirror       then of the next, as long as the digest stays wrong; the one with the fewest comes first

Nobody is to blame before the digest is right: then what was dropped is compared with what has taken its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fetcher.artifact import ORIGIN, UNKNOWN
from fetcher.values import dataclass


@dataclass(frozen=True, slots=True)
class Doubt:
    """Chunks to fetch again from the origin, by their suppliers, and which of those are suspected."""

    chunks: Mapping[str, Sequence[int]]
    suspects: frozenset[str]


class Disputes:
    """The dropped chunks of one file: who brought each, and its XXH3-128."""

    def __init__(self) -> None:
        self._dropped: dict[int, tuple[str, str]] = {}

    def drop(self, index: int, supplier: str, xxh3: str) -> None:
        self._dropped[index] = supplier, xxh3

    def doubt(self, suppliers: Mapping[int, str], chunks: Mapping[int, str]) -> Doubt | None:
        """Return what to do about a complete file with a wrong digest; None if the origin brought all of it.

        `suppliers` and `chunks`: who brought each chunk of the file, and its XXH3-128.
        """
        brought = by_supplier(suppliers)
        if not brought:
            return None
        if differing := brought.keys() & self.liars(chunks):
            return Doubt({name: brought[name] for name in sorted(differing)}, frozenset(differing))
        untried = brought.keys() - {supplier for supplier, _ in self._dropped.values()}
        if untried and len(brought) > 1:
            return Doubt({name: brought[name][:1] for name in sorted(untried)}, frozenset())
        fewest = min(brought, key=lambda name: (len(brought[name]), name))
        return Doubt({fewest: brought[fewest]}, frozenset({fewest}))

    def liars(self, chunks: Mapping[int, str]) -> set[str]:
        """Return the suppliers of dropped chunks that differ from those of the file: who lied, if its digest is right."""
        return {
            supplier for index, (supplier, xxh3) in self._dropped.items() if supplier != UNKNOWN and chunks.get(index) != xxh3
        }


def by_supplier(suppliers: Mapping[int, str]) -> dict[str, list[int]]:
    """Return the chunks that each mirror brought, the origin left out."""
    brought: dict[str, list[int]] = {}
    for index, supplier in sorted(suppliers.items()):
        if supplier != ORIGIN:
            brought.setdefault(supplier, []).append(index)
    return brought
