"""`fetcher du`: what a root occupies, with shared blocks counted once and never too little."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import fetcher
from fetcher.artifact import ArtifactRef
from fetcher.cache import occupation
from fetcher.cli.tables import print_occupation
from fetcher.planning.eviction import freed
from fetcher.settings import Dedupe
from fetcher.store.occupancy import occupancy
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.origin import Origin
from tests.cli.conftest import FILES, URI
from tests.lab.chaos import Chaos
from tests.lab.command import run_fetcher
from tests.lab.filesystems import Kind, SmallFilesystem
from tests.lab.fixtures import MakeFilesystem

MiB = 1024 * 1024
TUNED = "hf://org/tuned"
KEY, TUNED_KEY = ArtifactRef(URI).key, ArtifactRef(TUNED).key


@pytest.fixture
def hub(origin: Origin) -> Origin:
    origin.add_repo("org/tuned", FILES | {"config.json": b'{"tuned": true}'})
    return origin


def account(root: Path, *words: str) -> dict[str, Any]:
    done = run_fetcher("du", "--cache-dir", root, "--json", *words)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def places(root: Path, *words: str) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in account(root, *words)["places"]}


def blocks(*tops: Path) -> int:
    """The allocated bytes below these paths, each inode once, as du(1) counts them."""
    done = subprocess.run(["du", "-s", "-c", "-B1", *tops], capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1].split()[0])


class TestAccount:
    def test_an_artifact_counts_its_allocated_blocks(self, hub: Origin, tmp_path: Path) -> None:
        fetcher.fetch(URI, cache_dir=tmp_path)
        place = places(tmp_path)[KEY]
        assert (place["kind"], place["cache_keys"], place["uris"]) == ("artifact", [KEY], [URI])
        assert place["bytes_allocated"] == blocks(tmp_path / KEY)
        assert account(tmp_path)["bytes_allocated"] == blocks(tmp_path)

    def test_a_linked_file_counts_once_and_is_shown_as_shared(self, hub: Origin, tmp_path: Path) -> None:
        fetcher.fetch(URI, cache_dir=tmp_path)
        fetcher.fetch(TUNED, cache_dir=tmp_path, dedupe="link")
        shared = (tmp_path / KEY / "model.safetensors").stat().st_blocks * 512
        assert [places(tmp_path)[key]["bytes_shared"] for key in (KEY, TUNED_KEY)] == [shared, shared]
        assert account(tmp_path)["bytes_allocated"] == blocks(tmp_path)
        assert sum(each["bytes_allocated"] for each in account(tmp_path)["places"]) == blocks(tmp_path) + shared

    @pytest.mark.parametrize("kind", ["xfs", "btrfs"])
    def test_a_clone_counts_once_and_is_shown_as_shared(
        self, hub: Origin, small_filesystem: MakeFilesystem, kind: Kind
    ) -> None:
        root = small_filesystem(kind, size=320 * MiB).path
        fetcher.fetch(URI, cache_dir=root)
        alone = account(root)["bytes_allocated"]
        fetcher.fetch(TUNED, cache_dir=root)
        assert all(places(root)[key]["bytes_shared"] >= 3 * MiB for key in (KEY, TUNED_KEY))
        assert account(root)["bytes_allocated"] < alone + MiB
        shown = json.loads(run_fetcher("show", TUNED, "--cache-dir", root, "--json").stdout)
        assert (shown["bytes_allocated"] >= 3 * MiB, shown["bytes_shared"] >= 3 * MiB) == (True, True)

    def test_the_rest_of_a_clone_counts_fully(self, hub: Origin, small_filesystem: MakeFilesystem) -> None:
        root = small_filesystem("xfs", size=320 * MiB).path
        fetcher.fetch(URI, cache_dir=root)
        fetcher.fetch(TUNED, cache_dir=root)
        shutil.rmtree(root / KEY)
        assert places(root)[TUNED_KEY]["bytes_shared"] == 0
        assert account(root)["bytes_allocated"] >= 3 * MiB

    def test_other_kinds_have_places_of_their_own(self, hub: Origin, tmp_path: Path) -> None:
        fetcher.fetch(URI, cache_dir=tmp_path)
        for name in ("staging/key/data.owner", "old/key-abc.1", "archive"):
            (tmp_path / ".fetcher" / name).mkdir(parents=True)
            (tmp_path / ".fetcher" / name / "file").write_bytes(bytes(MiB))
        (tmp_path / "foreign").write_bytes(bytes(MiB))
        kinds = {name: each["kind"] for name, each in places(tmp_path).items()}
        assert kinds == {KEY: "artifact", "staging": "staging", "old": "old", "archive": "archive", "other": "other"}
        assert all(each["bytes_allocated"] >= MiB for each in places(tmp_path).values())
        assert account(tmp_path)["bytes_allocated"] == blocks(tmp_path)

    def test_artifacts_of_one_directory_are_one_place(self, hub: Origin, tmp_path: Path) -> None:
        fetcher.fetch(URI, cache_dir=tmp_path, layout="hf-cache")
        fetcher.fetch(URI, cache_dir=tmp_path, layout="hf-cache", include=["config.json"])
        place = places(tmp_path)["models--org--model"]
        assert len(place["cache_keys"]) == 2
        assert 3 * MiB <= place["bytes_allocated"] < 4 * MiB

    def test_no_link_is_followed(self, hub: Origin, tmp_path: Path) -> None:
        root, outside = tmp_path / "root", tmp_path / "outside"
        fetcher.fetch(URI, cache_dir=root)
        before = account(root)["bytes_allocated"]
        outside.mkdir()
        (outside / "file").write_bytes(bytes(8 * MiB))
        (root / "directory").symlink_to(outside)
        (root / KEY / "file").symlink_to(outside / "file")
        assert account(root)["bytes_allocated"] < before + MiB

    @pytest.mark.parametrize("snapshot", [".", "/", "../elsewhere", "staging"])
    def test_a_hostile_place_of_a_snapshot_changes_nothing(self, hub: Origin, tmp_path: Path, snapshot: str) -> None:
        fetcher.fetch(URI, cache_dir=tmp_path, layout="hf-cache")
        record = tmp_path / ".fetcher/manifests" / f"{KEY}.json"
        record.write_text(json.dumps(json.loads(record.read_text()) | {"snapshot": snapshot}))
        assert account(tmp_path)["bytes_allocated"] == blocks(tmp_path)
        assert {each["kind"] for each in account(tmp_path)["places"]} == {"staging", "other"}

    def test_a_root_that_does_not_exist_is_not_found(self, tmp_path: Path) -> None:
        assert run_fetcher("du", "--cache-dir", tmp_path / "nothing").returncode == 66


class TestNeverTooLittle:
    @pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs"])
    def test_the_account_covers_what_the_filesystem_has_lost(
        self, origin: Origin, small_filesystem: MakeFilesystem, chaos: Chaos, kind: Kind
    ) -> None:
        """Any sequence of shared, linked and separate artifacts, removals, clones and foreign files."""
        add_models(origin, chaos)
        filesystem = small_filesystem(kind, size=320 * MiB)
        root = filesystem.path / "root"
        root.mkdir()
        empty = allocated(filesystem) - occupation(root, on_newer=refused).allocated
        for _ in chaos.rounds(ordinarily=12):
            step(root, chaos)
            account = occupation(root, on_newer=refused)
            inodes = sum(1 for _ in root.rglob("*"))
            used = allocated(filesystem) - empty
            # A filesystem needs some blocks for inodes and trees, which belong to no file.
            assert account.allocated + OWN_BLOCKS[kind] + 4096 * inodes >= used
            assert account.allocated <= used + OWN_BLOCKS[kind]

    @pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs"])
    def test_so_does_the_account_by_which_artifacts_are_evicted(
        self, origin: Origin, small_filesystem: MakeFilesystem, chaos: Chaos, kind: Kind
    ) -> None:
        """Any sequence of shared, linked, cloned and separate artifacts, and removals. Shared blocks count once here too."""
        add_models(origin, chaos)
        filesystem = small_filesystem(kind, size=320 * MiB)
        root = filesystem.path / "root"
        root.mkdir()
        empty = allocated(filesystem)
        for _ in chaos.rounds(ordinarily=8):
            step(root, chaos, ["fetch", "fetch", "fetch", "remove"])
            seen = occupancy(root, now=time.time(), min_idle=0.0)
            used = allocated(filesystem) - empty
            assert seen.used + OWN_BLOCKS[kind] + 4096 * sum(1 for _ in root.rglob("*")) >= used
            assert seen.used <= used + OWN_BLOCKS[kind]

    @pytest.mark.parametrize("kind", ["xfs", "btrfs"])
    def test_removing_one_of_two_clones_frees_only_what_is_its_own(
        self, hub: Origin, small_filesystem: MakeFilesystem, kind: Kind
    ) -> None:
        root = small_filesystem(kind, size=320 * MiB).path
        fetcher.fetch(URI, cache_dir=root)
        fetcher.fetch(TUNED, cache_dir=root)
        residents = occupancy(root, now=time.time(), min_idle=0.0).residents
        assert all(freed([each], residents) < MiB for each in residents)
        assert freed(residents, residents) >= 3 * MiB


OWN_BLOCKS: dict[Kind, int] = {"ext4": 0, "xfs": MiB, "btrfs": 2 * MiB, "tmpfs": 0}


def add_models(origin: Origin, chaos: Chaos) -> None:
    """Publish five models. Each has three of four shards, and a configuration of its own."""
    shards = {f"{name}.safetensors": random_bytes(name, 2 * MiB + 4097 * number) for number, name in enumerate("abcd")}
    for number in range(5):
        chosen = {path: shards[path] for path in chaos.random.sample(sorted(shards), 3)}
        origin.add_repo(f"org/{number}", chosen | {"config.json": b"%d" % number})


ANY = ["fetch", "fetch", "fetch", "remove", "clone", "link", "foreign"]


def step(root: Path, chaos: Chaos, actions: Sequence[str] = ANY) -> None:
    """Change something in the root."""
    present = [each.parents[1] for each in root.glob("*/.fetcher/manifest.json")]
    dedupe: Dedupe = chaos.random.choice(["clone", "link", "off"])
    match chaos.random.choice(actions):
        case "remove" if present:
            shutil.rmtree(chaos.random.choice(present))
        case "clone" if present:
            artifact = chaos.random.choice(present)
            subprocess.run(["cp", "-r", "--reflink=auto", artifact, root / f"copy-{chaos.random.random()}"], check=True)
        case "link" if present:
            artifact = chaos.random.choice(present)
            os.link(artifact / "config.json", root / f"link-{chaos.random.random()}")
        case "foreign":
            (root / f"foreign-{chaos.random.random()}").write_bytes(random_bytes("foreign", chaos.random.randrange(3 * MiB)))
        case _:
            fetcher.fetch(f"hf://org/{chaos.random.randrange(5)}", cache_dir=root, dedupe=dedupe)


def allocated(filesystem: SmallFilesystem) -> int:
    """The bytes that the filesystem has given away. It is mounted anew, since xfs and btrfs free blocks a while later.

    It is synced too: a mount namespace that another test has made meanwhile keeps it mounted, with what is not written yet.
    """
    if filesystem.image:
        subprocess.run(["sync", "--file-system", filesystem.path], check=True)
        filesystem.unmount()
        filesystem.mount()
    status = os.statvfs(filesystem.path)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def refused(error: Exception) -> None:
    raise error


class TestText:
    def test_lines_end_with_the_total(self, hub: Origin, tmp_path: Path) -> None:
        fetcher.fetch(URI, cache_dir=tmp_path)
        first, *_, last = run_fetcher("du", "--cache-dir", tmp_path).stdout.splitlines()
        assert first.split()[:3] == [KEY, "3.0", "MiB"]
        assert first.endswith(URI)
        assert last.startswith("total")

    def test_by_size_the_largest_comes_first(self, hub: Origin, tmp_path: Path) -> None:
        fetcher.fetch(URI, cache_dir=tmp_path)
        (tmp_path / "foreign").write_bytes(bytes(8 * MiB))
        assert list(places(tmp_path, "--sort", "size"))[:2] == ["other", KEY]
        assert next(iter(places(tmp_path, "--sort", "key"))) == KEY

    @pytest.mark.parametrize("order", ["used", "uri"])
    def test_other_orders_are_of_artifacts(self, hub: Origin, tmp_path: Path, order: str) -> None:
        fetcher.fetch(URI, cache_dir=tmp_path)
        fetcher.fetch(TUNED, cache_dir=tmp_path)
        os.utime(tmp_path / ".fetcher/usage" / TUNED_KEY, (1e9, 1e9))
        expected = [TUNED_KEY, KEY] if order == "used" else [KEY, TUNED_KEY]
        assert list(places(tmp_path, "--sort", order))[:2] == expected

    def test_a_terminal_gets_a_table(self, hub: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fetcher.fetch(URI, cache_dir=tmp_path)
        shown = Terminal()
        monkeypatch.setattr("sys.stdout", shown)
        print_occupation(occupation(tmp_path, on_newer=refused))
        header, *rows = re.sub(r"\x1b\[[0-9;]*m", "", shown.getvalue()).splitlines()
        assert header.split() == ["place", "allocated", "shared", "source"]
        assert {row.split()[0] for row in rows} == {KEY, "staging", "other", "total"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True
