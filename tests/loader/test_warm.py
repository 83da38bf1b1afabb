"""`loader warm`, `status` and `drop`, with real files, the real page cache, another user and a real memory limit."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fetcher.events import BytesLoaded, Event, silent
from fetcher.testing.checkpoint import make_checkpoint
from loader.errors import FileReplaced, NotResident
from loader.residency import warming
from loader.residency.model_files import ModelFile, model_files
from loader.residency.warming import warm
from loader.residency.windows import Window, windows
from tests.cli.conftest import last_line
from tests.lab.cgroups import in_group
from tests.lab.command import run_loader
from tests.lab.fixtures import MakeFilesystem
from tests.loader.conftest import NOBODY, MiB, add_manifest, cool, make_cold, make_warm, opened, resident, run_loader_as_nobody

pytestmark = pytest.mark.page_cache

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def output(*words: str | Path, **how: Any) -> dict[str, Any]:
    done = run_loader(*words, "--json", **how)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    result: dict[str, Any] = json.loads(line)
    return result


def size(path: Path) -> int:
    """Return the size of a file, or of all files in a directory, in bytes."""
    return sum(each.stat().st_size for each in ([path] if path.is_file() else path.iterdir()))


def planned(directory: Path) -> tuple[tuple[ModelFile, ...], tuple[Window, ...]]:
    chosen = model_files([str(directory)])
    return chosen, tuple(windows([member.size for member in chosen], width=MiB))


class TestWarm:
    def test_warm_reads_everything_into_memory_and_reports_it(self, model: Path) -> None:
        assert resident(model) == 0
        result = output("warm", model)
        assert resident(model) == 1
        assert (result["files"], result["bytes"]) == (7, size(model))
        assert size(model) / 2 < result["bytes_read"] <= size(model)  # reading the headers read some pages
        assert result["before"]["fraction"] < 0.5
        assert result["after"]["fraction"] == 1
        assert result["after"]["method"] == "mincore"
        assert result["read_by"] in (["populate"], ["preadv"])

    def test_resident_files_are_not_read_again(self, model: Path) -> None:
        make_warm(model / FIRST)
        assert output("warm", model)["bytes_read"] <= size(model) - size(model / FIRST)
        assert output("warm", model)["bytes_read"] == 0

    def test_the_text_output_is_one_line(self, model: Path) -> None:
        (line,) = run_loader("warm", model).stdout.splitlines()
        assert re.match(r"7 files, 8\.0 MiB: 100 % in memory \(was \d\S* %; method: mincore\); \S+ MiB read in \S+ m?s, ", line)
        (line,) = run_loader("warm", model).stdout.splitlines()
        assert line.endswith("; no reads needed")

    def test_an_artifact_of_the_fetcher_can_be_warmed(self, model: Path) -> None:
        add_manifest(model)
        assert output("warm", model)["files"] == 7

    def test_another_user_can_warm_and_gets_a_true_result(self, model: Path) -> None:
        done = run_loader_as_nobody("warm", model, "--json")
        assert done.returncode == 0, done.stderr
        assert resident(model) == 1
        result = json.loads(done.stdout)
        assert result["before"]["method"] == "sampled"
        assert result["before"]["fraction"] < 0.5
        assert (result["after"]["method"], result["after"]["fraction"]) == ("faults", 1)

    def test_ranks_warm_disjoint_parts_that_cover_the_model(self, model: Path) -> None:
        ranks = [{"LOADER_RANK": str(rank), "LOADER_WORLD_SIZE": "3"} for rank in range(3)]
        parts = [output("warm", model, env=rank)["bytes"] for rank in ranks]
        assert resident(model) == 1
        assert sum(parts) == size(model)
        assert max(parts) - min(parts) <= MiB

    def test_a_model_on_tmpfs_needs_no_reading(self, small_filesystem: MakeFilesystem) -> None:
        place = small_filesystem("tmpfs", size=16 * MiB).path / "model"
        result = output("warm", make_checkpoint(place, shards=1, shard_size=4 * MiB))
        assert (result["bytes_read"], result["after"]["method"]) == (0, "memory")

    def test_the_termination_message_has_the_result(self, model: Path, tmp_path: Path) -> None:
        run_loader("warm", model, "--termination-log", tmp_path / "log")
        message = json.loads((tmp_path / "log").read_text())
        assert (message["reason"], message["path"], message["resident"]) == ("Completed", str(model), message["bytes"])


class TestLimits:
    @pytest.fixture
    def large(self, public: Path) -> Path:
        """More than the cgroup's 64 MiB."""
        made = make_checkpoint(public / "large", shards=2, shard_size=48 * MiB)
        cool(made)
        return made

    def test_a_model_larger_than_the_cgroup_is_refused_with_the_numbers(
        self, large: Path, cgroup: Path, tmp_path: Path
    ) -> None:
        done = run_loader("warm", large, "--termination-log", tmp_path / "log", within=in_group(cgroup))
        assert (done.returncode, done.stdout) == (73, "")
        assert last_line(done.stderr).startswith("TooLarge: cannot keep 96.0 MiB in memory: there is room for ")
        assert f"(cgroup {cgroup}: limit 64.0 MiB, " in done.stderr
        assert json.loads((tmp_path / "log").read_text())["retryable"] is False
        assert resident(large) < 0.1

    def test_partial_warms_the_first_files(self, large: Path, cgroup: Path) -> None:
        result = output("warm", large, "--partial", "--rank", "0", "--world-size", "1", within=in_group(cgroup))
        assert result["after"]["fraction"] == 1
        assert result["bytes"] + result["bytes_left_out"] == size(large)
        assert resident(large / "config.json") == 1
        assert resident(large / FIRST) > 0
        assert resident(large / SECOND) < 0.2

    def test_a_resident_model_needs_no_free_memory(self, large: Path, cgroup: Path) -> None:
        assert output("warm", large)["after"]["fraction"] == 1
        assert output("warm", large, within=in_group(cgroup))["bytes_read"] == 0


FAILURES: dict[str, tuple[list[str], int, str]] = {
    "nothing there": (["warm", "/nothing"], 66, "NotFound: /nothing does not exist"),
    "no path": (["warm"], 64, "Usage: "),
    "an empty path": (["warm", ""], 64, "Usage: a path is empty"),
    "a rank beyond the others": (["warm", "/", "--rank", "2", "--world-size", "2"], 64, "Usage: --rank 2"),
    "no number of threads": (["warm", "/", "--threads", "0"], 64, "Usage: --threads: "),
    "an unknown flag": (["warm", "/", "--nonsense"], 64, "Usage: "),
}


@pytest.mark.parametrize(("words", "code", "start"), FAILURES.values(), ids=FAILURES)
def test_each_failure_has_its_exit_code_and_one_sentence(words: list[str], code: int, start: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = run_loader(*words, env={"LOADER_TERMINATION_LOG": str(log)})
    assert (done.returncode, done.stdout) == (code, "")
    assert last_line(done.stderr).startswith(start)
    message = json.loads(log.read_text())
    assert f"{message['reason']}: {message['message']}" == last_line(done.stderr)


def test_a_bad_environment_variable_is_a_configuration_error(model: Path) -> None:
    done = run_loader("warm", model, env={"LOADER_THREADS": "many"})
    assert (done.returncode, last_line(done.stderr).partition(" ")[0]) == (78, "Configuration:")


def test_an_unreadable_file_is_named(model: Path) -> None:
    (model / SECOND).chmod(0o600)
    done = run_loader_as_nobody("warm", model)
    assert done.returncode == 66
    assert last_line(done.stderr).startswith("NotReadable: ")
    assert f"{SECOND} as UID {NOBODY}" in done.stderr


def test_a_malformed_shard_is_refused_before_anything_is_read(model: Path) -> None:
    (model / FIRST).write_bytes(b"\xff" * 100)
    done = run_loader("warm", model)
    assert (done.returncode, last_line(done.stderr).partition(" ")[0]) == (65, "MalformedCheckpoint:")
    assert resident(model / SECOND) == 0


class TestFailuresMeanwhile:
    @pytest.fixture
    def evicting(self, model: Path) -> Callable[[Event], None]:
        """A subscriber that drops each file as soon as some of it was read, like a memory limit."""

        def evict(event: Event) -> None:
            if isinstance(event, BytesLoaded):
                make_cold(Path(event.path))

        return evict

    def test_reclaimed_pages_are_read_again(self, model: Path) -> None:
        loaded = 0

        def evicting_at_the_end(event: Event) -> None:
            nonlocal loaded
            if isinstance(event, BytesLoaded):
                loaded += event.bytes
                if loaded == size(model):
                    cool(model)

        result = warm(*planned(model), threads=2, on_event=evicting_at_the_end)
        assert loaded == size(model)
        assert result.after.complete
        assert resident(model) == 1

    def test_pages_that_never_stay_are_an_error(
        self, model: Path, evicting: Callable[[Event], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(warming, "PASSES", 1)
        chosen, plan = planned(model)
        with pytest.raises(NotResident, match=r"did not stay in memory") as caught:
            warm(chosen, plan, threads=2, on_event=evicting)
        assert (caught.value.exit_code, caught.value.retryable) == (75, True)

    def test_a_file_replaced_meanwhile_is_an_error(self, model: Path) -> None:
        chosen, plan = planned(model)
        other = make_checkpoint(model.parent / "other", shards=2, shard_size=4 * MiB, seed=1)
        os.rename(other / SECOND, model / SECOND)
        with pytest.raises(FileReplaced):
            warm(chosen, plan, threads=2, on_event=silent)

    def test_a_filesystem_without_populate_is_read_with_preadv(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(warming, "_POPULATED", frozenset())
        chosen, plan = planned(model)
        assert warm(chosen, plan, threads=2, on_event=silent).means == ("preadv",)
        assert resident(model) == 1


class TestStatus:
    def test_status_reports_each_file_and_the_strategy(self, model: Path) -> None:
        make_warm(model / FIRST)
        result = output("status", model)
        shares = {Path(entry["path"]).name: entry["fraction"] for entry in result["files"]}
        assert shares[FIRST] > 0.9
        assert shares[SECOND] < 0.1
        assert result["strategy"] in ("buffered", "direct", "mmap")
        assert {"kind", "mounted_at", "source", "network"} == set(result["filesystem"])
        text = run_loader("status", model).stdout
        assert re.search(rf"\d+ % of    4.0 MiB  mincore    {re.escape(str(model / FIRST))}", text)
        assert result["strategy_reason"] in text

    def test_status_reads_headers_but_no_weights(self, model: Path) -> None:
        run_loader("status", model)
        assert resident(model) < 0.1

    def test_another_user_gets_an_estimate_of_a_cold_file(self, model: Path) -> None:
        result = json.loads(run_loader_as_nobody("status", model / FIRST, "--json").stdout)
        assert (result["method"], result["fraction"] < 0.5) == ("sampled", True)


class TestDrop:
    def test_drop_removes_the_model_from_memory(self, model: Path) -> None:
        run_loader("warm", model)
        result = output("drop", model)
        assert result["before"]["fraction"] > 0.9  # the kernel may have reclaimed a page meanwhile
        assert (result["after"]["fraction"], result["stayed"]) == (0, [])
        assert resident(model) == 0

    def test_locked_files_stay_and_their_holder_is_named(self, model: Path) -> None:
        from loader.residency.paging import MappedRange

        with opened(model / FIRST) as fd, MappedRange(fd, 0, (model / FIRST).stat().st_size) as mapping:
            mapping.lock()
            (entry,) = output("drop", model)["stayed"]
            assert (entry["path"], entry["fraction"]) == (str(model / FIRST), 1)
            assert f"(PID {os.getpid()})" in entry["why"]
            assert entry["why"].startswith("locked by ")
            assert f"locked by {Path('/proc/self/comm').read_text().strip()}" in run_loader("drop", model).stdout
        assert output("drop", model)["stayed"] == []

    def test_drop_on_tmpfs_says_that_the_filesystem_is_memory(self, small_filesystem: MakeFilesystem) -> None:
        place = small_filesystem("tmpfs", size=16 * MiB).path / "model"
        make_checkpoint(place, shards=1, shard_size=4 * MiB)
        assert "its filesystem is memory" in run_loader("drop", place).stdout
