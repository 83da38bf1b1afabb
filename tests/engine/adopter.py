"""`fetcher adopt` in a process that kills itself: `python -m tests.engine.adopter JSON`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from fetcher.cache import adopt, adoptable
from fetcher.events import Event
from fetcher.settings import Settings


def main(fields: dict[str, Any]) -> None:
    """The JSON contains `directory`, `uri`, `cache_dir`, and options of `adopt`.

    `kill_at` is the number of the moment for SIGKILL. Moments are the events, and the steps of the commit.
    """
    kill_at, moments = fields.pop("kill_at"), 0

    def moment(_: Event | str) -> None:
        nonlocal moments
        if moments == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        moments += 1

    directory, uri, cache_dir = (fields.pop(name) for name in ("directory", "uri", "cache_dir"))
    what = adoptable(Path(directory), uri=uri, revision=None, include=(), exclude=(), offline=False)
    asyncio.run(adopt(what, Settings(cache_dir=Path(cache_dir)), moment, step=moment, **fields))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
