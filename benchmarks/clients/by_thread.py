"""Run a command of the fetcher and write the processor seconds of each kind of thread: `by_thread.py OUTPUT WORD...`.

The kinds are the names of the thread pools; `loop` is the main thread. A thread is read every 20 ms, so what it does in its
last 20 ms is missing.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

from fetcher.cli import main

PERIOD = 0.02


class Watch:
    """Reads what each thread of this process has run, and waited for a processor."""

    def __init__(self) -> None:
        self._kinds: dict[int, str] = {}
        self._last: dict[int, tuple[float, float]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watch_0")
        self._thread.start()

    def end(self) -> dict[str, dict[str, float]]:
        """Return `ran` and `waited` in seconds of each kind."""
        self._ended.set()
        self._thread.join()
        self._look()
        seconds: defaultdict[str, dict[str, float]] = defaultdict(lambda: {"ran": 0.0, "waited": 0.0})
        for thread, (ran, waited) in self._last.items():
            kind = seconds[self._kinds[thread]]
            kind["ran"] += ran
            kind["waited"] += waited
        return dict(seconds)

    def _watch(self) -> None:
        while not self._ended.wait(PERIOD):
            self._look()

    def _look(self) -> None:
        for thread in threading.enumerate():
            if thread.native_id is None:
                continue
            try:
                ran, waited, _ = Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text().split()
            except OSError:
                continue  # it has just ended
            self._kinds[thread.native_id] = "loop" if thread is threading.main_thread() else thread.name.partition("_")[0]
            self._last[thread.native_id] = int(ran) / 1e9, int(waited) / 1e9


if __name__ == "__main__":
    output, words = sys.argv[1], sys.argv[2:]
    before = time.process_time()  # what imports took until here is not the fetch's
    watch = Watch()
    code = main(words)
    kinds = watch.end()
    kinds["loop"]["ran"] -= before
    Path(output).write_text(json.dumps(kinds))
    sys.exit(code)
