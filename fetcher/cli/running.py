"""Which command the words mean, and what its end leaves behind."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from fetcher.cli import commands
from fetcher.cli.options import ROOT, settings_from
from fetcher.cli.parser import build_parser
from fetcher.command.common_options import TERMINATION_LOG, wants_metrics
from fetcher.command.options import values
from fetcher.command.running import Report, carried_out, with_progress
from fetcher.command.termination import destination, destination_of_words
from fetcher.events import Subscriber


def run(argv: Sequence[str] | None) -> int:
    """Exit codes as in `fetcher.errors`; 128+n on signal n, 70 for what nobody expected."""
    words = sys.argv[1:] if argv is None else list(argv)
    return carried_out(
        lambda report: _dispatch(build_parser().parse_args(words), report),
        log=destination_of_words(words, started_for=("fetch",), variable=TERMINATION_LOG.variable),
        interrupted="staging is kept, run the same command to go on",
    )


def _dispatch(given: argparse.Namespace, report: Report) -> dict[str, Any]:
    environ = os.environ
    match given.command:
        case "fetch":
            return _fetch(given, report)
        case "plan":
            _plan(given)
        case "key":
            commands.key(given, environ)
        case "list":
            commands.list_(given, environ)
        case "show":
            commands.show(given, environ)
        case "verify":
            reports = with_progress("auto", lambda on_event: commands.verify(given, environ, on_event))
            commands.print_reports(reports, as_json=values(ROOT, given, environ).get("json", False))
    return {}


def _fetch(given: argparse.Namespace, report: Report) -> dict[str, Any]:
    report.log = destination(values((TERMINATION_LOG,), given, os.environ).get("termination_log"))
    found = commands.options_of(given, os.environ)
    ref, settings = commands.reference(given, found), settings_from(found, os.environ)

    def work(on_event: Subscriber) -> dict[str, Any]:
        if wants_metrics(found):
            from fetcher.cli.metrics import publish

            on_event = publish(found, report, on_event)
        fields = commands.fetch(ref, settings, report.counting(on_event))
        return fields | (commands.warm(fields["path"], on_event) if found.get("warm") else {})

    fields = with_progress(found.get("progress", "auto"), work)
    commands.print_fetched(fields, as_json=found.get("json", False))
    return {name: fields[name] for name in ("path", "revision", "cached", "bytes")}


def _plan(given: argparse.Namespace) -> None:
    found = commands.options_of(given, os.environ)
    ref, settings = commands.reference(given, found), settings_from(found, os.environ)
    shown = with_progress(found.get("progress", "auto"), lambda on_event: commands.plan(ref, settings, on_event))
    commands.print_plan(shown, as_json=found.get("json", False))
