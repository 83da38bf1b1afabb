"""`fetcher verify`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from fetcher.cli.options import FULL, ROOT
from fetcher.cli.roots import print_newer, root_of
from fetcher.command.options import values
from fetcher.command.results import print_result
from fetcher.errors import DigestMismatch, NotFound
from fetcher.events import Subscriber

if TYPE_CHECKING:
    from fetcher.cache import Entry, VerifyReport


def verify(arguments: argparse.Namespace, environ: Mapping[str, str], on_event: Subscriber) -> list[VerifyReport]:
    """Verify one artifact, or all of the cache; one report for each. Raises NotFound."""
    from fetcher.cache import named
    from fetcher.cache import verify as check

    options = values((*ROOT, FULL), arguments, environ)
    what = arguments.what
    chosen = [named(what, lambda: root_of(options, environ)).entry] if what else _all(root_of(options, environ))
    return [check(entry, full=options.get("full", False), on_event=on_event) for entry in chosen]


def print_reports(reports: Sequence[VerifyReport], *, as_json: bool) -> None:
    """Print all reports. Raises DigestMismatch for the first bad file afterwards."""
    from fetcher.quantities import size
    from fetcher.telemetry.wording import counted, duration

    if as_json:
        print_result(json.dumps([asdict(report) | {"ok": report.ok} for report in reports]))
    for report in reports:
        if not as_json:
            how = "digests and chunks" if report.full else "chunks"
            state = f"{how} match" if report.ok else counted(len(report.bad), "bad file")
            extent = f"{counted(report.files, 'file')}, {size(report.bytes)}, {duration(report.seconds)}"
            print_result(f"{report.path}: {extent}: {state}")
        for path, problem in report.bad:
            print(f"{report.path}/{path}: {problem}", file=sys.stderr)
    for report in reports:
        for path, problem in report.bad:
            raise DigestMismatch(f"{path} {problem}; remove {report.path} and fetch it again", path=path)


def _all(root: Path) -> list[Entry]:
    from fetcher.cache import entries

    if not root.is_dir():
        raise NotFound(f"cannot verify {root}: the directory does not exist; pass the cache root with --cache-dir")
    return entries(root, on_newer=print_newer)
