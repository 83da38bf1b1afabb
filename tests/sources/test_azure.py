"""The source for Azure Blob Storage against azurite, a server that checks signatures."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fetcher.artifact import ArtifactRef, Checksum
from fetcher.errors import NotFound, Refused, Unauthorized
from fetcher.settings import Settings
from fetcher.sources import open_source
from fetcher.sources.azure.access import AzureAccess
from fetcher.sources.base import Source
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.conformance import MakeSource, SourceConformance, listing_of
from fetcher.testing.faults import Faults
from tests.lab.command import run_fetcher
from tests.lab.front import Front, in_front_of
from tests.lab.stores import AzureServer
from tests.sources.mirrored import Mirrored

SETTINGS = Settings(cache_dir=Path("/nowhere"), timeout_stall=2.0)
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": random_bytes("azure", 300_000),
    "nested/a file & more.json": b"{}",
}
POISON = {"AZURE_STORAGE_CONNECTION_STRING": "AccountName=theirs;AccountKey=cG9pc29u;BlobEndpoint=http://127.0.0.1:1/theirs"}
TOMORROW = datetime.now(UTC) + timedelta(days=1)
YESTERDAY = datetime.now(UTC) - timedelta(days=1)


@pytest.fixture
def container(azure: AzureServer) -> str:
    name = f"models-{uuid.uuid4().hex[:12]}"
    azure.make_container(name)
    return name


def source_of(azure: AzureServer, uri: str, access: AzureAccess | None = None) -> Source:
    environ = {"AZURE_STORAGE_CONNECTION_STRING": azure.connection} if access is None else POISON
    return open_source(ArtifactRef(uri), SETTINGS, environ, credentials=access)


class TestAzure(SourceConformance):
    """Behind a front that can fail. It takes ranges out of requests, so a SAS lets them in, which signs none of them."""

    @pytest.fixture
    def front(self, azure: AzureServer) -> Iterator[Front]:
        with in_front_of("127.0.0.1", azure.port) as running:
            yield running

    @pytest.fixture
    def faults(self, front: Front) -> Faults:
        return front.faults

    @pytest.fixture
    def access(self, azure: AzureServer, front: Front, container: str) -> AzureAccess:
        TestAzure.secret = sas = azure.sas(container, expires=TOMORROW)
        return AzureAccess(endpoint=f"{front.endpoint}/{azure.account}", sas=sas)

    @pytest.fixture
    def make_source(self, azure: AzureServer, container: str, access: AzureAccess) -> MakeSource:
        def make(files: Mapping[str, bytes]) -> Source:
            azure.publish(container, {f"org/model/{path}": content for path, content in files.items()})
            return source_of(azure, f"az://{container}/org/model", access)

        return make

    @pytest.fixture
    def missing_source(self, azure: AzureServer, container: str, access: AzureAccess) -> Source:
        return source_of(azure, f"az://{container}/nothing", access)


class TestAzureWithMirrors(Mirrored, TestAzure):
    """An MD5 is no digest: all bytes are the origin's."""


class TestCredentials:
    """A value replaces those of the environment, which are poisoned here."""

    @pytest.fixture(autouse=True)
    def files(self, azure: AzureServer, container: str) -> None:
        azure.publish(container, {"m/config.json": b"{}"})

    async def test_a_sas_is_enough(self, azure: AzureServer, container: str) -> None:
        access = AzureAccess(endpoint=azure.endpoint, sas=azure.sas(container, expires=TOMORROW))
        async with aclosing(source_of(azure, f"az://{container}/m", access)) as source:
            (file,) = (await listing_of(source)).files
        assert file.checksums == (Checksum("md5", "99914b932bd37a50b983c5e7c90ae93b"),)

    async def test_an_expired_sas_is_named_and_not_shown(self, azure: AzureServer, container: str) -> None:
        sas = azure.sas(container, expires=YESTERDAY)
        access = AzureAccess(endpoint=azure.endpoint, sas=sas)
        async with aclosing(source_of(azure, f"az://{container}/m", access)) as source:
            with pytest.raises(Unauthorized, match="the SAS expired at 20") as caught:
                await listing_of(source)
        assert sas.rpartition("sig=")[2] not in str(caught.value)
        assert sas not in repr(access)

    async def test_a_wrong_key_is_refused(self, azure: AzureServer, container: str) -> None:
        access = AzureAccess(azure.account, azure.endpoint, key="d3Jvbmc=")
        async with aclosing(source_of(azure, f"az://{container}/m", access)) as source:
            with pytest.raises(Unauthorized, match="from the caller"):
                await listing_of(source)

    async def test_anonymous_access_sends_nothing(self, azure: AzureServer, container: str) -> None:
        access = AzureAccess(azure.account, azure.endpoint)
        async with aclosing(source_of(azure, f"az://{container}/m", access)) as source:
            with pytest.raises((Unauthorized, NotFound)):
                await listing_of(source)


async def test_a_compressed_blob_is_refused_only_if_it_is_selected(azure: AzureServer, container: str) -> None:
    azure.put(container, "m/config.json", b"{}")
    azure.put(container, "m/packed.json", b"packed", blob_content_encoding="gzip")
    async with aclosing(source_of(azure, f"az://{container}/m")) as source:
        files = {file.path: file for file in (await listing_of(source)).files}
        await source.describe([files["config.json"]])
        with pytest.raises(Refused, match="Content-Encoding gzip"):
            await source.describe(list(files.values()))


class TestFetching:
    """The command, as users run it."""

    @pytest.fixture
    def env(self, azure: AzureServer, container: str) -> dict[str, str]:
        azure.publish(container, {f"m/{path}": content for path, content in FILES.items()} | {"m-old/config.json": b"old"})
        return {"AZURE_STORAGE_CONNECTION_STRING": azure.connection}

    def test_a_prefix_is_fetched_and_verified(self, env: dict[str, str], container: str, tmp_path: Path) -> None:
        """A prefix ends at a slash: the neighbour `m-old/` is not fetched."""
        done = run_fetcher("fetch", f"az://{container}/m", "--cache-dir", tmp_path, env=env)
        assert done.returncode == 0, done.stderr
        placed = Path(done.stdout.strip())
        found = {str(path.relative_to(placed)): path.read_bytes() for path in placed.rglob("*") if path.is_file()}
        assert {path: content for path, content in found.items() if not path.startswith(".fetcher")} == FILES
        assert run_fetcher("verify", f"az://{container}/m", "--cache-dir", tmp_path, "--full").returncode == 0

    def test_one_blob_is_a_file(self, env: dict[str, str], container: str, tmp_path: Path) -> None:
        done = run_fetcher("fetch", f"az://{container}/m/config.json", "--dest", tmp_path / "model", env=env)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "model" / "config.json").read_bytes() == FILES["config.json"]

    def test_a_changed_blob_is_fetched_on_refresh(
        self, env: dict[str, str], azure: AzureServer, container: str, tmp_path: Path
    ) -> None:
        words = ("fetch", f"az://{container}/m", "--dest", tmp_path / "model", "--refresh", "on-change")
        assert run_fetcher(*words, env=env).returncode == 0
        azure.put(container, "m/config.json", b"{}")
        done = run_fetcher(*words, env=env)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "model" / "config.json").read_bytes() == b"{}"

    def test_what_is_not_there_is_not_found(self, env: dict[str, str], container: str, tmp_path: Path) -> None:
        for uri in (f"az://{container}/absent", "az://no-such-container/m"):
            done = run_fetcher("fetch", uri, "--cache-dir", tmp_path, env=env)
            assert (done.returncode, done.stderr.splitlines()[-1].partition(":")[0]) == (66, "NotFound")
