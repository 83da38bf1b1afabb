"""An origin with a small and a slow model, which the command reaches through HF_ENDPOINT."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.origin import Origin

MiB = 1024 * 1024
URI = "hf://org/model"
FILES = {"config.json": b"{}", "model.safetensors": random_bytes("weights", 3 * MiB)}
SLOW = "hf://org/slow"
SLOW_WEIGHTS = random_bytes("slow", 24 * MiB)


@pytest.fixture
def origin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    with Origin(lfs_threshold=MiB) as running:
        running.add_repo("org/model", FILES)
        running.add_repo("org/slow", {"model.safetensors": SLOW_WEIGHTS})
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


def last_line(text: str) -> str:
    return text.rstrip("\n").rpartition("\n")[2]
