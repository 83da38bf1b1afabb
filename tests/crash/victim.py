"""A fetch or a repair in a separate process, to be killed, stopped or run as another user: `python victim.py JSON`."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from fetcher.artifact import ArtifactRef
from fetcher.cache import named, repair, verify
from fetcher.engine import fetch
from fetcher.errors import FetchError
from fetcher.events import Event, Subscriber, silent
from fetcher.settings import Settings
from fetcher.steps import Step
from fetcher.store import keyed


def main(fields: dict[str, Any]) -> int:
    """The JSON contains fields of Settings, and what happens to the process:

    `kill_at` is the number of the step for SIGKILL (the name of every step goes to stdout), `stop_at` the number of the step
    for SIGSTOP, `kill_on` the name of the event for SIGKILL. `exchange` false disables the atomic exchange. `user`, `group`
    and `umask` are those of the process. `repair` verifies and repairs instead of fetching.
    """
    os.umask(fields.pop("umask", 0o022))
    if "user" in fields:
        _become(fields.pop("user"), fields.pop("group"))
    if not fields.pop("exchange", True):
        vars(keyed)["exchange"] = lambda *_: False
    kill_on = fields.pop("kill_on", None)
    kill_at, stop_at, seen = fields.pop("kill_at", None), fields.pop("stop_at", None), 0
    uri, work = fields.pop("uri", "hf://org/model"), _repair if fields.pop("repair", False) else _fetch

    def step(name: str) -> None:
        nonlocal seen
        print(name, flush=True)
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if seen == stop_at:
            os.kill(os.getpid(), signal.SIGSTOP)
        seen += 1

    def on_event(event: Event) -> None:
        if type(event).__name__ == kill_on:
            os.kill(os.getpid(), signal.SIGKILL)

    fields |= {name: Path(fields[name]) for name in ("cache_dir", "dest") if name in fields}
    fields.setdefault("cache_dir", fields.get("dest"))
    try:
        asyncio.run(work(uri, Settings(**fields), on_event, step))
    except FetchError as error:
        print(error.sentence(), file=sys.stderr)
        return error.exit_code
    return 0


async def _fetch(uri: str, settings: Settings, on_event: Subscriber, step: Step) -> None:
    await fetch(ArtifactRef(uri), settings, on_event, step=step)


async def _repair(uri: str, settings: Settings, on_event: Subscriber, step: Step) -> None:
    entry = named(str(settings.dest) if settings.dest else uri, lambda: settings.cache_dir).entry
    report = verify(entry, full=False, on_event=silent)
    await repair(entry, report, settings, uri=uri, on_event=on_event, step=step)


def _become(user: int, group: int) -> None:
    """Become a process of one user and one group, as in a container. Late imports come first: the files of the interpreter may
    be unreadable afterwards."""
    for name in (
        "encodings.idna",
        "fetcher.engine.pipeline",
        "fetcher.engine.in_place_check",
        "fetcher.sources.hub",
        "fetcher.transport.client",
        "huggingface_hub.utils",
    ):
        importlib.import_module(name)
    importlib.import_module("huggingface_hub").get_token()
    os.setgroups([group])
    os.setgid(group)
    os.setuid(user)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
