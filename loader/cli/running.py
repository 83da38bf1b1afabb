"""Which command the words mean, and what its end leaves behind."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from fetcher.command.common_options import wants_metrics
from fetcher.command.options import values
from fetcher.command.running import Report, carried_out, with_progress
from fetcher.command.termination import destination, destination_of_words
from fetcher.errors import ConfigurationError, UsageError
from fetcher.events import Subscriber
from loader.cli.options import TERMINATION_LOG
from loader.cli.parser import COMMANDS, build_parser, with_new_words

_STARTED_FOR = ("warm", "load", "copy", "hold")
"""What a container is started for, and so may speak in its termination message."""

_LEFT_BEHIND = "what is in memory stays; a copy that was not finished is removed by the next one"


def run(argv: Sequence[str] | None) -> int:
    """Exit codes as in `fetcher.errors` and `loader.errors`; 128+n on signal n, 70 for what nobody expected."""
    words = with_new_words(sys.argv[1:] if argv is None else argv)
    return carried_out(
        lambda report: _dispatch(build_parser().parse_args(words), report),
        log=destination_of_words(words, started_for=_STARTED_FOR, variable=TERMINATION_LOG.variable),
        interrupted=_LEFT_BEHIND,
    )


def _dispatch(given: argparse.Namespace, report: Report) -> dict[str, Any]:
    if given.command in _STARTED_FOR:
        report.log = destination(values((TERMINATION_LOG,), given, os.environ).get("termination_log"))
    found = values(COMMANDS[given.command][1], given, os.environ)
    as_json = found.get("json", False)
    _refuse_empty(given)
    match given.command:
        case "warm":
            return _warm(given, found, report)
        case "load":
            return _load(given, found, report)
        case "copy":
            return _copy(given, found, report)
        case "hold":
            return _hold(given, found, report)
    from loader.cli import commands

    if given.command == "status":
        commands.print_status(commands.status(given.paths), as_json=as_json)
    else:
        commands.print_dropped(commands.dropped(given.paths), as_json=as_json)
    return {}


def _warm(given: argparse.Namespace, found: dict[str, Any], report: Report) -> dict[str, Any]:
    from loader.cli import commands

    fields = with_progress(
        found.get("progress", "auto"), lambda on_event: commands.warmed(given.paths, found, _told(found, report, on_event))
    )
    commands.print_warmed(fields, as_json=found.get("json", False))
    return {"path": given.paths[0], "bytes": fields["bytes"], "resident": fields["after"]["resident"]}


def _load(given: argparse.Namespace, found: dict[str, Any], report: Report) -> dict[str, Any]:
    try:
        from loader.cli.loading import loaded, print_loaded  # numpy, which nobody else needs
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{error.name} is not installed here; pip install 'weightlift[loader]'") from error
    fields = with_progress(
        found.get("progress", "auto"), lambda on_event: loaded(given.paths[0], found, _told(found, report, on_event))
    )
    print_loaded(fields, as_json=found.get("json", False))
    return {"path": given.paths[0], "bytes": fields["bytes"]}


def _copy(given: argparse.Namespace, found: dict[str, Any], report: Report) -> dict[str, Any]:
    from loader.cli.copies import copied, print_copied

    fields = with_progress(
        found.get("progress", "auto"),
        lambda on_event: copied(given.source, given.target, found, _told(found, report, on_event)),
    )
    print_copied(fields, as_json=found.get("json", False))
    return {name: fields[name] for name in ("path", "revision", "cached", "bytes")}


def _hold(given: argparse.Namespace, found: dict[str, Any], report: Report) -> dict[str, Any]:
    from loader.cli.holding import hold  # http.server, which nobody else needs, takes as long as all the rest

    state = with_progress(found.get("progress", "auto"), lambda on_event: hold(given.paths, found, report.counting(on_event)))
    return {"path": given.paths[0], "bytes": state.total, "resident": state.resident, "message": "stopped by a signal"}


def _told(found: dict[str, Any], report: Report, on_event: Subscriber) -> Subscriber:
    """Also to those who read the termination message, or metrics."""
    on_event = report.counting(on_event)
    if not wants_metrics(found):
        return on_event
    from loader.cli.metrics import publish

    return publish(found, report, on_event)


def _refuse_empty(given: argparse.Namespace) -> None:
    """`loader warm "$DIR"` with DIR unset would otherwise be about nothing, or the current directory."""
    for path in getattr(given, "paths", None) or (given.source, given.target):
        if not path.strip():
            raise UsageError("a path is empty; name a directory or a file")
