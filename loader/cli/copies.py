"""`loader copy`, between parsed options and a result on stdout. Apart from the others, since it needs next to nothing of what
they do: that is a quarter of its start."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fetcher.command.results import print_result
from fetcher.events import Copied, Subscriber
from loader.cli.options import threads_for
from loader.copying.copy import copy


def copied(source: str, target: str, found: Mapping[str, Any], on_event: Subscriber) -> dict[str, Any]:
    """The result's fields. Raises what `copying.copy` does."""
    done = copy(Path(source), Path(target), threads=found.get("threads") or threads_for(source, busy=True), on_event=on_event)
    on_event(Copied(str(done.path), done.files, done.bytes, done.seconds, done.cached, done.verified))
    return asdict(done) | {"path": str(done.path), "source": source, "seconds": round(done.seconds, 3)}


def print_copied(fields: Mapping[str, Any], *, as_json: bool) -> None:
    print_result(json.dumps(fields) if as_json else fields["path"])
