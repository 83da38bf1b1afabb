"""Two releases on one volume: artifacts of a later release are visible, but not changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import xxhash

from fetcher.artifact import ArtifactRef
from fetcher.errors import NewerFormat
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.testing.origin import Origin
from tests.engine.conftest import FILES, Fetcher, contents
from tests.lab.command import run_fetcher

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "manifest.schema.json").read_text())
URI = "hf://org/model"

Where = Callable[[Path], Path]
KEYED: Where = lambda path: path / ArtifactRef(URI).key / RELATIVE_PATH  # noqa: E731
IN_PLACE: Where = lambda path: path / RELATIVE_PATH  # noqa: E731
HUB_CACHE: Where = lambda path: path / ".fetcher" / "manifests" / f"{ArtifactRef(URI).key}.json"  # noqa: E731


@pytest.fixture(autouse=True)
def published(origin: Origin) -> None:
    origin.add_repo("org/model", FILES)
    origin.add_repo("org/private", FILES, readers={"hf_secret"})


def given(layout: str, directory: Path) -> dict[str, Any]:
    return {"dest": directory} if layout == "in place" else {"layout": layout, "cache_dir": directory}


LAYOUTS = [("flat", KEYED), ("in place", IN_PLACE), ("hf-cache", HUB_CACHE)]


def rewrite(path: Path, **changes: Any) -> bytes:
    """Rewrite the manifest at `path` in the format of a later release."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path.read_bytes()


async def cut_short(fetch: Fetcher) -> None:
    """Stop after everything is fetched and before anything is published."""

    def stop(step: str) -> None:
        raise RuntimeError(f"stopped at {step}")

    with pytest.raises(RuntimeError, match="stopped"):
        await fetch(step=stop)


@pytest.mark.parametrize(("layout", "where"), LAYOUTS)
async def test_an_artifact_of_a_later_format_is_refused_and_unchanged(
    fetch: Fetcher, tmp_path: Path, layout: str, where: Where
) -> None:
    await fetch(**given(layout, tmp_path / "root"))
    written = rewrite(where(tmp_path / "root"), format_version=2, version="7.1", files={"a": "mapping now"})
    before = contents(tmp_path / "root")
    for more in ({}, {"refresh": "on-change"}):
        with pytest.raises(NewerFormat, match=r"written by weightlift 7\.1 in format 2; this version reads up to format 1"):
            await fetch(**given(layout, tmp_path / "root"), **more)
    assert where(tmp_path / "root").read_bytes() == written
    assert contents(tmp_path / "root") == before


async def test_other_artifacts_in_the_same_root_are_fetched_and_listed(fetch: Fetcher, origin: Origin) -> None:
    artifact = await fetch()
    rewrite(artifact.path / RELATIVE_PATH, format_version=2)
    origin.add_repo("org/other", FILES)
    other = await fetch("hf://org/other")
    listed = run_fetcher("list", "--cache-dir", str(fetch.cache_dir), "--json")
    assert [entry["cache_key"] for entry in json.loads(listed.stdout)] == [other.cache_key]
    assert listed.stderr.startswith("NewerFormat:")
    shown = run_fetcher("show", URI, "--cache-dir", str(fetch.cache_dir))
    assert (shown.returncode, shown.stderr.splitlines()[-1].partition(":")[0]) == (78, "NewerFormat")


async def test_an_artifact_of_a_later_format_in_a_shared_directory_is_not_overwritten(fetch: Fetcher, tmp_path: Path) -> None:
    artifact = await fetch(dest=tmp_path / "shared", shared_dest=True)
    rewrite(HUB_CACHE(tmp_path / "shared"), format_version=2)
    before = contents(artifact.path)
    with pytest.raises(NewerFormat):
        await fetch(dest=tmp_path / "shared", shared_dest=True, include=("*.json",))
    assert contents(artifact.path) == before


async def test_a_fetch_begun_by_a_later_release_is_not_resumed(fetch: Fetcher) -> None:
    await cut_short(fetch)
    (journal,) = fetch.cache_dir.glob(".fetcher/staging/*/journal.*")
    first, _, rest = journal.read_bytes().partition(b"\n")
    later = first.partition(b" ")[2].replace(b'"format_version":1', b'"format_version":2')
    journal.write_bytes(b"%s %s\n" % (xxhash.xxh3_64_hexdigest(later).encode(), later) + rest)
    kept = journal.read_bytes()
    with pytest.raises(NewerFormat, match="journal"):
        await fetch()
    assert journal.read_bytes() == kept


@pytest.mark.parametrize(("layout", "where"), LAYOUTS)
async def test_unknown_fields_of_a_later_release_are_kept(fetch: Fetcher, tmp_path: Path, layout: str, where: Where) -> None:
    await fetch(**given(layout, tmp_path / "root"))
    path = where(tmp_path / "root")
    files = [{**entry, "crc32c": "later"} for entry in json.loads(path.read_text())["files"]]
    rewrite(path, signatures=["later"], files=files)
    assert (await fetch(**given(layout, tmp_path / "root"))).cached
    manifest = Manifest.read(path)
    assert manifest is not None
    again = json.loads(manifest.to_bytes())
    assert again["signatures"] == ["later"]
    assert all(entry["crc32c"] == "later" for entry in again["files"])


@pytest.mark.parametrize(("layout", "where"), LAYOUTS)
@pytest.mark.parametrize("selection", [{}, {"include": ("*.json",), "exclude": ("model*",), "revision": "main"}])
async def test_every_manifest_fits_the_published_schema(
    fetch: Fetcher, tmp_path: Path, layout: str, where: Where, selection: dict[str, Any]
) -> None:
    await fetch(**given(layout, tmp_path / "root"), **selection)
    found = (tmp_path / "root").glob(str(where(Path("*"))).removeprefix("*/").replace(ArtifactRef(URI).key, "*"))
    (path,) = (path for path in found if not path.name.endswith("summary.json"))
    jsonschema.validate(json.loads(path.read_text()), SCHEMA)
    for field in SCHEMA["required"]:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({name: value for name, value in json.loads(path.read_text()).items() if name != field}, SCHEMA)


class TestAuthenticated:
    """`authenticated`: others may have no right to read the artifact."""

    async def is_authenticated(self, fetch: Fetcher, uri: str = URI, **more: Any) -> bool:
        artifact = await fetch(uri, **more)
        manifest = Manifest.read(artifact.path / RELATIVE_PATH)
        assert manifest is not None
        return manifest.authenticated

    async def test_a_fetch_with_a_hub_token_is_authenticated(self, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
        assert not await self.is_authenticated(fetch)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        assert await self.is_authenticated(fetch, revision="main")

    async def test_a_fetch_with_a_secret_in_the_address_is_authenticated(self, fetch: Fetcher, origin: Origin) -> None:
        plain = origin.add_file("/config.json", b"{}")
        assert not await self.is_authenticated(fetch, f"{plain}?download=true")
        for query in ("X-Amz-Signature=ab", "sv=1&sig=ab", "access_token=ab", "Key-Pair-Id=ab&Signature=c"):
            assert await self.is_authenticated(fetch, f"{plain}?{query}"), query
        scheme, _, rest = plain.partition("://")
        assert await self.is_authenticated(fetch, f"{scheme}://user:secret@{rest}")

    async def test_bytes_of_an_authenticated_earlier_attempt_stay_authenticated(
        self, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        await cut_short(fetch)
        monkeypatch.delenv("HF_TOKEN")
        await cut_short(fetch)
        assert await self.is_authenticated(fetch)

    async def test_files_kept_from_an_authenticated_version_stay_authenticated(
        self, fetch: Fetcher, origin: Origin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        await fetch()
        monkeypatch.delenv("HF_TOKEN")
        origin.add_repo("org/model", FILES | {"config.json": b"{}"})
        assert await self.is_authenticated(fetch, refresh="on-change")

    async def test_a_copy_of_an_authenticated_artifact_is_authenticated(
        self, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        artifact = await fetch()
        monkeypatch.delenv("HF_TOKEN")
        assert await self.is_authenticated(fetch, artifact.path.as_uri())
