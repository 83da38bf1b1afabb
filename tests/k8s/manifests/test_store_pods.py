"""The overlays of `k8s/stores` run: each Secret or identity lets the Job in at a real store, and no log shows it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.testing.exchange import Request
from fetcher.testing.origin import Origin
from tests.k8s.manifests.conftest import MakeNode
from tests.k8s.manifests.playing import Node
from tests.k8s.manifests.rendering import K8S, Resource, named, render
from tests.lab.front import Reply, in_front_of_nothing
from tests.lab.registry import PASSWORD, USER, registry
from tests.lab.seaweed import KEY_ID, SECRET, S3Server
from tests.lab.stores import AzureServer, azure_server, gcs_server

PREFIX = "org/model"
AGENT = "http://169.254.170.23/v1/credentials"
TOMORROW = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture(scope="session")
def content(model: Mapping[str, Path]) -> dict[str, bytes]:
    return {f"{PREFIX}/{name}": path.read_bytes() for name, path in model.items()}


def secret(name: str, data: Mapping[str, str]) -> Resource:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": dict(data)}


def store(name: str, *more: Resource, **variables: str) -> tuple[Resource, ...]:
    """The overlay of a store with `variables` in its ConfigMap, and with Secrets. A URI also changes the key."""
    resources = deepcopy(render(K8S / "stores" / name))
    data = named(resources, "ConfigMap", "model")["data"]
    data |= variables
    data["MODEL_KEY"] = ArtifactRef(data["MODEL_URI"]).key
    return (*resources, *more)


def assert_fetched(node: Node, resources: tuple[Resource, ...], published: Mapping[str, str], *secrets: str) -> None:
    """Run the Job to its end, then the engine, which reads what the Job has fetched."""
    with node.playing(named(resources, "Job", "prefetch"), resources) as job:
        codes, logs = job.exit_codes(), job.logs()
        assert codes == {"fetch": 0}, logs
    with node.playing(named(resources, "Deployment", "engine"), resources) as engine:
        assert engine.started, engine.output
        assert engine.report()["files"] == published
    assert not [each for each in secrets if each in logs]


@pytest.fixture
def node(make_node: MakeNode, origin: Origin) -> Node:
    return make_node(origin)


@pytest.fixture
def s3_models(s3_server: S3Server, s3_client: Any, content: Mapping[str, bytes]) -> S3Server:
    """The store with the bucket that the manifests name."""
    if "models" not in [each["Name"] for each in s3_client.list_buckets()["Buckets"]]:
        s3_client.create_bucket(Bucket="models")
    for key, body in content.items():
        s3_client.put_object(Bucket="models", Key=key, Body=body)
    return s3_server


class TestS3:
    def test_keys_in_a_mounted_file(self, node: Node, s3_models: S3Server, published: Mapping[str, str]) -> None:
        text = f"[default]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n"
        resources = store("s3-keys", secret("s3", {"credentials": text}), AWS_ENDPOINT_URL_S3=s3_models.endpoint)
        assert_fetched(node, resources, published, SECRET)

    def test_a_wrong_key_is_final(self, node: Node, s3_models: S3Server) -> None:
        text = "[default]\naws_access_key_id = AKIDOTHER\naws_secret_access_key = wrong\n"
        resources = store("s3-keys", secret("s3", {"credentials": text}), AWS_ENDPOINT_URL_S3=s3_models.endpoint)
        with node.playing(named(resources, "Job", "prefetch"), resources) as job:
            assert job.exit_codes() == {"fetch": 77}

    def test_the_projected_token_of_irsa_is_exchanged_at_sts(
        self, node: Node, s3_models: S3Server, published: Mapping[str, str]
    ) -> None:
        with in_front_of_nothing(keys_of_sts) as sts:
            resources = store("aws-irsa", AWS_ENDPOINT_URL_S3=s3_models.endpoint, AWS_ENDPOINT_URL_STS=sts.endpoint)
            assert_fetched(node, resources, published, SECRET)
        sent = parse_qs(sts.requests[0].body.decode())
        assert sent["WebIdentityToken"] == ["token-for-sts.amazonaws.com"]
        assert sent["RoleArn"] == ["arn:aws:iam::111122223333:role/models"]

    def test_the_projected_token_of_pod_identity_is_exchanged_at_the_agent(
        self, node: Node, s3_models: S3Server, published: Mapping[str, str]
    ) -> None:
        with in_front_of_nothing(keys_of_the_agent) as agent:
            there = Node(node.podman, node.disks, node.workspace, {**node.instead, AGENT: f"{agent.endpoint}/v1/credentials"})
            resources = store("aws-pod-identity", AWS_ENDPOINT_URL_S3=s3_models.endpoint)
            assert_fetched(there, resources, published, SECRET)
        assert agent.requests[0].headers["authorization"] == "token-for-pods.eks.amazonaws.com"


def keys_of_sts(_: Request) -> Reply:
    """The store's own keys. It knows no session tokens."""
    keys = f"<AccessKeyId>{KEY_ID}</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey><SessionToken></SessionToken>"
    result = f"<Credentials>{keys}<Expiration>{TOMORROW:%Y-%m-%dT%H:%M:%SZ}</Expiration></Credentials>"
    text = f"<AssumeRoleWithWebIdentityResult>{result}</AssumeRoleWithWebIdentityResult>"
    body = f"<AssumeRoleWithWebIdentityResponse>{text}</AssumeRoleWithWebIdentityResponse>"
    return 200, {"Content-Type": "text/xml"}, body.encode()


def keys_of_the_agent(_: Request) -> Reply:
    keys = {"AccessKeyId": KEY_ID, "SecretAccessKey": SECRET, "Token": "", "Expiration": f"{TOMORROW:%Y-%m-%dT%H:%M:%SZ}"}
    return 200, {"Content-Type": "application/json"}, json.dumps(keys).encode()


class TestAzure:
    @pytest.fixture
    def azure(self, tmp_path: Path, content: Mapping[str, bytes]) -> Iterator[AzureServer]:
        with azure_server(tmp_path) as server:
            server.make_container("models")
            server.publish("models", content)
            yield server

    def place(self, azure: AzureServer) -> dict[str, str]:
        connection = f"AccountName={azure.account};BlobEndpoint={azure.endpoint}"
        return {"AZURE_STORAGE_ACCOUNT_NAME": azure.account, "AZURE_STORAGE_CONNECTION_STRING": connection}

    def test_the_accounts_key(self, node: Node, azure: AzureServer, published: Mapping[str, str]) -> None:
        resources = store("azure-key", secret("azure", {"key": azure.key}), **self.place(azure))
        assert_fetched(node, resources, published, azure.key)

    def test_a_sas(self, node: Node, azure: AzureServer, published: Mapping[str, str]) -> None:
        sas = azure.sas("models", expires=TOMORROW)
        resources = store("azure-sas", secret("azure", {"sas": sas}), **self.place(azure))
        assert_fetched(node, resources, published, sas, sas.partition("sig=")[2])


class TestGoogle:
    def test_a_pod_with_a_key_fetches_from_an_emulator_which_takes_no_token(
        self, node: Node, tmp_path: Path, content: Mapping[str, bytes], published: Mapping[str, str]
    ) -> None:
        with gcs_server(tmp_path) as gcs:
            gcs.make_bucket("models")
            gcs.publish("models", content)
            resources = store("gcs-key", secret("gcs", {"key.json": "{}"}), STORAGE_EMULATOR_HOST=gcs.endpoint)
            assert_fetched(node, resources, published)


class TestRegistry:
    def login(self, place: str, password: str) -> Resource:
        entry = {"auth": base64.b64encode(f"{USER}:{password}".encode()).decode()}
        return secret("registry", {".dockerconfigjson": json.dumps({"auths": {place: entry}})})

    def test_a_pull_secret(self, node: Node, tmp_path: Path, model: Mapping[str, Path], published: Mapping[str, str]) -> None:
        with registry(tmp_path / "registry", private=True) as server:
            titles = [
                (path.read_bytes(), "application/octet-stream", {"org.opencontainers.image.title": name})
                for name, path in model.items()
            ]
            server.push(PREFIX, "v1", titles, artifact_type="application/vnd.example")
            uri = f"oci://{server.place}/{PREFIX}:v1"
            right, wrong = (
                store("registry-pull-secret", self.login(server.place, each), MODEL_URI=uri) for each in (PASSWORD, "no")
            )
            with node.playing(named(wrong, "Job", "prefetch"), wrong) as job:
                assert job.exit_codes() == {"fetch": 77}
            assert_fetched(node, right, published, PASSWORD)
