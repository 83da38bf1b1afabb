"""Cooperative fetch: several processes fill one artifact, each fetches its part, and all end with the whole."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fetcher.artifact import CHUNK_SIZE, ArtifactRef, Digest
from fetcher.engine import assembling
from fetcher.errors import ConfigurationError, LeaseTimeout, LocalIOError, NotFound, OutOfSpace, UsageError
from fetcher.settings import Part
from fetcher.store import beneath, collecting
from fetcher.store.lease import acquire
from fetcher.store.plan import read_plan
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.effects import FlipBit, IgnoreRange, Status
from fetcher.testing.faults import Fault
from fetcher.testing.interruptions import Stall
from fetcher.testing.origin import Origin
from tests.engine.conftest import Fetcher, contents
from tests.lab.command import FETCHER, run_fetcher
from tests.lab.filesystems import Kind
from tests.lab.fixtures import MakeFilesystem
from tests.lab.waiting import wait_until

MiB = 1024 * 1024
URI = "hf://org/model"
KEY = ArtifactRef(URI).key
FILES = {"config.json": b"{}", **{f"model-{number}.safetensors": random_bytes(f"{number}", 2 * MiB) for number in range(8)}}


@pytest.fixture
def model(origin: Origin) -> str:
    """The revision of a model of eight shards."""
    return origin.add_repo("org/model", FILES).refs["main"]


def served(origin: Origin) -> list[str]:
    """The shards that were asked for, each once for each request."""
    return sorted(request.path for request in origin.requests if request.origin == "cdn" and request.method == "GET")


def started(root: Path, part: str, *words: str) -> subprocess.Popen[str]:
    command = [*FETCHER, "fetch", URI, "--cache-dir", str(root), "--part", part, "--json", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    answer: dict[str, Any] = json.loads(output)
    return answer


def staged(root: Path) -> list[Path]:
    return sorted((root / ".fetcher/staging").iterdir())


@pytest.mark.usefixtures("model")
class TestTogether:
    def test_all_end_with_the_whole_artifact_and_no_file_is_fetched_twice(self, origin: Origin, tmp_path: Path) -> None:
        answers = [result(each) for each in [started(tmp_path, f"{index}/4") for index in range(4)]]
        assert {answer["path"] for answer in answers} == {str(tmp_path / KEY)}
        assert sum(answer["bytes_fetched"] for answer in answers) == sum(map(len, FILES.values()))
        assert len(served(origin)) == 8
        assert contents(tmp_path / KEY) == FILES
        assert all(answer["verified"] for answer in answers)
        assert staged(tmp_path) == []

    def test_one_part_alone_fetches_everything(self, tmp_path: Path) -> None:
        assert result(started(tmp_path, "3/4"))["bytes_fetched"] == sum(map(len, FILES.values()))

    def test_all_follow_the_revision_of_the_first(self, origin: Origin, model: str, tmp_path: Path) -> None:
        origin.throttle(per_connection=MiB)
        first = started(tmp_path, "0/2")
        wait_until((tmp_path / ".fetcher/staging" / f"{KEY}.plan").exists, "the plan is published")
        origin.add_repo("org/model", {**FILES, "config.json": b'{"newer": 1}'}, revisions=("main",))
        plan = read_plan(tmp_path, KEY)
        assert plan is not None
        assert plan.revision == model
        first.kill()
        first.communicate()

    def test_the_work_of_a_killed_part_is_continued(self, origin: Origin, tmp_path: Path) -> None:
        origin.throttle(per_connection=MiB)
        first = started(tmp_path, "0/2", "--max-concurrency", "1")
        wait_until(lambda: any((tmp_path / ".fetcher/staging").glob("*.u*/journal.*")), "a unit is being fetched")
        first.kill()
        first.communicate()
        origin.throttle()
        answer = result(started(tmp_path, "1/2"))
        assert contents(Path(answer["path"])) == FILES
        assert staged(tmp_path) == []

    def test_a_part_waits_for_the_others_as_long_as_it_may(self, origin: Origin, tmp_path: Path) -> None:
        origin.faults.add(Fault(Stall(), path="model-0", times=1))
        slow = started(tmp_path, "0/2", "--max-concurrency", "1")
        wait_until(lambda: any((tmp_path / ".fetcher/staging").glob("*.u*/journal.*")), "a unit is being fetched")
        done = started(tmp_path, "1/2", "--lease-wait", "0")
        _, errors = done.communicate(timeout=100)
        slow.kill()
        slow.communicate()
        assert (done.returncode, LeaseTimeout.reason in errors) == (75, True)


class Killed(Exception):
    """Stands for a kill at this moment."""


@pytest.mark.usefixtures("model")
class TestInterrupted:
    """The last step: collecting the units and publishing them."""

    async def test_a_commit_that_was_interrupted_fetches_nothing_again(self, origin: Origin, fetch: Fetcher) -> None:
        def stop(step: str) -> None:
            if step == "sealed":
                raise Killed

        with pytest.raises(Killed):
            await fetch(part=Part(0, 1), step=stop)
        before = len(origin.requests)
        artifact = await fetch()
        assert artifact.bytes_fetched == 0
        assert contents(artifact.path) == FILES
        assert len([each for each in origin.requests[before:] if each.origin == "cdn"]) == 0
        assert staged(fetch.cache_dir) == []

    @pytest.mark.parametrize("moved", [0, 1, 4, 8])
    async def test_a_collection_that_was_interrupted_is_continued(
        self, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch, moved: int
    ) -> None:
        rename, left = beneath.rename, [moved]

        def interrupted(*arguments: Any) -> None:
            if not left[0]:
                raise Killed
            left[0] -= 1
            rename(*arguments)

        monkeypatch.setattr(collecting, "rename", interrupted)
        with pytest.raises(Killed):
            await fetch(part=Part(0, 2))
        monkeypatch.setattr(collecting, "rename", rename)
        artifact = await fetch(part=Part(1, 2))
        assert artifact.bytes_fetched == 0
        assert contents(artifact.path) == FILES
        assert staged(fetch.cache_dir) == []

    async def test_an_ordinary_fetch_that_was_faster_is_the_result(self, fetch: Fetcher, origin: Origin) -> None:
        origin.throttle(per_connection=MiB / 2)
        part = asyncio.ensure_future(fetch(part=Part(0, 2), max_concurrency=1, timeout_stall=30.0))
        staging = fetch.cache_dir / ".fetcher/staging"
        await asyncio.to_thread(wait_until, lambda: any(staging.glob("*.u*/journal.*")), "a unit is being fetched")
        origin.throttle()
        whole = await fetch()
        assert (await part).path == whole.path
        assert [each.name for each in staged(fetch.cache_dir) if each.name.endswith(".plan")] == []

    async def test_units_of_an_earlier_plan_are_not_used(self, origin: Origin, fetch: Fetcher) -> None:
        """Their names belong to their plan, and it died with its artifact."""
        await fetch(part=Part(0, 2))
        newer = {**FILES, "model-0.safetensors": random_bytes("newer", 2 * MiB)}
        origin.add_repo("org/model", newer)
        artifact = await fetch(part=Part(0, 2), refresh="on-change")
        assert contents(artifact.path) == newer
        assert artifact.bytes_fetched == 2 * MiB

    async def test_a_plan_of_another_revision_than_was_resolved_is_not_gone_on_with(
        self, origin: Origin, fetch: Fetcher
    ) -> None:
        origin.faults.add(Fault(Status(404), origin="cdn"))
        with pytest.raises(NotFound):
            await fetch(part=Part(0, 2))
        origin.faults.clear()
        newer = {**FILES, "config.json": b'{"a": 1}'}
        repository = origin.add_repo("org/model", newer)
        artifact = await fetch(part=Part(0, 2), resolved=repository.commit)
        assert (contents(artifact.path), artifact.revision) == (newer, repository.commit)


@pytest.mark.usefixtures("model")
class TestPlan:
    async def test_a_damaged_plan_is_a_clear_error(self, fetch: Fetcher) -> None:
        plan = fetch.cache_dir / ".fetcher/staging" / f"{KEY}.plan"
        plan.mkdir(parents=True)
        (plan / "plan.json").write_text('{"format_version": 1, "units": [["../../etc/passwd"]]}')
        with pytest.raises(ConfigurationError, match="remove"):
            await fetch(part=Part(0, 2))

    async def test_units_that_do_not_make_the_whole_are_not_published(
        self, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        collect = collecting.collect

        def incomplete(*arguments: Any) -> Any:
            collected = collect(*arguments)
            del collected.files[-1]
            return collected

        monkeypatch.setattr("fetcher.engine.assembling.collect", incomplete)
        with pytest.raises(LocalIOError, match="do not make the whole"):
            await fetch(part=Part(0, 2))
        assert fetch.visible() == []

    async def test_a_plan_that_nobody_follows_is_garbage_after_a_day(self, fetch: Fetcher) -> None:
        plan = fetch.cache_dir / ".fetcher/staging" / f"{KEY}.plan"
        plan.mkdir(parents=True)
        for path in (plan / "plan.json", plan):
            path.touch()
            os.utime(path, (1_600_000_000, 1_600_000_000))
        assert run_fetcher("gc", "--cache-dir", fetch.cache_dir).returncode == 0
        assert not plan.exists()

    async def test_a_plan_stays_while_a_part_follows_it(self, fetch: Fetcher) -> None:
        staging = fetch.cache_dir / ".fetcher/staging"
        (staging / f"{KEY}.plan").mkdir(parents=True)
        os.utime(staging / f"{KEY}.plan", (1_600_000_000, 1_600_000_000))
        unit = acquire(staging, f"{KEY}.0123456789ab.u0", stale=60.0)
        assert unit is not None
        assert run_fetcher("gc", "--cache-dir", fetch.cache_dir).returncode == 0
        assert (staging / f"{KEY}.plan").exists()
        unit.dissolve()


LARGE = random_bytes("large", 70 * MiB + 5)
"""A file of five chunks: larger than the share of any part."""


@pytest.fixture
def large(origin: Origin) -> dict[str, bytes]:
    files = {"config.json": b"{}", "model.safetensors": LARGE, "tokenizer.json": b"[]"}
    origin.add_repo("org/model", files)
    return files


class TestSegments:
    """A file that is larger than the share of a part is cut, fetched by several parts, and joined."""

    def test_several_parts_fetch_one_file(self, origin: Origin, large: dict[str, bytes], tmp_path: Path) -> None:
        origin.throttle(per_connection=16 * MiB)
        parts = [started(tmp_path, f"{index}/2", "--max-concurrency", "1") for index in range(2)]
        answers = [result(each) for each in parts]
        assert all(answer["bytes_fetched"] >= 16 * MiB for answer in answers)
        # A connection that a busy machine starves is replaced, and brings a part of a chunk again.
        assert sum(answer["bytes_fetched"] for answer in answers) < sum(map(len, large.values())) + 2 * CHUNK_SIZE
        assert contents(tmp_path / KEY) == large
        assert all(answer["verified"] for answer in answers)
        assert staged(tmp_path) == []
        assert run_fetcher("verify", "--cache-dir", tmp_path, "--full").returncode == 0

    async def test_one_part_alone_fetches_every_segment(self, large: dict[str, bytes], fetch: Fetcher) -> None:
        artifact = await fetch(part=Part(1, 4), require_digests=True)
        assert contents(artifact.path) == large

    @pytest.mark.usefixtures("large")
    async def test_pins_of_the_user_are_those_of_the_whole_file(self, fetch: Fetcher) -> None:
        digest = Digest("sha256", hashlib.sha256(LARGE).hexdigest())
        assert (await fetch(part=Part(0, 4), expect={"model.safetensors": digest})).verified

    async def test_a_wrong_byte_in_a_segment_is_found_when_the_file_is_whole(
        self, origin: Origin, large: dict[str, bytes], fetch: Fetcher
    ) -> None:
        """A segment has no digest of its own; the chunks that are wrong are found and fetched again by one part."""
        origin.faults.add(Fault(FlipBit(20 * MiB), path="model.safetensors", times=1))
        artifact = await fetch(part=Part(0, 2))
        assert contents(artifact.path) == large

    @pytest.mark.usefixtures("large")
    async def test_a_server_that_sends_whole_files_only_is_a_clear_error(self, origin: Origin, fetch: Fetcher) -> None:
        origin.faults.add(Fault(IgnoreRange(), path="model.safetensors"))
        with pytest.raises(ConfigurationError, match=r"cannot be fetched in parts: .*; fetch without --part"):
            await fetch(part=Part(0, 2))

    async def test_a_join_that_was_interrupted_is_done_again(
        self, origin: Origin, large: dict[str, bytes], fetch: Fetcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The segments stay until the artifact is sealed."""

        def killed(*_: object) -> None:
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(assembling, "seal_fenced", killed)
            with pytest.raises(Killed):
                await fetch(part=Part(0, 2))
        before = len(served(origin))
        artifact = await fetch(part=Part(1, 2))
        assert contents(artifact.path) == large
        assert len(served(origin)) == before
        assert staged(fetch.cache_dir) == []

    @pytest.mark.parametrize(("kind", "size"), [("xfs", 320 * MiB), ("btrfs", 320 * MiB)])
    async def test_joining_takes_no_space_where_blocks_can_be_shared(
        self, large: dict[str, bytes], fetch: Fetcher, small_filesystem: MakeFilesystem, kind: Kind, size: int
    ) -> None:
        filesystem = small_filesystem(kind, size=size)
        filesystem.fill(leave=110 * MiB)
        artifact = await fetch(cache_dir=filesystem.path / "cache", part=Part(0, 2))
        assert contents(artifact.path) == large

    async def test_elsewhere_the_segments_are_copied_and_a_full_disk_loses_none(
        self, origin: Origin, large: dict[str, bytes], fetch: Fetcher, small_filesystem: MakeFilesystem
    ) -> None:
        filesystem = small_filesystem("ext4", size=320 * MiB)
        ballast = filesystem.fill(leave=110 * MiB)
        with pytest.raises(OutOfSpace):
            await fetch(cache_dir=filesystem.path / "cache", part=Part(0, 2))
        before = len(served(origin))
        ballast.unlink()
        artifact = await fetch(cache_dir=filesystem.path / "cache", part=Part(0, 2))
        assert contents(artifact.path) == large
        assert len(served(origin)) == before
        assert staged(filesystem.path / "cache") == []

    async def test_a_file_that_did_not_change_is_not_cut_at_a_refresh(self, origin: Origin, fetch: Fetcher) -> None:
        files = {"config.json": b"{}", "model.safetensors": LARGE}
        origin.add_repo("org/model", files)
        await fetch()
        origin.add_repo("org/model", {**files, "config.json": b'{"a": 1}'})
        artifact = await fetch(part=Part(0, 2), refresh="on-change")
        assert artifact.bytes_fetched == len(b'{"a": 1}')

    @pytest.mark.parametrize(
        "units",
        [
            [{"paths": ["a"], "segment": [0, 16777216]}, {"paths": ["a"], "segment": [33554432, 40000000]}],
            [{"paths": ["a"], "segment": [16777216, 33554432]}],
            [{"paths": ["a"], "segment": [0, 100]}, {"paths": ["a"], "segment": [100, 200]}],
            [{"paths": ["a"], "segment": [0, 100]}, {"paths": ["a"]}],
            [{"paths": ["a", "b"], "segment": [0, 100]}],
            [{"paths": ["a"], "segment": [0, 0]}],
            [{"paths": ["a"], "segment": [10, 5]}],
        ],
        ids=["a gap", "no beginning", "inside a chunk", "twice", "of two files", "empty", "backwards"],
    )
    async def test_a_plan_whose_segments_are_not_the_whole_is_refused(self, fetch: Fetcher, units: list[Any]) -> None:
        plan = fetch.cache_dir / ".fetcher/staging" / f"{KEY}.plan"
        plan.mkdir(parents=True)
        files = {path: "1:x" for unit in units for path in unit["paths"]}
        document = {"format_version": 1, "name": "0123456789ab", "revision": None, "files": files, "units": units}
        (plan / "plan.json").write_text(json.dumps(document))
        with pytest.raises(ConfigurationError, match="remove"):
            read_plan(fetch.cache_dir, KEY)


class TestUsage:
    @pytest.mark.parametrize("option", [{"layout": "hf-cache"}, {"dest": True}], ids=["hf-cache", "dest"])
    async def test_parts_are_for_a_cache_of_plain_files(self, fetch: Fetcher, tmp_path: Path, option: dict[str, Any]) -> None:
        option = {"dest": tmp_path / "dest"} if "dest" in option else option
        with pytest.raises(UsageError, match="--cache-dir"):
            await fetch(part=Part(0, 2), **option)

    def test_an_indexed_job_says_which_part_it_is(self, origin: Origin, model: str, tmp_path: Path) -> None:
        words = ("fetch", URI, "--cache-dir", tmp_path, "--parts", "2")
        assert run_fetcher(*words, env={"HF_ENDPOINT": origin.endpoint, "JOB_COMPLETION_INDEX": "1"}).returncode == 0
        for index, code in ((None, 64), ("2", 78), ("x", 78)):
            env = {} if index is None else {"JOB_COMPLETION_INDEX": index}
            assert run_fetcher(*words, env=env).returncode == code

    @pytest.mark.parametrize("words", [("--part", "4/4"), ("--part", "x"), ("--part", "0/2", "--parts", "2"), ("--parts", "0")])
    def test_a_part_that_makes_no_sense_is_a_usage_error(self, tmp_path: Path, words: tuple[str, ...]) -> None:
        assert run_fetcher("fetch", URI, "--cache-dir", tmp_path, *words).returncode == 64
