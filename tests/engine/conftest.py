"""An origin, and a fetch through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.engine import Artifact
from fetcher.engine import fetch as engine_fetch
from fetcher.events import Event, Subscriber
from fetcher.settings import Settings
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.origin import Origin

MiB = 1024 * 1024
FILES = {
    "config.json": b'{"architectures": []}',
    "model.safetensors.index.json": b'{"weight_map": {}}',
    "model-00001-of-00002.safetensors": random_bytes("one", 20 * MiB + 7),
    "model-00002-of-00002.safetensors": random_bytes("two", 3 * MiB),
    "tokenizer/empty.txt": b"",
}
"""Two chunks, one chunk, less than one, and nothing; weights on the CDN, the rest served by the Hub."""


@pytest.fixture
def origin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    with Origin(lfs_threshold=MiB) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


class Fetcher:
    """Fetches into one cache root, and records the events."""

    def __init__(self, cache_dir: Path) -> None:
        self.cache_dir = cache_dir
        self.events: list[Event] = []

    async def __call__(self, uri: str = "hf://org/model", **options: Any) -> Artifact:
        names = ("revision", "include", "exclude")
        ref = ArtifactRef(uri, **{name: options.pop(name) for name in names if name in options})
        options.setdefault("retry_for", 5.0)
        options.setdefault("timeout_stall", 1.0)
        options.setdefault("max_concurrency", 4)
        options.setdefault("cache_dir", self.cache_dir)
        step: Callable[[str], None] = options.pop("step", lambda _: None)
        listen: Subscriber = options.pop("listen", self.events.append)
        return await engine_fetch(ref, Settings(**options), listen, step=step)

    def visible(self) -> list[str]:
        """Every file that a user of the cache could mistake for one of an artifact."""
        return sorted(
            path.relative_to(self.cache_dir).as_posix()
            for path in self.cache_dir.rglob("*")
            if path.is_file() and ".fetcher" not in path.relative_to(self.cache_dir).parts
        )


@pytest.fixture
def fetch(tmp_path: Path) -> Fetcher:
    return Fetcher(tmp_path / "cache")


def contents(directory: Path) -> dict[str, bytes]:
    """Path → content of every file of an artifact."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and ".fetcher" not in path.relative_to(directory).parts
    }
