"""`--expect-file`: a list of sha256sum pins the files of an artifact."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from fetcher.artifact import Digest
from fetcher.errors import ConfigurationError, DigestMismatch, NotFound
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.testing.effects import Status
from fetcher.testing.faults import Fault
from fetcher.testing.origin import Origin
from tests.engine.conftest import FILES, Fetcher, contents

SHARD = "model-00001-of-00002.safetensors"


def listed(files: dict[str, bytes]) -> bytes:
    return "".join(f"{sha256(content).hexdigest()}  {path}\n" for path, content in files.items()).encode()


WITH_SUMS = FILES | {"SHA256SUMS": listed(FILES)}


class Sums:
    """Writes a local list of sha256sum, and returns its path. Without an argument it has the right digests."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, content: bytes | dict[str, bytes] = FILES) -> str:
        self._path.write_bytes(content if isinstance(content, bytes) else listed(content))
        return str(self._path)


@pytest.fixture
def sums(tmp_path: Path) -> Sums:
    return Sums(tmp_path / "sums")


def fetched(origin: Origin) -> list[str]:
    """The files whose bytes were requested."""
    return [request.path for request in origin.requests if request.method == "GET" and "/api/" not in request.path]


class TestLocalList:
    async def test_its_digests_are_compared_and_recorded(self, origin: Origin, fetch: Fetcher, sums: Sums) -> None:
        origin.add_repo("org/model", FILES)
        artifact = await fetch(expect_file=sums())
        manifest = Manifest.read(artifact.path / RELATIVE_PATH)
        assert manifest is not None
        for file in manifest.files:
            assert Digest("sha256", sha256(FILES[file.path]).hexdigest()) in file.digests

    async def test_they_satisfy_require_digests(self, origin: Origin, fetch: Fetcher, sums: Sums) -> None:
        address = origin.add_file("/model.bin", b"weights")
        artifact = await fetch(address, expect_file=sums({"model.bin": b"weights"}), require_digests=True)
        assert artifact.verified

    async def test_a_hit_needs_no_network(self, origin: Origin, fetch: Fetcher, sums: Sums) -> None:
        origin.add_repo("org/model", FILES)
        await fetch(expect_file=sums())
        origin.stop()
        assert (await fetch(expect_file=sums())).cached

    async def test_a_cached_copy_that_was_not_compared_is_no_hit(self, origin: Origin, fetch: Fetcher, sums: Sums) -> None:
        origin.add_repo("org/model", FILES)
        await fetch()
        assert not (await fetch(expect_file=sums())).cached
        assert (await fetch(expect_file=sums())).cached

    async def test_a_contradiction_of_the_listing_ends_before_a_byte_is_fetched(
        self, origin: Origin, fetch: Fetcher, sums: Sums
    ) -> None:
        origin.add_repo("org/model", FILES)
        with pytest.raises(DigestMismatch, match=SHARD):
            await fetch(expect_file=sums({SHARD: b"other"}))
        assert not fetched(origin)

    async def test_a_contradiction_of_a_pin_ends_before_a_byte_is_fetched(
        self, origin: Origin, fetch: Fetcher, sums: Sums
    ) -> None:
        origin.add_repo("org/model", FILES)
        with pytest.raises(DigestMismatch, match="--expect says"):
            await fetch(expect_file=sums(), expect={"config.json": Digest("sha256", "0" * 64)})
        assert not fetched(origin)

    async def test_a_wrong_digest_where_the_source_lists_none_is_found(
        self, origin: Origin, fetch: Fetcher, sums: Sums
    ) -> None:
        address = origin.add_file("/model.bin", b"weights")
        with pytest.raises(DigestMismatch, match=r"model\.bin"):
            await fetch(address, expect_file=sums({"model.bin": b"other"}))
        assert fetch.visible() == []

    async def test_names_outside_the_selection_are_skipped(self, origin: Origin, fetch: Fetcher, sums: Sums) -> None:
        origin.add_repo("org/model", FILES)
        artifact = await fetch(expect_file=sums(FILES | {"never.bin": b"listed"}), include=["*.json"])
        assert set(contents(artifact.path)) == {"config.json", "model.safetensors.index.json"}

    async def test_any_other_name_that_is_not_listed_is_an_error(self, origin: Origin, fetch: Fetcher, sums: Sums) -> None:
        origin.add_repo("org/model", FILES)
        with pytest.raises(NotFound, match=r"names .?never\.bin"):
            await fetch(expect_file=sums(FILES | {"never.bin": b"listed"}))

    @pytest.mark.parametrize("content", [b"nonsense\n", b""])
    async def test_a_malformed_list_is_an_error(self, origin: Origin, fetch: Fetcher, sums: Sums, content: bytes) -> None:
        origin.add_repo("org/model", FILES)
        with pytest.raises(ConfigurationError, match=r"sums, line 1"):
            await fetch(expect_file=sums(content))

    async def test_a_directory_is_no_list(self, origin: Origin, fetch: Fetcher, tmp_path: Path) -> None:
        origin.add_repo("org/model", FILES)
        with pytest.raises(ConfigurationError, match="not a regular file"):
            await fetch(expect_file=str(tmp_path))

    async def test_a_local_directory_as_source_is_compared(self, fetch: Fetcher, tmp_path: Path, sums: Sums) -> None:
        (tmp_path / "source").mkdir()
        (tmp_path / "source/model.bin").write_bytes(b"weights")
        assert (await fetch(str(tmp_path / "source"), expect_file=sums({"model.bin": b"weights"}))).verified

    async def test_a_claim_is_compared_in_place(self, fetch: Fetcher, tmp_path: Path, sums: Sums) -> None:
        (tmp_path / "mount/model").mkdir(parents=True)
        (tmp_path / "mount/model/model.bin").write_bytes(b"weights")
        mounts = {"claim": tmp_path / "mount"}
        right, wrong = {"model.bin": b"weights"}, {"model.bin": b"other"}
        assert (await fetch("pvc://claim/model", pvc_mounts=mounts, expect_file=sums(right))).verified
        with pytest.raises(DigestMismatch):
            await fetch("pvc://claim/model", pvc_mounts=mounts, expect_file=sums(wrong))


class TestListOfTheSource:
    async def test_it_is_fetched_before_the_files_are_chosen(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", WITH_SUMS)
        artifact = await fetch(expect_file="SHA256SUMS")
        assert contents(artifact.path) == WITH_SUMS
        assert fetched(origin)[0].endswith("SHA256SUMS")

    async def test_a_hit_reads_the_cached_list(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", WITH_SUMS)
        await fetch(expect_file="SHA256SUMS")
        origin.stop()
        assert (await fetch(expect_file="SHA256SUMS")).cached

    async def test_a_list_outside_the_selection_is_asked_for_again_and_no_other_file(
        self, origin: Origin, fetch: Fetcher
    ) -> None:
        origin.add_repo("org/model", WITH_SUMS)
        await fetch(expect_file="SHA256SUMS", include=["*.json"])
        origin.clear_requests()
        again = await fetch(expect_file="SHA256SUMS", include=["*.json"])
        assert again.bytes_fetched == 0
        assert all(path.endswith("SHA256SUMS") for path in fetched(origin))

    async def test_a_contradiction_ends_before_any_other_byte_is_fetched(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", FILES | {"SHA256SUMS": listed({SHARD: b"other"})})
        with pytest.raises(DigestMismatch, match=SHARD):
            await fetch(expect_file="SHA256SUMS")
        assert all(path.endswith("SHA256SUMS") for path in fetched(origin))

    async def test_a_malformed_list_names_its_line(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", FILES | {"SHA256SUMS": b"<html>"})
        with pytest.raises(ConfigurationError, match="SHA256SUMS, line 1"):
            await fetch(expect_file="SHA256SUMS")

    async def test_a_name_that_is_nowhere_is_not_found(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", FILES)
        with pytest.raises(NotFound, match="neither a local file nor a file of the source"):
            await fetch(expect_file="SHA256SUMS")

    async def test_a_failed_request_is_retried(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", WITH_SUMS)
        fault = origin.faults.add(Fault(Status(503), path="SHA256SUMS", times=1))
        await fetch(expect_file="SHA256SUMS")
        assert origin.faults.fired(fault) == 1
