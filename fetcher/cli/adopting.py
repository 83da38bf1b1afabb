"""`fetcher adopt`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from fetcher.cli.commands import on_one_line, options_of
from fetcher.cli.options import settings_from
from fetcher.cli.signals import run_interruptibly
from fetcher.command.results import print_result
from fetcher.command.running import with_progress
from fetcher.errors import Differs
from fetcher.telemetry.wording import counted

_SHOWN = 20
"""Ignored files that are named outside `--json`."""


def adopt(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Adopt the directory and print the artifact's path; or print the differences. Raises FetchError."""
    from pathlib import Path

    from fetcher.cache import Adopted, adoptable
    from fetcher.cache import adopt as adopted

    options = options_of(arguments, environ)
    what = adoptable(
        Path(arguments.directory),
        uri=options.get("uri"),
        revision=options.get("revision"),
        include=options.get("include", ()),
        exclude=options.get("exclude", ()),
        offline=options.get("offline", False),
    )
    how = {name: options.get(name, False) for name in ("offline", "complete", "link", "move")}
    as_json = options.get("json", False)
    try:
        result: Adopted = with_progress(
            options.get("progress", "auto"),
            lambda on_event: run_interruptibly(adopted(what, settings_from(options, environ), on_event, **how)),
        )
    except Differs as error:
        _print_differences(error, as_json=as_json)
        raise
    fields = asdict(result.artifact) | {"path": str(result.artifact.path)}
    if as_json:
        print_result(json.dumps(fields | {"ignored": result.ignored}))
        return
    _print_ignored(result.ignored)
    print_result(fields["path"])


def _print_differences(error: Differs, *, as_json: bool) -> None:
    if as_json:
        rows = [{"path": path, "problem": problem} for path, problem in error.differences]
        print_result(json.dumps({"differences": rows, "ignored": error.ignored}))
        return
    width = max(len(path) for path, _ in error.differences)
    for path, problem in error.differences:
        print_result(f"{path:{width}}  {problem}")
    _print_ignored(error.ignored)


def _print_ignored(paths: Sequence[str]) -> None:
    for path in paths[:_SHOWN]:
        print(f"ignored: {on_one_line(path)} is no file of the artifact", file=sys.stderr)
    if len(paths) > _SHOWN:
        print(f"ignored: {counted(len(paths) - _SHOWN, 'more file')}", file=sys.stderr)
