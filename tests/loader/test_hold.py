"""`loader hold`: locked or looked after, ready only when all is there, and told to whoever asks."""

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
from tests.loader.conftest import MiB, as_nobody, cool, make_cold, resident
from tests.loader.making import gguf, shard

pytestmark = pytest.mark.page_cache

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
LITTLE_LOCKED = (
    "setpriv",
    "--bounding-set=-ipc_lock",
    "--inh-caps=-ipc_lock",
    "bash",
    "-c",
    'ulimit -l 1024 && exec "$0" "$@"',
)


class StartPin(Protocol):
    def __call__(self, *words: str | Path, **how: Any) -> subprocess.Popen[str]: ...


@pytest.fixture
def start_pin() -> Iterator[StartPin]:
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
    def test_nothing_of_it_can_be_evicted_until_it_is_told_to_stop(
        self, model: Path, start_pin: StartPin, tmp_path: Path
    ) -> None:
        ready, told = tmp_path / "ready", tmp_path / "metrics.prom"
        pinning = start_pin(model, "--ready-file", ready, "--metrics-file", told)
        wait_until(ready.exists, "it is ready")
        cool(model)
        assert resident(model) == 1
        size = sum(path.stat().st_size for path in model.iterdir())
        seen = samples_in(told)
        assert (seen["loader_total_bytes"], seen["loader_locked_bytes"], seen["loader_resident_bytes"]) == (size, size, size)
        assert (seen["loader_ready"], seen["loader_locked"], seen["loader_rewarmed_bytes_total"]) == (1, 1, 0)
        code, stdout, stderr = stopped(pinning)
        assert (code, stdout) == (0, "ready: 8.0 MiB in memory, 8.0 MiB of them locked\n"), stderr
        assert not ready.exists()
        assert not told.exists()
        cool(model)
        assert resident(model) == 0

    def test_a_checkpoint_that_is_replaced_is_followed(self, model: Path, start_pin: StartPin, tmp_path: Path) -> None:
        ready, told = tmp_path / "ready", tmp_path / "metrics.prom"
        start_pin(model, "--ready-file", ready, "--metrics-file", told)
        wait_until(ready.exists, "it is ready")
        new = make_checkpoint(model.parent / "new", shards=1, shard_size=2 * MiB, seed=1)
        cool(new)
        os.rename(model, model.parent / "old")
        os.rename(new, model)
        wait_until(lambda: samples_in(told).get("loader_checkpoint_changes_total") == 1, "the new one is seen")
        wait_until(ready.exists, "it is ready again")
        cool(model)
        cool(model.parent / "old")
        assert resident(model) == 1
        assert resident(model.parent / "old") == 0

    def test_what_is_not_there_is_an_error_and_an_old_sign_of_readiness_goes(self, tmp_path: Path) -> None:
        ready = tmp_path / "ready"
        ready.touch()
        done = run_loader("hold", tmp_path / "nothing", "--ready-file", ready)
        assert (done.returncode, last_line(done.stderr).partition(" ")[0]) == (66, "NotFound:")
        assert not ready.exists()


class TestNotLocked:
    def test_what_was_reclaimed_is_read_again(self, model: Path, start_pin: StartPin, tmp_path: Path) -> None:
        ready, told = tmp_path / "ready", tmp_path / "metrics.prom"
        pinning = start_pin(model, "--ready-file", ready, "--metrics-file", told, "--progress", "log", within=LITTLE_LOCKED)
        wait_until(ready.exists, "it is ready")
        assert resident(model) == 1
        make_cold(model / SECOND)
        wait_until(lambda: samples_in(told).get("loader_rewarmed_bytes_total", 0) >= 4 * MiB, "it is read again")
        wait_until(lambda: samples_in(told).get("loader_ready") == 1, "it is ready again")
        assert resident(model) == 1
        assert samples_in(told)["loader_locked"] == 0
        code, _, stderr = stopped(pinning)
        assert code == 0
        assert re.search(r"warning: NotLocked: .* can't be locked \(RLIMIT_MEMLOCK: limit 1\.0 MiB", stderr)

    def test_a_stranger_finds_out_too(self, model: Path) -> None:
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

    def test_as_much_as_may_be_locked_is(self, model: Path) -> None:
        """Whole files or windows, from the beginning on: here what lies beside the shards."""

        def look() -> tuple[State, list[str]]:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (MiB, MiB))
            events: list[Event] = []
            keeper = Hold([str(model)], threads=2, on_event=events.append)
            return keeper.check(), [event.reason for event in events if isinstance(event, Warned)]

        state, warnings = as_nobody(look)
        assert (state.ready, warnings) == (True, ["NotLocked"])
        assert 0 < state.locked < MiB


class TestLimits:
    def test_what_a_filesystem_of_memory_holds_needs_no_more_of_it(
        self, small_filesystem: MakeFilesystem, cgroup: Path, start_pin: StartPin, tmp_path: Path
    ) -> None:
        place = small_filesystem("tmpfs", size=128 * MiB).path / "model"
        make_checkpoint(place, shards=2, shard_size=48 * MiB)
        start_pin(place, "--ready-file", tmp_path / "ready", within=in_group(cgroup))
        wait_until((tmp_path / "ready").exists, "it is ready, within 64 MiB")

    def test_elsewhere_more_than_the_cgroup_holds_is_refused(self, public: Path, cgroup: Path) -> None:
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

    def test_a_change_is_told_once(self, keeper: Hold, events: list[Event]) -> None:
        for _ in range(3):
            assert keeper.check().ready
        assert len([event for event in events if isinstance(event, Pinned)]) == 1

    def test_a_name_that_comes_beside_the_weights_unlocks_nothing(self, keeper: Hold, model: Path) -> None:
        keeper.check()
        (model / ".something").touch()
        assert keeper.check().changes == 0
        assert keeper.state.ready

    def test_a_file_that_comes_beside_the_weights_is_kept_too(self, keeper: Hold, model: Path) -> None:
        files = keeper.check().files
        (model / "chat_template.jinja").write_text("{{ messages }}")
        state = keeper.check()
        assert (state.files, state.changes, state.ready) == (files + 1, 1, True)

    def test_while_it_is_gone_it_is_not_ready_and_afterwards_it_is(
        self, keeper: Hold, model: Path, events: list[Event]
    ) -> None:
        assert keeper.check().ready
        os.rename(model, model.parent / "away")
        for _ in range(3):
            assert not keeper.check().ready
        assert [event.reason for event in events if isinstance(event, Warned)] == ["NotFound"]
        os.rename(model.parent / "away", model)
        assert keeper.check().ready

    def test_what_another_try_cannot_cure_is_raised_at_the_beginning(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound):
            Hold([str(tmp_path / "nothing")], threads=2, on_event=silent).check()

    def test_what_another_try_may_cure_is_waited_for(self, keeper: Hold, monkeypatch: pytest.MonkeyPatch) -> None:
        def replaced(*_: object) -> None:
            raise FileReplaced("replaced meanwhile")

        with monkeypatch.context() as patch:
            patch.setattr("loader.residency.holding.model_files", replaced)
            assert keeper.check().problem == "FileReplaced: replaced meanwhile"
            assert not keeper.state.ready
        assert keeper.check().ready

    def test_looking_takes_a_twentieth_of_a_processor_at_most(self, keeper: Hold) -> None:
        keeper.check()
        keeper._check_cost, keeper._did_read = 2.0, False  # noqa: SLF001
        assert (keeper.pause(10), keeper.pause(60)) == (38, 60)
        keeper._did_read = True  # noqa: SLF001
        assert keeper.pause(10) == 10

    def test_a_signal_before_all_is_there_is_an_interruption(
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
    """What comes, goes or changes anywhere in a tree is followed as at its top."""

    @pytest.fixture
    def tree(self, model: Path) -> Path:
        """A directory without weights of its own."""
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
    def test_a_new_file_is_kept_too(self, tree: Path, keeper: Hold, name: str) -> None:
        files = keeper.check().files
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(gguf({"a": 10}) if name.endswith("gguf") else shard({"a": b"1"}))
        state = keeper.check()
        assert (state.files, state.changes, state.ready) == (files + 1, 1, True)

    def test_also_where_directories_have_no_times(self, tree: Path, keeper: Hold) -> None:
        """As on many mounts of object storage."""
        old = os.stat(tree / "a/b")
        files = keeper.check().files
        (tree / "a/b/new.json").write_text("{}")
        os.utime(tree / "a/b", ns=(old.st_atime_ns, old.st_mtime_ns))
        assert keeper.check().files == files + 1

    def test_a_file_that_goes_is_let_go(self, tree: Path, keeper: Hold) -> None:
        files = keeper.check().files
        (tree / "a/b/config.json").unlink()
        assert (keeper.check().files, keeper.state.changes) == (files - 1, 1)

    def test_a_link_whose_content_comes_later(self, tree: Path, keeper: Hold) -> None:
        (tree / "a/b/later.json").symlink_to(tree / ".blob")
        files = keeper.check().files
        (tree / ".blob").write_text("{}")
        assert keeper.check().files == files + 1

    def test_another_revision_of_a_hub_cache(self, tree: Path) -> None:
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

    def test_what_is_hidden_or_not_read_changes_nothing(self, tree: Path, keeper: Hold) -> None:
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
    def test_it_is_ready_only_when_all_is_known_to_be_there(self, state: State, code: int) -> None:
        assert readiness(state).code == code

    def test_it_can_be_asked_for_beside_the_metrics(self, model: Path, start_pin: StartPin) -> None:
        pinning = start_pin(
            model, "--metrics-port", "0", "--metrics-address", "127.0.0.1", "--metrics-label", "artifact=m", "--progress", "log"
        )
        where = listening_at(pinning)
        wait_until(lambda: asked(f"{where}/ready").code == 200, "it is ready")
        assert asked(f"{where}/ready").text == "100 % of 8.0 MiB in memory\n"
        assert 'loader_ready{artifact="m"} 1\n' in asked(f"{where}/metrics").text
        assert stopped(pinning)[0] == 0


class TestMetrics:
    def test_what_nobody_knows_is_left_out(self) -> None:
        text = exposition(hold_metrics(UNKNOWN))
        assert "loader_ready 0\n" in text
        assert "loader_resident_bytes" not in text
        assert "loader_checked_timestamp_seconds" not in exposition(hold_metrics(State()))


def test_a_metrics_file_that_cannot_be_written_lets_nothing_go(model: Path, tmp_path: Path, start_pin: StartPin) -> None:
    ready = tmp_path / "ready"
    pinning = start_pin(model, "--metrics-file", tmp_path / "no" / "m.prom", "--ready-file", ready, "--progress", "log")
    wait_until(ready.exists, "it is ready")
    assert pinning.stderr is not None
    line = pinning.stderr.readline()
    while line and "write the metrics" not in line:
        line = pinning.stderr.readline()
    assert "warning: IOError: cannot write the metrics" in line
    code, _, stderr = stopped(pinning)
    assert code == 0
    assert "write the metrics" not in stderr, "it is said once"
