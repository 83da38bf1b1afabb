"""`loader hold`: pages are locked or read again, and readiness is reported only if all of them are in memory."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from fetcher.command.signals import Interrupted
from fetcher.errors import NotFound
from fetcher.events import Event, Pinned, Warned, silent
from fetcher.telemetry.exposition import exposition
from fetcher.testing.checkpoint import make_checkpoint
from fetcher.uncancelled import Stopped
from loader.cli import holding
from loader.cli.holding import readiness
from loader.cli.metrics import hold_metrics
from loader.errors import FileReplaced
from loader.residency.holding import Hold, State
from tests.cli.conftest import last_line
from tests.lab.asking import asked
from tests.lab.cgroups import in_group
from tests.lab.command import end, listening_at, run_loader, started_loader
from tests.lab.fixtures import MakeFilesystem
from tests.lab.metrics import samples_in
from tests.lab.waiting import wait_until
from tests.loader.conftest import MiB, as_nobody, cool, make_cold, make_warm, resident
from tests.loader.making import gguf, shard

pytestmark = pytest.mark.page_cache

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
LOW_LOCK_LIMIT = (
    "setpriv",
    "--bounding-set=-ipc_lock",
    "--inh-caps=-ipc_lock",
    "bash",
    "-c",
    'ulimit -l 1024 && exec "$0" "$@"',
)


class StartHold(Protocol):
    def __call__(self, *words: str | Path, **how: Any) -> subprocess.Popen[str]: ...


@pytest.fixture
def start_hold() -> Iterator[StartHold]:
    with ExitStack() as stack:

        def start(*words: str | Path, **how: Any) -> subprocess.Popen[str]:
            process = started_loader("hold", *words, "--interval", "50ms", **how)
            stack.callback(end, process)
            return process

        yield start


def stopped(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=20)
    return process.returncode, stdout, stderr


class TestLocked:
    def test_locked_pages_stay_until_the_hold_is_stopped(self, model: Path, start_hold: StartHold, tmp_path: Path) -> None:
        ready, metrics = tmp_path / "ready", tmp_path / "metrics.prom"
        process = start_hold(model, "--ready-file", ready, "--metrics-file", metrics)
        wait_until(ready.exists, "it is ready")
        cool(model)
        assert resident(model) == 1
        size = sum(path.stat().st_size for path in model.iterdir())
        samples = samples_in(metrics)
        assert [samples[f"loader_{kind}_bytes"] for kind in ("total", "locked", "resident")] == [size] * 3
        assert (samples["loader_ready"], samples["loader_locked"], samples["loader_rewarmed_bytes_total"]) == (1, 1, 0)
        code, stdout, stderr = stopped(process)
        assert (code, stdout) == (0, "ready: 8.0 MiB in memory, 8.0 MiB locked\n"), stderr
        assert not ready.exists()
        assert not metrics.exists()
        cool(model)
        assert resident(model) == 0

    def test_a_replaced_checkpoint_is_followed(self, model: Path, start_hold: StartHold, tmp_path: Path) -> None:
        ready, metrics = tmp_path / "ready", tmp_path / "metrics.prom"
        start_hold(model, "--ready-file", ready, "--metrics-file", metrics)
        wait_until(ready.exists, "it is ready")
        new = make_checkpoint(model.parent / "new", shards=1, shard_size=2 * MiB, seed=1)
        cool(new)
        os.rename(model, model.parent / "old")
        os.rename(new, model)
        wait_until(lambda: samples_in(metrics).get("loader_checkpoint_changes_total") == 1, "the new checkpoint is noticed")
        wait_until(ready.exists, "it is ready again")
        cool(model)
        cool(model.parent / "old")
        assert resident(model) == 1
        assert resident(model.parent / "old") == 0

    def test_a_missing_path_is_an_error_and_an_old_ready_file_is_removed(self, tmp_path: Path) -> None:
        ready = tmp_path / "ready"
        ready.touch()
        done = run_loader("hold", tmp_path / "nothing", "--ready-file", ready)
        assert (done.returncode, last_line(done.stderr).partition(" ")[0]) == (66, "NotFound:")
        assert not ready.exists()


class TestNotLocked:
    def test_reclaimed_pages_are_read_again(self, model: Path, start_hold: StartHold, tmp_path: Path) -> None:
        ready, metrics = tmp_path / "ready", tmp_path / "metrics.prom"
        process = start_hold(
            model, "--ready-file", ready, "--metrics-file", metrics, "--progress", "log", within=LOW_LOCK_LIMIT
        )
        wait_until(ready.exists, "it is ready")
        assert resident(model) == 1
        make_cold(model / SECOND)
        wait_until(lambda: samples_in(metrics).get("loader_rewarmed_bytes_total", 0) >= 4 * MiB, "it is read again")
        wait_until(lambda: samples_in(metrics).get("loader_ready") == 1, "it is ready again")
        assert resident(model) == 1
        assert samples_in(metrics)["loader_locked"] == 0
        code, _, stderr = stopped(process)
        assert code == 0
        assert re.search(r"warning: NotLocked: .* can't be locked \(RLIMIT_MEMLOCK: limit 1\.0 MiB", stderr)

    def test_another_user_also_notices_reclaimed_pages(self, model: Path) -> None:
        def look() -> tuple[State, State]:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
            keeper = Hold([str(model)], threads=2, on_event=silent)
            first = keeper.check()
            make_cold(model / SECOND)
            return first, keeper.check()

        first, second = as_nobody(look)
        assert (first.ready, first.locked, first.rewarmed) == (True, 0, 0)
        assert second.ready
        assert second.rewarmed > 3 * MiB
        assert resident(model) == 1

    def test_as_much_is_locked_as_the_limit_allows(self, model: Path) -> None:
        """Whole windows are locked, in order: here only the small files before the shards."""

        def look() -> tuple[State, list[str]]:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (MiB, MiB))
            events: list[Event] = []
            keeper = Hold([str(model)], threads=2, on_event=events.append)
            return keeper.check(), [event.reason for event in events if isinstance(event, Warned)]

        state, warnings = as_nobody(look)
        assert (state.ready, warnings) == (True, ["NotLocked"])
        assert 0 < state.locked < MiB


class TestLimits:
    def test_a_model_on_tmpfs_needs_no_further_memory(
        self, small_filesystem: MakeFilesystem, cgroup: Path, start_hold: StartHold, tmp_path: Path
    ) -> None:
        place = small_filesystem("tmpfs", size=128 * MiB).path / "model"
        make_checkpoint(place, shards=2, shard_size=48 * MiB)
        start_hold(place, "--ready-file", tmp_path / "ready", within=in_group(cgroup))
        wait_until((tmp_path / "ready").exists, "it is ready within 64 MiB")

    def test_a_model_larger_than_the_cgroup_is_refused(self, public: Path, cgroup: Path) -> None:
        large = make_checkpoint(public / "large", shards=2, shard_size=48 * MiB)
        done = run_loader("hold", large, within=in_group(cgroup))
        assert done.returncode == 73
        assert last_line(done.stderr).startswith("TooLarge: cannot keep 96.0 MiB in memory")


class TestRounds:
    @pytest.fixture
    def events(self) -> list[Event]:
        return []

    @pytest.fixture
    def keeper(self, model: Path, events: list[Event]) -> Iterator[Hold]:
        keeper = Hold([str(model)], threads=2, on_event=events.append)
        yield keeper
        keeper.close()

    def test_an_unchanged_state_is_reported_once(self, keeper: Hold, events: list[Event]) -> None:
        for _ in range(3):
            assert keeper.check().ready
        assert len([event for event in events if isinstance(event, Pinned)]) == 1

    def test_a_new_hidden_file_unlocks_nothing(self, keeper: Hold, model: Path) -> None:
        keeper.check()
        (model / ".something").touch()
        assert keeper.check().changes == 0
        assert keeper.state.ready

    def test_a_new_file_in_the_directory_is_held_too(self, keeper: Hold, model: Path) -> None:
        files = keeper.check().files
        (model / "chat_template.jinja").write_text("{{ messages }}")
        state = keeper.check()
        assert (state.files, state.changes, state.ready) == (files + 1, 1, True)

    def test_a_missing_model_is_not_ready_until_it_is_back(self, keeper: Hold, model: Path, events: list[Event]) -> None:
        assert keeper.check().ready
        os.rename(model, model.parent / "away")
        for _ in range(3):
            assert not keeper.check().ready
        assert [event.reason for event in events if isinstance(event, Warned)] == ["NotFound"]
        os.rename(model.parent / "away", model)
        assert keeper.check().ready

    def test_a_permanent_error_is_raised_by_the_first_check(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound):
            Hold([str(tmp_path / "nothing")], threads=2, on_event=silent).check()

    def test_a_temporary_error_is_a_problem_until_a_later_check_succeeds(
        self, keeper: Hold, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def replaced(*_: object) -> None:
            raise FileReplaced("replaced meanwhile")

        with monkeypatch.context() as patch:
            patch.setattr("loader.residency.holding.model_files", replaced)
            assert keeper.check().problem == "FileReplaced: replaced meanwhile"
            assert not keeper.state.ready
        assert keeper.check().ready

    def test_checks_take_at_most_five_percent_of_a_processor(self, keeper: Hold) -> None:
        keeper.check()
        keeper._check_cost, keeper._did_read = 2.0, False  # noqa: SLF001
        assert (keeper.pause(10), keeper.pause(60)) == (38, 60)
        keeper._did_read = True  # noqa: SLF001
        assert keeper.pause(10) == 10

    def test_without_locks_all_is_kept_by_reading(self, model: Path) -> None:
        keeper = Hold([str(model)], threads=2, on_event=silent, lock=False)
        state = keeper.check()
        assert (state.ready, state.locked) == (True, 0)
        keeper.close()

    def test_what_was_in_memory_before_counts_as_read_again_too(self, model: Path) -> None:
        for path in model.iterdir():
            make_warm(path)
        keeper = Hold([str(model)], threads=2, on_event=silent, lock=False)
        assert keeper.check().rewarmed == 0
        make_cold(model / SECOND)
        state = keeper.check()
        assert state.ready
        assert state.rewarmed > 3 * MiB
        keeper.close()

    def test_a_check_that_is_asked_to_stop_reads_and_locks_nothing_more(self, model: Path) -> None:
        keeper = Hold([str(model)], threads=2, on_event=silent, stopped=lambda: True)
        with pytest.raises(Stopped):
            keeper.check()
        assert keeper.state.locked == 0
        assert resident(model) < 0.1  # headers only

    def test_a_signal_before_the_model_is_ready_is_an_interruption(
        self, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def interrupted(_: float) -> None:
            raise Interrupted(signal.SIGTERM)

        monkeypatch.setattr("time.sleep", interrupted)
        monkeypatch.setattr(State, "ready", property(lambda _: False))
        with pytest.raises(Interrupted):
            holding.hold([str(model)], {}, silent)
        monkeypatch.setattr(State, "ready", property(lambda _: True))
        assert holding.hold([str(model)], {}, silent).files == 7
        assert capsys.readouterr().out.startswith("ready: ")


class TestTrees:
    """Changes anywhere in a tree are followed like those at its top."""

    @pytest.fixture
    def tree(self, model: Path) -> Path:
        """A directory whose weights are in a subdirectory."""
        root = model.parent / "tree"
        (root / "a").mkdir(parents=True)
        model.rename(root / "a" / "b")
        return root

    @pytest.fixture
    def keeper(self, tree: Path) -> Iterator[Hold]:
        keeper = Hold([str(tree)], threads=2, on_event=silent)
        yield keeper
        keeper.close()

    @pytest.mark.parametrize(
        "name", ["new.json", "a/new.json", "a/b/new.json", "a/c/new.json", "a/b/c/new.safetensors", "z/y/new.gguf"]
    )
    def test_a_new_file_anywhere_in_the_tree_is_held_too(self, tree: Path, keeper: Hold, name: str) -> None:
        files = keeper.check().files
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(gguf({"a": 10}) if name.endswith("gguf") else shard({"a": b"1"}))
        state = keeper.check()
        assert (state.files, state.changes, state.ready) == (files + 1, 1, True)

    def test_a_new_file_is_noticed_without_a_change_of_the_directory_s_time(self, tree: Path, keeper: Hold) -> None:
        """Many mounts of object storage never change a directory's time."""
        old = os.stat(tree / "a/b")
        files = keeper.check().files
        (tree / "a/b/new.json").write_text("{}")
        os.utime(tree / "a/b", ns=(old.st_atime_ns, old.st_mtime_ns))
        assert keeper.check().files == files + 1

    def test_a_deleted_file_is_released(self, tree: Path, keeper: Hold) -> None:
        files = keeper.check().files
        (tree / "a/b/config.json").unlink()
        assert (keeper.check().files, keeper.state.changes) == (files - 1, 1)

    def test_a_dangling_link_is_held_when_its_target_appears(self, tree: Path, keeper: Hold) -> None:
        (tree / "a/b/later.json").symlink_to(tree / ".blob")
        files = keeper.check().files
        (tree / ".blob").write_text("{}")
        assert keeper.check().files == files + 1

    def test_a_new_revision_in_a_hub_cache_is_followed(self, tree: Path) -> None:
        repository = tree / "models--org--m"
        for revision in ("one", "two"):
            make_checkpoint(repository / "snapshots" / revision, shards=1, shard_size=MiB, seed=len(revision))
        (repository / "refs").mkdir()
        (repository / "refs/main").write_text("one")
        (repository / "blobs").mkdir()
        keeper = Hold([str(repository)], threads=2, on_event=silent)
        keeper.check()
        (repository / "refs/main").write_text("two")
        assert (keeper.check().changes, keeper.state.ready) == (1, True)
        keeper.close()

    def test_hidden_and_unused_files_change_nothing(self, tree: Path, keeper: Hold) -> None:
        keeper.check()
        (tree / "a/b/.new").touch()
        (tree / "a/.cache").mkdir()
        (tree / "a/b/pytorch_model.bin").write_bytes(b"x")
        assert (keeper.check().changes, keeper.state.ready) == (0, True)


READY = State(files=2, total=100, resident=100, locked=100, rewarmed=7, changes=1, checked=1.5)
PARTLY = State(files=2, total=100, resident=99, checked=1.5)
UNKNOWN = State(files=2, total=100, resident=None, checked=1.5)


class TestReadiness:
    @pytest.mark.parametrize(("state", "code"), [(READY, 200), (PARTLY, 503), (UNKNOWN, 503), (State(), 503)])
    def test_the_endpoint_is_ready_only_if_every_byte_is_known_to_be_in_memory(self, state: State, code: int) -> None:
        assert readiness(state).code == code

    def test_readiness_is_served_next_to_the_metrics(self, model: Path, start_hold: StartHold) -> None:
        process = start_hold(
            model, "--metrics-port", "0", "--metrics-address", "127.0.0.1", "--metrics-label", "artifact=m", "--progress", "log"
        )
        address = listening_at(process)
        wait_until(lambda: asked(f"{address}/ready").code == 200, "it is ready")
        assert asked(f"{address}/ready").text == "100 % of 8.0 MiB in memory\n"
        assert 'loader_ready{artifact="m"} 1\n' in asked(f"{address}/metrics").text
        assert stopped(process)[0] == 0


class TestMetrics:
    def test_unknown_values_are_left_out_of_the_metrics(self) -> None:
        text = exposition(hold_metrics(UNKNOWN))
        assert "loader_ready 0\n" in text
        assert "loader_resident_bytes" not in text
        assert "loader_checked_timestamp_seconds" not in exposition(hold_metrics(State()))


def test_the_hold_continues_if_the_metrics_file_cannot_be_written(model: Path, tmp_path: Path, start_hold: StartHold) -> None:
    ready = tmp_path / "ready"
    process = start_hold(model, "--metrics-file", tmp_path / "no" / "m.prom", "--ready-file", ready, "--progress", "log")
    wait_until(ready.exists, "it is ready")
    assert process.stderr is not None
    line = process.stderr.readline()
    while line and "write the metrics" not in line:
        line = process.stderr.readline()
    assert "warning: IOError: cannot write the metrics" in line
    code, _, stderr = stopped(process)
    assert code == 0
    assert "write the metrics" not in stderr, "the warning is not repeated"
