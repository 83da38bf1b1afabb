"""A fetch in a process of its own that can be killed at a named step of its commit: `python victim.py JSON`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from fetcher.artifact import ArtifactRef
from fetcher.engine import fetch
from fetcher.errors import FetchError
from fetcher.settings import Settings
from fetcher.store import keyed


def main(told: dict[str, Any]) -> int:
    """`kill_at` is the number of the step before which SIGKILL comes; every step's name goes to stdout."""
    if not told.pop("exchange", True):
        vars(keyed)["exchange"] = lambda *_: False
    kill_at, seen = told.pop("kill_at", None), 0
    uri = told.pop("uri", "hf://org/model")

    def step(name: str) -> None:
        nonlocal seen
        print(name, flush=True)
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1

    told |= {name: Path(told[name]) for name in ("cache_dir", "dest") if name in told}
    told.setdefault("cache_dir", told.get("dest"))
    try:
        asyncio.run(fetch(ArtifactRef(uri), Settings(**told), step=step))
    except FetchError as error:
        print(error.sentence(), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
