"""The report: seconds and bytes of each case beside the bound, and the plot of seconds by the number of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from benchmarks.measuring import MiB
from benchmarks.peers.cases import Limit
from benchmarks.peers.cluster import CHUNK
from benchmarks.peers.running import Outcome
from benchmarks.report import table
from benchmarks.surroundings import Setting

PAYLOAD = 1448 / 1514
"""Bytes of a body in each byte of a link: Ethernet's, IP's and TCP's headers are the rest."""
_HEAD = (
    "case",
    "last node, s",
    "of one alone",
    "bound, s",
    "of the bound",
    "origin, of the model",
    "of it from liars",
    "nodes' processors (all)",
    "waited",
    "most memory of a fetch",
    "",
)


@dataclass(frozen=True, slots=True)
class Played:
    """A case and its outcome; `why`: the failure if there is none, or that the run is void."""

    limit: Limit
    outcome: Outcome | None
    why: str


def bound(nodes: int, *, rate: float, total: int) -> float:
    """Return the least seconds in which so many nodes can have `total` bytes from an origin and each other.

    All links carry `rate` bytes a second (Kumar and Ross, 2006: max(F/o, F/d, N F/(o + N u))).
    """
    carried = rate * PAYLOAD
    return max(total / carried, nodes * total / (carried + nodes * carried))


def document(setting: Setting, played: Sequence[Played], *, rate: int, total: int) -> str:
    """Return the report: conditions, then a row for each case. `rate`: bytes a second of a link; `total`: of the model."""
    conditions = [
        f"command: `{setting.command}`",
        f"commit: {setting.commit}",
        f"machine: {setting.machine}",
        f"SHA-256: {setting.hashing}",
        f"{setting.conditions}; the origin and each node in a network namespace of its own, tbf, no added delay",
        f"a model of {total / MiB:.0f} MiB in chunks of {CHUNK / MiB:.0f} MiB; every file is compared at the end",
        "the nodes' processes go before everything else on the machine",
        "a run is void if they keep the processors busier than 60 %, or a thread of a fetch waits for one for a tenth of it",
    ]
    rows = [_row(each, _alone(played), rate=rate, total=total) for each in played]
    listed = "\n".join(f"- {line}" for line in conditions)
    return f"# One model for several nodes, measured on {setting.date}\n\n{listed}\n\n{table(_HEAD, rows)}\n"


def _row(each: Played, alone: float, *, rate: int, total: int) -> list[str]:
    outcome, case = each.outcome, each.limit.case
    if outcome is None:
        return [case.name, "failed", *[""] * (len(_HEAD) - 3), each.why.replace("\n", " ")[-300:]]
    least = bound(case.nodes, rate=rate, total=total) if case.peers else max(1, case.nodes) * total / (rate * PAYLOAD)
    missed = each.limit.missed(outcome, alone=alone, total=total)
    return [
        case.name,
        f"{outcome.last:.1f}",
        f"{outcome.last / alone:.2f}",
        f"{least:.1f}",
        f"{outcome.last / least:.2f}",
        f"{outcome.sent / total:.3f}",
        f"{outcome.from_liars / total:.3f}" if outcome.liars else "",
        f"{outcome.load.own:.0%} ({outcome.load.busy:.0%})",
        f"{outcome.load.waited:.0%}",
        f"{outcome.load.memory / MiB:.0f} MiB",
        "; ".join(filter(None, [each.why, *missed])) or "kept",
    ]


def plotted(played: Sequence[Played], *, rate: int, total: int) -> Figure:
    """Draw the seconds until the last node is done: from the origin, with peers, and the bound."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    alone = _alone(played)
    for label, word, colour in (
        ("everyone from the origin", " from the origin", "gray"),
        ("with peers", " with peers", "tab:blue"),
    ):
        ended = {1: alone} | {
            each.limit.case.nodes: each.outcome.last
            for each in played
            if each.outcome is not None and each.limit.case.name.endswith(word)
        }
        axes.plot(sorted(ended), [ended[number] for number in sorted(ended)], "o-", label=label, color=colour)
    numbers = sorted({each.limit.case.nodes for each in played})
    bounds = [bound(number, rate=rate, total=total) for number in numbers]
    axes.plot(numbers, bounds, "--", label="bound", color="black")
    axes.set_xlabel("nodes")
    axes.set_ylabel("seconds until the last one is done")
    axes.set_ylim(0)
    axes.legend()
    return figure


def _alone(played: Sequence[Played]) -> float:
    """The seconds of one node by itself, from the first case; not a number if it failed."""
    return played[0].outcome.last if played[0].outcome is not None else float("nan")
