"""`HF_HUB_OFFLINE`: a Hub cache filled by the real client is the source, and no request is sent."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download, snapshot_download

from fetcher.artifact import ArtifactRef
from fetcher.errors import DigestMismatch, NotFound, Offline
from fetcher.sources.addresses import HubAddress
from fetcher.sources.snapshots import find_snapshot
from fetcher.testing.origin import Origin
from tests.engine.conftest import FILES, Fetcher, contents

SHARD = "model-00001-of-00002.safetensors"


@pytest.fixture
def hub(origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hub cache; the origin counts requests."""
    origin.add_repo("org/model", FILES)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def filled(hub: Path, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a snapshot that the client fetched. After that the network is forbidden."""
    snapshot = Path(snapshot_download("org/model", cache_dir=hub, endpoint=origin.endpoint))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    origin.clear_requests()
    return snapshot


def forget_listings(hub: Path) -> None:
    """Remove the listing: some clients write none."""
    for tree in hub.rglob("trees/*"):
        tree.unlink()


def list_below(directory: Path) -> list[Path]:
    return list(directory.rglob("*"))


@pytest.mark.parametrize("uri", ["hf://org/model", "hf://org/model@main"])
async def test_a_complete_snapshot_is_fetched_and_verified_without_requests(
    filled: Path, fetch: Fetcher, origin: Origin, uri: str
) -> None:
    artifact = await fetch(uri)
    assert contents(artifact.path) == FILES
    assert (artifact.revision, artifact.verified) == (filled.name, True)
    assert not origin.requests


async def test_a_selection_a_commit_and_a_file_address_work_offline(filled: Path, fetch: Fetcher, origin: Origin) -> None:
    assert set(contents((await fetch(include=("*.json",))).path)) == {name for name in FILES if name.endswith(".json")}
    assert contents((await fetch(revision=filled.name)).path) == FILES
    one = await fetch(f"{origin.endpoint}/org/model/resolve/main/config.json")
    assert contents(one.path) == {"config.json": FILES["config.json"]}
    assert not origin.requests


async def test_a_partial_snapshot_serves_its_files_and_names_the_missing_ones(
    hub: Path, fetch: Fetcher, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot_download("org/model", cache_dir=hub, endpoint=origin.endpoint, allow_patterns=["*.json"])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    await fetch(include=("config.json",))
    with pytest.raises(NotFound, match=r"model-0000\d-of-00002.safetensors is not in .*snapshots"):
        await fetch()
    assert not (fetch.cache_dir / ArtifactRef("hf://org/model").key).exists()


async def test_a_damaged_blob_is_never_published(filled: Path, fetch: Fetcher) -> None:
    blob = (filled / SHARD).resolve()
    content = bytearray(blob.read_bytes())
    content[1000] ^= 1
    blob.write_bytes(content)
    with pytest.raises(DigestMismatch, match=SHARD):
        await fetch()
    assert fetch.visible() == []


async def test_a_snapshot_without_a_listing_is_not_known_to_be_complete(
    hub: Path, fetch: Fetcher, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf_hub_download("org/model", "config.json", cache_dir=hub, endpoint=origin.endpoint)
    forget_listings(hub)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Offline, match="without which a complete model cannot be recognised"):
        await fetch()


def test_the_entries_of_the_listing_are_kept(filled: Path) -> None:
    """A cache filled from this one has the listing of the client, with the Xet hashes."""
    (tree,) = filled.parents[1].glob("trees/*.json")
    document = json.loads(tree.read_text())
    document["files"][SHARD]["xet_hash"] = "d" * 64
    tree.write_text(json.dumps(document))
    listing = find_snapshot(HubAddress("models", "org/model", filled.name), filled.parents[2]).listing
    (shard,) = (file for file in listing.files if file.path == SHARD)
    assert shard.facts["xet_hash"] == "d" * 64


def test_a_pipe_in_place_of_a_listing_does_not_block(filled: Path) -> None:
    (tree,) = filled.parents[1].glob("trees/*.json")
    tree.unlink()
    os.mkfifo(tree)
    with pytest.raises(Offline):
        find_snapshot(HubAddress("models", "org/model", filled.name), filled.parents[2])


@pytest.mark.parametrize(
    "damage", [b"", b"[]", b'{"format_version": 2, "files": {}}', b'{"format_version": 1, "files": {"a": 5}}']
)
async def test_a_damaged_listing_is_reported(filled: Path, fetch: Fetcher, damage: bytes) -> None:
    (tree,) = filled.parents[1].glob("trees/*.json")
    tree.write_bytes(damage)
    with pytest.raises(Offline, match="is not a listing that this version can read"):
        await fetch()


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
async def test_an_empty_cache_is_reported_with_advice(
    hub: Path, fetch: Fetcher, origin: Origin, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(Offline, match="unset HF_HUB_OFFLINE"):
        await fetch()
    assert not origin.requests
    assert not list_below(hub)
