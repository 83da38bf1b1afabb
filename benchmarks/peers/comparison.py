"""Play the cases on this machine, and write the report and its plot."""

from __future__ import annotations

import compileall
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import fetcher
from benchmarks.disk import workspace
from benchmarks.measuring import Failed, MiB
from benchmarks.namespaces import unavailable
from benchmarks.peers.cases import ALONE, Limit, crowded, together, troubled
from benchmarks.peers.cluster import Cluster, cluster
from benchmarks.peers.report import Played, document, plotted
from benchmarks.peers.running import Outcome, keep, run
from benchmarks.plots import saved
from benchmarks.publishing import Shape, publish
from benchmarks.surroundings import Setting

_PATIENCE = 4.0
"""A case may take so many times what its nodes would take one after the other at the origin's link, and then has failed."""
_FILES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`rate`: Mbit/s of each link, the origin's too. `size`: MiB of the model. `crowd`: peers of one node, 0 for no such case.

    `only`: words of which the name of a case must have one. `tries`: runs of a case at most, until one is not void.
    """

    numbers: Sequence[int]
    rate: int
    size: int
    crowd: int
    only: Sequence[str]
    tries: int
    memory: Path
    target: Path | None


def compare(options: Options) -> str:
    """Play all cases. Return the report, or where it is. Raises RuntimeError if namespaces cannot be made."""
    if why := unavailable():
        raise RuntimeError(why)
    limits = [*together(options.numbers), *troubled(max(options.numbers)), *crowded(options.crowd)[: options.crowd]]
    limits = [limit for limit in limits if any(word in limit.case.name for word in options.only)]
    # An installed package has its byte code. Without it each process of a checkout compiles for a quarter of a second.
    compileall.compile_dir(Path(fetcher.__file__).parent, quiet=2)
    link, played = options.rate * 1_000_000 // 8, list[Played]()
    with workspace(options.memory) as place:
        repository = publish(place / "model", Shape(_FILES, options.size * MiB // _FILES))
        most = max(limit.case.machines for limit in limits)
        with cluster(place, repository, nodes=most, origin=link, link=link) as made:
            alone = _played(made, Limit(ALONE), alone=repository.shape.total / link, tries=options.tries)
            keep(made, made.nodes[0])
            seconds = alone.outcome.last if alone.outcome is not None else 0.0
            played = [alone, *(_played(made, limit, alone=seconds, tries=options.tries) for limit in limits)]
    setting = Setting.here(
        versions={}, rounds="1", scale=1.0, conditions=f"links of {options.rate} Mbit/s at both ends and in both directions"
    )
    text = document(setting, played, rate=link, total=repository.shape.total)
    if options.target is None:
        return text
    picture = saved(plotted(played, rate=link, total=repository.shape.total), options.target, "nodes")
    options.target.write_text(text + f"\n![seconds by the number of nodes]({picture})\n")
    return str(options.target)


def _played(made: Cluster, limit: Limit, *, alone: float, tries: int) -> Played:
    """Play a case until its run counts."""
    outcome: Outcome | None = None
    for number in range(tries):
        try:
            outcome = run(made, limit.case, alone=alone, patience=_PATIENCE * limit.case.nodes * alone + 60)
        except Failed as error:
            return Played(limit, None, str(error))
        print(f"{limit.case.name}: {outcome.last:.1f} s, {outcome.load}", file=sys.stderr, flush=True)
        if not outcome.load.void:
            return Played(limit, outcome, "")
        print(f"void, try {number + 1} of {tries}", file=sys.stderr, flush=True)
    return Played(limit, outcome, "void")
