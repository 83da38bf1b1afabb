"""The account of one decision about room: what is needed, what is there, and what can be evicted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path

from fetcher.errors import CacheBusy, OutOfSpace, StoreError
from fetcher.filesystem import free_bytes
from fetcher.planning.eviction import FOR_GOOD, Bounds, Kept, Resident, freed, least_recently_used
from fetcher.quantities import size
from fetcher.store.occupancy import Occupancy
from fetcher.values import dataclass

MARGIN = 2 * 1024 * 1024
"""Bytes beside the files of an artifact: its journal and its manifest, and the ballast that eviction may have given up."""


@dataclass(frozen=True, slots=True)
class Account:
    """The numbers of one decision. `needed` more bytes; `occupied` bytes of the fetch are already on the volume.

    `own`: the key of the artifact that is fetched or repaired. What is there of it stays until its successor is complete.
    `ranks`: key → rank in eviction, 0 for others.
    """

    root: Path
    own: str
    seen: Occupancy
    needed: int
    occupied: int
    ranks: Mapping[str, int] = field(default_factory=dict)

    def shortfall(self, bounds: Bounds, *, made: int = 0, healed: int = 0) -> int:
        """Return the missing bytes after evicting `made` bytes, if `healed` promised bytes were given back."""
        free = free_bytes(self.root)
        return bounds.shortfall(
            needed=self.needed + MARGIN,
            used=self.seen.used + self.occupied - made - healed,
            free=None if free is None else free - self.seen.outstanding + made + healed,
        )

    def victims(self, bounds: Bounds, asked: Bounds, kept: Mapping[str, Kept]) -> tuple[Resident, ...]:
        """Return the victims by `bounds`. `kept`: key → reason found meanwhile. Raises OutOfSpace, CacheBusy."""
        known = {**kept, self.own: "leased"}
        residents = [
            replace(each, kept=known.get(each.key, each.kept), rank=self.ranks.get(each.key, 0)) for each in self.seen.residents
        ]
        victims = least_recently_used(residents, lambda made: self.shortfall(bounds, made=made) == 0)
        if victims is None:
            raise self._refusal(bounds, residents)
        made = freed(victims, residents)
        if missing := self.shortfall(asked, made=made):
            raise OutOfSpace(
                f"the limit given to this fetch leaves {size(missing)} too little in {self.root}: {self._numbers(residents)}; "
                "raise --max-size or lower --min-free"
            )
        return victims

    def _refusal(self, bounds: Bounds, residents: list[Resident]) -> StoreError:
        numbers = self._numbers(residents)
        movable = [each for each in residents if each.kept not in FOR_GOOD and each.key != self.own]
        promised = sum(each.promised for each in self.seen.staged if not each.lease.abandoned)
        if self.shortfall(bounds, made=freed(movable, residents), healed=promised + self.seen.replaced):
            rest = ", or remove unfinished fetches with fetcher gc --unused-for 0" if self.seen.unfinished else ""
            return OutOfSpace(
                f"no space left on device: the limits of {self.root} do not allow it, even if everything unpinned is evicted: "
                f"{numbers}; raise the limit with fetcher init, unpin artifacts, or select fewer files with --include{rest}"
            )
        return CacheBusy(f"{self.root} has no room now: {numbers}; wait until artifacts are idle, or lower --min-idle")

    def _numbers(self, residents: list[Resident]) -> str:
        def held_by(*reasons: Kept | None) -> str:
            return size(freed([each for each in residents if each.kept in reasons], residents))

        free = free_bytes(self.root)
        promised = sum(each.promised for each in self.seen.staged if not each.lease.abandoned)
        return (
            f"needed {size(self.needed)}, used {size(self.seen.used + self.occupied)}, evictable {held_by(None)}, "
            f"pinned {held_by(*FOR_GOOD)}, in use or used recently {held_by('open', 'held', 'leased', 'recent', 'unknown')}, "
            f"being fetched {size(promised)}, unfinished fetches {size(self.seen.unfinished)}, "
            f"replaced versions {size(self.seen.replaced)}, "
            f"free {'unknown' if free is None else size(free)}"
        )
