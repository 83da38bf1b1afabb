"""`fetcher rm`, `prune`, `evict`, `gc`, `pin`, `unpin`, `hold` and `release`, as people use them."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.errors import LeaseLost
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.store.archives import discard, remove_archives
from fetcher.store.garbage import garbage
from fetcher.store.lease import Lease, acquire, observe, take_over
from tests.cli.test_bounded import LONG_AGO, MiB
from tests.cli.test_bounded import Cache as Bounded
from tests.lab.command import FETCHER, run_fetcher
from tests.lab.faults import fault_filesystem


class Cache(Bounded):
    def run(self, command: str, *words: str | Path, code: int = 0) -> str:
        """Run a command on this root, and return what it printed: stderr if it fails."""
        done = run_fetcher(command, *words, "--cache-dir", self.root)
        assert done.returncode == code, done.stderr
        return done.stderr if code else done.stdout

    def json(self, command: str, *words: str | Path) -> Any:
        return json.loads(self.run(command, *words, "--json"))

    @property
    def private(self) -> Path:
        return self.root / ".fetcher"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Three models, last used long ago: `a` first, `c` last."""
    made = Cache(tmp_path_factory.mktemp("template"))
    made.fetched("a", "b", "c")
    return made


@pytest.fixture
def cache(template: Cache, tmp_path: Path) -> Cache:
    """A copy of the template, of the same models."""
    made = copy.copy(template)
    made.root = tmp_path / "cache"
    shutil.copytree(template.root, made.root)
    return made


class TestRm:
    @pytest.mark.parametrize("command", ["rm", "evict"])
    def test_by_key_or_by_uri(self, cache: Cache, command: str) -> None:
        printed = cache.run(command, cache.key("a"), cache.model("b"))
        assert cache.present() == {"c"}
        assert printed.splitlines()[-1] == "2 removed, 8.0 MiB"
        assert sorted(path.name for path in (cache.private / "usage").iterdir()) == [cache.key("c")]

    def test_what_was_used_a_moment_ago_is_removed_too(self, cache: Cache) -> None:
        cache.fetch("a")
        cache.run("rm", cache.key("a"))
        assert cache.present() == {"b", "c"}

    def test_a_dry_run_only_shows_it(self, cache: Cache) -> None:
        result = cache.json("rm", cache.key("a"), "--dry-run")
        assert (result["dry_run"], [each["key"] for each in result["removed"]]) == (True, [cache.key("a")])
        assert cache.present() == {"a", "b", "c"}

    def test_an_unknown_name_removes_nothing(self, cache: Cache) -> None:
        assert "NotFound" in cache.run("rm", cache.key("a"), "hf://no/model", code=66)
        assert cache.present() == {"a", "b", "c"}

    def test_a_pinned_artifact_is_refused_by_name_and_the_others_stay(self, cache: Cache) -> None:
        cache.run("pin", cache.key("b"))
        message = cache.run("rm", cache.key("a"), cache.key("b"), code=73)
        assert message.startswith("Pinned: ")
        assert cache.key("b") in message
        assert cache.present() == {"a", "b", "c"}

    def test_an_open_artifact_is_refused_by_name(self, cache: Cache) -> None:
        with (cache.root / cache.key("a") / "model.bin").open():
            assert cache.run("rm", cache.key("a"), code=75).startswith("InUse: ")
        cache.run("rm", cache.key("a"))

    def test_a_held_artifact_is_refused_until_it_is_released(self, cache: Cache) -> None:
        cache.run("hold", cache.key("a"), "--pod-uid", "pod-1")
        cache.run("hold", cache.key("a"), "--pod-uid", "pod-2", "--for", "1h")
        assert "held by a pod" in cache.run("rm", cache.key("a"), code=75)
        cache.run("release", cache.key("a"), "--pod-uid", "pod-1")
        assert "held by a pod" in cache.run("rm", cache.key("a"), code=75)
        assert cache.run("release", cache.key("a")) == f"{cache.key('a')}  neither pinned nor held\n"
        cache.run("rm", cache.key("a"))

    def test_an_artifact_with_a_fetch_under_way_is_refused(self, cache: Cache) -> None:
        lease = acquire(cache.private / "staging", cache.key("a"), stale=60.0)
        assert lease is not None
        assert "being fetched" in cache.run("rm", cache.key("a"), code=75)
        lease.dissolve()

    def test_a_directory_with_files_of_others_is_not_removed(self, cache: Cache) -> None:
        (cache.root / cache.key("a") / "notes.txt").write_text("mine")
        assert "by hand" in cache.run("rm", cache.key("a"), code=73)
        assert (cache.root / cache.key("a") / "model.bin").exists()

    def test_a_directory_outside_of_the_cache_is_not_removed(self, cache: Cache, tmp_path: Path) -> None:
        assert run_fetcher("fetch", cache.model("a"), "--dest", tmp_path / "dest").returncode == 0
        run_fetcher("rm", tmp_path / "dest", "--cache-dir", cache.root)
        assert (tmp_path / "dest" / "model.bin").exists()

    def test_a_link_planted_for_the_artifact_is_not_followed(self, cache: Cache, tmp_path: Path) -> None:
        elsewhere = tmp_path / "elsewhere"
        (cache.root / cache.key("a")).rename(elsewhere)
        (cache.root / cache.key("a")).symlink_to(elsewhere)
        run_fetcher("rm", cache.key("a"), "--cache-dir", cache.root)
        assert (elsewhere / "model.bin").exists()

    def test_a_missing_cache_is_not_created(self, tmp_path: Path) -> None:
        done = run_fetcher("rm", "0" * 16, "--cache-dir", tmp_path / "none")
        assert done.returncode == 66
        assert not (tmp_path / "none").exists()


class TestWhereReadersAreNotSeen:
    """On FUSE and network filesystems nobody can tell who has a file open."""

    def test_a_named_artifact_that_was_used_recently_wants_force(self, tmp_path: Path) -> None:
        with fault_filesystem(tmp_path / "faulty") as filesystem:
            cache = Cache(filesystem.path)
            cache.fetched("a")
            assert cache.fetch("a").returncode == 0
            assert cache.run("rm", cache.key("a"), code=75).startswith("InUseUnknown: ")
            os.utime(cache.private / "usage" / cache.key("a"))
            cache.run("rm", cache.key("a"), "--force", "--dry-run")

    def test_a_rule_wants_an_explicit_idle_time(self, tmp_path: Path) -> None:
        with fault_filesystem(tmp_path / "faulty") as filesystem:
            cache = Cache(filesystem.path)
            cache.fetched("a")
            assert "--min-idle" in cache.run("prune", "--to", "1Mi", code=64)


class TestPrune:
    @pytest.mark.parametrize("command", ["prune", "evict"])
    def test_down_to_a_size_the_least_recently_used_first(self, cache: Cache, command: str) -> None:
        result = cache.json(command, "--to", "9Mi")
        assert [each["why"] for each in result["removed"]] == ["least recently used"]
        assert cache.present() == {"b", "c"}
        assert result["used"] <= 9 * MiB

    def test_what_was_unused_for_long(self, cache: Cache) -> None:
        cache.fetch("c")
        result = cache.json("prune", "--unused-for", "30d")
        assert sorted(each["key"] for each in result["removed"]) == sorted([cache.key("a"), cache.key("b")])
        assert cache.present() == {"c"}

    def test_nothing_that_was_used_within_the_idle_time_goes(self, cache: Cache) -> None:
        cache.fetch("a")
        assert "CacheBusy" in cache.run("prune", "--to", "1Mi", code=75)
        assert cache.present() == {"a"}
        cache.run("prune", "--to", "1Mi", "--min-idle", "0")
        assert cache.present() == set()

    def test_an_open_artifact_stays_and_the_message_says_so(self, cache: Cache) -> None:
        with (cache.root / cache.key("a") / "model.bin").open():
            assert f"{cache.key('a')} is open" in cache.run("prune", "--to", "1Mi", code=75)
        assert cache.present() == {"a"}

    def test_a_dry_run_removes_nothing(self, cache: Cache) -> None:
        printed = cache.run("prune", "--to", "1Mi", "--dry-run")
        assert printed.splitlines()[-1] == "3 would be removed, 12.0 MiB"
        assert cache.present() == {"a", "b", "c"}

    @pytest.mark.parametrize("command", ["prune", "evict"])
    def test_without_a_rule_it_is_a_usage_error(self, cache: Cache, command: str) -> None:
        assert "--unused-for" in cache.run(command, code=64)

    def test_a_name_and_a_rule_together_are_a_usage_error(self, cache: Cache) -> None:
        cache.run("evict", cache.key("a"), "--to", "1Mi", code=64)
        assert cache.present() == {"a", "b", "c"}


class TestPin:
    def test_a_pin_lasts_until_it_is_removed(self, cache: Cache) -> None:
        assert cache.run("pin", cache.model("a")) == f"{cache.key('a')}  pinned for good\n"
        cache.run("prune", "--to", "1Mi", code=75)
        assert cache.present() == {"a"}
        cache.run("unpin", cache.model("a"))
        cache.run("prune", "--to", "1Mi")
        assert cache.present() == set()

    def test_the_list_shows_pins_and_holds_that_last(self, cache: Cache) -> None:
        cache.run("pin", cache.key("a"))
        cache.run("pin", cache.key("b"), "--for", "0")
        cache.run("hold", cache.key("c"), "--pod-uid", "pod-1")
        shown = {each["cache_key"]: (each["pinned"], each["held_by"]) for each in cache.json("list")}
        assert shown == {cache.key("a"): (True, []), cache.key("b"): (False, []), cache.key("c"): (False, ["pod-1"])}
        lines = {line.split()[0]: line for line in cache.run("list").splitlines()}
        assert "  a pin  " in lines[cache.key("a")]
        assert "  -  " in lines[cache.key("b")]
        assert "  pod pod-1  " in lines[cache.key("c")]

    def test_a_pin_with_an_end_says_when(self, cache: Cache) -> None:
        (claim,) = cache.json("pin", cache.key("a"), "--for", "2h")["claims"]
        assert (claim["kind"], claim["until"] is not None) == ("pin", True)

    def test_pinning_is_no_use(self, cache: Cache) -> None:
        before = os.stat(cache.private / "usage" / cache.key("a")).st_mtime
        cache.run("pin", cache.key("a"))
        cache.run("unpin", cache.key("a"))
        assert os.stat(cache.private / "usage" / cache.key("a")).st_mtime == before == LONG_AGO

    def test_what_is_not_there_cannot_be_pinned(self, cache: Cache) -> None:
        assert "NotFound" in cache.run("pin", "hf://no/model", code=66)

    @pytest.mark.parametrize(
        "damage", ["a file", "a link", "a record is a directory", "a record is torn", "a record is a link"]
    )
    def test_records_that_cannot_be_read_keep_what_they_kept(self, cache: Cache, tmp_path: Path, damage: str) -> None:
        """An error or a refusal, and nothing is removed: the pin may be there."""
        cache.run("pin", cache.key("a"))
        usage, record = cache.private / "usage", cache.private / "usage" / f"{cache.key('a')}.pin"
        match damage:
            case "a file" | "a link":
                usage.rename(tmp_path / "away")
                usage.write_text("x") if damage == "a file" else usage.symlink_to(tmp_path / "away")
            case "a record is a directory":
                record.unlink()
                record.mkdir()
            case "a record is torn":
                record.write_text('{"format_ver')
            case _:
                record.unlink()
                record.symlink_to("/etc/hostname")
        cache.run("rm", cache.key("a"), code=73)
        cache.run("prune", "--to", "1Mi", code=73 if damage == "a file" else 75)
        assert "a" in cache.present()
        assert damage != "a file" or cache.present() == {"a", "b", "c"}

    def test_a_hold_needs_a_pod(self, cache: Cache) -> None:
        assert "--pod-uid" in cache.run("hold", cache.key("a"), code=64)


class TestGc:
    def left_behind(self, cache: Cache, *, age: float) -> Path:
        """An unfinished fetch whose owner ended, last changed `age` seconds before now."""
        lease = acquire(cache.private / "staging", "f" * 16, stale=60.0)
        assert lease is not None
        (lease.data / "model.bin").write_bytes(bytes(MiB))
        lease.release()
        for path in (*lease.directory.iterdir(), lease.directory):
            moment = path.stat().st_mtime - age
            os.utime(path, (moment, moment))
        return lease.directory

    def test_an_unfinished_fetch_stays_resumable_for_a_day(self, cache: Cache) -> None:
        young = self.left_behind(cache, age=23 * 3600)
        assert cache.json("gc")["removed"] == []
        assert young.exists()

    def test_after_a_day_it_is_deleted(self, cache: Cache) -> None:
        old = self.left_behind(cache, age=25 * 3600)
        (removed,) = cache.json("gc")["removed"]
        assert (removed["kind"], removed["bytes"] >= MiB) == ("unfinished fetch", True)
        assert not old.exists()

    def test_a_draft_of_a_lease_that_a_kill_left_without_owner_is_deleted(self, cache: Cache) -> None:
        draft = cache.private / "staging" / "tmp.0123456789abcdef"
        draft.mkdir(parents=True)
        assert cache.json("gc")["removed"] == []
        os.utime(draft, (LONG_AGO, LONG_AGO))
        assert len(cache.json("gc")["removed"]) == 1
        assert not draft.exists()

    def test_a_living_fetch_is_never_touched(self, cache: Cache) -> None:
        lease = acquire(cache.private / "staging", "f" * 16, stale=60.0)
        assert lease is not None
        assert cache.json("gc")["removed"] == []
        lease.check()
        lease.dissolve()

    def test_a_replaced_version_goes_after_its_grace_unless_it_is_open(self, cache: Cache) -> None:
        old = cache.private / "old" / f"{cache.key('a')}-rev.1600000000000000000"
        old.mkdir(parents=True)
        (old / "model.bin").write_bytes(bytes(MiB))
        with (old / "model.bin").open():
            assert cache.json("gc")["removed"] == []
        assert [each["kind"] for each in cache.json("gc")["removed"]] == ["replaced version"]
        assert not old.exists()

    def test_lapsed_claims_and_records_of_what_is_gone_are_deleted(self, cache: Cache) -> None:
        cache.run("pin", cache.key("a"), "--for", "0")
        cache.run("hold", cache.key("a"), "--pod-uid", "pod", "--for", "0")
        gone = cache.private / "usage" / ("e" * 16)
        gone.touch()
        os.utime(gone, (LONG_AGO, LONG_AGO))
        kinds = sorted(each["kind"] for each in cache.json("gc")["removed"])
        assert kinds == ["lapsed hold", "lapsed pin", "record of use"]
        assert sorted(path.name for path in (cache.private / "usage").iterdir()) == sorted(map(cache.key, "abc"))

    def test_holds_of_pods_that_are_gone_from_the_node_end(self, cache: Cache, tmp_path: Path) -> None:
        own, gone, there = (str(uuid.uuid4()) for _ in range(3))
        pods = tmp_path / "pods"
        for uid in (own, there):
            (pods / uid).mkdir(parents=True)
        for holder in (gone, there, "not-a-uid"):
            cache.run("hold", cache.key("a"), "--pod-uid", holder)
        (removed,) = cache.json("gc", "--kubelet-pods", pods, "--pod-uid", own)["removed"]
        assert (removed["kind"], removed["why"]) == ("lapsed hold", "the pod is gone")
        assert removed["path"].endswith(f".hold.{gone}")

    @pytest.mark.parametrize("own", ["00000000-0000-0000-0000-000000000000", None])
    def test_a_directory_without_this_pod_ends_no_hold(self, cache: Cache, tmp_path: Path, own: str | None) -> None:
        cache.run("hold", cache.key("a"), "--pod-uid", str(uuid.uuid4()))
        (tmp_path / "pods").mkdir()
        words = ("--pod-uid", own) if own else ()
        cache.run("gc", "--kubelet-pods", tmp_path / "pods", *words, code=78 if own else 64)
        cache.run("rm", cache.key("a"), code=75)

    def test_it_repeats_until_a_signal_comes(self, cache: Cache) -> None:
        command = [*FETCHER, "gc", "--every", "0.01", "--cache-dir", str(cache.root)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(3)] == ["0 removed, 0 B\n"] * 3
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 128 + signal.SIGTERM

    def test_a_dry_run_deletes_nothing(self, cache: Cache) -> None:
        old = self.left_behind(cache, age=25 * 3600)
        assert cache.run("gc", "--dry-run").splitlines()[-1].startswith("1 would be removed")
        assert old.exists()

    def test_foreign_files_are_never_touched(self, cache: Cache) -> None:
        strange = [cache.root / "notes.txt", cache.root / "dir" / "file", cache.private / "usage" / "not.ours"]
        for path in strange:
            path.parent.mkdir(exist_ok=True)
            path.write_text("mine")
            os.utime(path, (LONG_AGO, LONG_AGO))
        assert cache.json("gc", "--unused-for", "0")["removed"] == []
        assert all(path.read_text() == "mine" for path in strange)


class TestArchives:
    """`gc` and the archives of a packed artifact, which lie beside the lease of their fetch."""

    def archives(self, cache: Cache, *, age: float, name: str = "f" * 16) -> Path:
        """Archives that were fetched and partly unpacked `age` seconds ago."""
        directory = cache.private / "archive" / name
        for path in (directory / "fetched/layer.tar", directory / "unpacked/1/0/model.bin"):
            path.parent.mkdir(parents=True)
            path.write_bytes(bytes(MiB))
        moment = time.time() - age
        for path in (*directory.rglob("*"), directory):
            os.utime(path, (moment, moment))
        return directory

    def lease(self, cache: Cache, *, name: str = "f" * 16) -> Lease:
        lease = acquire(cache.private / "staging", name, stale=60.0)
        assert lease is not None
        return lease

    def test_they_stay_resumable_for_a_day(self, cache: Cache) -> None:
        directory = self.archives(cache, age=23 * 3600)
        cache.run("gc")
        assert (directory / "fetched/layer.tar").exists()

    def test_unpacked_files_go_at_once_without_an_owner(self, cache: Cache) -> None:
        """The next owner unpacks anew."""
        directory = self.archives(cache, age=0)
        (removed,) = cache.json("gc")["removed"]
        assert (removed["kind"], removed["path"]) == ("archives", str(directory / "unpacked"))
        assert MiB <= removed["bytes"] < 2 * MiB
        assert [path.name for path in directory.iterdir()] == ["fetched"]

    @pytest.mark.parametrize("revision", ["one", "two"])
    def test_those_of_an_artifact_that_is_complete_at_their_revision_go_at_once(self, cache: Cache, revision: str) -> None:
        """Its process was killed between the placement and the clean-up."""
        directory = self.archives(cache, age=0, name=cache.key("a"))
        for path, each in ((cache.root / cache.key("a"), "one"), (directory / "fetched", revision)):
            manifest = Manifest.for_request(ArtifactRef("a"), revision=each, files=(), created="", version="0")
            (path / RELATIVE_PATH).parent.mkdir(exist_ok=True)
            (path / RELATIVE_PATH).write_bytes(manifest.to_bytes())
        cache.run("gc")
        assert directory.exists() == (revision == "two")

    @pytest.mark.parametrize("left", ["nothing", "released"])
    def test_after_a_day_they_are_deleted(self, cache: Cache, left: str) -> None:
        directory = self.archives(cache, age=25 * 3600)
        if left == "released":
            lease = self.lease(cache)
            lease.release()
            moment = time.time() - 25 * 3600
            for path in (*lease.directory.iterdir(), lease.directory):
                os.utime(path, (moment, moment))
        removed = {each["kind"]: each for each in cache.json("gc")["removed"]}
        assert removed["archives"]["bytes"] >= 2 * MiB
        assert removed.keys() - {"archives"} == ({"unfinished fetch"} if left == "released" else set())
        assert not directory.exists()
        assert list((cache.private / "staging").iterdir()) == []

    def test_those_of_a_living_fetch_stay_however_old_they_are(self, cache: Cache) -> None:
        directory, lease = self.archives(cache, age=25 * 3600), self.lease(cache)
        assert cache.json("gc", "--unused-for", "0")["removed"] == []
        lease.check()
        assert lease.data.exists()
        assert (directory / "fetched/layer.tar").exists()
        lease.dissolve()

    def test_a_fetch_that_begins_after_the_look_keeps_them(self, cache: Cache) -> None:
        """What is garbage is listed first, and deleted later."""
        directory = self.archives(cache, age=25 * 3600)
        (found,) = garbage(cache.root, now=time.time(), unused_for=3600.0, gone=lambda _: False)
        lease = self.lease(cache)
        assert found.delete() is False
        assert (directory / "fetched/layer.tar").exists()
        lease.dissolve()
        assert found.delete() is True
        assert not directory.exists()

    def test_an_unfinished_fetch_stays_resumable_when_archives_beside_it_go(self, cache: Cache) -> None:
        lease = self.lease(cache)
        (lease.data / "model.bin").write_bytes(bytes(MiB))
        lease.release()
        directory = self.archives(cache, age=0)
        assert remove_archives(lease.directory)
        assert not directory.exists()
        assert [path.read_bytes() for path in lease.directory.glob("data.*/*")] == [bytes(MiB)]

    def test_a_process_that_lost_its_lease_removes_nothing_of_its_successor(self, cache: Cache) -> None:
        former, directory = self.lease(cache), self.archives(cache, age=0)
        seen = observe(former.directory)
        assert seen is not None
        successor = take_over(former.directory, seen, stale=60.0)
        assert successor is not None
        with pytest.raises(LeaseLost):
            discard(former, directory)
        assert (directory / "fetched/layer.tar").exists()
        discard(successor, directory / "unpacked")
        assert [path.name for path in directory.iterdir()] == ["fetched"]
        assert list(successor.data.iterdir()) == []
        successor.dissolve()

    def test_a_dry_run_deletes_nothing(self, cache: Cache) -> None:
        directory = self.archives(cache, age=25 * 3600)
        assert [each["path"] for each in cache.json("gc", "--dry-run")["removed"]] == [str(directory)]
        assert (directory / "unpacked").exists()

    def test_a_link_or_a_file_among_them_is_left_alone(self, cache: Cache, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "file").write_text("mine")
        (cache.private / "archive").mkdir()
        (cache.private / "archive/link").symlink_to(outside)
        (cache.private / "archive/file").write_text("mine")
        assert cache.json("gc", "--unused-for", "0")["removed"] == []
        assert (outside / "file").read_text() == (cache.private / "archive/file").read_text() == "mine"

    def test_they_count_in_the_accounts(self, cache: Cache) -> None:
        before, used = cache.json("du")["bytes_allocated"], cache.json("prune", "--to", "1Gi", "--dry-run")["used"]
        self.archives(cache, age=0)
        assert cache.json("du")["bytes_allocated"] >= before + 2 * MiB
        assert {each["name"] for each in cache.json("du")["places"]} >= {"archive"}
        assert cache.json("prune", "--to", "1Gi", "--dry-run")["used"] == used + 2 * MiB
