"""KServe's variables for S3, and its storage Secret. `test_kserve_stores.py` compares with KServe's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fetcher.dropins.kserve_s3 import s3_access, variables_of
from fetcher.errors import ConfigurationError
from tests.dropins.conftest import FILES, last_line, tree
from tests.dropins.test_kserve_differential import Situation, outcome
from tests.lab.command import STORAGE_INITIALIZER, run_command
from tests.lab.seaweed import KEY_ID, SECRET, S3Server

pytestmark = pytest.mark.timeout(600)  # the first test installs KServe's package


def put(client: Any, bucket: str, files: Mapping[str, bytes]) -> None:
    for key, content in files.items():
        client.put_object(Bucket=bucket, Key=key, Body=content)


@pytest.fixture
def model(s3_client: Any, bucket: str) -> str:
    """The address of a model."""
    put(s3_client, bucket, {f"models/llama/{path}": content for path, content in FILES.items()})
    return f"s3://{bucket}/models/llama"


@pytest.fixture
def env(s3_server: S3Server) -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL": s3_server.endpoint}


def secret(server: S3Server, **more: object) -> str:
    """KServe's storage Secret."""
    known = {"type": "s3", "access_key_id": KEY_ID, "secret_access_key": SECRET, "endpoint_url": server.endpoint}
    return json.dumps(known | {"region": "us-east-1"} | more)


def test_both_read_the_storage_secret(kserve_command: tuple[str, ...], model: str, s3_server: S3Server, tmp_path: Path) -> None:
    situation = Situation([model], {"STORAGE_CONFIG": secret(s3_server)})
    theirs = outcome(kserve_command, situation, tmp_path / "kserve")
    ours = outcome(STORAGE_INITIALIZER, situation, tmp_path / "ours")
    assert (theirs.code, ours.code) == (0, 0), (theirs.log, ours.log)
    assert ours.trees == theirs.trees


class TestVariables:
    def test_the_override_wins_for_each_key(self, model: str, s3_server: S3Server, tmp_path: Path) -> None:
        wrong = secret(s3_server, secret_access_key="wr0ng", endpoint_url="http://127.0.0.1:1")
        right = json.dumps({"secret_access_key": SECRET, "endpoint_url": s3_server.endpoint})
        env = {"STORAGE_CONFIG": wrong, "STORAGE_OVERRIDE_CONFIG": right}
        done = run_command(STORAGE_INITIALIZER, model, tmp_path, env=env)
        assert done.returncode == 0, done.stderr
        assert tree(tmp_path) == FILES

    def test_patterns_select_objects(self, model: str, env: dict[str, str], tmp_path: Path) -> None:
        done = run_command(STORAGE_INITIALIZER, model, tmp_path, env=env | {"STORAGE_ALLOW_PATTERNS": "*.json"})
        assert done.returncode == 0, done.stderr
        assert set(tree(tmp_path)) == {path for path in FILES if path.endswith(".json")}

    def test_anonymous_access_sends_no_key(self, model: str, env: dict[str, str], tmp_path: Path) -> None:
        done = run_command(STORAGE_INITIALIZER, model, tmp_path, env=env | {"awsAnonymousCredential": "true"})
        assert done.returncode == 77
        assert "no credentials were sent" in done.stderr

    def test_certificates_are_verified_whatever_a_variable_says(self, model: str, env: dict[str, str], tmp_path: Path) -> None:
        done = run_command(STORAGE_INITIALIZER, model, tmp_path, env=env | {"S3_VERIFY_SSL": "0"})
        assert (done.returncode, "S3_VERIFY_SSL is ignored" in done.stderr) == (0, True)

    def test_a_secret_that_is_no_object_is_named_and_not_shown(self, tmp_path: Path) -> None:
        done = run_command(STORAGE_INITIALIZER, "s3://bucket/m", tmp_path, env={"STORAGE_CONFIG": '["s3cr3t"]'})
        assert (done.returncode, "s3cr3t" in done.stderr) == (78, False)
        assert "STORAGE_CONFIG is not a JSON object" in last_line(done.stderr)

    def test_where_the_bucket_is_a_part_of_the_host(self) -> None:
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        assert s3_access(keys | {"S3_USER_VIRTUAL_BUCKET": "1"}).virtual_hosts
        accelerated = s3_access(keys | {"S3_USE_ACCELERATE": "true"})
        assert (accelerated.endpoint, accelerated.virtual_hosts) == ("https://s3-accelerate.amazonaws.com", True)

    def test_a_secret_of_another_store_changes_nothing(self) -> None:
        environ = {"STORAGE_CONFIG": '{"type": "gs", "access_key_id": "x"}'}
        assert variables_of(environ) == environ

    @pytest.mark.parametrize("text", ["[", "1", '"s3"', "[" * 10_000])
    def test_any_other_document_is_refused(self, text: str) -> None:
        with pytest.raises(ConfigurationError):
            variables_of({"STORAGE_CONFIG": text})
