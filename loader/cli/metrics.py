"""The numbers that `loader pin` publishes."""

from __future__ import annotations

import os
from pathlib import Path

from fetcher.telemetry.exposition import Metric, exposition
from loader.pinning import State


def metrics(state: State) -> list[Metric]:
    return [
        Metric("loader_ready", "gauge", "1 while everything is known to be in memory.", state.ready),
        Metric("loader_total_bytes", "gauge", "Bytes of all files that are kept.", state.total),
        Metric("loader_resident_bytes", "gauge", "Bytes of them in memory; absent where nothing tells.", state.resident),
        Metric("loader_locked_bytes", "gauge", "Bytes of them that can't be reclaimed.", state.locked),
        Metric("loader_locked", "gauge", "1 while all of them are locked.", 0 < state.total == state.locked),
        Metric("loader_files", "gauge", "Files that are kept.", state.files),
        Metric("loader_rewarmed_bytes_total", "counter", "Bytes that were reclaimed and read again.", state.rewarmed),
        Metric("loader_checkpoint_changes_total", "counter", "Times the checkpoint was replaced.", state.changes),
        Metric("loader_checked_timestamp_seconds", "gauge", "When it was last looked at.", round(state.checked, 3)),
    ]


def write_metrics(path: Path, state: State) -> None:
    """As one piece, and readable to the collector, who is somebody else. Raises OSError."""
    write_whole(path, exposition(metrics(state)))


def write_whole(path: Path, text: str) -> None:
    """Nobody sees half of it. Not synced: after a power loss it says nothing true anyway. Raises OSError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        draft.write_text(text)
        draft.chmod(0o644)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
