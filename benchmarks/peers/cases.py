"""What is played: from the origin and with peers, and what goes wrong; and what each case must keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.measuring import MiB
from benchmarks.peers.running import Case, Outcome

ALONE = Case("one alone", 1, peers=False)
MEMORY = 256 * MiB
"""Resident bytes that a fetch may take, and one processor, whatever the number of its peers."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What a case must keep: the last node in times one node alone, and what the origin sends in times the model.

    The origin may send again what came from liars. `small`: a fetch keeps to `MEMORY` and one processor.
    """

    case: Case
    last: float | None = None
    origin: float | None = None
    small: bool = False

    def missed(self, outcome: Outcome, *, alone: float, total: int) -> list[str]:
        """Return what the outcome does not keep. `alone`: seconds of one node by itself; `total`: bytes of the model."""
        times, sent = outcome.last / alone, (outcome.sent - outcome.from_liars) / total
        found = list(outcome.wrong)
        if self.last is not None and times > self.last:
            found.append(f"the last node takes {times:.2f} of one alone, more than {self.last:.2f}")
        if self.origin is not None and sent > self.origin:
            found.append(f"the origin sends {sent:.3f} of the model, more than {self.origin:.2f}")
        if outcome.banned - outcome.liars:
            found.append(f"honest peers are banned: {', '.join(sorted(outcome.banned - outcome.liars))}")
        if outcome.from_liars and not outcome.liars & outcome.banned:
            found.append("no liar is banned")
        if self.small and (outcome.load.memory > MEMORY or outcome.load.cpu > 1):
            found.append(f"a fetch takes {outcome.load.memory / MiB:.0f} MiB and {outcome.load.cpu:.2f} processors")
        return found


def together(numbers: Sequence[int]) -> list[Limit]:
    """Return the cases in which nothing goes wrong: each number of nodes from the origin, and with peers."""
    plain = [Limit(Case(f"{number} from the origin", number, peers=False)) for number in numbers]
    return plain + [Limit(Case(f"{number} with peers", number), last=1.3, origin=1.05) for number in numbers]


def troubled(number: int) -> list[Limit]:
    """Return the cases in which something goes wrong among so many nodes."""
    dying = max(1, number // 4)
    return [
        Limit(Case(f"{dying} of {number} die midway", number, dies=dying), last=1.3),
        Limit(Case(f"{number} and a liar", number, liars=1), origin=1.05),
        Limit(Case("all peers die midway", number, dies=number - 1)),
        Limit(Case("the origin is gone, one peer has everything", number, whole=1, unplugged=True), origin=1.05),
    ]


def crowded(number: int) -> list[Limit]:
    """Return the case of one node with so many peers."""
    return [Limit(Case(f"one with {number} peers", 1, whole=number), last=1.3, origin=1.05, small=True)]
