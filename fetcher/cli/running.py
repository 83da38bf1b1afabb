"""One command from its words to its exit code: errors become a last line, signals leave staging resumable."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
import traceback
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

from fetcher.cli import commands
from fetcher.cli.parser import build_parser
from fetcher.errors import FetchError, from_os_error

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Interrupted(Exception):
    """A signal came; `number` is which."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run(argv: Sequence[str] | None) -> int:
    """Exit codes as in `fetcher.errors`; 128+n on signal n, 70 for what nobody expected."""
    began = time.monotonic()
    report: dict[str, Any] = {"log": None}
    try:
        given = build_parser().parse_args(argv)
        fields = _dispatch(given, report)
        outcome = {"reason": "Completed", "message": "complete", "retryable": False, **fields}
        code = 0
    except SystemExit as ended:  # --help, --version
        return int(ended.code or 0)
    except BaseException as error:  # noqa: BLE001 - every end has an exit code and a last line
        code, outcome = _failure(error)
    outcome["seconds"] = round(time.monotonic() - began, 3)
    if report["log"] is not None:
        from fetcher.cli.termination import write_message

        write_message(report["log"], outcome)
    _flush()
    if code >= 128:
        # Threads that hang in a call of the disk or of a resolver are not waited for.
        os._exit(code)
    return code


def _dispatch(given: argparse.Namespace, report: dict[str, Any]) -> dict[str, Any]:
    environ = os.environ
    match given.command:
        case "key":
            commands.key(given, environ)
        case "list":
            commands.list_(given, environ)
        case "show":
            commands.show(given, environ)
        case "verify":
            from fetcher.telemetry import subscribed

            with subscribed("auto", sys.stderr) as on_event:
                commands.verify(given, environ, on_event)
        case _:
            return _fetch_or_plan(given, report)
    return {}


def _fetch_or_plan(given: argparse.Namespace, report: dict[str, Any]) -> dict[str, Any]:
    from fetcher.cli.options import settings_from
    from fetcher.cli.termination import destination
    from fetcher.telemetry import subscribed

    if given.command == "fetch":
        report["log"] = destination(getattr(given, "termination_log", None))
    found = commands.options_of(given, os.environ)
    if given.command == "fetch":
        report["log"] = destination(found.get("termination_log"))
    settings = settings_from(found, os.environ)
    ref = commands.reference(given, found)
    kind = found.get("progress", "auto")
    as_json = bool(found.get("json"))
    if given.command == "plan":
        with subscribed(kind, sys.stderr) as on_event:
            commands.plan(ref, settings, on_event, _run_interruptibly, as_json=as_json)
        return {}
    with subscribed(kind, sys.stderr) as on_event:
        fields = commands.fetch(ref, settings, on_event, _run_interruptibly, as_json=as_json)
    return {name: fields[name] for name in ("path", "revision", "cached")} | {"bytes": fields["bytes"]}


def _run_interruptibly(work: Coroutine[Any, Any, Any]) -> Any:
    """Run on an event loop; the first signal cancels, the second ends the process at once. Raises Interrupted."""
    caught: list[int] = []

    async def guarded() -> Any:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def stop(number: int) -> None:
            if caught:
                os._exit(128 + number)
            caught.append(number)
            if task is not None:
                task.cancel()

        for number in _SIGNALS:
            loop.add_signal_handler(number, stop, number)
        return await work

    with commands.runner() as runner:
        try:
            return runner.run(guarded())
        except asyncio.CancelledError:
            raise Interrupted(caught[0] if caught else signal.SIGINT) from None


def _failure(error: BaseException) -> tuple[int, dict[str, Any]]:
    """Exit code and termination fields; says the last line on stderr."""
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        error = from_os_error(error, doing="use the local filesystem")
    match error:
        case FetchError():
            code, sentence, retryable = error.exit_code, error.sentence(), error.retryable
        case Interrupted() | KeyboardInterrupt():
            number = error.number if isinstance(error, Interrupted) else signal.SIGINT
            code, retryable = 128 + number, True
            name = signal.Signals(number).name
            sentence = f"Interrupted: {name} received; staging is kept, run the same command to go on"
        case BrokenPipeError():
            code, retryable = 74, True
            sentence = "IOError: nobody reads stdout any more"
            sys.stdout = None  # or the interpreter complains when it flushes
        case _:
            traceback.print_exception(error)
            code, retryable = 70, False
            sentence = f"Internal: {type(error).__name__}: {error}; this is a bug, please report it with the lines above"
    with suppress(OSError, ValueError):
        print(sentence, file=sys.stderr, flush=True)
    reason, _, message = sentence.partition(": ")
    return code, {"reason": reason, "message": message, "retryable": retryable, "bytes": 0}


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
