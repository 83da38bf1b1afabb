"""The place of an artifact, reused files and foreign files: keyed, in place and in the layout of the Hub cache."""

from __future__ import annotations

import os
import stat
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, snapshot_download

from fetcher.artifact import ArtifactRef, Digest
from fetcher.engine import find_cached, recover_and_request
from fetcher.engine.artifact_check import verify
from fetcher.errors import (
    ConfigurationError,
    DigestMismatch,
    DigestUnavailable,
    LocalIOError,
    NotFound,
    OtherRevision,
    OutOfSpace,
    Unauthorized,
    UsageError,
)
from fetcher.events import Warned, silent
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.settings import Settings
from fetcher.store.catalog import find
from fetcher.store.layout import Root
from fetcher.store.summary import Summary, summary_path
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.effects import Chunked, Header, IgnoreRange, Status
from fetcher.testing.faults import Fault
from fetcher.testing.origin import Origin
from tests.engine.conftest import FILES, Fetcher, MiB, contents
from tests.lab.fixtures import MakeFilesystem

SHARD = "model-00001-of-00002.safetensors"
OTHER = "model-00002-of-00002.safetensors"
CHANGED = FILES | {OTHER: random_bytes("three", 3 * MiB), "config.json": b'{"changed": true}'}
"""Another revision, equal in every size but config.json's."""
PAGE_DIGEST = sha256(b"<html>please log in</html>").hexdigest()


class TestHits:
    async def test_a_complete_artifact_needs_no_network(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", FILES)
        first = await fetch()
        origin.stop()
        again = await fetch()
        assert (again.path, again.cached, again.bytes_fetched) == (first.path, True, 0)

    async def test_an_artifact_without_a_manifest_is_not_cached(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", FILES)
        artifact = await fetch()
        (artifact.path / RELATIVE_PATH).unlink()
        assert find_cached(recover_and_request(ArtifactRef("hf://org/model"), Settings(cache_dir=fetch.cache_dir))) is None

    async def test_a_truncated_file_is_repaired_in_a_new_inode(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", FILES)
        artifact = await fetch()
        reader = (artifact.path / OTHER).open("rb")
        os.truncate(artifact.path / OTHER, 5)
        repaired = await fetch()
        assert contents(repaired.path) == FILES
        assert len(reader.read()) == 5
        reader.close()

    async def test_a_cached_copy_does_not_satisfy_a_different_pin(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", FILES)
        await fetch()
        with pytest.raises(DigestMismatch):
            await fetch(expect={OTHER: Digest("sha256", "0" * 64)})


class TestSummaries:
    @pytest.mark.parametrize("layout", ["keyed", "in place", "shared directory", "hf-cache", "with foreign files"])
    async def test_every_layout_commits_a_summary_that_matches_its_manifest(
        self, origin: Origin, fetch: Fetcher, tmp_path: Path, layout: str
    ) -> None:
        repository, key = origin.add_repo("org/model", FILES), ArtifactRef("hf://org/model").key
        keyed, destination = fetch.cache_dir / key, tmp_path / "dest"
        layouts: dict[str, tuple[dict[str, Any], Path]] = {
            "keyed": ({}, keyed / RELATIVE_PATH),
            "in place": ({"dest": destination}, destination / RELATIVE_PATH),
            "shared directory": ({"dest": destination, "shared_dest": True}, Root(destination).manifests / f"{key}.json"),
            "hf-cache": ({"layout": "hf-cache"}, Root(fetch.cache_dir).manifests / f"{key}.json"),
            "with foreign files": ({}, keyed / RELATIVE_PATH),
        }
        options, record = layouts[layout]
        if layout == "with foreign files":
            keyed.mkdir(parents=True)
            (keyed / "foreign").write_bytes(b"theirs")
        for files in (FILES, CHANGED):
            origin.update_repo(repository, files)
            await fetch(refresh="on-change", **options)
            manifest = Manifest.read(record)
            assert manifest is not None
            assert Summary.from_bytes(summary_path(record).read_bytes()) == Summary.of(manifest, record.stat())


class TestSelection:
    async def test_include_and_exclude_make_a_separate_artifact(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", FILES)
        artifact = await fetch(include=("*.json", "*00002-of*"), exclude=("*.index.json",))
        assert sorted(contents(artifact.path)) == ["config.json", OTHER]
        assert artifact.path.name != ArtifactRef("hf://org/model").key

    @pytest.mark.parametrize("revision", ["main", "v1", "refs/pr/3"])
    async def test_branches_tags_and_pull_requests_are_resolved(self, origin: Origin, fetch: Fetcher, revision: str) -> None:
        repository = origin.add_repo("org/model", FILES)
        if revision != "main":
            origin.update_repo(repository, CHANGED, revision=revision)
        expected = FILES if revision == "main" else CHANGED
        assert contents((await fetch(revision=revision)).path) == expected
        assert contents((await fetch(f"hf://org/model@{revision}")).path) == expected
        assert contents((await fetch(f"hf://org/model:{revision}")).path) == expected

    async def test_a_commit_needs_one_metadata_request(self, origin: Origin, fetch: Fetcher) -> None:
        repository = origin.add_repo("org/model", FILES)
        await fetch(f"hf://org/model@{repository.commit}")
        assert [request.path for request in origin.requests if request.path.startswith("/api/")] == [
            f"/api/models/org/model/tree/{repository.commit}"
        ]

    async def test_two_revisions_that_contradict_each_other_are_a_usage_error(self, fetch: Fetcher) -> None:
        with pytest.raises(UsageError):
            await fetch("hf://org/model@v1", revision="v2")

    async def test_a_dataset_is_fetched(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/data", FILES, kind="dataset")
        assert contents((await fetch("hf://datasets/org/data")).path) == FILES

    async def test_a_file_address_of_the_hub_is_fetched(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", FILES)
        address = f"{origin.endpoint}/org/model/resolve/main/{OTHER}"
        artifact = await fetch(address)
        assert contents(artifact.path) == {OTHER: FILES[OTHER]}
        assert artifact.verified
        assert artifact.path.name == ArtifactRef(address).key


class TestDigests:
    async def test_a_pin_verifies_a_plain_address(self, origin: Origin, fetch: Fetcher) -> None:
        address = origin.add_file("/model.bin", b"weights")
        right = "9a5be5a4c72b84fdf5b6f6c2b94b1b1d" * 2
        with pytest.raises(DigestMismatch):
            await fetch(f"{address}#sha256={right}")
        assert fetch.visible() == []

    async def test_a_file_without_a_required_digest_is_refused_before_the_fetch(self, origin: Origin, fetch: Fetcher) -> None:
        with pytest.raises(DigestUnavailable):
            await fetch(origin.add_file("/model.bin", b"weights"), require_digests=True)

    async def test_a_pin_of_a_missing_file_is_refused(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", FILES)
        with pytest.raises(NotFound):
            await fetch(expect={"nothing": Digest("sha256", "0" * 64)})

    async def test_verify_finds_a_flipped_bit(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", FILES)
        artifact = await fetch()
        with (artifact.path / SHARD).open("r+b") as stream:
            stream.seek(17 * MiB)
            byte = stream.read(1)
            stream.seek(17 * MiB)
            stream.write(bytes([byte[0] ^ 1]))
        report = verify(find(fetch.cache_dir, artifact.cache_key), full=False, on_event=silent)
        assert [path for path, _ in report.bad] == [SHARD]
        assert "chunk 1" in report.bad[0][1]


class TestRefresh:
    async def test_a_refresh_of_an_unchanged_artifact_is_one_metadata_request(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", FILES)
        await fetch()
        origin.clear_requests()
        artifact = await fetch(refresh="on-change")
        assert artifact.cached
        assert [request.path for request in origin.requests] == ["/api/models/org/model/revision/main"]

    async def test_only_changed_files_are_fetched_and_the_old_version_stays_readable(
        self, origin: Origin, fetch: Fetcher
    ) -> None:
        repository = origin.add_repo("org/model", FILES)
        first = await fetch()
        inode = (first.path / SHARD).stat().st_ino
        origin.update_repo(repository, CHANGED)
        origin.clear_requests()

        second = await fetch(refresh="on-change")

        assert contents(second.path) == CHANGED
        assert second.bytes_fetched == len(CHANGED[OTHER]) + len(CHANGED["config.json"])
        assert (second.path / SHARD).stat().st_ino == inode
        (old,) = (fetch.cache_dir / ".fetcher" / "old").iterdir()
        assert contents(old) == FILES

    async def test_a_refresh_works_with_two_renames_instead_of_an_exchange(
        self, origin: Origin, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fetcher.store.keyed.exchange", lambda *_: False)
        repository = origin.add_repo("org/model", FILES)
        await fetch()
        origin.update_repo(repository, CHANGED)
        assert contents((await fetch(refresh="on-change")).path) == CHANGED
        assert not list((fetch.cache_dir / ".fetcher" / "ready").iterdir())

    @pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
    async def test_the_existing_copy_is_kept_if_the_source_cannot_be_asked(
        self, origin: Origin, fetch: Fetcher, status: int
    ) -> None:
        origin.add_repo("org/model", FILES)
        await fetch()
        origin.faults.add(Fault(Status(status)))
        artifact = await fetch(refresh="on-change", retry_for=0.5)
        assert (artifact.stale, artifact.cached) == (True, True)
        assert contents(artifact.path) == FILES
        assert [event for event in fetch.events if isinstance(event, Warned)]

    async def test_a_refresh_of_an_address_compares_its_etag(self, origin: Origin, fetch: Fetcher) -> None:
        address = origin.add_file("/model.bin", b"weights")
        await fetch(address)
        assert (await fetch(address, refresh="on-change")).cached
        origin.add_file("/model.bin", b"heavier")
        assert contents((await fetch(address, refresh="on-change")).path) == {"model.bin": b"heavier"}


class TestResolved:
    async def test_what_the_revision_stood_for_is_fetched_under_its_key_though_the_branch_has_moved(
        self, origin: Origin, fetch: Fetcher
    ) -> None:
        repository = origin.add_repo("org/model", FILES)
        commit = repository.commit
        origin.update_repo(repository, CHANGED)
        artifact = await fetch(resolved=commit)
        assert (contents(artifact.path), artifact.revision) == (FILES, commit)
        assert artifact.cache_key == ArtifactRef("hf://org/model").key
        origin.stop()
        assert (await fetch(resolved=commit)).cached

    async def test_a_copy_of_another_revision_is_no_answer_and_stays_until_the_resolved_one_is_complete(
        self, origin: Origin, fetch: Fetcher
    ) -> None:
        repository = origin.add_repo("org/model", FILES)
        first = await fetch()
        newer = origin.update_repo(repository, CHANGED)
        origin.faults.add(Fault(Status(404)))
        with pytest.raises(NotFound):
            await fetch(resolved=newer)
        assert contents(first.path) == FILES
        origin.faults.clear()
        artifact = await fetch(resolved=newer)
        assert (contents(artifact.path), artifact.cached) == (CHANGED, False)

    async def test_a_source_that_keeps_no_older_content_says_that_it_has_other_content(
        self, origin: Origin, fetch: Fetcher
    ) -> None:
        address = origin.add_file("/model.bin", b"weights")
        revision = (await fetch(address)).revision
        origin.add_file("/model.bin", b"heavier")
        assert (await fetch(address, resolved=revision)).cached
        with pytest.raises(OtherRevision) as raised:
            await fetch(address, resolved=revision, cache_dir=fetch.cache_dir / "another")
        assert (raised.value.exit_code, raised.value.reason) == (75, "OtherRevision")


class TestInPlace:
    async def test_an_artifact_is_placed_in_a_directory(self, origin: Origin, fetch: Fetcher, tmp_path: Path) -> None:
        origin.add_repo("org/model", FILES)
        artifact = await fetch(dest=tmp_path / "mnt")
        assert artifact.path == tmp_path / "mnt"
        assert contents(artifact.path) == FILES
        assert (await fetch(dest=tmp_path / "mnt")).cached

    async def test_foreign_files_stay_and_files_of_the_old_version_are_removed(
        self, origin: Origin, fetch: Fetcher, tmp_path: Path
    ) -> None:
        repository = origin.add_repo("org/model", FILES | {"former.txt": b"x"})
        await fetch(dest=tmp_path)
        (tmp_path / "foreign.txt").write_bytes(b"mine")
        origin.update_repo(repository, CHANGED)
        artifact = await fetch(dest=tmp_path, refresh="on-change")
        assert contents(artifact.path) == CHANGED | {"foreign.txt": b"mine"}
        assert artifact.bytes_reused >= len(FILES[SHARD])

    async def test_a_keyed_directory_with_foreign_files_is_filled_in_place(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", FILES)
        place = fetch.cache_dir / ArtifactRef("hf://org/model").key
        place.mkdir(parents=True)
        (place / "foreign.txt").write_bytes(b"mine")
        (place / SHARD).write_bytes(FILES[SHARD])
        artifact = await fetch()
        assert contents(artifact.path) == FILES | {"foreign.txt": b"mine"}
        assert artifact.bytes_reused == len(FILES[SHARD])

    async def test_an_empty_keyed_directory_is_replaced(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", FILES)
        (fetch.cache_dir / ArtifactRef("hf://org/model").key).mkdir(parents=True)
        assert contents((await fetch()).path) == FILES


class TestSharedDirectory:
    """Several artifacts in one directory, each with its own manifest."""

    async def test_no_artifact_removes_files_that_another_one_lists(
        self, origin: Origin, fetch: Fetcher, tmp_path: Path
    ) -> None:
        repository = origin.add_repo("org/model", FILES)
        selections: list[dict[str, Any]] = [{"include": (SHARD, "config.json")}, {"include": (OTHER, "config.json")}]
        for selection in selections:
            await fetch(dest=tmp_path, shared_dest=True, **selection)
        assert contents(tmp_path) == {path: FILES[path] for path in (SHARD, OTHER, "config.json")}
        origin.stop()
        for selection in selections:
            assert (await fetch(dest=tmp_path, shared_dest=True, **selection)).cached
        origin.start()
        origin.update_repo(repository, {OTHER: FILES[OTHER], "tokenizer/empty.txt": b""})
        await fetch(dest=tmp_path, shared_dest=True, refresh="on-change", include=(OTHER, "tokenizer/*"))
        assert (await fetch(dest=tmp_path, shared_dest=True, **selections[0])).cached

    async def test_a_file_that_only_one_artifact_listed_is_removed_with_it(
        self, origin: Origin, fetch: Fetcher, tmp_path: Path
    ) -> None:
        repository = origin.add_repo("org/model", FILES | {"former.txt": b"x"})
        await fetch(dest=tmp_path, shared_dest=True)
        await fetch(dest=tmp_path, shared_dest=True, include=(SHARD,))
        origin.update_repo(repository, {"config.json": FILES["config.json"]})
        await fetch(dest=tmp_path, shared_dest=True, refresh="on-change")
        assert contents(tmp_path) == {path: FILES[path] for path in (SHARD, "config.json")}

    async def test_a_manifest_is_withdrawn_when_another_artifact_changes_its_file(
        self, origin: Origin, fetch: Fetcher, tmp_path: Path
    ) -> None:
        """Both list config.json, at two revisions of one size. A cached older selection would be a mixture."""
        repository = origin.add_repo("org/model", FILES)
        await fetch(dest=tmp_path, shared_dest=True, include=(SHARD, "config.json"))
        origin.update_repo(repository, FILES | {"config.json": FILES["config.json"][::-1]})
        await fetch(dest=tmp_path, shared_dest=True, include=(OTHER, "config.json"))
        again = await fetch(dest=tmp_path, shared_dest=True, include=(SHARD, "config.json"))
        assert not again.cached
        assert contents(tmp_path)["config.json"] == FILES["config.json"][::-1]

    async def test_a_shared_artifact_leaves_an_unshared_one_intact(
        self, origin: Origin, fetch: Fetcher, tmp_path: Path
    ) -> None:
        origin.add_repo("org/model", FILES)
        await fetch(dest=tmp_path, include=(SHARD,))
        await fetch(dest=tmp_path, shared_dest=True, include=(OTHER,))
        assert contents(tmp_path) == {path: FILES[path] for path in (SHARD, OTHER)}
        assert (await fetch(dest=tmp_path, include=(SHARD,))).cached


class TestHubCache:
    async def test_the_real_client_finds_it_offline(
        self, origin: Origin, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        origin.add_repo("org/model", FILES)
        artifact = await fetch(layout="hf-cache")
        found = snapshot_download("org/model", cache_dir=fetch.cache_dir, local_files_only=True)
        assert Path(found) == artifact.path
        assert contents(artifact.path) == FILES
        checked = HfApi(endpoint=origin.endpoint).verify_repo_checksums("org/model", cache_dir=fetch.cache_dir)
        assert (checked.checked_count, checked.mismatches) == (len(FILES), [])

    async def test_a_cache_of_the_real_client_is_extended(self, origin: Origin, fetch: Fetcher) -> None:
        repository = origin.add_repo("org/model", FILES)
        api = HfApi(endpoint=origin.endpoint)
        api.snapshot_download("org/model", cache_dir=fetch.cache_dir, allow_patterns=["config.json"])
        artifact = await fetch(layout="hf-cache")
        assert contents(artifact.path) == FILES
        origin.update_repo(repository, CHANGED)
        newer = await fetch(layout="hf-cache", refresh="on-change")
        assert contents(newer.path) == CHANGED
        assert contents(artifact.path) == FILES
        assert newer.path.name != artifact.path.name

    async def test_a_hub_cache_accepts_repositories_only(self, origin: Origin, fetch: Fetcher) -> None:
        with pytest.raises(UsageError):
            await fetch(origin.add_file("/model.bin", b"weights"), layout="hf-cache")

    async def test_a_blob_that_is_removed_after_it_was_reused_is_never_missing_from_a_complete_artifact(
        self, origin: Origin, fetch: Fetcher
    ) -> None:
        origin.add_repo("org/model", FILES)
        shard = "model-00001-of-00002.safetensors"
        part = await fetch(layout="hf-cache", include=(shard,))
        blob = (part.path / shard).resolve()

        def remove(step: str) -> None:
            if step == "sealed":
                blob.unlink()

        with pytest.raises(LocalIOError, match="was removed during the fetch"):
            await fetch(layout="hf-cache", step=remove)
        settings = Settings(cache_dir=fetch.cache_dir, layout="hf-cache")
        assert find_cached(recover_and_request(ArtifactRef("hf://org/model"), settings)) is None
        assert contents((await fetch(layout="hf-cache")).path) == FILES


class TestLocalSources:
    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        directory = tmp_path / "model"
        for path, content in FILES.items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_bytes(content)
        return directory

    async def test_a_path_is_copied(self, fetch: Fetcher, model: Path) -> None:
        artifact = await fetch(f"file://{model}")
        assert contents(artifact.path) == FILES
        assert (artifact.path / SHARD).stat().st_ino != (model / SHARD).stat().st_ino

    async def test_files_are_linked_only_on_request(self, fetch: Fetcher, model: Path) -> None:
        artifact = await fetch(str(model), hard_link=True)
        assert (artifact.path / SHARD).stat().st_ino == (model / SHARD).stat().st_ino

    async def test_links_need_no_space(self, fetch: Fetcher, small_filesystem: MakeFilesystem) -> None:
        small = small_filesystem("tmpfs", size=16 * MiB)
        (small.path / "model").mkdir()
        (small.path / "model" / "model.safetensors").write_bytes(bytes(10 * MiB))
        artifact = await fetch(str(small.path / "model"), cache_dir=small.path / "cache", hard_link=True)
        assert (artifact.path / "model.safetensors").stat().st_nlink == 2
        with pytest.raises(OutOfSpace):
            await fetch(str(small.path / "model"), cache_dir=small.path / "another")

    async def test_a_claim_is_verified_in_place(self, origin: Origin, fetch: Fetcher, tmp_path: Path) -> None:
        origin.add_repo("org/model", FILES)
        await fetch(dest=tmp_path / "volume" / "model")
        mounts = {"weights": tmp_path / "volume"}
        artifact = await fetch("pvc://weights/model", pvc_mounts=mounts)
        assert (artifact.path, artifact.bytes_fetched, artifact.verified) == (tmp_path / "volume" / "model", 0, True)
        with (artifact.path / OTHER).open("r+b") as stream:
            stream.write(b"\xff\xff")
        with pytest.raises(DigestMismatch, match=OTHER):
            await fetch("pvc://weights/model", pvc_mounts=mounts)

    async def test_a_claim_without_a_mount_is_a_configuration_error(self, fetch: Fetcher) -> None:
        with pytest.raises(ConfigurationError, match="--pvc-mount"):
            await fetch("pvc://weights/model")

    async def test_a_missing_local_path_is_not_found(self, fetch: Fetcher, tmp_path: Path) -> None:
        with pytest.raises(NotFound):
            await fetch(str(tmp_path / "nothing"))


class TestPlainAddresses:
    @pytest.mark.parametrize("fault", [None, Fault(Chunked()), Fault(IgnoreRange())], ids=["ranges", "chunked", "whole"])
    async def test_a_file_with_and_without_ranges_and_length(self, origin: Origin, fetch: Fetcher, fault: Fault | None) -> None:
        address = origin.add_file("/dir/model%20a.bin", FILES[SHARD])
        if fault:
            origin.faults.add(fault)
        artifact = await fetch(address)
        assert list(contents(artifact.path).values()) == [FILES[SHARD]]

    async def test_a_web_page_instead_of_a_file_is_refused(self, origin: Origin, fetch: Fetcher) -> None:
        """A login page has a status of success."""
        origin.faults.add(Fault(Header("Content-Type", "Text/HTML; charset=utf-8")))
        content = b"<html>please log in</html>"
        with pytest.raises(Unauthorized, match="a web page instead of"):
            await fetch(origin.add_file("/model.bin", content))
        for address in (origin.add_file("/index.html", content), origin.add_file("/m", content) + "#sha256=" + PAGE_DIGEST):
            assert list(contents((await fetch(address)).path).values()) == [content]

    async def test_an_empty_file_is_fetched(self, origin: Origin, fetch: Fetcher) -> None:
        assert contents((await fetch(origin.add_file("/empty.bin", b""))).path) == {"empty.bin": b""}

    async def test_a_small_file_costs_one_request(self, origin: Origin, fetch: Fetcher) -> None:
        await fetch(origin.add_file("/small.bin", b"small"))
        assert len(origin.requests) == 1

    async def test_no_secret_of_the_address_is_stored(self, origin: Origin, fetch: Fetcher) -> None:
        address = origin.add_file("/model.bin", b"weights").replace("http://", "http://user:s3cr3t@") + "?sig=h1dd3n"
        artifact = await fetch(address)
        written = b"".join(path.read_bytes() for path in fetch.cache_dir.rglob("*") if path.is_file())
        assert b"s3cr3t" not in written
        assert b"h1dd3n" not in written
        assert "s3cr3t" not in repr(artifact)


class TestPermissions:
    @pytest.mark.parametrize(("root", "file", "directory"), [(0o755, 0o644, 0o755), (0o2775, 0o664, 0o2775)])
    async def test_modes_follow_the_root_not_the_umask(
        self, origin: Origin, fetch: Fetcher, root: int, file: int, directory: int
    ) -> None:
        origin.add_repo("org/model", FILES)
        fetch.cache_dir.mkdir()
        fetch.cache_dir.chmod(root)
        before = os.umask(0o077)
        try:
            artifact = await fetch()
        finally:
            os.umask(before)
        assert stat.S_IMODE((artifact.path / SHARD).stat().st_mode) == file
        assert stat.S_IMODE((artifact.path / RELATIVE_PATH).stat().st_mode) == file
        assert stat.S_IMODE((artifact.path / "tokenizer").stat().st_mode) == directory
        assert stat.S_IMODE(artifact.path.stat().st_mode) == directory


async def test_the_manifest_records_the_verified_files(origin: Origin, fetch: Fetcher) -> None:
    repository = origin.add_repo("org/model", FILES)
    artifact = await fetch(include=("*.safetensors",))
    manifest = Manifest.read(artifact.path / RELATIVE_PATH)
    assert manifest is not None
    assert (manifest.uri, manifest.revision) == ("hf://org/model", repository.commit)
    assert manifest.include == ("*.safetensors",)
    assert [(file.path, file.size, len(file.chunks)) for file in manifest.files] == [
        (SHARD, len(FILES[SHARD]), 2),
        (OTHER, len(FILES[OTHER]), 1),
    ]
