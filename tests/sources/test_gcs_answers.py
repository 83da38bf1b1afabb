"""What `gs://` makes of refusals, lies and expired tokens. fake-gcs-server takes any token, so a server in front refuses."""

from __future__ import annotations

import json
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from fetcher.artifact import ArtifactRef, ByteRange
from fetcher.errors import (
    BadResponse,
    ConfigurationError,
    ContentChanged,
    FetchError,
    RateLimited,
    Refused,
    Unauthorized,
    Unreachable,
)
from fetcher.settings import Settings
from fetcher.sources import open_source
from fetcher.sources.base import Source
from fetcher.sources.gcs.access import GcsAccess, tokens_for
from fetcher.sources.tokens import Token, Tokens
from fetcher.testing.conformance import listing_of, read
from fetcher.testing.exchange import Request
from tests.lab.command import run_fetcher
from tests.lab.front import Front, Reply, in_front_of
from tests.lab.servers import free_port
from tests.lab.stores import GcsServer

SETTINGS = Settings(cache_dir=Path("/nowhere"), timeout_stall=5.0)
CONTENT = b"weights" * 1000


@pytest.fixture
def bucket(gcs: GcsServer) -> str:
    name = f"answers-{uuid.uuid4().hex[:12]}"
    gcs.make_bucket(name)
    gcs.put(name, "m/model.bin", CONTENT)
    return name


@pytest.fixture
def front(gcs: GcsServer) -> Iterator[Front]:
    with in_front_of("127.0.0.1", gcs.port) as played:
        yield played


def source_of(front: Front, uri: str, access: GcsAccess | None = None) -> Source:
    environ = {"STORAGE_EMULATOR_HOST": front.endpoint, "GOOGLE_OAUTH_ACCESS_TOKEN": "poison"}
    return open_source(ArtifactRef(uri), SETTINGS, environ, credentials=access)


def listed(*items: dict[str, str], token: str | None = None) -> Reply:
    document = {"items": list(items), **({"nextPageToken": token} if token else {})}
    return 200, {"Content-Type": "application/json"}, json.dumps(document).encode()


def item(name: str, **members: str) -> dict[str, str]:
    return {"name": name, "size": "1", "generation": "1", **members}


async def error_of(source: Source) -> FetchError:
    """The error of listing the source and describing all its files."""
    async with aclosing(source):
        with pytest.raises(FetchError) as caught:
            await source.describe((await listing_of(source)).files)
    return caught.value


class Renewing:
    """Credentials as google-auth has them, with a new token at each refresh."""

    def __init__(self) -> None:
        self.count = 0
        self.token = ""
        self.expiry = None

    def refresh(self, request: Any) -> None:
        self.count += 1
        self.token = f"token-{self.count}"


class TestTokens:
    async def test_a_token_that_is_refused_midway_is_renewed_once(self, front: Front, bucket: str) -> None:
        accepted = ["Bearer token-1"]

        def rule(asked: Request) -> Reply | None:
            return None if asked.headers.get("authorization") in accepted else (401, {}, b"")

        front.rule = rule
        credentials = Renewing()
        async with aclosing(source_of(front, f"gs://{bucket}/m", GcsAccess(credentials=credentials))) as source:
            (file,) = (await listing_of(source)).files
            assert await read(source, file, ByteRange(0, 100)) == CONTENT[:100]
            accepted[:] = ["Bearer token-2"]
            assert await read(source, file, ByteRange(100, 200)) == CONTENT[100:200]
        assert credentials.count == 2

    async def test_a_static_token_that_is_refused_is_unauthorized(self, front: Front, bucket: str) -> None:
        front.rule = lambda asked: (401, {}, b"")
        error = await error_of(source_of(front, f"gs://{bucket}/m", GcsAccess("s3cret")))
        assert isinstance(error, Unauthorized)
        assert "from the caller" in error.message
        assert "s3cret" not in error.message + repr(GcsAccess("s3cret"))

    async def test_two_tenants_use_their_own_tokens(self, front: Front, bucket: str) -> None:
        for token in ("ours", "theirs"):
            front.requests.clear()
            async with aclosing(source_of(front, f"gs://{bucket}/m", GcsAccess(token))) as source:
                await listing_of(source)
            assert {asked.headers.get("authorization") for asked in front.requests} == {f"Bearer {token}"}

    async def test_an_emulator_gets_no_token_of_the_process(self, front: Front, bucket: str) -> None:
        async with aclosing(source_of(front, f"gs://{bucket}/m")) as source:
            assert not (await listing_of(source)).authenticated
        assert {asked.headers.get("authorization") for asked in front.requests} == {None}

    async def test_a_token_of_the_environment_needs_no_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "google", None)
        token = await tokens_for(None, {"GOOGLE_OAUTH_ACCESS_TOKEN": "ya29.x"}, emulated=False).current()
        assert token is not None
        assert token.text == "ya29.x"

    async def test_a_file_of_credentials_without_the_library_names_the_extra(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for loaded in [name for name in sys.modules if name.partition(".")[0] == "google"]:
            monkeypatch.delitem(sys.modules, loaded)
        monkeypatch.setitem(sys.modules, "google", None)
        (tmp_path / "key.json").write_text('{"type": "service_account"}')
        with pytest.raises(ConfigurationError, match=r"pip install 'weightlift\[gcs\]'"):
            await self.tokens_in(tmp_path / "key.json").current()

    async def test_a_service_account_gets_a_token_from_its_identity_service(self, front: Front, tmp_path: Path) -> None:
        """google-auth itself asks, here a server that stands in for Google's."""
        answer = {"access_token": "ya29.fresh", "expires_in": 3600, "token_type": "Bearer"}
        front.rule = lambda asked: (200, {"Content-Type": "application/json"}, json.dumps(answer).encode())
        tokens = self.tokens_in(service_account(tmp_path, front.endpoint))
        token = await tokens.current()
        assert token is not None
        assert token.text == "ya29.fresh"
        assert token.expires is not None
        assert await tokens.current() is token
        assert [asked.method for asked in front.requests] == ["POST"]

    async def test_a_withdrawn_service_account_is_unauthorized_and_not_shown(self, front: Front, tmp_path: Path) -> None:
        front.rule = lambda asked: (400, {"Content-Type": "application/json"}, b'{"error": "invalid_grant s3cret"}')
        with pytest.raises(Unauthorized, match="RefreshError") as caught:
            await self.tokens_in(service_account(tmp_path, front.endpoint)).current()
        assert "s3cret" not in str(caught.value)

    async def test_an_identity_service_that_is_down_is_unreachable(self, tmp_path: Path) -> None:
        with pytest.raises(Unreachable, match="identity service"):
            await self.tokens_in(service_account(tmp_path, f"http://127.0.0.1:{free_port()}")).current()

    async def test_a_library_that_hangs_ends(self) -> None:
        hanging = threading.Event()
        with pytest.raises(Unreachable, match=r"no answer within 0 s"):
            await Tokens(lambda: Token("late") if hanging.wait(30) else None, "a test", longest=0.05).current()
        hanging.set()

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"type": "authorized_user"}', '{"type": "other"}'])
    async def test_a_file_that_is_not_of_credentials_is_a_wrong_setting(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "key.json").write_text(text)
        with pytest.raises(ConfigurationError, match=r"key\.json"):
            await self.tokens_in(tmp_path / "key.json").current()

    def tokens_in(self, path: Path) -> Tokens:
        return tokens_for(None, {"GOOGLE_APPLICATION_CREDENTIALS": str(path)}, emulated=False)


def service_account(directory: Path, identity_service: str) -> Path:
    """Write a file of credentials with a new key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    info = {"type": "service_account", "client_email": "m@p.example", "private_key": text.decode(), "private_key_id": "1"}
    (directory / "key.json").write_text(json.dumps(info | {"token_uri": f"{identity_service}/token"}))
    return directory / "key.json"


class TestAnswers:
    @pytest.mark.parametrize(
        ("status", "body", "error"),
        [
            (429, b"", RateLimited),
            (503, b"", RateLimited),
            (403, b'{"error": {"message": "no access"}}', Unauthorized),
            (400, b'{"error": {"message": "Bucket is a requester pays bucket but no user project provided."}}', Refused),
        ],
    )
    async def test_a_refusal_has_its_class(self, front: Front, bucket: str, status: int, body: bytes, error: type) -> None:
        front.rule = lambda asked: (status, {"Content-Type": "application/json"}, body)
        caught = await error_of(source_of(front, f"gs://{bucket}/m"))
        assert type(caught) is error
        assert status != 400 or "GOOGLE_CLOUD_QUOTA_PROJECT" in caught.message

    async def test_pages_that_repeat_themselves_end(self, front: Front, bucket: str) -> None:
        front.rule = lambda asked: listed(item("m/a"), token="again")
        error = await error_of(source_of(front, f"gs://{bucket}/m/"))
        assert isinstance(error, BadResponse)
        assert "repeats itself" in error.message

    @pytest.mark.parametrize(
        "reply",
        [
            listed(item("elsewhere/a")),
            listed({"name": "m/a"}),
            listed(item("m/\ud800")),
            (200, {}, b"<html>"),
            (200, {}, b"[]"),
        ],
        ids=["a key outside the prefix", "no size", "half a character", "not JSON", "not an object"],
    )
    async def test_a_listing_that_lies_is_a_bad_response(self, front: Front, bucket: str, reply: Reply) -> None:
        front.rule = lambda asked: reply
        assert isinstance(await error_of(source_of(front, f"gs://{bucket}/m/")), BadResponse)

    async def test_a_compressed_object_is_refused(self, front: Front, bucket: str) -> None:
        front.rule = lambda asked: listed(item("m/a", contentEncoding="gzip"))
        error = await error_of(source_of(front, f"gs://{bucket}/m/"))
        assert isinstance(error, Refused)
        assert "Content-Encoding" in error.message

    async def test_an_object_that_is_replaced_midway_has_changed(self, front: Front, gcs: GcsServer, bucket: str) -> None:
        async with aclosing(source_of(front, f"gs://{bucket}/m")) as source:
            (file,) = (await listing_of(source)).files
            gcs.put(bucket, "m/model.bin", b"others!" * 1000)
            with pytest.raises(ContentChanged):
                await read(source, file, ByteRange(0, 100))

    @pytest.mark.parametrize("key", ["m/../escape", "m//escape", "m/a\nb", "m/C:\\x"])
    def test_a_hostile_key_is_refused(self, front: Front, bucket: str, key: str, tmp_path: Path) -> None:
        front.rule = lambda asked: listed(item(key))
        env = {"STORAGE_EMULATOR_HOST": front.endpoint}
        done = run_fetcher("fetch", f"gs://{bucket}/m/", "--cache-dir", tmp_path, env=env)
        assert (done.returncode, done.stderr.splitlines()[-1].partition(":")[0]) == (65, "HostilePath")
