"""What the source for Azure makes of addresses, credentials, refusals and lies; a server plays the service."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import aclosing
from email.utils import formatdate
from pathlib import Path

import pytest

from fetcher.artifact import ArtifactRef, ByteRange, redact
from fetcher.errors import BadResponse, ConfigurationError, FetchError, NotFound, RateLimited, Unauthorized, UsageError
from fetcher.settings import Settings
from fetcher.sources import open_source
from fetcher.sources.addresses import is_blob_address
from fetcher.sources.azure.access import AzureAccess, access_for
from fetcher.sources.azure.address import AzureAddress, parsed
from fetcher.sources.azure.complaints import meaning
from fetcher.sources.azure.container import AzureContainer
from fetcher.sources.azure.identity import tokens_for
from fetcher.sources.azure.place import Place, place_of
from fetcher.sources.base import Source
from fetcher.sources.objects import ObjectSource
from fetcher.sources.tokens import Token, Tokens
from fetcher.testing.conformance import listing_of, read
from fetcher.testing.exchange import Request
from fetcher.transport.client import HttpTransport
from tests.lab.command import run_fetcher
from tests.lab.front import Front, Reply, in_front_of_nothing

SETTINGS = Settings(cache_dir=Path("/nowhere"), timeout_stall=5.0)
SERVICE = "https://weights.blob.core.windows.net"
ZONE = "https://weights.z01.blob.storage.azure.net"
SAS = "sv=2020-10-02&sp=rl&se=2020-01-01T00:00:00Z&sig=s3cret%3D"
PRINCIPAL = {"AZ_TENANT_ID": "t", "AZ_CLIENT_ID": "c", "AZ_CLIENT_SECRET": "s"}


class TestAddresses:
    @pytest.mark.parametrize(
        ("uri", "address"),
        [
            ("az://models/org/m", AzureAddress("models", "org/m")),
            (f"{SERVICE}/models/a%20b", AzureAddress("models", "a b", "weights", SERVICE)),
            (f"{SERVICE}/models/m?{SAS}", AzureAddress("models", "m", "weights", SERVICE, None, SAS)),
            (f"{ZONE}/models", AzureAddress("models", "", "weights", ZONE)),
        ],
    )
    def test_an_address_names_container_and_path(self, uri: str, address: AzureAddress) -> None:
        assert parsed(ArtifactRef(uri)) == address

    @pytest.mark.parametrize(
        "uri", ["az://", "az://UPPER/m", f"{SERVICE}/", f"{SERVICE}/models/m?foo=bar", f"az://models/m?{SAS}"]
    )
    def test_another_address_is_refused_without_its_secret(self, uri: str) -> None:
        with pytest.raises(UsageError) as caught:
            parsed(ArtifactRef(uri))
        assert "s3cret" not in caught.value.message

    def test_an_address_with_a_pin_is_a_file_of_the_web(self) -> None:
        """Only a file of the web can be pinned in its address."""
        assert is_blob_address(f"{SERVICE}/models/m")
        assert not is_blob_address(f"{SERVICE}/models/m#sha256={'0' * 64}")
        assert not is_blob_address("https://blob.core.windows.net.example.org/models/m")

    def test_no_signature_is_shown(self) -> None:
        for uri in (f"{SERVICE}/models/m?{SAS}", f"az://models/m?{SAS}"):
            assert "s3cret" not in redact(uri)
        assert "s3cret" not in repr(parsed(ArtifactRef(f"{SERVICE}/models/m?{SAS}")))


class TestCredentials:
    ours = parsed(ArtifactRef(f"{SERVICE}/models/m"))

    def test_the_first_of_address_sas_connection_and_key_is_used(self) -> None:
        connection = "AccountName=weights;AccountKey=a2V5"
        environ = {
            "AZURE_STORAGE_KEY": "b3RoZXI=",
            "AZURE_STORAGE_CONNECTION_STRING": connection,
            "AZURE_STORAGE_SAS_TOKEN": "?sig=token",
        }
        assert access_for(parsed(ArtifactRef(f"{SERVICE}/models/m?{SAS}")), environ).sas == SAS
        assert access_for(self.ours, environ).sas == "sig=token"
        del environ["AZURE_STORAGE_SAS_TOKEN"]
        assert access_for(self.ours, environ).key == "a2V5"
        del environ["AZURE_STORAGE_CONNECTION_STRING"]
        assert access_for(self.ours, environ).key == "b3RoZXI="

    def test_a_connection_string_without_a_secret_gives_the_endpoint_of_a_key(self) -> None:
        environ = {"AZURE_STORAGE_CONNECTION_STRING": f"AccountName=weights;BlobEndpoint={ZONE}", "AZURE_STORAGE_KEY": "a2V5"}
        access = access_for(parsed(ArtifactRef("az://models/m")), environ)
        assert (access.endpoint, access.key, access.account) == (ZONE, "a2V5", "weights")

    def test_what_belongs_to_another_account_is_not_used(self) -> None:
        for environ in (
            {"AZURE_STORAGE_ACCOUNT_NAME": "theirs", "AZURE_STORAGE_KEY": "a2V5", "AZURE_STORAGE_SAS_TOKEN": "sig=x"},
            {"AZURE_STORAGE_CONNECTION_STRING": "AccountName=theirs;AccountKey=a2V5"},
        ):
            access = access_for(self.ours, environ)
            assert (access.key, access.sas, access.endpoint) == (None, None, None)

    @pytest.mark.parametrize(
        "environ",
        [
            {"AZURE_STORAGE_CONNECTION_STRING": "s3cret"},
            {"AZURE_STORAGE_KEY": "s3cret!"},
            {"AZURE_STORAGE_SAS_TOKEN": "s3cret"},
        ],
    )
    def test_what_cannot_be_a_credential_is_a_wrong_setting(self, environ: dict[str, str]) -> None:
        with pytest.raises(ConfigurationError) as caught:
            access_for(self.ours, environ)
        assert "s3cret" not in caught.value.message

    def test_the_short_address_needs_an_account(self) -> None:
        address = parsed(ArtifactRef("az://models/m"))
        with pytest.raises(ConfigurationError, match="AZURE_STORAGE_ACCOUNT_NAME"):
            place_of(address, access_for(address, {}), {})
        environ = {"AZURE_STORAGE_ACCOUNT_NAME": "weights"}
        assert place_of(address, access_for(address, environ), environ) == Place("weights", SERVICE)

    async def test_an_identity_without_the_library_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """KServe's variables mean the same as those of azure-identity."""
        for loaded in [name for name in sys.modules if name.partition(".")[0] == "azure"]:
            monkeypatch.delitem(sys.modules, loaded)
        monkeypatch.setitem(sys.modules, "azure", None)
        tokens = tokens_for(AzureAccess(), PRINCIPAL, searching=True, secure=True)
        with pytest.raises(ConfigurationError, match=r"pip install 'weightlift\[azure\]'"):
            await tokens.current()

    async def test_a_key_needs_no_library_and_a_value_no_search(self) -> None:
        for access, searching in ((AzureAccess(key="a2V5"), True), (AzureAccess(), False)):
            assert await tokens_for(access, PRINCIPAL, searching=searching, secure=True).current() is None

    async def test_no_token_is_sent_without_tls(self) -> None:
        assert await tokens_for(AzureAccess(), PRINCIPAL, searching=True, secure=False).current() is None


class TestRefusals:
    @pytest.fixture
    def front(self) -> Iterator[Front]:
        with in_front_of_nothing() as played:
            yield played

    async def error_of(self, front: Front, reply: Reply, *, sas: str | None = None) -> FetchError:
        front.rule = lambda asked: reply
        access = AzureAccess("weights", front.endpoint, sas=sas)
        source: Source = open_source(ArtifactRef("az://models/m/"), SETTINGS, {}, credentials=access)
        async with aclosing(source):
            with pytest.raises(FetchError) as caught:
                await source.describe((await listing_of(source)).files)
        return caught.value

    @pytest.mark.parametrize(
        ("status", "code", "error"),
        [
            (404, "ContainerNotFound", NotFound),
            (409, "PublicAccessNotPermitted", Unauthorized),
            (409, "BlobArchived", NotFound),
            (403, "AuthenticationFailed", Unauthorized),
            (503, "ServerBusy", RateLimited),
            (429, "TooManyRequests", RateLimited),
        ],
    )
    async def test_a_refusal_has_its_class(self, front: Front, status: int, code: str, error: type) -> None:
        caught = await self.error_of(front, (status, {"x-ms-error-code": code}, b""))
        assert type(caught) is error
        assert code in caught.message

    async def test_an_expired_signature_is_named_and_never_shown(self, front: Front) -> None:
        said = b"<Error><Code>AuthenticationFailed</Code><Message>Signature s3cret= is not valid s3cret%3D</Message></Error>"
        caught = await self.error_of(front, (403, {"Content-Type": "application/xml"}, said), sas=SAS)
        assert isinstance(caught, Unauthorized)
        assert "the SAS expired at 2020-01-01T00:00:00Z" in caught.message
        assert "s3cret" not in caught.message

    async def test_pages_that_repeat_themselves_end(self, front: Front) -> None:
        caught = await self.error_of(front, listed(blob("m/a"), marker="again"))
        assert isinstance(caught, BadResponse)
        assert "repeats itself" in caught.message

    @pytest.mark.parametrize(
        "reply",
        [
            (200, {}, b'<!DOCTYPE x [<!ENTITY a "aaaa">]><EnumerationResults/>'),
            (200, {}, b"<EnumerationResults>"),
            (200, {}, b"<html></html>"),
            (200, {}, b"<EnumerationResults><Blobs><Blob><Name>m/a</Name></Blob></Blobs></EnumerationResults>"),
        ],
        ids=["entities", "not XML", "a page", "no size"],
    )
    async def test_a_listing_that_lies_is_a_bad_response(self, front: Front, reply: Reply) -> None:
        assert isinstance(await self.error_of(front, reply), BadResponse)

    async def test_an_archived_blob_must_be_restored_first(self, front: Front) -> None:
        caught = await self.error_of(front, listed(blob("m/a", "<AccessTier>Archive</AccessTier>")))
        assert isinstance(caught, NotFound)
        assert "restore it first" in caught.message

    def test_directories_of_a_hierarchical_namespace_are_no_files(self, front: Front, tmp_path: Path) -> None:
        folder = blob("m/folder", "<ResourceType>directory</ResourceType>")
        front.rule = lambda asked: listed(folder, blob("m/../escape"))
        env = {"AZURE_STORAGE_CONNECTION_STRING": f"BlobEndpoint={front.endpoint};SharedAccessSignature={SAS}"}
        done = run_fetcher("fetch", "az://models/m/", "--cache-dir", tmp_path, env=env)
        assert (done.returncode, done.stderr.splitlines()[-1].partition(":")[0]) == (65, "HostilePath")
        assert "folder" not in done.stderr

    async def test_a_wrong_clock_is_a_wrong_setting(self) -> None:
        error = meaning(Unauthorized("no"), 403, {"Date": formatdate(time.time() - 3600, usegmt=True)})
        assert isinstance(error, ConfigurationError)
        assert "set the clock" in error.message

    async def test_a_token_that_is_refused_midway_is_renewed_once(self, front: Front) -> None:
        count, accepted = 0, ["Bearer token-1"]

        def get() -> Token:
            nonlocal count
            count += 1
            return Token(f"token-{count}")

        def rule(asked: Request) -> Reply:
            if asked.headers.get("authorization") not in accepted:
                return 401, {}, b""
            if "comp=list" in asked.target:
                return listed(blob("m/a"))
            return 206, {"Content-Range": "bytes 0-0/1", "ETag": '"0x1"'}, b"x"

        front.rule = rule
        transport = HttpTransport(connections=2, timeout_stall=5.0, read_buffer=65536, environ={})
        place = Place("weights", front.endpoint)
        container = AzureContainer("models", transport, place=place, access=AzureAccess(), tokens=Tokens(get, "a test"))
        async with aclosing(ObjectSource(container, "m/")) as source:
            (file,) = (await listing_of(source)).files
            accepted[:] = ["Bearer token-2"]
            assert await read(source, file, ByteRange(0, 1)) == b"x"
        assert count == 2


def blob(name: str, properties: str = "") -> str:
    known = f"<Content-Length>1</Content-Length><Etag>0x1</Etag>{properties}"
    return f"<Blob><Name>{name}</Name><Properties>{known}</Properties></Blob>"


def listed(*blobs: str, marker: str = "") -> Reply:
    text = f"<EnumerationResults><Blobs>{''.join(blobs)}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"
    return 200, {"Content-Type": "application/xml"}, text.encode()
