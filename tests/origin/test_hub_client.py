"""The Hub's official client works with the origin as it does with the real Hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.hub import Addresses
from fetcher.testing.origin import Origin

FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": random_bytes("weights", 300_000),
    "a folder/ünï~code's.bin": random_bytes("other", 5000),
    "empty.txt": b"",
}


def content_below(directory: str) -> dict[str, bytes]:
    paths = (path for path in Path(directory).rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


class TestDownloads:
    @pytest.mark.parametrize("resolve_cache", [False, True], ids=["served directly", "by a relative redirect"])
    def test_a_snapshot_arrives_bit_for_bit(self, tmp_path: Path, resolve_cache: bool) -> None:
        with Origin(resolve_cache=resolve_cache) as origin:
            origin.add_repo("org/model", FILES)
            snapshot = snapshot_download("org/model", endpoint=origin.endpoint, cache_dir=tmp_path)
        assert content_below(snapshot) == FILES

    @pytest.mark.parametrize("addresses", [None, "absolute"])
    def test_a_snapshot_arrives_from_a_mirror_below_a_path(self, tmp_path: Path, addresses: Addresses | None) -> None:
        with Origin(prefix="/artifactory/api/huggingfaceml", addresses=addresses, page_size=2) as origin:
            origin.add_repo("org/model", FILES)
            snapshot = snapshot_download("org/model", endpoint=origin.endpoint, cache_dir=tmp_path)
        assert content_below(snapshot) == FILES

    def test_hf_endpoint_directs_a_new_process_to_the_origin(self, origin: Origin, tmp_path: Path) -> None:
        repository = origin.add_repo("org/model", FILES)
        code = "from huggingface_hub import snapshot_download as get; print(get('org/model'))"
        environ = {**os.environ, "HF_ENDPOINT": origin.endpoint, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
        done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
        assert content_below(done.stdout.strip()) == FILES
        assert done.stdout.strip().endswith(repository.commit)

    def test_a_dataset_has_its_own_addresses(self, origin: Origin, tmp_path: Path) -> None:
        origin.add_repo("org/corpus", {"train.parquet": b"rows"}, kind="dataset")
        path = hf_hub_download("org/corpus", "train.parquet", repo_type="dataset", endpoint=origin.endpoint, cache_dir=tmp_path)
        assert Path(path).read_bytes() == b"rows"
        assert origin.requests[0].path == "/datasets/org/corpus/resolve/main/train.parquet"

    @pytest.mark.parametrize("revision", ["v1.0", "refs/pr/7", "feature/quantized"])
    def test_branches_tags_and_pull_requests_are_revisions(self, origin: Origin, tmp_path: Path, revision: str) -> None:
        repository = origin.add_repo("org/model", {"config.json": b"new"})
        origin.update_repo(repository, {"config.json": b"proposed"}, revision=revision)
        path = hf_hub_download("org/model", "config.json", revision=revision, endpoint=origin.endpoint, cache_dir=tmp_path)
        assert Path(path).read_bytes() == b"proposed"

    def test_an_old_commit_stays_reachable_after_main_has_moved(self, origin: Origin, tmp_path: Path) -> None:
        repository = origin.add_repo("org/model", {"config.json": b"old"})
        old = repository.commit
        new = origin.update_repo(repository, {"config.json": b"new"})
        api = HfApi(endpoint=origin.endpoint)
        assert api.model_info("org/model").sha == new != old
        snapshot = snapshot_download("org/model", revision=old, endpoint=origin.endpoint, cache_dir=tmp_path)
        assert content_below(snapshot) == {"config.json": b"old"}


class TestListings:
    def test_the_tree_is_complete_over_several_pages(self) -> None:
        files = {f"part-{number:02}/data.json": str(number).encode() for number in range(20)}
        with Origin(page_size=7) as origin:
            origin.add_repo("org/model", files)
            entries = list(HfApi(endpoint=origin.endpoint).list_repo_tree("org/model", recursive=True))
            pages = [request for request in origin.requests if "/tree/" in request.path]
        assert {entry.path for entry in entries} == {*files, *(f"part-{number:02}" for number in range(20))}
        assert len(pages) == 6

    def test_a_folder_lists_its_direct_entries(self, origin: Origin) -> None:
        origin.add_repo("org/model", {"top.json": b"", "a/one.json": b"1", "a/b/two.json": b"2"})
        api = HfApi(endpoint=origin.endpoint)
        assert [entry.path for entry in api.list_repo_tree("org/model")] == ["a", "top.json"]
        assert [entry.path for entry in api.list_repo_tree("org/model", "a")] == ["a/b", "a/one.json"]

    def test_equal_content_has_equal_commit_ids(self, origin: Origin) -> None:
        one, same = origin.add_repo("org/one", FILES), origin.add_repo("org/same", FILES)
        other = origin.add_repo("org/other", {**FILES, "empty.txt": b"no more"})
        assert one.commit == same.commit != other.commit

    def test_the_client_verifies_all_checksums(self, origin: Origin, tmp_path: Path) -> None:
        origin.add_repo("org/model", FILES)
        snapshot_download("org/model", endpoint=origin.endpoint, cache_dir=tmp_path)
        verified = HfApi(endpoint=origin.endpoint).verify_repo_checksums("org/model", cache_dir=tmp_path)
        assert (verified.checked_count, verified.mismatches, verified.missing_paths) == (len(FILES), [], [])


class TestAccess:
    def test_a_reader_can_fetch_a_private_repository(self, origin: Origin, tmp_path: Path) -> None:
        origin.add_repo("org/secret", FILES, private=True, readers=["hf_reader"])
        snapshot = snapshot_download("org/secret", token="hf_reader", endpoint=origin.endpoint, cache_dir=tmp_path)
        assert content_below(snapshot) == FILES
        assert {request.origin for request in origin.requests if request.token} == {"hub"}

    @pytest.mark.parametrize(
        ("token", "status"), [(False, 401), ("hf_known", 404)], ids=["without a token", "with another token"]
    )
    def test_a_private_repository_looks_missing_without_access(
        self, origin: Origin, tmp_path: Path, token: str | bool, status: int
    ) -> None:
        origin.add_repo("org/secret", FILES, private=True, readers=["hf_reader"])
        for name in ("org/secret", "org/missing"):
            with pytest.raises(RepositoryNotFoundError) as caught:
                snapshot_download(name, token=token, endpoint=origin.endpoint, cache_dir=tmp_path)
            assert caught.value.response.status_code == status

    def test_an_unknown_token_is_refused(self, origin: Origin) -> None:
        origin.add_repo("org/model", FILES)
        with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
            HfApi(endpoint=origin.endpoint, token="hf_invented").model_info("org/model")

    def test_only_readers_get_files_of_a_gated_repository(self, origin: Origin, tmp_path: Path) -> None:
        origin.add_repo("org/gated", FILES, gated=True, readers=["hf_reader"])
        assert HfApi(endpoint=origin.endpoint, token=False).list_repo_files("org/gated")
        for token in (False, "hf_known"):
            with pytest.raises(GatedRepoError):
                hf_hub_download("org/gated", "config.json", token=token, endpoint=origin.endpoint, cache_dir=tmp_path)
        hf_hub_download("org/gated", "config.json", token="hf_reader", endpoint=origin.endpoint, cache_dir=tmp_path)

    def test_a_missing_revision_and_a_missing_file_have_different_errors(self, origin: Origin, tmp_path: Path) -> None:
        origin.add_repo("org/model", FILES)
        with pytest.raises(RevisionNotFoundError):
            HfApi(endpoint=origin.endpoint).model_info("org/model", revision="nowhere")
        with pytest.raises(EntryNotFoundError):
            hf_hub_download("org/model", "nothing.json", endpoint=origin.endpoint, cache_dir=tmp_path)


class TestProcess:
    def test_a_process_serves_a_directory_until_it_is_terminated(self, tmp_path: Path) -> None:
        (tmp_path / "repo").mkdir()
        (tmp_path / "repo" / "model.safetensors").write_bytes(FILES["model.safetensors"])
        command = [sys.executable, "-m", "fetcher.testing", str(tmp_path / "repo"), "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            served = json.loads(process.stdout.readline())
            snapshot = snapshot_download(served["repo"], endpoint=served["endpoint"], cache_dir=tmp_path / "cache")
            process.terminate()
            assert process.wait(timeout=5) == 0
        assert content_below(snapshot) == {"model.safetensors": FILES["model.safetensors"]}
