#!/usr/bin/env python3
"""A stand-in for an engine in a pod: `vllm serve DIR ...` reads every byte of DIR, as an engine does before it serves.

It prints its result as one line of JSON and runs until SIGTERM. It runs in a separate container, so it imports only the
standard library.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path


def main(words: list[str]) -> None:
    assert words[0] == "serve", words
    model = Path(words[1])
    files = {
        str(path.relative_to(model)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(model.rglob("*"))
        if path.is_file() and ".fetcher" not in path.parts
    }
    report = {"path": str(model), "flags": words[2:], "uid": os.geteuid(), "files": files, "writable": writable(model)}
    print(json.dumps(report), flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.pause()


def writable(model: Path) -> bool:
    try:
        (model / "written-by-the-engine").write_text("")
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main(sys.argv[1:])
