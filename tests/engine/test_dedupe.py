"""Files that another artifact of the root already has are shared with it, compared, and not fetched again."""

from __future__ import annotations

import errno
import json
import os
import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from fetcher.artifact import ArtifactRef, Digest
from fetcher.engine import Artifact
from fetcher.engine.preview import preview
from fetcher.errors import FetchError, OutOfSpace
from fetcher.events import Planned, Shared, Warned
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.settings import Dedupe, Settings
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.effects import Header, Status
from fetcher.testing.faults import Fault
from fetcher.testing.origin import Origin
from tests.engine.conftest import FILES, Fetcher, MiB, contents
from tests.lab.faultfs import Rule
from tests.lab.faults import FaultFilesystem
from tests.lab.fixtures import MakeFilesystem

SHARD = "model-00001-of-00002.safetensors"
OTHER = "model-00002-of-00002.safetensors"
TUNED = FILES | {OTHER: random_bytes("tuned", 3 * MiB)}
"""A fine-tune that changed one shard."""
COMMON = sum(len(content) for path, content in FILES.items() if path != OTHER)


@pytest.fixture
def hub(origin: Origin) -> Origin:
    origin.add_repo("org/model", FILES)
    origin.add_repo("org/tuned", TUNED)
    return origin


def shared(fetch: Fetcher) -> dict[str, str]:
    """The shared files of the last artifact, and how each of them came."""
    return {event.path: event.how for event in fetch.events if isinstance(event, Shared)}


def noted(artifact: Artifact) -> dict[str, str | None]:
    manifest = Manifest.read(artifact.path / RELATIVE_PATH)
    assert manifest is not None
    return {file.path: file.shared for file in manifest.files}


def requested(origin: Origin, path: str) -> int:
    """How often the content of a file was asked for. The address of a blob names its file in the query."""
    texts = ["\n".join((each.path, *each.query.values())) for each in origin.requests if each.method == "GET"]
    return sum(path in text for text in texts)


def damage(file: Path) -> None:
    """Flip a byte, and leave size and time as they were."""
    status = file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


class Stop(Exception):
    """Ends a fetch in the middle."""


class TestAFineTune:
    async def test_fetches_only_the_file_that_differs(self, hub: Origin, fetch: Fetcher) -> None:
        await fetch()
        hub.clear_requests()
        artifact = await fetch("hf://org/tuned")
        assert contents(artifact.path) == TUNED
        assert (artifact.bytes_fetched, artifact.bytes_reused) == (3 * MiB, COMMON)
        assert (requested(hub, SHARD), requested(hub, OTHER) > 0) == (0, True)

    async def test_names_each_shared_file_in_an_event_and_in_the_manifest(self, hub: Origin, fetch: Fetcher) -> None:
        await fetch()
        artifact = await fetch("hf://org/tuned")
        assert set(shared(fetch)) == set(FILES) - {OTHER}
        assert {path: how for path, how in noted(artifact).items() if how} == shared(fetch)
        donors = {event.donor for event in fetch.events if isinstance(event, Shared)}
        assert donors == {ArtifactRef("hf://org/model").key}

    async def test_is_verified(self, hub: Origin, fetch: Fetcher) -> None:
        await fetch()
        artifact = await fetch("hf://org/tuned", require_digests=True)
        assert artifact.verified

    async def test_has_inodes_of_its_own(self, hub: Origin, fetch: Fetcher) -> None:
        model, tuned = await fetch(), await fetch("hf://org/tuned")
        assert (model.path / SHARD).stat().st_ino != (tuned.path / SHARD).stat().st_ino

    async def test_fetches_everything_with_dedupe_off(self, hub: Origin, fetch: Fetcher) -> None:
        await fetch()
        artifact = await fetch("hf://org/tuned", dedupe="off")
        assert artifact.bytes_fetched == artifact.bytes

    async def test_is_planned_to_fetch_only_that_file(self, hub: Origin, fetch: Fetcher) -> None:
        await fetch()
        plan = await preview(ArtifactRef("hf://org/tuned"), Settings(cache_dir=fetch.cache_dir))
        assert {file.path for file in plan.files if file.state == "shared"} == set(FILES) - {OTHER}
        assert plan.bytes_to_fetch == 3 * MiB

    async def test_fetches_everything_into_a_destination_of_its_own(self, hub: Origin, fetch: Fetcher, tmp_path: Path) -> None:
        await fetch()
        artifact = await fetch("hf://org/tuned", dest=tmp_path / "elsewhere")
        assert artifact.bytes_fetched == artifact.bytes


class TestOtherPlaces:
    async def test_a_revision_of_its_own_key_shares_unchanged_files(self, hub: Origin, fetch: Fetcher) -> None:
        await fetch()
        hub.update_repo(hub.add_repo("org/model", FILES), TUNED)
        artifact = await fetch(revision="main")
        assert (contents(artifact.path), artifact.bytes_fetched) == (TUNED, 3 * MiB)

    async def test_a_renamed_file_is_shared_with_the_former_version(self, hub: Origin, fetch: Fetcher) -> None:
        await fetch()
        renamed = {f"moved/{path}": content for path, content in FILES.items()}
        hub.update_repo(hub.add_repo("org/model", FILES), renamed)
        artifact = await fetch(refresh="on-change")
        assert (contents(artifact.path), artifact.bytes_fetched) == (renamed, 0)

    async def test_the_blobs_of_a_hub_cache_are_shared(self, hub: Origin, fetch: Fetcher) -> None:
        await fetch(layout="hf-cache")
        artifact = await fetch("hf://org/tuned", layout="hf-cache")
        assert (contents(artifact.path), artifact.bytes_fetched) == (TUNED, 3 * MiB)

    async def test_an_artifact_by_key_takes_files_of_a_hub_cache(self, hub: Origin, fetch: Fetcher) -> None:
        await fetch(layout="hf-cache")
        artifact = await fetch("hf://org/tuned")
        assert (contents(artifact.path), artifact.bytes_fetched) == (TUNED, 3 * MiB)

    async def test_a_pinned_address_takes_a_file_of_a_repository(self, hub: Origin, fetch: Fetcher) -> None:
        await fetch()
        digest = sha256(FILES[SHARD]).hexdigest()
        artifact = await fetch(f"{hub.add_file('/shard.safetensors', FILES[SHARD])}#sha256={digest}")
        assert artifact.bytes_fetched == 0


class TestFilesystems:
    @pytest.mark.parametrize(("kind", "how"), [("xfs", "clone"), ("btrfs", "clone"), ("ext4", "copy"), ("tmpfs", "copy")])
    async def test_a_file_is_cloned_where_that_is_possible_and_copied_elsewhere(
        self, hub: Origin, fetch: Fetcher, small_filesystem: MakeFilesystem, kind: str, how: str
    ) -> None:
        filesystem = small_filesystem(kind, size=320 * MiB)  # type: ignore[arg-type]
        await fetch(cache_dir=filesystem.path)
        artifact = await fetch("hf://org/tuned", cache_dir=filesystem.path)
        assert contents(artifact.path) == TUNED
        assert shared(fetch)[SHARD] == how

    async def test_clones_need_no_space_for_their_blocks(
        self, hub: Origin, fetch: Fetcher, small_filesystem: MakeFilesystem
    ) -> None:
        filesystem = small_filesystem("xfs", size=320 * MiB)
        await fetch(cache_dir=filesystem.path)
        ballast = filesystem.fill(leave=16 * MiB)
        artifact = await fetch("hf://org/tuned", cache_dir=filesystem.path)
        assert contents(artifact.path) == TUNED
        ballast.unlink()

    async def test_a_copy_that_does_not_fit_is_refused_as_a_fetch_is(
        self, hub: Origin, fetch: Fetcher, small_filesystem: MakeFilesystem
    ) -> None:
        filesystem = small_filesystem("ext4", size=64 * MiB)
        await fetch(cache_dir=filesystem.path)
        ballast = filesystem.fill(leave=8 * MiB)
        with pytest.raises(OutOfSpace, match="the artifact needs"):
            await fetch("hf://org/tuned", cache_dir=filesystem.path)
        ballast.unlink()
        assert contents((await fetch("hf://org/tuned", cache_dir=filesystem.path)).path) == TUNED

    @pytest.mark.parametrize("dedupe", ["clone", "link"])
    async def test_a_directory_on_another_filesystem_gets_a_copy(
        self, hub: Origin, fetch: Fetcher, small_filesystem: MakeFilesystem, dedupe: Dedupe
    ) -> None:
        mount = small_filesystem("ext4", size=320 * MiB)
        model = await fetch(cache_dir=mount.path)
        fetch.cache_dir.mkdir()
        (fetch.cache_dir / model.path.name).symlink_to(model.path)
        artifact = await fetch("hf://org/tuned", dedupe=dedupe)
        assert artifact.bytes_fetched == artifact.bytes  # a link below the root is not followed


class TestLinks:
    async def test_a_linked_file_is_the_same_inode(self, hub: Origin, fetch: Fetcher) -> None:
        model, tuned = await fetch(), await fetch("hf://org/tuned", dedupe="link")
        assert (model.path / SHARD).stat().st_ino == (tuned.path / SHARD).stat().st_ino
        assert noted(tuned)[SHARD] == "link"
        assert (tuned.bytes_fetched, tuned.bytes_reused) == (3 * MiB, COMMON)

    async def test_a_repair_of_one_artifact_leaves_the_other_as_it_is(self, hub: Origin, fetch: Fetcher) -> None:
        model, tuned = await fetch(), await fetch("hf://org/tuned", dedupe="link")
        shard = tuned.path / SHARD
        shard.unlink()
        shard.write_bytes(b"damaged")
        repaired = await fetch("hf://org/tuned", dedupe="off")
        assert contents(repaired.path) == TUNED
        assert contents(model.path) == FILES

    @pytest.mark.parametrize("moment", ["planned", "sealed"])
    async def test_an_unfinished_fetch_never_continues_in_a_linked_inode(
        self, hub: Origin, fetch: Fetcher, moment: str
    ) -> None:
        """Not even after the other artifact is gone, and with it the second name of the inode."""
        model = await fetch()
        inode = (model.path / SHARD).stat().st_ino

        def stop(at: object) -> None:
            if at == "sealed" or (moment == "planned" and isinstance(at, Planned)):
                raise Stop

        with pytest.raises(Stop):
            await fetch("hf://org/tuned", dedupe="link", step=stop, listen=stop)
        with (model.path / SHARD).open("rb") as reader:
            shutil.rmtree(model.path)
            artifact = await fetch("hf://org/tuned", dedupe="link")
            assert contents(artifact.path) == TUNED
            assert (artifact.path / SHARD).stat().st_ino != inode
            assert reader.read() == FILES[SHARD]

    async def test_both_stay_intact_when_one_is_renewed(self, hub: Origin, fetch: Fetcher) -> None:
        model = await fetch()
        await fetch("hf://org/tuned", dedupe="link")
        hub.update_repo(hub.add_repo("org/tuned", TUNED), FILES | {SHARD: random_bytes("new", 20 * MiB + 7)})
        await fetch("hf://org/tuned", dedupe="link", refresh="on-change")
        assert contents(model.path) == FILES


class TestNothingUnprovenIsShared:
    @pytest.mark.parametrize("dedupe", ["clone", "link"])
    async def test_a_damaged_file_is_fetched_instead(self, hub: Origin, fetch: Fetcher, dedupe: Dedupe) -> None:
        model = await fetch()
        damage(model.path / SHARD)
        artifact = await fetch("hf://org/tuned", dedupe=dedupe)
        assert contents(artifact.path) == TUNED
        assert SHARD not in shared(fetch)
        assert (model.path / SHARD).stat().st_nlink == 1

    async def test_a_second_artifact_replaces_a_damaged_one(self, hub: Origin, fetch: Fetcher) -> None:
        model = await fetch()
        await fetch(revision="main", dedupe="off")
        damage(model.path / SHARD)
        artifact = await fetch("hf://org/tuned")
        assert (contents(artifact.path), artifact.bytes_fetched) == (TUNED, 3 * MiB)

    @pytest.mark.parametrize("lost", ["truncated", "removed", "link", "pipe"])
    async def test_a_file_that_is_no_longer_there_is_fetched(
        self, hub: Origin, fetch: Fetcher, lost: str, tmp_path: Path
    ) -> None:
        shard = (await fetch()).path / SHARD
        (tmp_path / "elsewhere").write_bytes(shard.read_bytes())
        shard.unlink()
        match lost:
            case "truncated":
                shard.write_bytes(b"short")
            case "link":
                shard.symlink_to(tmp_path / "elsewhere")
            case "pipe":
                os.mkfifo(shard)
        artifact = await fetch("hf://org/tuned")
        assert contents(artifact.path) == TUNED
        assert SHARD not in shared(fetch)

    @pytest.mark.parametrize("dedupe", ["clone", "link"])
    async def test_a_file_that_cannot_be_read_is_fetched_instead(
        self, hub: Origin, fetch: Fetcher, faulty: FaultFilesystem, dedupe: Dedupe
    ) -> None:
        root = faulty.path / "cache"
        model = await fetch(cache_dir=root)
        unreadable = [Rule("read", match=name, error=errno.EIO) for name in (f"{model.path.name}/{SHARD}", ".shared")]
        faulty.obey(*unreadable[: 2 if dedupe == "link" else 1])
        artifact = await fetch("hf://org/tuned", cache_dir=root, dedupe=dedupe)
        faulty.obey()
        assert contents(artifact.path) == TUNED
        assert artifact.bytes_fetched >= len(TUNED[SHARD])

    async def test_a_damaged_file_does_not_cost_the_progress_of_an_earlier_attempt(self, hub: Origin, fetch: Fetcher) -> None:
        hub.faults.add(Fault(Status(500), path=OTHER))
        with pytest.raises(FetchError):
            await fetch("hf://org/tuned", retry_for=0.5)
        model = await fetch(dedupe="off", include=("model-00001*",))
        damage(model.path / SHARD)
        hub.faults.clear()
        artifact = await fetch("hf://org/tuned")
        assert contents(artifact.path) == TUNED
        assert artifact.bytes_fetched < len(TUNED[SHARD])

    async def test_an_equal_validator_is_no_digest(self, origin: Origin, fetch: Fetcher) -> None:
        origin.faults.add(Fault(Header("ETag", '"same"')))
        await fetch(origin.add_file("/one.bin", b"1" * MiB))
        artifact = await fetch(origin.add_file("/two.bin", b"2" * MiB))
        assert (artifact.path / "two.bin").read_bytes() == b"2" * MiB
        assert shared(fetch) == {}

    async def test_a_pin_that_the_other_artifact_did_not_check_is_checked(self, hub: Origin, fetch: Fetcher) -> None:
        await fetch()
        config = Digest("sha256", sha256(FILES["config.json"]).hexdigest())
        await fetch("hf://org/tuned", expect={"config.json": config})
        assert "config.json" not in shared(fetch)
        assert SHARD in shared(fetch)

    async def test_an_artifact_fetched_with_a_credential_gives_nothing_to_one_without(
        self, hub: Origin, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.add_repo("org/private", FILES, private=True, readers={"hf_secret"})
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        await fetch("hf://org/private")
        monkeypatch.delenv("HF_TOKEN")
        artifact = await fetch()
        assert artifact.bytes_fetched == artifact.bytes

    @pytest.mark.parametrize("snapshot", [".", "/", "../outside/snapshots", "../" * 40, "a\0b/c/d"])
    async def test_a_hostile_place_of_a_snapshot_leads_nowhere(self, hub: Origin, fetch: Fetcher, snapshot: str) -> None:
        await fetch(layout="hf-cache")
        (record,) = (path for path in fetch.cache_dir.glob(".fetcher/manifests/*.json") if "." not in path.stem)
        record.write_text(json.dumps(json.loads(record.read_text()) | {"snapshot": snapshot}))
        artifact = await fetch("hf://org/tuned")
        assert artifact.bytes_fetched == artifact.bytes

    async def test_a_snapshot_that_was_moved_out_of_the_root_is_not_read(
        self, hub: Origin, fetch: Fetcher, tmp_path: Path
    ) -> None:
        model = await fetch(layout="hf-cache")
        (record,) = (path for path in fetch.cache_dir.glob(".fetcher/manifests/*.json") if "." not in path.stem)
        outside = tmp_path / "outside"
        model.path.parents[1].rename(outside)
        relative = f"../outside/snapshots/{model.path.name}"
        text = record.read_text().replace(str(model.path.relative_to(fetch.cache_dir)), relative)
        record.write_text(text)
        artifact = await fetch("hf://org/tuned")
        assert artifact.bytes_fetched == artifact.bytes
        assert not [event for event in fetch.events if isinstance(event, Warned)]
