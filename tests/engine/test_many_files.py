"""10,000 files with 256 descriptors, from every source to every place: no unused file stays open."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fetcher.events import BytesReceived, Event, Finished
from fetcher.testing.origin import Origin
from tests.engine.conftest import Fetcher

FILES = {f"{number % 100}/{number}.json": b"%d" % number * 20 for number in range(10_000)} | {"empty.txt": b""}
IN_HUB_CACHE = 10_000 if os.environ.get("WEIGHTLIFT_CHAOS_ROUNDS") else 2000
"""A hub cache needs several more names per file, so 10,000 files would take half a minute."""
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
from fetcher.cli import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("many")
    for path, content in FILES.items():
        (directory / path).parent.mkdir(exist_ok=True)
        (directory / path).write_bytes(content)
    return directory


def fetcher(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command with a hard limit of 256 descriptors."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, words)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def complete(directory: Path) -> None:
    present = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
    assert {path for path in present if not path.startswith(".fetcher")} == set(FILES)
    assert all((directory / path).read_bytes() == FILES[path] for path in list(FILES)[::97])


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as running:
        running.add_repo("org/model", FILES)
        running.add_repo("org/smaller", dict(list(FILES.items())[:IN_HUB_CACHE]))
        yield running


def test_a_fetch_from_the_hub(origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", origin.endpoint)
    complete(Path(fetcher("fetch", "hf://org/model", "--cache-dir", tmp_path).stdout.strip()))


def test_a_fetch_into_a_hub_cache(origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", origin.endpoint)
    snapshot = Path(fetcher("fetch", "hf://org/smaller", "--layout", "hf-cache", "--cache-dir", tmp_path).stdout.strip())
    assert sum(path.is_file() for path in snapshot.rglob("*.json") if ".fetcher" not in path.parts) == IN_HUB_CACHE


@pytest.mark.parametrize("options", [(), ("--hard-link",)], ids=["copied", "linked"])
def test_a_fetch_from_a_directory_is_verified(source: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    complete(Path(fetcher("fetch", source, "--cache-dir", tmp_path, *options).stdout.strip()))
    fetcher("verify", "--full", "--cache-dir", tmp_path)


def test_a_refresh_in_place(source: Path, tmp_path: Path) -> None:
    complete(Path(fetcher("fetch", source, "--dest", tmp_path).stdout.strip()))
    os.utime(source / "0/0.json")
    complete(Path(fetcher("fetch", source, "--dest", tmp_path, "--refresh", "on-change").stdout.strip()))


def test_a_check_in_place(source: Path, tmp_path: Path) -> None:
    fetcher("fetch", "pvc://claim/" + source.name, "--pvc-mount", f"claim={source.parent}", "--cache-dir", tmp_path)


async def test_a_cancelled_fetch_is_resumed(source: Path, tmp_path: Path) -> None:
    """Thousands of files wait for their hash and their sync, and none of them is open."""
    fetch = Fetcher(tmp_path)
    enough = asyncio.Event()

    def listen(event: Event) -> None:
        fetch.events.append(event)
        if isinstance(event, BytesReceived) and len(fetch.events) > 9_000:
            enough.set()

    task = asyncio.create_task(fetch(str(source), listen=listen))
    await enough.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    complete(Path(fetcher("fetch", source, "--cache-dir", tmp_path).stdout.strip()))
    assert not any(isinstance(event, Finished) for event in fetch.events)
