"""`fetcher verify`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Any

from fetcher.artifact import Digest
from fetcher.cli.options import settings_from, signed_list
from fetcher.cli.parser import COMMANDS
from fetcher.cli.roots import print_newer, root_of
from fetcher.cli.signals import run_interruptibly
from fetcher.command.common_options import wants_metrics
from fetcher.command.options import values
from fetcher.command.results import print_result
from fetcher.command.running import Report, with_progress
from fetcher.errors import DigestMismatch, FetchError, NotFound, UsageError
from fetcher.events import Subscriber, Verified

if TYPE_CHECKING:
    from fetcher.cache import Entry, VerifyReport


def verify(arguments: argparse.Namespace, environ: Mapping[str, str], report: Report) -> None:
    """Verify one artifact, or all of the cache, and repair it if asked to. Raises FetchError; DigestMismatch for a bad file."""
    options = values(COMMANDS["verify"][1], arguments, environ)
    if options.get("full") and "sample" in options:
        raise UsageError("--full needs every byte of a file, --sample reads some chunks; give one of them")
    listed = signed_list(options)
    if listed and "sample" in options:
        raise UsageError("--expect-file needs every byte of a file, --sample reads some chunks; give one of them")
    if listed and arguments.what is None:
        raise UsageError("--expect-file has the digests of one artifact; name it by its key, URI or directory")

    def work(on_event: Subscriber) -> tuple[list[VerifyReport], list[FetchError]]:
        if wants_metrics(options):
            from fetcher.cli.verify_metrics import publish

            on_event = publish(options, report, on_event)
        return _verified(arguments.what, options, environ, report.counting(on_event))

    reports, failures = with_progress("auto", work)
    _print_reports(reports, as_json=options.get("json", False))
    for error in (*failures, *_mismatches(reports, repairing=options.get("repair", False))):
        raise error


def _verified(
    what: str | None, options: Mapping[str, Any], environ: Mapping[str, str], on_event: Subscriber
) -> tuple[list[VerifyReport], list[FetchError]]:
    """Return a report for each artifact, and the errors of repairs: other artifacts are repaired nevertheless."""
    from fetcher.cache import Sample, expected
    from fetcher.cache import verify as check

    sample = Sample(options["sample"], SystemRandom()) if "sample" in options else None
    chosen = _chosen(what, options, environ)
    reports: list[VerifyReport] = []
    failures: list[FetchError] = []
    for entry in chosen:
        full, rate = options.get("full", False), options.get("max_rate")
        listed = signed_list(options)
        expect = expected(entry, listed["expect_file"], listed.get("signer")) if listed else {}
        report = check(entry, full=full, on_event=on_event, sample=sample, max_rate=rate, expect=expect)
        if report.bad and options.get("repair"):
            apart = [each.path for each in chosen]
            try:
                report = _repaired(entry, report, what, apart, expect, options, environ, on_event)
            except FetchError as error:
                failures.append(error)
        on_event(Verified(report.path, report.chunks, report.bytes_compared, len(report.bad)))
        reports.append(report)
    return reports, failures


def _print_reports(reports: Sequence[VerifyReport], *, as_json: bool) -> None:
    if as_json:
        print_result(json.dumps([asdict(report) | {"ok": report.ok} for report in reports]))
    for report in reports:
        if not as_json:
            _print(report)
        for path, problem in _problems(report):
            print(f"{path}: {problem}", file=sys.stderr)


def _mismatches(reports: Sequence[VerifyReport], *, repairing: bool) -> Iterator[DigestMismatch]:
    """Yield an error for each bad file."""
    for report in reports:
        again = f"remove {report.path} and fetch it again"
        advice = again if repairing else f"repair it with `fetcher verify {report.path} --repair`, or {again}"
        for path, problem in report.bad:
            yield DigestMismatch(f"{path} {problem}; {advice}", path=path)
        for each in report.siblings:
            if each.problem is not None:
                advice = f"repair that artifact too: fetcher verify {each.artifact} --repair"
                yield DigestMismatch(f"{each.path} of {each.artifact} {each.problem}; {advice}", path=each.path)


def _chosen(what: str | None, options: Mapping[str, Any], environ: Mapping[str, str]) -> list[Entry]:
    from fetcher.cache import entries, named

    if what is not None:
        if what.startswith("pvc://") and options.get("repair"):
            raise UsageError("pvc:// is never written, so nothing there can be repaired; `fetcher fetch` of it verifies it")
        return [named(what, lambda: root_of(options, environ)).entry]
    root = root_of(options, environ)
    if not root.is_dir():
        raise NotFound(f"cannot verify {root}: the directory does not exist; pass the cache root with --cache-dir")
    return entries(root, on_newer=print_newer)


def _repaired(
    entry: Entry,
    report: VerifyReport,
    what: str | None,
    apart: Sequence[Path],
    expect: Mapping[str, Digest],
    options: Mapping[str, Any],
    environ: Mapping[str, str],
    on_event: Subscriber,
) -> VerifyReport:
    from fetcher.cache import repair

    # The settings need a root, and the directory of the artifact needs no HOME.
    settings = settings_from({**options, "cache_dir": entry.path}, environ)
    repaired: VerifyReport = run_interruptibly(
        repair(entry, report, settings, uri=what, apart=apart, expect=expect, on_event=on_event)
    )
    return repaired


def _print(report: VerifyReport) -> None:
    from fetcher.quantities import size
    from fetcher.telemetry.wording import counted, duration

    good = "digests and chunks match" if report.full else "chunks match"
    if report.sample is not None:
        good = f"a random sample of {counted(report.chunks, 'chunk')} ({size(report.bytes_compared)}) matches"
    state = good if report.ok else counted(len(list(_problems(report))), "bad file")
    extent = f"{counted(report.files, 'file')}, {size(report.bytes)}, {duration(report.seconds)}"
    repair = f", {size(report.fetched)} fetched" if report.repaired else ""
    print_result(f"{report.path}: {extent}{repair}: {state}")
    for path in report.repaired:
        print_result(f"{report.path}/{path}: repaired")
    for each in report.siblings:
        if each.problem is None:
            print_result(f"{each.artifact}/{each.path}: has the content of a repaired file, and its chunks match")


def _problems(report: VerifyReport) -> Iterator[tuple[str, str]]:
    """Yield the whole path and the problem of each bad file."""
    yield from ((f"{report.path}/{path}", problem) for path, problem in report.bad)
    yield from ((f"{each.artifact}/{each.path}", each.problem) for each in report.siblings if each.problem is not None)
