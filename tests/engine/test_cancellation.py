"""A fetch cancelled at any point, once or twice, leaves no lease, descriptor or thread, and can be resumed."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Generator
from pathlib import Path
from typing import Any

import pytest

from fetcher.events import BytesReceived, Event
from fetcher.store.heartbeat import parse_heartbeat, read_heartbeat
from fetcher.store.lease import Lease
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.origin import Origin
from tests.engine.conftest import Fetcher, MiB, contents
from tests.lab.waiting import wait_until

FILES = {
    "config.json": b"{}",
    "one.safetensors": random_bytes("one", 17 * MiB),
    "two.safetensors": random_bytes("two", 2 * MiB),
    "empty.txt": b"",
}
TIMES = pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])


class Stepped:
    """Awaits `work`, and cancels its task at the `at`-th suspension and, if `times` is two, at the next one."""

    def __init__(self, work: Coroutine[Any, Any, Any], *, at: int, times: int) -> None:
        self._work = work
        self._cancel_at = range(at, at + times)
        self.suspensions = 0

    @property
    def fired(self) -> bool:
        return self.suspensions >= self._cancel_at.start

    def __await__(self) -> Generator[Any, Any, Any]:
        task = asyncio.current_task()
        assert task is not None
        error: BaseException | None = None
        while True:
            try:
                future = self._work.send(None) if error is None else self._work.throw(error)
            except StopIteration as ended:
                return ended.value
            self.suspensions += 1
            if self.suspensions in self._cancel_at:
                asyncio.get_running_loop().call_soon(task.cancel)
            error = None
            try:
                yield future
            except BaseException as thrown:  # noqa: BLE001 - the work raised it
                error = thrown


async def stepped(work: Stepped) -> None:
    await work


def descriptors() -> dict[str, str]:
    """Return the descriptors of files. Those of sockets change with the origin."""
    targets = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            targets[number] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue
    return {number: target for number, target in targets.items() if target.startswith("/")}


def working_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith(("write", "hash", "sync", "read"))]


def unreleased(cache_dir: Path) -> list[Path]:
    """Return the staging directories that their owner neither removed nor released."""
    return [
        data
        for data in cache_dir.rglob("data.*")
        if not parse_heartbeat(read_heartbeat(data.with_name(data.name.replace("data.", "lease.", 1)))).get("released")
    ]


async def left_in_order(fetch: Fetcher, before: dict[str, str]) -> None:
    assert unreleased(fetch.cache_dir) == []
    assert asyncio.all_tasks() == {asyncio.current_task()}
    wait_until(lambda: not working_threads(), "threads that end")  # the fetch does not wait for a sync
    assert descriptors() == before


async def given_up(work: Any) -> bool:
    """Whether the work was cancelled before it was complete."""
    try:
        await work
    except asyncio.CancelledError:
        return True
    return False


@TIMES
@pytest.mark.parametrize("kind", ["hub", "directory"])
async def test_a_fetch_cancelled_at_any_suspension_is_resumable(origin: Origin, tmp_path: Path, kind: str, times: int) -> None:
    origin.add_repo("org/model", FILES)
    for path, content in FILES.items():
        (tmp_path / "source").mkdir(exist_ok=True)
        (tmp_path / "source" / path).write_bytes(content)
    uri = "hf://org/model" if kind == "hub" else str(tmp_path / "source")
    before, fired, at = descriptors(), True, 0
    while fired:
        at += 1
        fetch = Fetcher(tmp_path / f"cache-{at}")
        work = Stepped(fetch(uri), at=at, times=times)
        cancelled = await given_up(asyncio.create_task(stepped(work)))
        fired = work.fired

        await left_in_order(fetch, before)
        assert cancelled or not fired or fetch.visible(), at
        assert contents((await fetch(uri, lease_wait=1.0)).path) == FILES
    assert at > 5, "a fetch has many suspensions"


@TIMES
async def test_a_fetch_cancelled_at_any_event_is_resumable(origin: Origin, tmp_path: Path, times: int) -> None:
    origin.add_repo("org/model", FILES)
    before, fired, at = descriptors(), True, 0
    while fired and at < 40:
        at += 1
        fetch = Fetcher(tmp_path / f"cache-{at}")
        tasks: list[asyncio.Task[Any]] = []

        def listen(event: Event, fetch: Fetcher = fetch, at: int = at, tasks: list[asyncio.Task[Any]] = tasks) -> None:
            fetch.events.append(event)
            if at <= len(fetch.events) < at + times:
                asyncio.get_running_loop().call_soon(tasks[0].cancel)

        tasks.append(asyncio.create_task(fetch(listen=listen)))
        await given_up(tasks[0])
        fired = len(fetch.events) >= at

        await left_in_order(fetch, before)
        assert contents((await fetch(lease_wait=1.0)).path) == FILES


@TIMES
async def test_a_renewal_in_flight_does_not_undo_the_release(
    origin: Origin, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """The volume is slow to write the heartbeat, and the fetch is cancelled meanwhile."""
    origin.add_repo("org/model", FILES)
    begun, may_end = threading.Event(), threading.Event()
    renew = Lease.renew

    def slowly(lease: Lease, **progress: Any) -> None:
        if progress.get("fetched"):
            begun.set()
            assert may_end.wait(30)
        renew(lease, **progress)

    monkeypatch.setattr(Lease, "renew", slowly)
    before = descriptors()
    task = asyncio.create_task(fetch(limit_rate=8 * MiB, lease_stale=2.0))
    await asyncio.to_thread(begun.wait, 30)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0.05)
    assert not task.done(), "it waits for the renewal"
    may_end.set()

    assert await given_up(task)
    await left_in_order(fetch, before)
    monkeypatch.undo()
    monkeypatch.setenv("HF_ENDPOINT", origin.endpoint)
    assert contents((await fetch(lease_wait=1.0)).path) == FILES


def test_a_fetch_ended_by_asyncio_run_is_resumable(origin: Origin, fetch: Fetcher) -> None:
    """An exception ends asyncio.run while another task fetches."""
    origin.add_repo("org/model", FILES)

    async def main() -> None:
        begun = asyncio.Event()
        task = asyncio.create_task(
            fetch(limit_rate=8 * MiB, listen=lambda event: begun.set() if isinstance(event, BytesReceived) else None)
        )
        await begun.wait()
        assert not task.done()
        raise KeyboardInterrupt

    before = descriptors()
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    wait_until(lambda: not working_threads(), "threads that end")
    assert unreleased(fetch.cache_dir) == []
    assert descriptors() == before
    assert contents(asyncio.run(fetch(lease_wait=1.0)).path) == FILES


@TIMES
async def test_an_in_place_check_can_be_cancelled_at_any_suspension(tmp_path: Path, times: int) -> None:
    for path, content in FILES.items():
        (tmp_path / path).write_bytes(content)
    before, fired, at = descriptors(), True, 0
    fetch = Fetcher(tmp_path / "unused")
    while fired:
        at += 1
        work = Stepped(fetch("pvc://claim/", pvc_mounts={"claim": tmp_path}), at=at, times=times)
        await given_up(asyncio.create_task(stepped(work)))
        fired = work.fired
        await left_in_order(fetch, before)
