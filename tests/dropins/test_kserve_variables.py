"""KServe's variables for GCS, Azure and registries: which credentials they give, and to which source."""

from __future__ import annotations

import base64
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from fetcher.dropins import kserve
from fetcher.dropins.kserve_access import access_to
from fetcher.dropins.kserve_azure import azure_access, variables_of
from fetcher.dropins.kserve_gcs import gcs_access
from fetcher.dropins.kserve_oci import oci_access, without_tls
from fetcher.errors import ConfigurationError
from fetcher.sources.azure.access import AzureAccess
from fetcher.sources.gcs.access import GcsAccess
from fetcher.sources.oci import OciAccess
from fetcher.sources.s3 import S3Access
from tests.dropins.archives import tar
from tests.dropins.conftest import FILES, last_line, tree
from tests.dropins.test_kserve_differential import Situation, outcome
from tests.lab.command import STORAGE_INITIALIZER, run_command
from tests.lab.registry import Registry, registry
from tests.lab.stores import AzureServer

BLOB = "https://account.blob.core.windows.net/container/model"
KEY = base64.b64encode(b"s3cr3t key").decode()
CLIENT = {"AZ_TENANT_ID": "tenant", "AZ_CLIENT_ID": "client", "AZ_CLIENT_SECRET": "s3cr3t"}
CONFIG_OF_IMAGE = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@pytest.fixture(scope="module")
def account() -> dict[str, str]:
    """What the file of a service account has."""
    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {
        "type": "service_account", "client_email": "reader@project.iam.gserviceaccount.com", "private_key": pem.decode(),
        "token_uri": "https://oauth2.googleapis.com/token",
    }  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with an image of a model."""
    with registry(tmp_path_factory.mktemp("registry")) as running:
        layer = tar({f"models/{path}": content for path, content in FILES.items()}, "gz")
        running.push("org/model", "v1", [(layer, LAYER, {})], config=CONFIG_OF_IMAGE)
        yield running


class TestGcs:
    def test_the_mounted_file_is_used(self, account: dict[str, str], tmp_path: Path) -> None:
        mounted = tmp_path / "gcloud-application-credentials.json"
        mounted.write_text(json.dumps(account))
        access = gcs_access({"GOOGLE_APPLICATION_CREDENTIALS": str(mounted)})
        assert access is not None
        assert access.credentials.service_account_email == account["client_email"]

    @pytest.mark.parametrize("kind", ["gcs", "gs"])
    def test_the_storage_secret_wins_over_the_file(self, kind: str, account: dict[str, str]) -> None:
        secret = {"type": kind, "bucket": "b", "private_key": account["private_key"], "client_email": "secret@project"}
        access = gcs_access({"STORAGE_CONFIG": json.dumps(secret), "GOOGLE_APPLICATION_CREDENTIALS": "/nowhere"})
        assert access is not None
        assert (access.credentials.service_account_email, access.given_by) == ("secret@project", "STORAGE_CONFIG")

    def test_an_emulator_gets_no_credentials(self) -> None:
        environ = {"STORAGE_EMULATOR_HOST": "http://127.0.0.1:1", "GOOGLE_APPLICATION_CREDENTIALS": "/nowhere"}
        assert gcs_access(environ) == GcsAccess(given_by="nowhere")

    def test_without_variables_the_identity_of_the_pod_is_used(self) -> None:
        assert gcs_access({}) is None

    def test_only_ours_names_a_missing_file(self, tmp_path: Path) -> None:
        """KServe goes on without credentials, and the store's refusal does not say why."""
        env = {"GOOGLE_APPLICATION_CREDENTIALS": "/nowhere/key.json"}
        done = run_command(STORAGE_INITIALIZER, "gs://bucket/model", tmp_path, env=env)
        assert (done.returncode, "/nowhere/key.json" in last_line(done.stderr)) == (78, True)

    def test_a_broken_key_in_the_secret_is_not_shown(self) -> None:
        secret = {"type": "gcs", "private_key": "s3cr3t", "client_email": "a@b"}
        with pytest.raises(ConfigurationError, match="the credentials in STORAGE_CONFIG cannot be used") as caught:
            gcs_access({"STORAGE_CONFIG": json.dumps(secret)})
        assert "s3cr3t" not in str(caught.value)


class TestAzure:
    def test_the_former_names_of_a_client_win(self) -> None:
        assert variables_of({**CLIENT, "AZURE_CLIENT_ID": "other"})["AZURE_CLIENT_ID"] == "client"

    def test_a_client_wins_over_the_key(self) -> None:
        access = azure_access(BLOB, {**CLIENT, "AZURE_STORAGE_ACCESS_KEY": KEY})
        assert (access.key, access.credential is not None, access.account) == (None, True, "account")

    def test_the_key_is_of_the_account_in_the_address(self) -> None:
        access = azure_access(BLOB, {"AZURE_STORAGE_ACCESS_KEY": KEY})
        assert (access.account, access.key, access.credential) == ("account", KEY, None)

    def test_a_sas_in_the_address_wins_over_all(self) -> None:
        access = azure_access(f"{BLOB}?sv=2020&sig=s3cr3t", {**CLIENT, "AZURE_STORAGE_ACCESS_KEY": KEY})
        assert (access.sas, access.key, access.credential) == ("sv=2020&sig=s3cr3t", None, None)

    def test_without_variables_access_is_anonymous(self) -> None:
        assert azure_access(BLOB, {}) == AzureAccess("account", given_by="the environment")

    def test_the_storage_secret_names_a_client(self) -> None:
        secret = {"type": "azure", "account_name": "account", "tenant_id": "t", "client_id": "c", "client_secret": "s3cr3t"}
        access = azure_access(BLOB, {"STORAGE_CONFIG": json.dumps(secret), "AZURE_STORAGE_ACCESS_KEY": KEY})
        assert (access.key, access.credential is not None) == (None, True)

    def test_the_storage_secret_has_a_connection_string(self, azure: AzureServer, tmp_path: Path) -> None:
        azure.make_container("of-the-secret")
        azure.put("of-the-secret", "model/config.json", b"{}")
        secret = {"type": "azure", "account_name": azure.account, "connection_string": azure.connection}
        env = {"STORAGE_CONFIG": json.dumps(secret)}
        done = run_command(STORAGE_INITIALIZER, "az://of-the-secret/model", tmp_path, env=env)
        assert (done.returncode, tree(tmp_path)) == (0, {"config.json": b"{}"}), done.stderr

    def test_a_refused_key_is_not_shown(self, azure: AzureServer, tmp_path: Path) -> None:
        secret = {"type": "azure", "connection_string": azure.connection.replace(azure.key, KEY)}
        done = run_command(STORAGE_INITIALIZER, "az://container/model", tmp_path, env={"STORAGE_CONFIG": json.dumps(secret)})
        assert (done.returncode, KEY in done.stderr) == (77, False), done.stderr
        assert "AZURE_STORAGE_CONNECTION_STRING" in last_line(done.stderr)


class TestRegistries:
    @pytest.mark.parametrize("scheme", ["oci", "oci+fetch"])
    def test_the_model_of_an_image_is_fetched(self, scheme: str, server: Registry, tmp_path: Path) -> None:
        done = run_command(STORAGE_INITIALIZER, f"{scheme}://{server.place}/org/model:v1", tmp_path)
        assert (done.returncode, tree(tmp_path)) == (0, FILES), done.stderr

    @pytest.mark.timeout(600)  # may install KServe's package
    def test_both_produce_the_files_of_an_image(
        self, kserve_command: tuple[str, ...], server: Registry, tmp_path: Path
    ) -> None:
        """KServe's webhook turns `oci+fetch://` into `oci://`, and allows registries without TLS."""
        situation = Situation([f"oci://{server.place}/org/model:v1"], {"KSERVE_OCI_INSECURE_REGISTRY": "true"})
        theirs = outcome(kserve_command, situation, tmp_path / "kserve")
        ours = outcome(STORAGE_INITIALIZER, situation, tmp_path / "ours")
        assert (ours.code, ours.trees) == (0, [dict(FILES)]), ours.log
        if hasattr(tarfile, "data_filter"):  # otherwise KServe cannot unpack any tar
            assert (theirs.code, theirs.trees) == (0, ours.trees), theirs.log

    def test_the_mounted_configuration_wins_over_others(self, tmp_path: Path) -> None:
        for name, user in (("kserve.json", "kserve"), ("config.json", "docker")):
            (tmp_path / name).write_text(json.dumps({"auths": {"host": {"username": user, "password": "s3cr3t"}}}))
        environ = {"DOCKER_CONFIG": str(tmp_path), "KSERVE_OCI_DOCKER_CONFIG": str(tmp_path / "kserve.json")}
        assert oci_access("oci+fetch://host/org/model:v1", environ).user == "kserve"
        del environ["KSERVE_OCI_DOCKER_CONFIG"]
        assert oci_access("oci://host/org/model:v1", environ).user == "docker"

    def test_an_insecure_registry_is_asked_without_tls(self) -> None:
        environ = {"KSERVE_OCI_INSECURE_REGISTRY": "true", "FETCHER_PLAIN_HTTP_REGISTRIES": "other:5000"}
        sources = ["oci://host:80/model", "oci+fetch://Second/model"]
        assert without_tls(sources, environ) == {"FETCHER_PLAIN_HTTP_REGISTRIES": "other:5000,host:80,second"}
        assert without_tls(sources, {"KSERVE_OCI_INSECURE_REGISTRY": "false"}) == {}


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("s3://bucket/model", "repository"), ("s3://bucket/model.tgz", "archive"), ("gs://bucket/model.zip", "archive"),
        (f"{BLOB}?sv=2020&sig=x", "repository"), (f"{BLOB}.tgz?sv=2020&sig=x", "archive"), ("az://container/m", "repository"),
        ("https://account.z1.blob.storage.azure.net/container/model", "repository"), ("oci://host/model.tar:v1", "repository"),
        ("https://host/blob.core.windows.net/model.bin", "file"),
    ],
)  # fmt: skip
def test_an_archive_of_a_store_is_known_by_the_name_of_its_object(source: str, kind: str) -> None:
    assert kserve.kind_of(source, exists=False) == kind


def test_each_source_gets_the_credentials_of_its_store_alone(tmp_path: Path) -> None:
    """Everything is set at once. No value of one store reaches another, and other sources get none."""
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"host": {"username": "u", "password": "p"}}}))
    environ = {
        "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AZURE_STORAGE_ACCESS_KEY": KEY,
        "STORAGE_EMULATOR_HOST": "http://127.0.0.1:1", "KSERVE_OCI_DOCKER_CONFIG": str(tmp_path),
    }  # fmt: skip
    kinds = {"s3://b/m": S3Access, "gs://bucket/m": GcsAccess, BLOB: AzureAccess, "oci://host/m": OciAccess}
    assert {source: type(access_to(source, environ)) for source in kinds} == kinds
    for source in ("hf://org/model", "https://host/model.bin", "file:///model", "/model"):
        assert access_to(source, environ) is None
