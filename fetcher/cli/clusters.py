"""`fetcher cluster status`: the models of a cluster and their copies, as a table or as JSON."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from fetcher.cli.commands import on_one_line
from fetcher.cli.options import CLUSTER
from fetcher.cli.signals import run_interruptibly
from fetcher.cli.tables import print_rows
from fetcher.command.options import values
from fetcher.command.results import print_result
from fetcher.errors import UsageError
from fetcher.quantities import size

if TYPE_CHECKING:
    from cluster.cli.overview import ModelState, Overview

_GAP = 2
"""Columns between two columns of a table on a terminal."""
_ELLIPSIS = "…"


def cluster(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Show the status of a cluster. Raises UsageError, ConfigurationError, ApiError."""
    if arguments.action != "status":
        raise UsageError(f"{arguments.action!r} is nothing to do with a cluster; write fetcher cluster status")
    options = values(CLUSTER, arguments, environ)
    # Late: nothing else of this command needs the cluster's package.
    from cluster.cli.looking import access_of, look
    from cluster.cli.overview import fields_of

    access = access_of(options.get("kubeconfig"), environ)
    namespace, model = options.get("namespace", ""), options.get("model", "")
    if model:
        before, _, model = model.rpartition("/")
        namespace = before or namespace or access.namespace
    overview: Overview = run_interruptibly(look(access, namespace=namespace, model=model))
    if options.get("json"):
        print_result(json.dumps(fields_of(overview)))
        return
    if model:
        _print_model(overview.models[0])
    else:
        _print_table(overview)
    for problem in overview.problems:
        print(on_one_line(problem), file=sys.stderr)


def _print_rows(rows: Sequence[Mapping[str, str]]) -> None:
    """Print a table with its titles, elsewhere than on a terminal too: without them nobody knows which node is which."""
    titles = [{name: name for name in rows[0]}] if rows and not sys.stdout.isatty() else []
    print_rows([*titles, *rows])


def _print_model(model: ModelState) -> None:
    ready = " ".join(each for each in (model.ready, model.reason, model.message) if each)
    total = "" if model.bytes is None else size(model.bytes)
    for name, text in (("uri", model.uri), ("revision", model.revision), ("size", total), ("ready", ready)):
        print_result(f"{name:10}{on_one_line(text) or '-'}")
    _print_rows(
        [
            {"NODE": copy.node, "PHASE": copy.phase, "REASON": copy.reason or "-", "MESSAGE": on_one_line(copy.message) or "-"}
            for copy in sorted(model.copies, key=lambda copy: copy.urgency)
        ]
    )


def _print_table(overview: Overview) -> None:
    if not overview.models:
        print("there are no ModelCaches", file=sys.stderr)
    rows, hidden = table(overview, shutil.get_terminal_size().columns if sys.stdout.isatty() else None)
    _print_rows(rows)
    if hidden:
        note = f"{hidden} more nodes do not fit" if hidden > 1 else "one more node does not fit"
        print(f"{note}; --model NAMESPACE/NAME shows all nodes of a model", file=sys.stderr)
    if wrong := [node for node in overview.nodes if node.reason]:
        print_result("")
        _print_rows([{"NODE": node.name, "REASON": node.reason, "MESSAGE": on_one_line(node.message) or "-"} for node in wrong])


def table(overview: Overview, width: int | None) -> tuple[list[dict[str, str]], int]:
    """Return the rows, a model each, with a column for each node, within `width` columns, and how many nodes do not fit.

    Nodes that somebody should look at come first, so that those that do not fit are the ones where all is well.
    """
    from cluster.cli.overview import by_urgency

    rows = [
        {
            "MODEL": model.title,
            "READY": model.ready or "-",
            "SIZE": "-" if model.bytes is None else size(model.bytes),
            "REASON": model.reason or "-",
        }
        for model in overview.models
    ]
    nodes = by_urgency(overview.models)
    phases = [{copy.node: copy.phase for copy in model.copies} for model in overview.models]
    columns = [(node, [each.get(node, "-") for each in phases]) for node in nodes]
    if width is not None and _width(columns) > width - _width_of_rows(rows):
        columns = list(zip(_shortened(nodes), (cells for _, cells in columns), strict=True))
    shown = 0
    room = None if width is None else width - _width_of_rows(rows)
    for title, cells in columns:
        if room is not None and (room := room - _width([(title, cells)])) < 0:
            break
        for row, cell in zip(rows, cells, strict=True):
            row[title] = cell
        shown += 1
    return rows, len(columns) - shown


def _width(columns: Sequence[tuple[str, list[str]]]) -> int:
    return sum(max(len(title), *map(len, cells)) + _GAP for title, cells in columns)


def _width_of_rows(rows: Sequence[Mapping[str, str]]) -> int:
    return _width([(name, [row[name] for row in rows]) for name in rows[0]]) if rows else 0


def _shortened(nodes: Sequence[str]) -> list[str]:
    """Return the names without what all of them begin with, up to a dash or a dot."""
    pairs = zip(min(nodes), max(nodes), strict=False)
    common = "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    cut = max(common.rfind("-"), common.rfind(".")) + 1
    return [_ELLIPSIS + node[cut:] if cut > 1 and len(nodes) > 1 else node for node in nodes]
