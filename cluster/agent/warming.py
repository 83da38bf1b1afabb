"""Which artifacts are kept in memory, and what the node reports of each. Pure: budget, copies and what was measured in."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from cluster.agent.states import Problem, Room, Wanted, Warmth
from cluster.resources import Observed, Warm
from fetcher.quantities import size

EXCEEDED = "MemoryExceeded"
_LOST = 10
"""One byte in so many may be missing of what was whole: a reclaim that the next check repairs is worth no status."""


@dataclass(frozen=True, slots=True)
class Warming:
    """`kept`: what is kept in memory, the first one first. `refused`: the others that shall be, by key."""

    kept: tuple[Wanted, ...]
    refused: Mapping[str, Problem]


def warming(copies: Iterable[Wanted], room: Room, *, kept: Collection[str]) -> Warming:
    """Decide what of the complete `copies` is kept in memory. `kept`: keys of what is kept now, which stays: no thrash.

    Then comes what pods use, what must stay, and the smaller. What does not fit is refused before a byte of it is read. On a
    medium that is memory, a copy is in the budget already.
    """
    chosen: list[Wanted] = []
    refused = {}
    used = 0
    for each in sorted((each for each in copies if each.warm), key=lambda each: (each.key not in kept, *_urgency(each))):
        if room.files or used + each.bytes <= room.budget:
            chosen.append(each)
            used += each.bytes
        else:
            refused[each.key] = Problem(EXCEEDED, _exceeded(each, room.budget, used, len(chosen)))
    return Warming(tuple(chosen), refused)


def warm_now(wanted: Wanted, decided: Warming, measured: Warmth | None) -> Observed:
    """Return what is reported of a complete copy. A copy is Warming while it is read, and Ready once nothing more is tried."""
    key = wanted.key
    if wanted.warm is None:
        return Observed("Ready")
    if (refusal := decided.refused.get(key)) is not None:
        return Observed("Ready", refusal.reason, refusal.message)
    if measured is None:
        return Observed("Warming")
    level, problem = level_of(measured), measured.problem
    if level is None:
        phase = "Ready" if measured.idle else "Warming"
        return _with(Observed(phase), problem)  # type: ignore[arg-type]  # two of the phases
    if level == wanted.warm or level == "Locked":
        return Observed("Ready", warm=level)
    return _with(Observed("Ready", warm=level), problem)


def level_of(measured: Warmth) -> Warm | None:
    """Return how warm an artifact is."""
    if not measured.whole or (measured.total - measured.resident) * _LOST > measured.total:
        return None
    return "Locked" if measured.locked == measured.total else "PageCache"


def _with(observed: Observed, problem: Problem | None) -> Observed:
    if problem is None:
        return observed
    return Observed(observed.phase, problem.reason, problem.message, warm=observed.warm)


def _urgency(wanted: Wanted) -> tuple[bool, bool, int, str]:
    return not wanted.held, wanted.retain != "Always", wanted.bytes, wanted.key


def _exceeded(wanted: Wanted, budget: int, used: int, others: int) -> str:
    beside = f"{others} models that are kept there use {size(used)} of" if others else "that is more than"
    return (
        f"to keep it in memory needs {size(wanted.bytes)}, and {beside} the pool's memory.budget, {size(budget)}; it stays "
        "usable from its disk; raise the budget, or choose fewer models to be warm"
    )
