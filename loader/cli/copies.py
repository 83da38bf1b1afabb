"""`loader copy`: from parsed options to a result on stdout.

A module of its own because the imports of the other commands, which it does not need, would take a quarter of its start.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fetcher.command.results import print_result
from fetcher.events import Copied, Subscriber
from fetcher.usage import note_use
from loader.cli.options import threads_for
from loader.copying.copy import copy


def copied(source: str, target: str, settings: Mapping[str, Any], on_event: Subscriber) -> dict[str, Any]:
    """Copy the artifact and return the fields of the result. Raises the errors of `copying.copy`."""
    threads = settings.get("threads") or threads_for(source, busy=True)
    note_use(source)
    result = copy(Path(source), Path(target), threads=threads, on_event=on_event)
    on_event(Copied(str(result.path), result.files, result.bytes, result.seconds, result.cached, result.verified))
    return asdict(result) | {"path": str(result.path), "source": source, "seconds": round(result.seconds, 3)}


def print_copied(fields: Mapping[str, Any], *, as_json: bool) -> None:
    print_result(json.dumps(fields) if as_json else fields["path"])
