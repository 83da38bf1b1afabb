"""Parse the command line, run the command, and report how it ended. A fetch imports no other command: a hit is to be fast."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from fetcher.cli import commands
from fetcher.cli.options import settings_from
from fetcher.cli.parser import build_parser
from fetcher.command.common_options import TERMINATION_LOG, wants_metrics
from fetcher.command.options import values
from fetcher.command.running import Report, run_command, with_progress
from fetcher.command.termination import destination, destination_of_words
from fetcher.events import Subscriber


def run(argv: Sequence[str] | None) -> int:
    """Run the command `argv` and return its exit code: as in `fetcher.errors`, 128+n on signal n, 70 on a bug."""
    words = sys.argv[1:] if argv is None else list(argv)
    return run_command(
        lambda report: _dispatch(build_parser().parse_args(words), report),
        log=destination_of_words(words, started_for=("fetch",), variable=TERMINATION_LOG.variable),
        interrupted="staging is kept; run the same command to continue",
    )


def _dispatch(arguments: argparse.Namespace, report: Report) -> dict[str, Any]:
    environ = os.environ
    match arguments.command:
        case "fetch":
            return _fetch(arguments, report)
        case "plan":
            _plan(arguments)
        case "key":
            commands.key(arguments, environ)
        case "verify":
            from fetcher.cli import verifying

            verifying.verify(arguments, environ, report)
        case _:
            _dispatch_of_cache(arguments, environ)
    return {}


def _dispatch_of_cache(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Run a command that has no termination message."""
    match arguments.command:
        case "list" | "show" as command:
            from fetcher.cli import listing

            (listing.show if command == "show" else listing.list_)(arguments, environ)
        case "init" | "pin" | "unpin" | "hold" | "release" as command:
            from fetcher.cli import keeping

            getattr(keeping, command)(arguments, environ)
        case "rm" | "prune" | "evict" | "gc" as command:
            from fetcher.cli import removing

            getattr(removing, command)(arguments, environ)
        case _:
            _dispatch_of_others(arguments, environ)


def _dispatch_of_others(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    match arguments.command:
        case "adopt":
            from fetcher.cli import adopting

            adopting.adopt(arguments, environ)
        case "cluster":
            from fetcher.cli import clusters

            clusters.cluster(arguments, environ)
        case "du":
            from fetcher.cli import measuring

            measuring.du(arguments, environ)
        case "serve":
            from fetcher.cli import serving

            serving.serve(arguments, environ)


def _fetch(arguments: argparse.Namespace, report: Report) -> dict[str, Any]:
    report.log = destination(values((TERMINATION_LOG,), arguments, os.environ).get("termination_log"))
    options = commands.options_of(arguments, os.environ)
    ref, settings = commands.reference(arguments, options), settings_from(options, os.environ)

    def work(on_event: Subscriber) -> dict[str, Any]:
        if wants_metrics(options):
            from fetcher.cli.metrics import publish

            on_event = publish(options, report, on_event)
        fields = commands.fetch(ref, settings, report.counting(on_event))
        return fields | (commands.warm(fields["path"], on_event) if options.get("warm") else {})

    fields = with_progress(options.get("progress", "auto"), work)
    commands.print_fetched(fields, as_json=options.get("json", False))
    return {name: fields[name] for name in ("path", "revision", "cached", "bytes")}


def _plan(arguments: argparse.Namespace) -> None:
    options = commands.options_of(arguments, os.environ)
    ref, settings = commands.reference(arguments, options), settings_from(options, os.environ)
    shown = with_progress(options.get("progress", "auto"), lambda on_event: commands.plan(ref, settings, on_event))
    commands.print_plan(shown, as_json=options.get("json", False))
