"""Identities that a cluster gives to its pods: the library of each cloud asks a server on loopback, and asks again in time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from fetcher.errors import Unauthorized, Unreachable
from fetcher.sources.azure.access import AzureAccess
from fetcher.sources.azure.identity import tokens_for as azure_tokens
from fetcher.sources.gcs.access import tokens_for as gcs_tokens
from fetcher.sources.s3.access import S3Access
from fetcher.sources.s3.finding import found_access
from fetcher.sources.tokens import Token, Tokens
from fetcher.testing.exchange import Request
from tests.lab.front import Front, Reply, in_front_of_nothing
from tests.lab.servers import free_port
from tests.lab.stores import certified

JSON = {"Content-Type": "application/json"}
ROLE = "arn:aws:iam::123456789012:role/models"
Environment = Callable[[Mapping[str, str]], Mapping[str, str]]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries try again after a pause."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.fixture
def front() -> Iterator[Front]:
    with in_front_of_nothing() as running:
        yield running


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Environment:
    """Return a function that sets the variables of a pod, which the clouds' libraries read themselves."""

    def given(variables: Mapping[str, str]) -> Mapping[str, str]:
        for name, value in {"HOME": str(tmp_path), **variables}.items():
            monkeypatch.setenv(name, value)
        return {"HOME": str(tmp_path), **variables}

    return given


def token_file(directory: Path) -> Path:
    """A token of a service account, as the kubelet projects it."""
    (directory / "token").write_text("first")
    return directory / "token"


def in_an_hour() -> str:
    return (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")


def in_a_moment() -> str:
    return (datetime.now(UTC) + timedelta(seconds=30)).strftime("%Y-%m-%dT%H:%M:%SZ")


def assumed(asked: Request, expires: str) -> Reply:
    """STS's answer. The key tells which token was sent."""
    (sent,) = parse_qs(asked.body.decode())["WebIdentityToken"]
    keys = (
        f"<AccessKeyId>AKID-{sent}</AccessKeyId><SecretAccessKey>s3cret</SecretAccessKey><SessionToken>session</SessionToken>"
    )
    result = f"<Credentials>{keys}<Expiration>{expires}</Expiration></Credentials>"
    text = f"<AssumeRoleWithWebIdentityResult>{result}</AssumeRoleWithWebIdentityResult>"
    namespace = "https://sts.amazonaws.com/doc/2011-06-15/"
    body = f'<AssumeRoleWithWebIdentityResponse xmlns="{namespace}">{text}</AssumeRoleWithWebIdentityResponse>'
    return 200, {"Content-Type": "text/xml"}, body.encode()


def key_of(access: S3Access) -> str:
    assert access.keys is not None
    return access.keys.key_id


def renewed(access: S3Access) -> str:
    assert access.renew is not None
    keys = access.renew()
    assert keys is not None
    return keys.key_id


class TestWebIdentityOfAmazon:
    """IRSA: botocore exchanges the projected token at STS."""

    def variables(self, front: Front, file: Path) -> dict[str, str]:
        return {
            "AWS_ROLE_ARN": ROLE,
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(file),
            "AWS_ENDPOINT_URL_STS": front.endpoint,
            "AWS_REGION": "eu-west-1",
        }

    def test_the_token_is_exchanged_for_keys_of_the_role(self, front: Front, environment: Environment, tmp_path: Path) -> None:
        front.rule = lambda asked: assumed(asked, in_an_hour())

        access = found_access(environment(self.variables(front, token_file(tmp_path))))

        assert access.keys is not None
        assert (key_of(access), access.keys.secret, access.keys.token) == ("AKID-first", "s3cret", "session")
        assert access.keys.expires == pytest.approx(time.time() + 3600, abs=60)
        assert (access.region, access.endpoint) == ("eu-west-1", None)
        assert [parse_qs(asked.body.decode())["RoleArn"] for asked in front.requests] == [[ROLE]]

    def test_keys_are_renewed_with_the_token_that_the_kubelet_has_written_since(
        self, front: Front, environment: Environment, tmp_path: Path
    ) -> None:
        front.rule = lambda asked: assumed(asked, in_a_moment())
        file = token_file(tmp_path)
        access = found_access(environment(self.variables(front, file)))

        file.write_text("second")
        front.rule = lambda asked: assumed(asked, in_an_hour())

        assert renewed(access) == "AKID-second"

    def test_a_token_that_sts_refuses_is_final(self, front: Front, environment: Environment, tmp_path: Path) -> None:
        error = b"<ErrorResponse><Error><Code>InvalidIdentityToken</Code><Message>s3cret</Message></Error></ErrorResponse>"
        front.rule = lambda asked: (400, {"Content-Type": "text/xml"}, error)
        environ = environment(self.variables(front, token_file(tmp_path)))

        with pytest.raises(Exception, match="InvalidIdentityToken") as caught:
            found_access(environ)
        assert not isinstance(caught.value, Unreachable)

    def test_an_sts_that_is_down_is_tried_again(self, environment: Environment, tmp_path: Path) -> None:
        variables = self.variables(Front("127.0.0.1", 9, own_port=free_port()), token_file(tmp_path))
        environ = environment(variables | {"AWS_MAX_ATTEMPTS": "1"})

        with pytest.raises(Unreachable, match="credentials of S3"):
            found_access(environ)


class TestPodIdentityOfEks:
    """The agent of the node gives keys for the projected token."""

    def variables(self, endpoint: str, file: Path) -> dict[str, str]:
        return {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{endpoint}/v1/credentials",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(file),
            "AWS_REGION": "eu-west-1",
        }

    def keys(self, asked: Request, expires: str) -> Reply:
        known = {"AccessKeyId": f"AKID-{asked.headers['authorization']}", "SecretAccessKey": "s3cret", "Token": "session"}
        return 200, JSON, json.dumps({**known, "AccountId": "123456789012", "Expiration": expires}).encode()

    def test_the_agent_gives_keys_and_renews_them(self, front: Front, environment: Environment, tmp_path: Path) -> None:
        front.rule = lambda asked: self.keys(asked, in_a_moment())
        file = token_file(tmp_path)
        access = found_access(environment(self.variables(front.endpoint, file)))
        assert key_of(access) == "AKID-first"

        file.write_text("second")
        front.rule = lambda asked: self.keys(asked, in_an_hour())

        assert renewed(access) == "AKID-second"
        assert {asked.target for asked in front.requests} == {"/v1/credentials"}

    def test_a_pod_without_an_association_is_refused(self, front: Front, environment: Environment, tmp_path: Path) -> None:
        front.rule = lambda asked: (404, {}, b"no association")
        environ = environment(self.variables(front.endpoint, token_file(tmp_path)))

        with pytest.raises(Exception, match="404") as caught:
            found_access(environ)
        assert not isinstance(caught.value, Unreachable)

    def test_an_agent_that_starts_later_than_the_pod_is_tried_again(self, environment: Environment, tmp_path: Path) -> None:
        environ = environment(self.variables(f"http://127.0.0.1:{free_port()}", token_file(tmp_path)))

        with pytest.raises(Unreachable, match="agent of the node"):
            found_access(environ)


async def token_of(tokens: Tokens) -> Token:
    token = await tokens.current()
    assert token is not None
    return token


class TestMetadataOfGoogle:
    """GKE: the metadata service gives tokens of the pod's service account."""

    @pytest.fixture
    def server(self, front: Front, monkeypatch: pytest.MonkeyPatch) -> Front:
        self.answer(front, "ya29.first", 3600)
        self.points_to(front.endpoint.removeprefix("http://"), monkeypatch)
        return front

    def points_to(self, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The library reads its variable once, when it is imported."""
        from google.auth.compute_engine import _metadata

        monkeypatch.setattr(_metadata, "_GCE_METADATA_HOST", host)

    def answer(self, front: Front, token: str, lifetime: int) -> None:
        account = {"email": "models@project.iam.gserviceaccount.com", "scopes": ["cloud-platform"], "aliases": ["default"]}
        document = {"access_token": token, "expires_in": lifetime, "token_type": "Bearer"}

        def rule(asked: Request) -> Reply:
            assert asked.headers["metadata-flavor"] == "Google"
            told = document if "/token" in asked.target else account
            return 200, {**JSON, "Metadata-Flavor": "Google"}, json.dumps(told).encode()

        front.rule = rule

    def tokens(self) -> Tokens:
        return gcs_tokens(None, {"GCE_METADATA_HOST": "named"}, emulated=False)

    async def test_a_token_is_kept_until_it_expires(self, server: Front, environment: Environment) -> None:
        environment({})
        tokens = self.tokens()
        token = await token_of(tokens)
        assert (token.text, await tokens.current()) == ("ya29.first", token)

    async def test_a_token_is_renewed_before_it_expires(self, server: Front, environment: Environment) -> None:
        environment({})
        self.answer(server, "ya29.short", 30)
        tokens = self.tokens()
        await tokens.current()
        self.answer(server, "ya29.second", 3600)
        assert (await token_of(tokens)).text == "ya29.second"

    async def test_a_service_that_starts_later_than_the_pod_is_tried_again(
        self, environment: Environment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        environment({})
        self.points_to(f"127.0.0.1:{free_port()}", monkeypatch)
        with pytest.raises(Unreachable):
            await self.tokens().current()


class TestWorkloadIdentityOfAzure:
    """Entra ID exchanges the projected token, over TLS only."""

    @pytest.fixture
    def server(self, tmp_path: Path, environment: Environment) -> Iterator[Front]:
        context, certificates = certified(tmp_path)
        with in_front_of_nothing(tls=context) as running:
            environment({"REQUESTS_CA_BUNDLE": str(certificates), "AZURE_AUTHORITY_HOST": running.endpoint})
            yield running

    def tokens(self, directory: Path) -> Tokens:
        variables = {
            "AZURE_TENANT_ID": "11111111-2222-3333-4444-555555555555",
            "AZURE_CLIENT_ID": "66666666-7777-8888-9999-000000000000",
            "AZURE_FEDERATED_TOKEN_FILE": str(token_file(directory)),
        }
        return azure_tokens(AzureAccess(), variables, searching=True, secure=True)

    def answer(self, front: Front, token: str, lifetime: int) -> None:
        document = {"access_token": token, "expires_in": lifetime, "token_type": "Bearer"}
        front.rule = lambda asked: (200, JSON, json.dumps(document).encode())

    async def test_the_token_is_exchanged_and_kept(self, server: Front, tmp_path: Path) -> None:
        self.answer(server, "eyJ.first", 3600)
        tokens = self.tokens(tmp_path)
        token = await token_of(tokens)
        assert (token.text, await tokens.current()) == ("eyJ.first", token)
        (asked,) = server.requests
        assert asked.target == "/11111111-2222-3333-4444-555555555555/oauth2/v2.0/token"
        assert parse_qs(asked.body.decode())["client_assertion"] == ["first"]

    async def test_a_token_is_renewed_when_it_expires(self, server: Front, tmp_path: Path) -> None:
        self.answer(server, "eyJ.short", 0)
        tokens = self.tokens(tmp_path)
        await tokens.current()
        self.answer(server, "eyJ.second", 3600)
        assert (await token_of(tokens)).text == "eyJ.second"

    async def test_an_identity_that_entra_refuses_is_final_and_not_shown(self, server: Front, tmp_path: Path) -> None:
        refusal = {"error": "invalid_client", "error_description": "AADSTS700213 s3cret"}
        server.rule = lambda asked: (401, JSON, json.dumps(refusal).encode())
        with pytest.raises(Unauthorized, match="workload's identity") as caught:
            await self.tokens(tmp_path).current()
        assert "s3cret" not in str(caught.value)

    async def test_an_identity_service_that_is_down_is_tried_again(
        self, server: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", f"https://127.0.0.1:{free_port()}")
        with pytest.raises(Unreachable, match="Entra ID does not answer"):
            await self.tokens(tmp_path).current()
