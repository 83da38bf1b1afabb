"""One command from its words to its exit code: errors become a last line, signals leave staging resumable."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fetcher.cli import commands
from fetcher.cli.options import ROOT, TERMINATION_LOG, settings_from, values
from fetcher.cli.parser import build_parser
from fetcher.cli.signals import Interrupted, raise_on_signals
from fetcher.cli.termination import destination, write_message
from fetcher.errors import FetchError, from_os_error
from fetcher.events import BytesReceived, Event, Subscriber

if TYPE_CHECKING:
    from fetcher.telemetry import Kind

T = TypeVar("T")


@dataclass(slots=True)
class _Report:
    """What the termination message needs to know, also when the command fails half way."""

    log: Path | None
    received: int = 0

    def counting(self, on_event: Subscriber) -> Subscriber:
        def subscriber(event: Event) -> None:
            if isinstance(event, BytesReceived):
                self.received += event.bytes
            on_event(event)

        return subscriber


def run(argv: Sequence[str] | None) -> int:
    """Exit codes as in `fetcher.errors`; 128+n on signal n, 70 for what nobody expected."""
    began = time.monotonic()
    words = sys.argv[1:] if argv is None else list(argv)
    _prepare_streams()
    raise_on_signals()
    report = _Report(_default_log(words))
    try:
        given = build_parser().parse_args(words)
        fields = _dispatch(given, report)
        outcome = {"reason": "Completed", "message": "complete", "retryable": False, **fields}
        code = 0
    except SystemExit as ended:  # --help, --version
        return int(ended.code or 0)
    except BaseException as error:  # noqa: BLE001 - every end has an exit code and a last line
        code, outcome = _failure(error)
        outcome["bytes"] = report.received
    outcome["seconds"] = round(time.monotonic() - began, 3)
    write_message(report.log, outcome)
    _flush()
    if code >= 128:
        # Threads that hang in a call of the disk or of a resolver are not waited for.
        os._exit(code)
    return code


def _prepare_streams() -> None:
    """A closed stream (`>&-`) is as good as /dev/null; a path that is no text is printed as the bytes it is."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - open as long as the process
    with suppress(AttributeError):  # a stand-in that somebody captures with
        sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]  # just suppressed


def _default_log(words: Sequence[str]) -> Path | None:
    """Where the message goes when the command line itself is wrong. Only a fetch is what a pod was started for."""
    if words[:1] != ["fetch"]:
        return None
    named = os.environ.get(TERMINATION_LOG.variable, "").strip()
    return destination(Path(named) if named else None)


def _dispatch(given: argparse.Namespace, report: _Report) -> dict[str, Any]:
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
            reports = _with_progress("auto", lambda on_event: commands.verify(given, environ, on_event))
            commands.print_reports(reports, as_json=values(ROOT, given, environ).get("json", False))
    return {}


def _fetch(given: argparse.Namespace, report: _Report) -> dict[str, Any]:
    report.log = destination(values((TERMINATION_LOG,), given, os.environ).get("termination_log"))
    found = commands.options_of(given, os.environ)
    ref, settings = commands.reference(given, found), settings_from(found, os.environ)
    fields: dict[str, Any] = _with_progress(
        found.get("progress", "auto"), lambda on_event: commands.fetch(ref, settings, report.counting(on_event))
    )
    commands.print_result(fields, as_json=found.get("json", False))
    return {name: fields[name] for name in ("path", "revision", "cached", "bytes")}


def _plan(given: argparse.Namespace) -> None:
    found = commands.options_of(given, os.environ)
    ref, settings = commands.reference(given, found), settings_from(found, os.environ)
    shown = _with_progress(found.get("progress", "auto"), lambda on_event: commands.plan(ref, settings, on_event))
    commands.print_plan(shown, as_json=found.get("json", False))


def _with_progress(kind: Kind, work: Callable[[Subscriber], T]) -> T:
    """Results are printed after it has ended: a terminal that shows both must not mix them."""
    from fetcher.telemetry import subscribed

    with subscribed(kind, sys.stderr) as on_event:
        return work(on_event)


def _failure(error: BaseException) -> tuple[int, dict[str, Any]]:
    """Exit code and termination fields; says the last line on stderr."""
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        error = from_os_error(error, doing="use the local filesystem")
    match error:
        case FetchError():
            code, sentence, retryable = error.exit_code, error.sentence(), error.retryable
        case Interrupted():
            code, retryable = 128 + error.number, True
            name = signal.Signals(error.number).name
            sentence = f"Interrupted: {name} received; staging is kept, run the same command to go on"
        case BrokenPipeError():
            code, retryable = 74, True
            sentence = "IOError: nobody reads stdout any more"
            sys.stdout = None  # or the interpreter complains when it flushes
        case _:
            traceback.print_exception(error)
            code, retryable = 70, False
            what = " ".join(f"{type(error).__name__}: {error}".split())
            sentence = f"Internal: {what}; this is a bug, please report it with the lines above"
    with suppress(OSError, ValueError):
        print(sentence, file=sys.stderr, flush=True)
    reason, _, message = sentence.partition(": ")
    return code, {"reason": reason, "message": message, "retryable": retryable}


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
