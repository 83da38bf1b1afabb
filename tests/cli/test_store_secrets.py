"""No key, token, password or signature of a store is written anywhere, or sent to another host; whatever goes wrong."""

from __future__ import annotations

import base64
import json
import ssl
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import trustme

from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.exchange import Request
from tests.cli.test_secrets import everything_written
from tests.lab.command import run_fetcher
from tests.lab.front import Front, Reply, Rule, in_front_of, in_front_of_nothing
from tests.lab.proxy import running_proxy
from tests.lab.registry import PASSWORD, USER, registry
from tests.lab.s3_servers import client_of
from tests.lab.seaweed import KEY_ID, S3Server
from tests.lab.stores import AzureServer, GcsServer

FILES = {"config.json": b"{}", "model.safetensors": random_bytes("secrets", 300_000)}
GOOGLE = "storage.googleapis.com"
TITLE = "org.opencontainers.image.title"


@dataclass(frozen=True, slots=True)
class Store:
    """A published artifact, the variables that let the command in, and what nobody may see. `front` is before the store."""

    uri: str
    env: Mapping[str, str]
    secrets: tuple[str, ...]
    front: Front

    def seen(self) -> tuple[str, ...]:
        """The secrets, and those that requests carried: whole authorizations, and the signatures in them."""
        sent = {request.headers.get("authorization", "") for request in self.front.requests} - {""}
        return (*self.secrets, *sent, *(each.rpartition("Signature=")[2].rpartition(" ")[2] for each in sent))


@pytest.fixture
def name() -> str:
    return f"secrets-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def s3_session(moto_server: S3Server, name: str) -> Iterator[Store]:
    client = client_of(moto_server)
    client.create_bucket(Bucket=name)
    for path, content in FILES.items():
        client.put_object(Bucket=name, Key=f"m/{path}", Body=content)
    secret, token = "s3cr3t/of+a/session", "t0ken-of-a-session"
    with in_front_of(moto_server.host, moto_server.port) as front:
        keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": secret, "AWS_SESSION_TOKEN": token}
        yield Store(f"s3://{name}/m", {**keys, "AWS_ENDPOINT_URL": front.endpoint}, (secret, token), front)


@pytest.fixture
def container(azure: AzureServer, name: str) -> str:
    azure.make_container(name)
    azure.publish(name, {f"m/{path}": content for path, content in FILES.items()})
    return name


@pytest.fixture
def azure_key(azure: AzureServer, container: str) -> Iterator[Store]:
    with in_front_of("127.0.0.1", azure.port) as front:
        connection = f"AccountName={azure.account};AccountKey={azure.key};BlobEndpoint={front.endpoint}/{azure.account};"
        yield Store(f"az://{container}/m", {"AZURE_STORAGE_CONNECTION_STRING": connection}, (azure.key,), front)


@pytest.fixture
def sas(azure: AzureServer, container: str) -> str:
    return azure.sas(container, expires=datetime.now(UTC) + timedelta(hours=1))


@pytest.fixture
def azure_sas(azure: AzureServer, container: str, sas: str) -> Iterator[Store]:
    with in_front_of("127.0.0.1", azure.port) as front:
        place = f"AccountName={azure.account};BlobEndpoint={front.endpoint}/{azure.account}"
        env = {"AZURE_STORAGE_CONNECTION_STRING": place, "AZURE_STORAGE_SAS_TOKEN": sas}
        yield Store(f"az://{container}/m", env, signatures_in(sas), front)


@pytest.fixture
def azure_address(azure: AzureServer, container: str, sas: str, authority: trustme.CA, authority_file: Path) -> Iterator[Store]:
    with (
        in_front_of("127.0.0.1", azure.port, tls=certificate(authority, azure.host)) as front,
        running_proxy({f"{azure.host}:443": front.own_port}) as proxy,
    ):
        env = {"HTTPS_PROXY": proxy.url, "SSL_CERT_FILE": str(authority_file)}
        yield Store(f"https://{azure.host}/{container}/m?{sas}", env, signatures_in(sas), front)


@pytest.fixture
def gs_token(gcs: GcsServer, name: str, authority: trustme.CA, authority_file: Path) -> Iterator[Store]:
    gcs.make_bucket(name)
    gcs.publish(name, {f"m/{path}": content for path, content in FILES.items()})
    with (
        in_front_of("127.0.0.1", gcs.port, tls=certificate(authority, GOOGLE)) as front,
        running_proxy({f"{GOOGLE}:443": front.own_port}) as proxy,
    ):
        env = {"HTTPS_PROXY": proxy.url, "SSL_CERT_FILE": str(authority_file), "GOOGLE_OAUTH_ACCESS_TOKEN": "ya29.t0ken"}
        yield Store(f"gs://{name}/m", env, ("ya29.t0ken",), front)


@pytest.fixture
def oci_password(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Iterator[Store]:
    """A registry with a token server, and a credential helper that writes down how it was called."""
    place = tmp_path_factory.mktemp("registry")
    with registry(place / "data") as server, in_front_of(server.host, server.port) as front:
        server.push("org/model", "v1", [(content, "text/plain", {TITLE: path}) for path, content in FILES.items()])
        front.rule = guarded(front)
        helper = place / "docker-credential-lab"
        secret = json.dumps({"Username": USER, "Secret": PASSWORD})
        helper.write_text(f"#!/bin/sh\ncat >/dev/null\necho \"$0 $*\" >'{tmp_path}/arguments'\necho '{secret}'\n")
        helper.chmod(0o755)
        (place / "config.json").write_text(json.dumps({"credHelpers": {f"127.0.0.1:{front.own_port}": "lab"}}))
        env = {"DOCKER_CONFIG": str(place), "PATH": f"{place}:/usr/bin:/bin"}
        encoded = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        yield Store(f"oci://127.0.0.1:{front.own_port}/org/model:v1", env, (PASSWORD, encoded, "t0ken-of-a-pull"), front)


def guarded(front: Front) -> Rule:
    """A registry that lets in only a token, which its token server gives for the password."""

    def rule(request: Request) -> Reply | None:
        given = request.headers.get("authorization", "")
        if request.path == "/token":
            return (200, {}, b'{"token": "t0ken-of-a-pull"}') if given.startswith("Basic ") else (401, {}, b"")
        challenge = f'Bearer realm="{front.endpoint}/token"'
        return None if given == "Bearer t0ken-of-a-pull" else (401, {"WWW-Authenticate": challenge}, b"")

    return rule


def signatures_in(sas: str) -> tuple[str, ...]:
    """The signature of a SAS as it is written, and decoded."""
    raw = sas.rpartition("sig=")[2]
    return raw, raw.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=")


def certificate(authority: trustme.CA, host: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    return context


@pytest.fixture(params=["s3_session", "azure_key", "azure_sas", "azure_address", "gs_token", "oci_password"])
def store(request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue(request.param)
    return found


def check(store: Store, tmp_path: Path, *done: CompletedProcess[str]) -> None:
    text = everything_written(tmp_path, *(stream for each in done for stream in (each.stdout, each.stderr)))
    assert not [secret for secret in store.seen() if secret in text]


def words(tmp_path: Path) -> tuple[str | Path, ...]:
    return ("--cache-dir", tmp_path / "cache", "--termination-log", tmp_path / "log", "--retry-for", "1")


def test_a_fetch_and_what_follows_write_no_secret(store: Store, tmp_path: Path) -> None:
    place = words(tmp_path)[:2]
    metrics = ("--metrics-file", tmp_path / "metrics.prom")
    done = [
        run_fetcher("plan", store.uri, *place, env=store.env),
        run_fetcher("fetch", store.uri, *words(tmp_path), *metrics, "--progress", "json", "--json", env=store.env),
        run_fetcher("fetch", store.uri, *words(tmp_path), "--refresh", "on-change", "--progress", "log", env=store.env),
        run_fetcher("list", *place, "--json"),
        run_fetcher("show", store.uri, *place, "--json"),
        run_fetcher("verify", store.uri, *place, "--full"),
    ]
    assert [each.returncode for each in done] == [0] * len(done), [each.stderr for each in done]
    (path,) = (tmp_path / "cache").rglob("model.safetensors")
    assert path.read_bytes() == FILES["model.safetensors"]
    check(store, tmp_path, *done)


def test_a_store_that_repeats_what_was_sent_writes_no_secret(store: Store, tmp_path: Path) -> None:
    """Some stores do so to explain a wrong signature, and a gateway for any error."""

    def rule(request: Request) -> Reply | None:
        if request.path == "/token":
            return guarded(store.front)(request)
        if store.uri.startswith("oci:") and "authorization" not in request.headers:
            return guarded(store.front)(request)
        sent = [value for name, value in request.headers.items() if name in ("authorization", "x-amz-security-token")]
        said = sent[len(store.front.requests) % len(sent)] if sent else request.target
        return (
            403,
            {"Content-Type": "application/xml"},
            f"<Error><Code>No</Code><Message>{said[-150:]}</Message></Error>".encode(),
        )

    store.front.rule = rule
    done = [run_fetcher("fetch", store.uri, *words(tmp_path), "--progress", "log", env=store.env) for _ in range(2)]
    assert {each.returncode for each in done} == {77}, done[0].stderr
    check(store, tmp_path, *done)


@pytest.mark.parametrize("status", [302, 307])
def test_a_store_that_redirects_to_another_host_gives_that_no_secret(store: Store, tmp_path: Path, status: int) -> None:
    former = store.front.rule
    with in_front_of_nothing(lambda _: (403, {}, b"")) as other:

        def rule(request: Request) -> Reply | None:
            is_bytes = (request.method == "GET" and "model.safetensors" in request.path) or "/blobs/" in request.path
            if "alt=media" in request.target or is_bytes:
                return status, {"Location": f"{other.endpoint}/elsewhere?X-Amz-Signature=s1gnature"}, b""
            return former(request)

        store.front.rule = rule
        done = run_fetcher("fetch", store.uri, *words(tmp_path), "--progress", "log", env=store.env)
    assert done.returncode not in (0, 70), done.stderr
    sent = "\n".join(repr((each.target, dict(each.headers))) for each in other.requests)
    assert not [secret for secret in store.seen() if secret in sent]
    check(store, tmp_path, done)
    assert "s1gnature" not in everything_written(tmp_path, done.stdout, done.stderr)


def test_a_store_that_is_down_writes_no_secret(store: Store, tmp_path: Path) -> None:
    store.front.rule = lambda _: (500, {}, b"")
    done = run_fetcher("fetch", store.uri, *words(tmp_path), "--progress", "json", env=store.env)
    assert done.returncode == 69, done.stderr
    check(store, tmp_path, done)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://key:pa55word@bucket/m", "s3://bucket/m?X-Amz-Signature=pa55word&versionId=1", "gs://token:pa55word@bucket/m",
        "gs://bucket/m?access_token=pa55word", "az://key:pa55word@container/m", "az://container/m?sig=pa55word",
        "oci://user:pa55word@127.0.0.1:9/org/model:v1", "oci://127.0.0.1:9/org/model:v1?token=pa55word",
        "https://w.blob.core.windows.net/c/m?sig=pa55word&foo=bar",
    ],
)  # fmt: skip
def test_a_secret_where_an_address_has_none_is_not_repeated(uri: str, tmp_path: Path) -> None:
    env = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "STORAGE_EMULATOR_HOST": "http://127.0.0.1:9",
        "HTTPS_PROXY": "127.0.0.1:9",
    }
    env |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AZURE_STORAGE_ACCOUNT_NAME": "w"}
    for command in ("fetch", "plan", "show"):
        more = [] if command == "show" else ["--retry-for", "0"]
        done = run_fetcher(command, uri, "--cache-dir", tmp_path, *more, env=env)
        assert done.returncode not in (0, 70)
        assert "pa55word" not in everything_written(tmp_path, done.stdout, done.stderr)
