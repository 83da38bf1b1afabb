"""Files lost while they are warmed, loaded or held, by truncation or with the mount's server: an error, and never SIGBUS."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fetcher.errors import FetchError, LocalIOError
from fetcher.events import BytesLoaded, Event, LoadPlanned, Pinned
from fetcher.testing.checkpoint import make_checkpoint
from loader.errors import FileReplaced
from loader.reading.reader import read
from loader.residency.holding import Hold
from loader.residency.model_files import model_files
from loader.residency.warming import warm
from loader.residency.windows import windows
from tests.cli.conftest import last_line
from tests.lab.command import end, run_loader, started_loader
from tests.lab.faults import FaultFilesystem, fault_filesystem
from tests.lab.waiting import wait_until
from tests.loader.conftest import MiB, written
from tests.loader.sources import Plain
from tests.loader.test_reader import every_mode

pytestmark = pytest.mark.page_cache

SECOND = "model-00002-of-00002.safetensors"


@pytest.fixture
def fuse(tmp_path: Path) -> Iterator[FaultFilesystem]:
    """A FUSE mount that keeps pages, with a checkpoint in `model`."""
    with fault_filesystem(tmp_path / "fuse", pages="kept") as filesystem:
        make_checkpoint(filesystem.source / "model", shards=2, shard_size=4 * MiB)
        yield filesystem


def at_the_first(kind: type[Event], change: Callable[[], None]) -> Callable[[Event], None]:
    """A subscriber that calls `change` at the first event of `kind`."""
    done: list[Event] = []

    def on_event(event: Event) -> None:
        if isinstance(event, kind) and not done:
            done.append(event)
            change()

    return on_event


class TestTruncated:
    @pytest.mark.parametrize("length", [0, 1, 4097, 3 * MiB])
    @pytest.mark.parametrize("kind", [LoadPlanned, BytesLoaded])
    def test_a_file_truncated_while_it_is_warmed_is_an_error(self, model: Path, kind: type[Event], length: int) -> None:
        chosen = model_files([str(model)])
        plan = tuple(windows([member.size for member in chosen]))
        subscriber = at_the_first(kind, lambda: os.truncate(model / SECOND, length))
        with pytest.raises(FileReplaced, match=SECOND):
            warm(chosen, plan, threads=1, on_event=subscriber)

    @pytest.mark.parametrize("kind", [LoadPlanned, BytesLoaded])
    def test_a_file_truncated_during_the_first_check_is_waited_for(self, model: Path, kind: type[Event]) -> None:
        whole = (model / SECOND).read_bytes()
        keeper = Hold([str(model)], threads=1, on_event=at_the_first(kind, lambda: os.truncate(model / SECOND, 5000)))
        try:
            state = keeper.check()
            assert (state.ready, (state.problem or "").partition(":")[0]) == (False, "FileReplaced")
            (model / SECOND).write_bytes(whole)
            assert keeper.check().ready
        finally:
            keeper.close()

    def test_a_file_truncated_after_it_was_locked_is_not_ready(self, model: Path) -> None:
        """The lock remains, but its pages are gone."""
        keeper = Hold([str(model)], threads=1, on_event=at_the_first(Pinned, lambda: os.truncate(model / SECOND, 0)))
        try:
            keeper.check()
            assert not keeper.check().ready
        finally:
            keeper.close()

    @pytest.mark.parametrize("length", [0, 4097])
    def test_a_hold_is_ready_again_when_a_truncated_file_is_restored(self, model: Path, tmp_path: Path, length: int) -> None:
        ready, whole = tmp_path / "ready", (model / SECOND).read_bytes()
        process = started_loader("hold", model, "--interval", "50ms", "--ready-file", ready)
        try:
            wait_until(ready.exists, "it is ready")
            os.truncate(model / SECOND, length)
            wait_until(lambda: not ready.exists(), "it is no longer ready")
            (model / SECOND).write_bytes(whole)
            wait_until(ready.exists, "it is ready again")
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0
        finally:
            end(process)

    def test_a_file_truncated_before_the_start_is_malformed(self, model: Path) -> None:
        os.truncate(model / SECOND, 4097)
        for command in ("warm", "load", "hold"):
            done = run_loader(command, model)
            assert (done.returncode, last_line(done.stderr).partition(":")[0]) == (65, "MalformedCheckpoint")


class TestServerGone:
    @pytest.mark.parametrize("command", ["warm", "load", "status", "drop", "copy"])
    def test_a_server_lost_before_the_start_is_an_io_error(self, fuse: FaultFilesystem, tmp_path: Path, command: str) -> None:
        fuse.lose_server()
        done = run_loader(command, fuse.path / "model", *([tmp_path / "copy"] if command == "copy" else []))
        assert (done.returncode, last_line(done.stderr).partition(":")[0]) == (74, "IOError")
        assert "the server of this mount is gone; mount it again" in last_line(done.stderr)

    @every_mode
    def test_a_server_lost_while_loading_is_an_io_error(self, fuse: FaultFilesystem, mode: str) -> None:
        written(fuse.source / "large.safetensors", 40 * MiB)
        source = Plain.at(fuse.path / "large.safetensors")
        with read(source.cut(2 * MiB), window=2 * MiB, mode=mode, threads=1) as reading:  # type: ignore[arg-type]
            next(reading)
            fuse.lose_server()
            with pytest.raises(LocalIOError, match="the server of this mount is gone") as caught:
                list(reading)
        assert caught.value.exit_code == 74

    def test_a_server_lost_while_warming_is_a_temporary_error(self, fuse: FaultFilesystem) -> None:
        chosen = model_files([str(fuse.path / "model")])
        plan = tuple(windows([member.size for member in chosen]))
        with pytest.raises(FetchError) as caught:
            warm(chosen, plan, threads=1, on_event=at_the_first(LoadPlanned, fuse.lose_server))
        assert (caught.value.exit_code, caught.value.retryable) == (74, True)

    def test_a_hold_continues_with_the_next_mount(self, fuse: FaultFilesystem, tmp_path: Path) -> None:
        ready = tmp_path / "ready"
        process = started_loader("hold", fuse.path / "model", "--interval", "50ms", "--ready-file", ready, "--progress", "log")
        try:
            wait_until(ready.exists, "it is ready")
            fuse.lose_server()
            wait_until(lambda: not ready.exists(), "it is no longer ready")
            fuse.unmount()
            make_checkpoint(fuse.path / "model", shards=1, shard_size=MiB)
            wait_until(ready.exists, "it is ready again")
            process.send_signal(signal.SIGTERM)
            _, stderr = process.communicate(timeout=20)
            assert process.returncode == 0
            assert "transport endpoint is not connected; the server of this mount is gone" in stderr
        finally:
            end(process)

    def test_a_hold_waits_for_its_mount(self, fuse: FaultFilesystem) -> None:
        fuse.lose_server()
        keeper = Hold([str(fuse.path / "model")], threads=1, on_event=lambda _: None)
        assert "the server of this mount is gone" in (keeper.check().problem or "")
        fuse.unmount()
        make_checkpoint(fuse.path / "model", shards=1, shard_size=MiB)
        assert keeper.check().ready
        keeper.close()
