"""Run one `loader` command: parse the arguments, call the command, print its result."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from fetcher.command.common_options import wants_metrics
from fetcher.command.options import values
from fetcher.command.running import Report, run_command, with_progress
from fetcher.command.termination import destination, destination_of_words
from fetcher.errors import ConfigurationError, UsageError
from fetcher.events import Subscriber
from loader.cli.options import TERMINATION_LOG
from loader.cli.parser import COMMANDS, build_parser, with_new_words

_STARTED_FOR = ("warm", "load", "copy", "hold")
"""The commands that are the main process of a container, and so write its termination message."""

_LEFT_BEHIND = "data in memory stays there; the next copy removes an unfinished one"


def run(argv: Sequence[str] | None) -> int:
    """Run the command and return its exit code: as in `fetcher.errors` and `loader.errors`, 128+n on signal n, 70 for a bug."""
    words = with_new_words(sys.argv[1:] if argv is None else argv)
    return run_command(
        lambda report: _dispatch(build_parser().parse_args(words), report),
        log=destination_of_words(words, started_for=_STARTED_FOR, variable=TERMINATION_LOG.variable),
        interrupted=_LEFT_BEHIND,
    )


def _dispatch(arguments: argparse.Namespace, report: Report) -> dict[str, Any]:
    if arguments.command in _STARTED_FOR:
        report.log = destination(values((TERMINATION_LOG,), arguments, os.environ).get("termination_log"))
    settings = values(COMMANDS[arguments.command][1], arguments, os.environ)
    as_json = settings.get("json", False)
    _refuse_empty(arguments)
    match arguments.command:
        case "warm":
            return _warm(arguments, settings, report)
        case "load":
            return _load(arguments, settings, report)
        case "copy":
            return _copy(arguments, settings, report)
        case "hold":
            return _hold(arguments, settings, report)
    from loader.cli import commands

    if arguments.command == "status":
        commands.print_status(commands.status(arguments.paths), as_json=as_json)
    else:
        commands.print_dropped(commands.dropped(arguments.paths), as_json=as_json)
    return {}


def _warm(arguments: argparse.Namespace, settings: dict[str, Any], report: Report) -> dict[str, Any]:
    from loader.cli import commands

    fields = with_progress(
        settings.get("progress", "auto"),
        lambda on_event: commands.warmed(arguments.paths, settings, _counted(settings, report, on_event)),
    )
    commands.print_warmed(fields, as_json=settings.get("json", False))
    return {"path": arguments.paths[0], "bytes": fields["bytes"], "resident": fields["after"]["resident"]}


def _load(arguments: argparse.Namespace, settings: dict[str, Any], report: Report) -> dict[str, Any]:
    try:
        from loader.cli.loading import loaded, print_loaded  # imports numpy, which no other command needs
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{error.name} is not installed; run pip install 'weightlift[loader]'") from error
    fields = with_progress(
        settings.get("progress", "auto"),
        lambda on_event: loaded(arguments.paths[0], settings, _counted(settings, report, on_event)),
    )
    print_loaded(fields, as_json=settings.get("json", False))
    return {"path": arguments.paths[0], "bytes": fields["bytes"]}


def _copy(arguments: argparse.Namespace, settings: dict[str, Any], report: Report) -> dict[str, Any]:
    from loader.cli.copies import copied, print_copied

    fields = with_progress(
        settings.get("progress", "auto"),
        lambda on_event: copied(arguments.source, arguments.target, settings, _counted(settings, report, on_event)),
    )
    print_copied(fields, as_json=settings.get("json", False))
    return {name: fields[name] for name in ("path", "revision", "cached", "bytes")}


def _hold(arguments: argparse.Namespace, settings: dict[str, Any], report: Report) -> dict[str, Any]:
    from loader.cli.holding import hold  # imports http.server, which takes as long as all other imports together

    state = with_progress(
        settings.get("progress", "auto"), lambda on_event: hold(arguments.paths, settings, report.counting(on_event))
    )
    return {"path": arguments.paths[0], "bytes": state.total, "resident": state.resident, "message": "stopped by a signal"}


def _counted(settings: dict[str, Any], report: Report, on_event: Subscriber) -> Subscriber:
    """Return `on_event`, extended by counting for the termination message and by metrics if they are asked for."""
    on_event = report.counting(on_event)
    if not wants_metrics(settings):
        return on_event
    from loader.cli.metrics import publish

    return publish(settings, report, on_event)


def _refuse_empty(arguments: argparse.Namespace) -> None:
    """`loader warm "$DIR"` with DIR unset would otherwise mean nothing, or the current directory."""
    for path in getattr(arguments, "paths", None) or (arguments.source, arguments.target):
        if not path.strip():
            raise UsageError("a path is empty; give a directory or a file")
