"""Processes to kill, and the invariants of what they leave."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.engine import Artifact, fetch
from fetcher.engine.artifact_check import verify
from fetcher.events import silent
from fetcher.manifest import RELATIVE_PATH
from fetcher.settings import Settings
from fetcher.store.catalog import entry_at
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.origin import Origin

MiB = 1024 * 1024
WEIGHTS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"


def revision(seed: str) -> dict[str, bytes]:
    """A model whose revisions are equal in every path and size, and differ in one shard, the index and the configuration."""
    return {
        "config.json": b'{"seed": "%s"}' % seed.encode(),
        INDEX: b'{"map": "%s"}' % seed.encode(),
        WEIGHTS[0]: random_bytes("shared", 17 * MiB),
        WEIGHTS[1]: random_bytes(seed, 2 * MiB),
        "tokenizer.json": b"{}",
    }


OLD, NEW = revision("a"), revision("b")


@pytest.fixture
def origin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    with Origin(lfs_threshold=MiB) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


class Victims:
    """Starts fetches in separate processes, and ends them after the test."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def start(self, *, within: Sequence[str] = (), **fields: Any) -> subprocess.Popen[str]:
        """Start a fetch. `within` is a command that runs another command."""
        fields = {name: str(value) if isinstance(value, Path) else value for name, value in fields.items()}
        script = Path(__file__).with_name("victim.py")
        command = [*within, sys.executable, str(script), json.dumps(fields)]
        victim = self._stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        self._stack.callback(victim.kill)
        return victim

    def run(self, **fields: Any) -> tuple[int, list[str], str]:
        """Run a fetch. Returns its exit code, the names of its steps, and stderr."""
        victim = self.start(**fields)
        stdout, stderr = victim.communicate(timeout=60)
        return victim.returncode, stdout.split("\n")[:-1], stderr


class Successor:
    """The run after a kill, in the process of the test."""

    def __call__(self, uri: str = "hf://org/model", **fields: Any) -> Artifact:
        fields.setdefault("cache_dir", fields.get("dest"))
        return asyncio.run(fetch(ArtifactRef(uri), Settings(**fields)))


@pytest.fixture
def finish() -> Successor:
    return Successor()


@pytest.fixture
def victims() -> Iterator[Victims]:
    with ExitStack() as stack:
        yield Victims(stack)


def fetched_files(origin: Origin) -> set[str]:
    """Names of the files whose bytes were requested."""
    return {
        Path(request.path).name if request.origin == "hub" else "model-weights"
        for request in origin.requests
        if request.method == "GET" and (request.origin == "cdn" or "/resolve/" in request.path)
    }


def visible(directory: Path) -> dict[str, bytes]:
    """Path → content of every file that a reader of the artifact's directory sees."""
    if not directory.is_dir():
        return {}
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and ".fetcher" not in path.relative_to(directory).parts
    }


def assert_nothing_or_complete(directory: Path, *revisions: dict[str, bytes]) -> None:
    """The invariant of a keyed artifact at every instant."""
    if not directory.exists():
        return
    assert visible(directory) in revisions
    assert_verified(directory)


def assert_in_place(directory: Path, *revisions: dict[str, bytes]) -> None:
    """The invariant of an artifact placed file by file, at every instant."""
    seen = visible(directory)
    for path, content in seen.items():
        assert content in [each[path] for each in revisions], f"{path} is no revision's"
    announced = [path for path in ("config.json", INDEX) if path in seen]
    if (directory / RELATIVE_PATH).exists():
        assert_verified(directory)
        announced.extend(path for path in OLD if path not in announced)
    for path in announced:
        of = [each for each in revisions if each[path] == seen[path]]
        assert any(all(seen.get(weight) == each[weight] for weight in WEIGHTS) for each in of), f"{path} lacks its weights"


def assert_verified(directory: Path) -> None:
    """`fetcher verify --full` succeeds."""
    entry = entry_at(directory)
    assert entry is not None
    report = verify(entry, full=True, on_event=silent)
    assert report.ok, report.bad
