"""A directory that another tool filled becomes an artifact: compared with its source, and not downloaded."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import snapshot_download

from fetcher.artifact import ArtifactRef
from fetcher.cache import Adopted, adopt, adoptable
from fetcher.errors import Differs, NotFound, OutOfSpace, Unreachable, UsageError
from fetcher.events import BytesHashed, Event, Warned
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.settings import PageCache, Settings
from fetcher.testing.origin import Origin
from fetcher.testing.repository import Repository
from tests.engine.conftest import FILES, Fetcher, MiB, contents
from tests.engine.test_page_cache import resident
from tests.lab.fixtures import MakeFilesystem

URI = "hf://org/model"
SHARD = "model-00001-of-00002.safetensors"
OTHER = "model-00002-of-00002.safetensors"


@pytest.fixture
def repository(origin: Origin) -> Repository:
    return origin.add_repo("org/model", FILES)


@pytest.fixture
def local(repository: Repository, origin: Origin, tmp_path: Path) -> Path:
    """The directory of `hf download --local-dir`. After that the origin logs anew."""
    snapshot_download(repository.name, local_dir=tmp_path / "local", endpoint=origin.endpoint)
    origin.clear_requests()
    return tmp_path / "local"


@pytest.fixture
def hub(repository: Repository, origin: Origin, tmp_path: Path) -> Path:
    """The repository in a Hub cache that the client filled. After that the origin logs anew."""
    snapshot_download(repository.name, cache_dir=tmp_path / "hub", endpoint=origin.endpoint)
    origin.clear_requests()
    return tmp_path / "hub" / "models--org--model"


class Adopter:
    """Adopts into the cache root of `fetch`, and records the events there."""

    def __init__(self, fetch: Fetcher) -> None:
        self._fetch = fetch

    async def __call__(
        self,
        directory: Path,
        uri: str | None = URI,
        *,
        cache_dir: Path | None = None,
        revision: str | None = None,
        include: tuple[str, ...] = (),
        exclude: tuple[str, ...] = (),
        **options: Any,
    ) -> Adopted:
        what = adoptable(
            directory, uri=uri, revision=revision, include=include, exclude=exclude, offline=options.get("offline", False)
        )
        page_cache: PageCache = options.pop("page_cache", "auto")
        settings = Settings(
            cache_dir=cache_dir or self._fetch.cache_dir, retry_for=0.0, timeout_stall=1.0, page_cache=page_cache
        )
        return await adopt(what, settings, options.pop("listen", self._fetch.events.append), **options)


@pytest.fixture
def adopted(fetch: Fetcher) -> Adopter:
    return Adopter(fetch)


def state(directory: Path) -> dict[str, tuple[int, int, int, bytes | str]]:
    """Every name below `directory` with inode, mode, modification time, and content or target."""

    def content(path: Path) -> bytes | str:
        return os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else ""

    found = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        found[str(path)] = (status.st_ino, status.st_mode, status.st_mtime_ns, content(path))
    return found


def damage(path: Path) -> None:
    """Change one byte. The size stays."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def relink(hub: Path, name: str, target: str) -> None:
    """Let the link of a snapshot lead to `target`."""
    (link,) = hub.glob(f"snapshots/*/{name}")
    link.unlink()
    link.symlink_to(target)


def blob_of(hub: Path, name: str) -> Path:
    (link,) = hub.glob(f"snapshots/*/{name}")
    return link.resolve()


def note_commit(local: Path, commit: str) -> None:
    """Let the records of huggingface_hub name another commit."""
    for note in local.rglob("*.metadata"):
        _, rest = note.read_text().split("\n", 1)
        note.write_text(f"{commit}\n{rest}")


def moved(directory: Path, target: Path) -> Path:
    target.parent.mkdir()
    return directory.rename(target)


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def own(directory: Path) -> list[str]:
    """The files of a directory without the records of huggingface_hub."""
    return sorted(path for path in contents(directory) if not path.startswith(".cache"))


def inodes(directory: Path, *names: str) -> dict[str, int]:
    return {name: (directory / name).stat().st_ino for name in names}


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def content_requests(origin: Origin) -> list[str]:
    """The requests for files, not for revisions and listings."""
    return [request.path for request in origin.requests if not request.path.startswith("/api/")]


class TestDirectoryOfHfDownload:
    async def test_is_adopted_without_a_byte_from_the_source(
        self, local: Path, adopted: Adopter, origin: Origin, repository: Repository
    ) -> None:
        before = state(local)
        artifact = (await adopted(local)).artifact
        assert contents(artifact.path) == FILES
        assert (artifact.revision, artifact.verified, artifact.bytes_fetched) == (repository.commit, True, 0)
        assert [request.path for request in origin.requests] == [f"/api/models/org/model/tree/{repository.commit}"]
        assert state(local) == before

    async def test_is_a_hit_for_the_same_request_later(
        self, local: Path, adopted: Adopter, fetch: Fetcher, origin: Origin
    ) -> None:
        artifact = (await adopted(local)).artifact
        origin.stop()
        hit = await fetch()
        assert (hit.path, hit.cached, hit.revision) == (artifact.path, True, artifact.revision)

    async def test_its_manifest_equals_that_of_a_fetch(
        self, local: Path, adopted: Adopter, fetch: Fetcher, tmp_path: Path
    ) -> None:
        artifact = (await adopted(local)).artifact
        fetched = await fetch(cache_dir=tmp_path / "other")
        manifests = [Manifest.read(each.path / RELATIVE_PATH) for each in (artifact, fetched)]
        assert manifests[0] is not None
        assert manifests[1] is not None
        assert manifests[0].files == manifests[1].files

    async def test_each_file_is_read_once(self, local: Path, adopted: Adopter, fetch: Fetcher) -> None:
        await adopted(local)
        hashed = [event.bytes for event in fetch.events if isinstance(event, BytesHashed)]
        assert sum(hashed) == sum(map(len, FILES.values()))

    async def test_a_given_commit_is_part_of_the_key(
        self, local: Path, adopted: Adopter, fetch: Fetcher, repository: Repository, origin: Origin
    ) -> None:
        await adopted(local, revision=repository.commit)
        origin.stop()
        assert (await fetch(revision=repository.commit)).cached

    async def test_a_selection_is_compared_alone(self, local: Path, adopted: Adopter, fetch: Fetcher) -> None:
        damage(local / SHARD)
        result = await adopted(local, include=("*.json",))
        assert set(contents(result.artifact.path)) == {name for name in FILES if name.endswith(".json")}
        assert result.ignored == (SHARD, OTHER, "tokenizer/empty.txt")
        assert (await fetch(include=("*.json",))).cached

    async def test_an_older_commit_is_compared_with_its_own_listing(
        self, local: Path, adopted: Adopter, origin: Origin, repository: Repository
    ) -> None:
        old = repository.commit
        origin.update_repo(repository, {"config.json": b"another model"})
        assert (await adopted(local)).artifact.revision == old

    async def test_of_two_commits_is_refused_until_one_is_given(
        self, local: Path, adopted: Adopter, origin: Origin, repository: Repository
    ) -> None:
        old = repository.commit
        new = origin.update_repo(repository, FILES | {"config.json": b"{}"})
        snapshot_download("org/model", local_dir=local, endpoint=origin.endpoint, allow_patterns=["config.json"])
        with pytest.raises(UsageError, match=f"{min(old, new)}, {max(old, new)}"):
            await adopted(local)
        assert (await adopted(local, revision=new)).artifact.revision == new

    async def test_without_its_records_is_refused_until_a_commit_is_given(
        self, local: Path, adopted: Adopter, repository: Repository, origin: Origin
    ) -> None:
        shutil.rmtree(local / ".cache")
        with pytest.raises(UsageError, match="give it with --revision"):
            await adopted(local)
        with pytest.raises(UsageError, match="--uri"):
            await adopted(local, None)
        assert not origin.requests
        assert (await adopted(local, revision=repository.commit)).artifact.bytes_fetched == 0
        assert (await adopted(local, revision="main")).artifact.bytes_fetched == 0

    async def test_the_manifest_of_a_copied_artifact_says_uri_and_commit(
        self, adopted: Adopter, fetch: Fetcher, origin: Origin, repository: Repository, tmp_path: Path
    ) -> None:
        copied = shutil.copytree((await fetch(cache_dir=tmp_path / "other")).path, tmp_path / "usb")
        origin.clear_requests()
        artifact = (await adopted(copied, None)).artifact
        assert (contents(artifact.path), artifact.revision) == (FILES, repository.commit)
        assert not content_requests(origin)


class TestHubCache:
    @pytest.mark.parametrize("part", ["", "snapshots", "hub"])
    async def test_the_repository_the_snapshot_and_the_whole_cache_say_uri_and_commit(
        self, hub: Path, adopted: Adopter, fetch: Fetcher, origin: Origin, repository: Repository, part: str
    ) -> None:
        before = state(hub)
        place = {"": hub, "snapshots": hub / "snapshots" / repository.commit, "hub": hub.parent}[part]
        artifact = (await adopted(place, None)).artifact
        assert contents(artifact.path) == FILES
        assert not [path for path in artifact.path.rglob("*") if path.is_symlink()]
        assert not content_requests(origin)
        assert state(hub) == before
        assert (await fetch()).cached

    async def test_main_selects_among_several_snapshots(
        self, hub: Path, adopted: Adopter, origin: Origin, repository: Repository
    ) -> None:
        old = repository.commit
        new = origin.update_repo(repository, FILES | {"config.json": b"{}"})
        snapshot_download("org/model", cache_dir=hub.parent, endpoint=origin.endpoint)
        assert (await adopted(hub)).artifact.revision == new
        assert (await adopted(hub, revision=old)).artifact.revision == old
        (hub / "refs" / "main").unlink()
        with pytest.raises(UsageError, match=f"--revision; its snapshots are {min(old, new)}, {max(old, new)}"):
            await adopted(hub)

    async def test_a_missing_snapshot_is_named(self, hub: Path, adopted: Adopter, repository: Repository) -> None:
        with pytest.raises(NotFound, match=f"no snapshot of v9; its snapshots are {repository.commit}"):
            await adopted(hub, revision="v9")

    async def test_of_several_repositories_one_must_be_named(self, hub: Path, adopted: Adopter, origin: Origin) -> None:
        origin.add_repo("org/other", FILES)
        snapshot_download("org/other", cache_dir=hub.parent, endpoint=origin.endpoint)
        with pytest.raises(UsageError, match="hf://org/model, hf://org/other"):
            await adopted(hub.parent, None)
        assert (await adopted(hub.parent, "hf://org/other")).artifact.uri == "hf://org/other"

    async def test_a_link_to_anything_but_a_blob_is_refused_by_name(self, hub: Path, adopted: Adopter, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_bytes(FILES[OTHER])
        for target in (str(secret), "../../../../secret", "../../refs/main", "../../blobs/../refs/main"):
            relink(hub, OTHER, target)
            with pytest.raises(UsageError, match=OTHER):
                await adopted(hub)

    async def test_a_directory_of_blobs_elsewhere_is_not_followed(self, hub: Path, adopted: Adopter, tmp_path: Path) -> None:
        (hub / "blobs").rename(tmp_path / "elsewhere")
        (hub / "blobs").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(UsageError, match="links are not followed"):
            await adopted(hub)

    async def test_is_not_moved_because_snapshots_share_blobs(self, hub: Path, adopted: Adopter) -> None:
        with pytest.raises(UsageError, match="use --link"):
            await adopted(hub, move=True)


class TestOtherSources:
    async def test_a_file_with_a_pin_is_adopted_and_one_without_is_not(
        self, adopted: Adopter, origin: Origin, tmp_path: Path
    ) -> None:
        (tmp_path / "copy").mkdir()
        (tmp_path / "copy" / "weights.bin").write_bytes(FILES[OTHER])
        address = origin.add_file("/weights.bin", FILES[OTHER])
        with pytest.raises(Differs, match="no published size or digest"):
            await adopted(tmp_path / "copy", address)
        pinned = f"{address}#sha256={sha256(FILES[OTHER]).hexdigest()}"
        artifact = (await adopted(tmp_path / "copy", pinned)).artifact
        assert (artifact.verified, artifact.bytes_fetched) == (True, 0)


class TestDifferences:
    async def test_are_all_listed_and_nothing_is_published(
        self, local: Path, adopted: Adopter, fetch: Fetcher, origin: Origin
    ) -> None:
        damage(local / SHARD)
        (local / OTHER).write_bytes(b"short")
        (local / "config.json").unlink()
        (local / "notes.txt").write_text("mine")
        with pytest.raises(Differs) as caught:
            await adopted(local)
        problems = dict(caught.value.differences)
        assert set(problems) == {SHARD, OTHER, "config.json"}
        assert problems[SHARD].startswith("has sha256:")
        assert problems[OTHER] == f"has 5 bytes instead of {3 * MiB:,}"
        assert problems["config.json"] == "is missing"
        assert caught.value.ignored == ("notes.txt",)
        assert fetch.visible() == []
        assert not content_requests(origin)

    @pytest.mark.parametrize("link", [False, True])
    async def test_only_they_are_fetched_on_request(self, local: Path, adopted: Adopter, origin: Origin, link: bool) -> None:
        damage(local / OTHER)
        (local / "config.json").unlink()
        (local / "notes.txt").write_text("mine")
        before = state(local)
        result = await adopted(local, complete=True, link=link)
        assert contents(result.artifact.path) == FILES
        assert result.artifact.bytes_fetched == len(FILES[OTHER]) + len(FILES["config.json"])
        assert not any(SHARD in path for path in content_requests(origin))
        assert result.ignored == ("notes.txt",)
        assert state(local) == before

    async def test_what_matched_is_not_copied_again(
        self, local: Path, adopted: Adopter, fetch: Fetcher, origin: Origin
    ) -> None:
        (local / "config.json").unlink()
        with pytest.raises(Differs):
            await adopted(local)
        shutil.rmtree(local)
        artifact = await fetch()
        assert contents(artifact.path) == FILES
        assert artifact.bytes_fetched == len(FILES["config.json"])

    async def test_an_unfinished_fetch_is_completed_from_the_directory(
        self, local: Path, adopted: Adopter, fetch: Fetcher, origin: Origin
    ) -> None:
        class Enough(Exception):
            pass

        def stop(event: Event) -> None:
            if isinstance(event, BytesHashed):
                raise Enough

        with pytest.raises((Enough, BaseExceptionGroup)):
            await fetch(listen=stop)
        origin.clear_requests()
        assert contents((await adopted(local)).artifact.path) == FILES
        assert not content_requests(origin)


class TestHostileDirectory:
    async def test_a_link_in_the_place_of_a_file_is_refused_by_name(
        self, local: Path, adopted: Adopter, tmp_path: Path
    ) -> None:
        (local / OTHER).rename(tmp_path / OTHER)
        (local / OTHER).symlink_to(tmp_path / OTHER)
        for offline in (False, True):
            with pytest.raises(UsageError, match=f"'{OTHER}' is a link"):
                await adopted(local, offline=offline)

    async def test_a_link_in_the_place_of_a_directory_is_refused_by_name(
        self, local: Path, adopted: Adopter, tmp_path: Path
    ) -> None:
        (local / "tokenizer").rename(tmp_path / "tokenizer")
        (local / "tokenizer").symlink_to(tmp_path / "tokenizer")
        with pytest.raises(UsageError, match="is a link or lies behind one"):
            await adopted(local)
        with pytest.raises(UsageError, match="'tokenizer' is a link"):
            await adopted(local, offline=True)

    async def test_a_pipe_is_no_file_and_blocks_nothing(self, local: Path, adopted: Adopter) -> None:
        replace_by_pipe(local / OTHER)
        with pytest.raises(Differs, match=f"{OTHER} is missing"):
            await adopted(local)
        with pytest.raises(UsageError, match="not a regular file"):
            await adopted(local, offline=True)

    async def test_records_that_lie_change_only_the_listing_that_is_asked_for(
        self, local: Path, adopted: Adopter, origin: Origin, repository: Repository
    ) -> None:
        note_commit(local, origin.update_repo(repository, FILES | {"config.json": b"{}"}))
        with pytest.raises(Differs, match=r"config\.json"):
            await adopted(local)


class TestLinksAndMoves:
    async def test_a_link_shares_the_inode_and_leaves_the_directory(self, local: Path, adopted: Adopter) -> None:
        before = state(local)
        artifact = (await adopted(local, link=True)).artifact
        assert inodes(artifact.path, *FILES) == inodes(local, *FILES)
        assert state(local) == before

    async def test_a_blob_of_a_hub_cache_is_linked(self, hub: Path, adopted: Adopter) -> None:
        artifact = (await adopted(hub, link=True)).artifact
        assert inodes(artifact.path, SHARD) == {SHARD: blob_of(hub, SHARD).stat().st_ino}

    async def test_a_file_that_somebody_writes_is_not_linked(self, local: Path, adopted: Adopter, fetch: Fetcher) -> None:
        with (local / SHARD).open("ab"), pytest.raises(UsageError, match=f"{SHARD} is open for writing"):
            await adopted(local, link=True)
        assert fetch.visible() == []
        assert contents((await adopted(local, link=True)).artifact.path) == FILES

    async def test_a_move_leaves_only_foreign_files(self, local: Path, adopted: Adopter) -> None:
        (local / "notes.txt").write_text("mine")
        (local / SHARD).chmod(0o600)
        inode = inodes(local, SHARD)
        result = await adopted(local, move=True)
        assert contents(result.artifact.path) == FILES
        assert inodes(result.artifact.path, SHARD) == inode
        assert mode(result.artifact.path / SHARD) == 0o644
        assert own(local) == ["notes.txt"]

    async def test_another_artifact_is_not_moved(self, adopted: Adopter, fetch: Fetcher, repository: Repository) -> None:
        other = await fetch(revision=repository.commit)
        with pytest.raises(UsageError, match="use --link"):
            await adopted(other.path, move=True)
        artifact = (await adopted(other.path, link=True)).artifact
        assert contents(artifact.path) == contents(other.path) == FILES

    async def test_a_move_that_ends_in_an_error_removes_nothing(self, local: Path, adopted: Adopter) -> None:
        damage(local / OTHER)
        before = state(local)
        with pytest.raises(Differs):
            await adopted(local, move=True)
        assert state(local) == before

    async def test_a_move_keeps_what_the_source_has_in_another_version(self, local: Path, adopted: Adopter) -> None:
        damage(local / OTHER)
        mine = (local / OTHER).read_bytes()
        await adopted(local, move=True, complete=True)
        assert own(local) == [OTHER]
        assert contents(local)[OTHER] == mine

    async def test_a_move_to_another_filesystem_copies_then_removes(
        self, local: Path, adopted: Adopter, small_filesystem: MakeFilesystem
    ) -> None:
        disk = small_filesystem("tmpfs", size=64 * MiB)

        def changed_late(name: str) -> None:
            if name == "sealed":
                damage(local / OTHER)

        artifact = (await adopted(local, cache_dir=disk.path / "cache", move=True, step=changed_late)).artifact
        assert contents(artifact.path) == FILES
        # What changed after it was copied is not lost.
        assert own(local) == [OTHER]

    async def test_a_clone_shares_blocks_and_not_the_inode(
        self, local: Path, adopted: Adopter, small_filesystem: MakeFilesystem
    ) -> None:
        disk = small_filesystem("xfs", size=512 * MiB)
        shutil.copytree(local, disk.path / "local")
        disk.fill(leave=12 * MiB)  # no space for a copy
        artifact = (await adopted(disk.path / "local", cache_dir=disk.path / "cache")).artifact
        assert contents(artifact.path) == FILES
        assert (artifact.path / SHARD).stat().st_nlink == 1


class TestOffline:
    async def test_without_the_source_the_error_says_how_to_go_on(self, local: Path, adopted: Adopter, origin: Origin) -> None:
        origin.stop()
        with pytest.raises(Unreachable, match="pass --offline"):
            await adopted(local)

    async def test_the_artifact_is_unverified_and_no_hit_unless_accepted(
        self, local: Path, adopted: Adopter, fetch: Fetcher, origin: Origin, repository: Repository
    ) -> None:
        origin.stop()
        artifact = (await adopted(local, offline=True)).artifact
        assert contents(artifact.path) == FILES
        assert (artifact.verified, artifact.revision) == (False, repository.commit)
        with pytest.raises(Unreachable):
            await fetch(retry_for=0.0)
        assert "Unconfirmed" in [event.reason for event in fetch.events if isinstance(event, Warned)]
        assert (await fetch(accept_unverified=True)).path == artifact.path
        assert (await adopted(local, offline=True)).artifact.cached

    async def test_a_later_fetch_compares_it_and_fetches_only_what_differs(
        self, local: Path, adopted: Adopter, fetch: Fetcher, origin: Origin
    ) -> None:
        damage(local / OTHER)
        await adopted(local, offline=True)
        artifact = await fetch()
        assert contents(artifact.path) == FILES
        assert (artifact.verified, artifact.bytes_fetched) == (True, len(FILES[OTHER]))
        assert (await fetch()).cached

    async def test_a_required_digest_is_stricter_than_acceptance(self, local: Path, adopted: Adopter, fetch: Fetcher) -> None:
        await adopted(local, offline=True)
        assert not (await fetch(accept_unverified=True, require_digests=True)).cached

    async def test_nothing_can_be_fetched(self, local: Path, adopted: Adopter) -> None:
        with pytest.raises(UsageError, match="--complete"):
            await adopted(local, offline=True, complete=True)

    async def test_a_directory_without_files_is_no_artifact(self, adopted: Adopter, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(NotFound, match="contains no files"):
            await adopted(tmp_path / "empty", offline=True)


class TestCacheThatIsFilled:
    async def test_an_artifact_that_exists_is_the_result(
        self, local: Path, adopted: Adopter, fetch: Fetcher, origin: Origin
    ) -> None:
        fetched = await fetch()
        origin.stop()
        artifact = (await adopted(local)).artifact
        assert (artifact.path, artifact.cached) == (fetched.path, True)

    async def test_an_artifact_of_another_revision_stays_and_is_named(
        self, local: Path, adopted: Adopter, fetch: Fetcher, origin: Origin, repository: Repository
    ) -> None:
        new = origin.update_repo(repository, FILES | {"config.json": b"{}"})
        await fetch()
        assert (await adopted(local)).artifact.revision == new
        assert [event.reason for event in fetch.events if isinstance(event, Warned)] == ["OtherRevision"]

    async def test_a_directory_at_the_place_of_the_artifact_stays_there(
        self, local: Path, adopted: Adopter, fetch: Fetcher, origin: Origin
    ) -> None:
        final = moved(local, fetch.cache_dir / ArtifactRef(URI).key)
        weights = inodes(final, SHARD, OTHER)
        artifact = (await adopted(final, move=True)).artifact
        assert artifact.path == final
        assert not content_requests(origin)
        assert inodes(final, SHARD, OTHER) == weights
        assert contents(final) == FILES | {path: data for path, data in contents(final).items() if path.startswith(".cache")}
        assert (await fetch()).cached

    async def test_two_adoptions_at_once_make_one_artifact(self, local: Path, hub: Path, adopted: Adopter) -> None:
        results = await asyncio.gather(adopted(local), adopted(hub))
        assert {result.artifact.path.name for result in results} == {ArtifactRef(URI).key}
        assert sorted(result.artifact.cached for result in results) == [False, True]
        assert contents(results[0].artifact.path) == FILES


@pytest.mark.parametrize("link", [False, True])
async def test_with_page_cache_drop_neither_the_files_nor_the_copies_stay_in_memory(
    local: Path, adopted: Adopter, link: bool, small_filesystem: MakeFilesystem
) -> None:
    disk = small_filesystem("ext4", size=128 * MiB)
    directory = shutil.copytree(local, disk.path / "local")
    os.sync()
    artifact = (await adopted(directory, cache_dir=disk.path / "cache", link=link, page_cache="drop")).artifact
    assert [resident(path) for path in (directory / SHARD, artifact.path / SHARD)] == [0, 0]


class TestSpace:
    async def test_is_checked_before_the_first_byte(
        self, local: Path, adopted: Adopter, small_filesystem: MakeFilesystem, fetch: Fetcher
    ) -> None:
        disk = small_filesystem("ext4", size=64 * MiB)
        disk.fill(leave=22 * MiB)
        before = state(local)
        with pytest.raises(OutOfSpace, match="the artifact needs"):
            await adopted(local, cache_dir=disk.path / "cache")
        assert not [event for event in fetch.events if isinstance(event, BytesHashed)]
        assert state(local) == before

    async def test_a_link_needs_none(self, local: Path, adopted: Adopter, small_filesystem: MakeFilesystem) -> None:
        disk = small_filesystem("ext4", size=96 * MiB)
        shutil.copytree(local, disk.path / "local")
        disk.fill(leave=12 * MiB)
        assert contents((await adopted(disk.path / "local", cache_dir=disk.path / "cache", link=True)).artifact.path) == FILES


def killed_at(moment: int, directory: Path, cache_dir: Path, **options: bool) -> bool:
    """Adopt in a process that is killed at `moment`. Returns whether it came to that."""
    fields = {"directory": str(directory), "uri": URI, "cache_dir": str(cache_dir), "kill_at": moment, **options}
    done = subprocess.run([sys.executable, "-m", "tests.engine.adopter", json.dumps(fields)], check=False, timeout=60)
    assert done.returncode in (0, -signal.SIGKILL)
    return done.returncode != 0


@pytest.mark.parametrize("how", [{}, {"link": True}, {"move": True}], ids=["copy", "link", "move"])
async def test_after_a_kill_at_any_moment_the_same_command_continues(
    local: Path, adopted: Adopter, tmp_path: Path, origin: Origin, how: Any
) -> None:
    for moment in count():
        directory, cache_dir = tmp_path / f"directory {moment}", tmp_path / f"cache {moment}"
        shutil.copytree(local, directory)
        before, final = state(directory), cache_dir / ArtifactRef(URI).key
        if not killed_at(moment, directory, cache_dir, **how):
            break
        published = contents(final)
        assert published in ({}, FILES)
        assert published or state(directory) == before
        assert contents((await adopted(directory, cache_dir=cache_dir, **how)).artifact.path) == FILES
        assert own(directory) == ([] if how.get("move") else sorted(FILES))
    assert moment > 15
    assert not content_requests(origin)
