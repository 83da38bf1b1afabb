"""One command from start to exit code: an error becomes the last line, and a signal ends the command in order."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fetcher.command.signals import Interrupted, ignore_signals, raise_on_signals
from fetcher.command.termination import write_message
from fetcher.errors import FetchError, from_os_error
from fetcher.events import BytesLoaded, BytesReceived, Event, Subscriber
from fetcher.host.descriptors import raise_descriptor_limit

if TYPE_CHECKING:
    from fetcher.telemetry import Kind

T = TypeVar("T")


@dataclass(slots=True)
class Report:
    """The data of the termination message, also when the command fails half way.

    `log` is the file for the message, if any. `at_end` are called with the same fields, however the command ends.
    """

    log: Path | None = None
    received: int = 0
    at_end: list[Callable[[Mapping[str, Any]], None]] = field(default_factory=list)

    def counting(self, on_event: Subscriber) -> Subscriber:
        def subscriber(event: Event) -> None:
            if isinstance(event, BytesReceived | BytesLoaded):
                self.received += event.bytes
            on_event(event)

        return subscriber


def run_command(work: Callable[[Report], Mapping[str, Any]], *, log: Path | None, interrupted: str, plain: bool = False) -> int:
    """Run `work` and return its exit code: as in `fetcher.errors`, 128+n on signal n, 70 on a bug.

    `work` returns fields for the termination message and may change its file, `log`, in the report. `interrupted` says what
    a signal leaves behind. `plain` makes the message a sentence, for programs that search it for words.
    """
    began = time.monotonic()
    atexit.register(gc.freeze)  # otherwise the interpreter looks for garbage in all modules before it ends: 35 ms
    _restart_in_utf8()
    _prepare_streams()
    arrival = raise_on_signals()
    raise_descriptor_limit()
    report = Report(log)
    try:
        try:
            outcome = {"reason": "Completed", "message": "complete", "retryable": False, **work(report)}
            code = 0
        finally:
            ignore_signals()  # the outcome is decided; an earlier signal is caught below
    except SystemExit as ended:  # --help, --version
        return int(ended.code or 0)
    except BaseException as error:  # noqa: BLE001 - every end has an exit code and a last line
        code, outcome = _failure(error if arrival.number is None else Interrupted(arrival.number), interrupted)
        outcome["bytes"] = report.received
    outcome["seconds"] = round(time.monotonic() - began, 3)
    write_message(report.log, outcome, plain=plain)
    for tell in report.at_end:
        tell(outcome)
    _flush()
    if code >= 128:
        # Do not wait for threads that hang in a call to the disk or to a resolver.
        os._exit(code)
    return code


def with_progress(kind: Kind, work: Callable[[Subscriber], T]) -> T:
    """Run `work` with progress on stderr. The caller prints results afterwards, so that a terminal does not mix the two."""
    from fetcher.telemetry import subscribed

    with subscribed(kind, sys.stderr) as on_event:
        return work(on_event)


def _restart_in_utf8() -> None:
    """Restart in Python's UTF-8 mode if the locale uses another encoding.

    Names of models and files are Unicode, and pods of another locale share the volume: the bytes on it must not depend on
    LC_ALL. Python chooses its mode at start, and chooses UTF-8 by itself only in the C locale (PEP 540).
    """
    if sys.getfilesystemencoding() != "utf-8" and sys.executable:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - the same program


def _prepare_streams() -> None:
    """Treat a closed stream (`>&-`) as /dev/null, and print a path that is not valid UTF-8 as its own bytes."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - open as long as the process
    with suppress(AttributeError):  # a test's or a host program's own stream object
        sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]  # just suppressed


def _failure(error: BaseException, interrupted: str) -> tuple[int, dict[str, Any]]:
    """Print the last line on stderr; return the exit code and the fields of the termination message."""
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        error = from_os_error(error, doing="use the local filesystem")
    match error:
        case FetchError():
            code, sentence, retryable = error.exit_code, error.sentence(), error.retryable
        case Interrupted():
            code, retryable = 128 + error.number, True
            sentence = f"Interrupted: {signal.Signals(error.number).name} received; {interrupted}"
        case BrokenPipeError():
            code, retryable = 74, True
            sentence = "IOError: cannot write to stdout: its reader has closed it"
            sys.stdout = None  # otherwise the interpreter fails to flush it at exit
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
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except (OSError, ValueError, AttributeError):
            setattr(sys, name, None)  # the interpreter would flush it again at exit, fail, and exit with 120
