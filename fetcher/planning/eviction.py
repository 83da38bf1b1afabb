"""Decides which artifacts make room for others. Pure: sizes, times and limits in, victims out.

The artifacts of the lowest rank go first, of one rank the least recently used. An artifact that is kept for any reason is never
a victim. Artifacts can share blocks: a victim frees only what no survivor shares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Literal

from fetcher.values import dataclass

Kept = Literal["pinned", "held", "leased", "open", "recent", "unknown", "foreign"]
"""Why an artifact is no victim. `unknown`: the filesystem does not tell who has it open. `foreign`: its directory also holds
files of others, or cannot be renamed."""
FOR_GOOD: frozenset[Kept] = frozenset({"pinned", "foreign"})
"""Reasons that do not pass by waiting."""


@dataclass(frozen=True, slots=True)
class Resident:
    """An artifact in a cache root. `blocks`: group → allocated bytes; artifacts with the same group share these bytes.

    `last_used` is in seconds since 1970. A lower `rank` goes first, whenever it was used.
    """

    key: str
    blocks: Mapping[Hashable, int]
    last_used: float
    kept: Kept | None = None
    rank: int = 0

    @property
    def turn(self) -> tuple[int, float, str]:
        """Sorts artifacts by who goes first."""
        return self.rank, self.last_used, self.key


def occupied(residents: Iterable[Resident]) -> int:
    """Return the bytes that `residents` occupy together. Shared bytes count once."""
    return sum({group: size for each in residents for group, size in each.blocks.items()}.values())


def freed(victims: Collection[Resident], residents: Iterable[Resident]) -> int:
    """Return the bytes that removing `victims` frees; `residents` are all artifacts, victims included."""
    keys = {each.key for each in victims}
    shared = {group for each in residents if each.key not in keys for group in each.blocks}
    return sum({group: size for each in victims for group, size in each.blocks.items() if group not in shared}.values())


def least_recently_used(
    residents: Sequence[Resident], enough: Callable[[int], bool], *, allowed: Callable[[Resident], bool] | None = None
) -> tuple[Resident, ...] | None:
    """Return as few victims as suffice, the lowest rank and then the least recently used first; None if all together do not.

    `enough(bytes)` tells whether freeing so many bytes suffices. `allowed` tells which artifacts may be victims; without it,
    those that nothing keeps.
    """
    may_go = allowed or (lambda each: each.kept is None)
    candidates = sorted((each for each in residents if may_go(each)), key=lambda each: each.turn)
    holders = Counter(group for each in residents for group in each.blocks)
    victims: list[Resident] = []
    total = 0
    for each in candidates:
        if enough(total):
            break
        victims.append(each)
        total += _release(each, holders)
    if not enough(total):
        return None
    for each in sorted(victims, key=lambda each: (-each.rank, -each.last_used, each.key)):
        # An early, small victim may turn out to be needless after a later, large one.
        rest = [other for other in victims if other is not each]
        if enough(freed(rest, residents)):
            victims = rest
    return tuple(victims)


def _release(victim: Resident, holders: Counter[Hashable]) -> int:
    """Take `victim` out of `holders`, group → number of artifacts. Return the bytes that nobody holds any more."""
    holders.subtract(victim.blocks.keys())
    return sum(size for group, size in victim.blocks.items() if holders[group] == 0)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of a cache root in bytes. `max_size`: what the root may occupy. `min_free`: what stays free on the filesystem."""

    max_size: int | None = None
    min_free: int | None = None

    def shortfall(self, *, needed: int, used: int, free: int | None) -> int:
        """Return the bytes to free before `needed` more fit: 0 if they fit now.

        `used`: bytes that the root occupies or has promised. `free`: bytes of the filesystem that nobody was promised, None if
        unknown.
        """
        over = used + needed - self.max_size if self.max_size is not None else 0
        short = (self.min_free or 0) + needed - free if free is not None else 0
        return max(0, over, short)
