"""The decisions of a swarm in simulated time against the bound, as a table.

::

    python -m benchmarks.swarm                          # minutes: 1,024 chunks of 16 MiB, nodes of 1 Gbit/s
    python -m benchmarks.swarm --only liar --nodes 8
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fetcher.planning.ownership import Layout
from tests.lab.swarming import GBIT, Member, Simulation, bound

_FILES = 16


@dataclass(frozen=True, slots=True)
class Case:
    """Members and the origin's rate. The bound is that of those who stay, from the start of the last one."""

    name: str
    members: Sequence[Member]
    rate: float = GBIT
    refresh: float | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """Print a row for each case."""
    parser = argparse.ArgumentParser(description="a swarm in simulated time")
    parser.add_argument("--nodes", type=int, default=32)
    parser.add_argument("--chunks", type=int, default=1024)
    parser.add_argument("--only", default="", help="only cases with this word")
    given = parser.parse_args(argv)
    print("| case | nodes | last node, s | bound, s | times the bound | origin, times the model |\n|---|---|---|---|---|---|")
    for case in cases(given.nodes):
        if given.only in case.name:
            print(row(case, given.chunks), flush=True)
    return 0


def row(case: Case, chunks: int) -> str:
    """Simulate a case."""
    layout = Layout("ab" * 32, (chunks // _FILES,) * _FILES)
    waited = [each for each in case.members if each.dies == float("inf") and not each.lies and not each.whole]
    whole = sum(each.up for each in case.members if each.whole)  # as good as an origin
    least = max(each.joins for each in waited) + bound(layout, waited, case.rate + whole)
    outcome = Simulation(layout, case.members, rate=case.rate, refresh=case.refresh).run(until=50 * least)
    if not all(each.name in outcome.ended for each in waited):
        return f"| {case.name} | {len(case.members)} | never | {least:.1f} | | {outcome.origin / chunks:.3f} |"
    last = max(outcome.ended[each.name] for each in waited)
    return (
        f"| {case.name} | {len(case.members)} | {last:.1f} | {least:.1f} | {last / least:.2f} | {outcome.origin / chunks:.3f} |"
    )


def cases(nodes: int) -> list[Case]:
    """Every case, the largest last."""
    quarter = max(1, nodes // 4)
    return [
        Case("alone", equal(1)),
        Case("equal", equal(8)),
        Case("equal", equal(nodes)),
        Case("equal, an origin as fast as all of them", equal(nodes), nodes * GBIT),
        Case("equal, an origin of a quarter of a node's link", equal(nodes), GBIT / 4),
        Case("starts staggered over 5 minutes", made(nodes, lambda i: Member(f"n{i}", joins=300 * i / max(1, nodes - 1)))),
        Case("one joins midway", [*equal(nodes - 1), Member("late", joins=70)]),
        Case("a quarter dies midway", made(nodes, lambda i: Member(f"n{i}", dies=60.0 + i if i < quarter else float("inf")))),
        Case("half is cut off midway", made(nodes, lambda i: Member(f"n{i}", cut=60.0 if i % 2 else float("inf")))),
        Case("a liar that claims everything", [*equal(nodes - 1), Member("liar", lies=True)]),
        Case("a slow peer: uploads at a twentieth", [*equal(nodes - 1), Member("slow", up=GBIT / 20)]),
        Case(
            "unequal: half with a quarter of the link",
            made(nodes, lambda i: Member(f"n{i}", up=GBIT / (4 if i % 2 else 1), down=GBIT / (4 if i % 2 else 1))),
        ),
        Case("the origin is gone, one has everything", [*equal(nodes - 1), Member("whole", whole=True)], 0.0),
        Case("equal", equal(64)),
        Case("equal, a thousand", equal(1000)),
    ]


def equal(count: int) -> list[Member]:
    return made(count, lambda number: Member(f"n{number}"))


def made(count: int, make: Callable[[int], Member]) -> list[Member]:
    return [make(number) for number in range(count)]


if __name__ == "__main__":
    sys.exit(main())
