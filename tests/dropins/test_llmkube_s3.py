"""LLMKube's variables for S3, against a real server of S3."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fetcher.dropins.llmkube import authorities_in, request_of
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.origin import Origin
from tests.dropins.conftest import last_line, tree
from tests.lab.command import MODEL_DOWNLOADER, run_command
from tests.lab.seaweed import KEY_ID, SECRET, S3Server

FILES = {"q4.gguf": random_bytes("q4", 300_007), "split/q8-00001.gguf": b"first", "split/q8-00002.gguf": b"second"}
MOUNTING = """
import sys
from pathlib import Path
from fetcher.dropins import llmkube, model_downloader

llmkube.AUTHORITIES = Path(sys.argv[1])
sys.exit(model_downloader.main([]))
"""
"""Runs the command with another directory in the place of /custom-certs."""


@pytest.fixture
def model(s3_client: Any, bucket: str) -> str:
    """The prefix of a model in `bucket`."""
    for path, content in FILES.items():
        s3_client.put_object(Bucket=bucket, Key=f"org/model/{path}", Body=content)
    return "org/model"


@pytest.fixture
def secret(s3_server: S3Server) -> dict[str, str]:
    """What LLMKube passes on from the Secret of the source."""
    return {
        "AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_server.endpoint,
    }  # fmt: skip


def download(env: dict[str, str], cache: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return run_command(MODEL_DOWNLOADER, env={**env, "CACHE_DIR": str(cache), **more})


class TestObjects:
    def test_a_key_of_a_bucket_is_downloaded(self, model: str, bucket: str, secret: dict[str, str], tmp_path: Path) -> None:
        done = download(secret, tmp_path, S3_BUCKET=bucket, S3_KEY=f"{model}/q4.gguf", MODEL_PATH=str(tmp_path / "model.gguf"))
        assert (done.returncode, tree(tmp_path)) == (0, {"model.gguf": FILES["q4.gguf"]}), done.stderr

    def test_files_below_a_prefix_keep_their_paths(
        self, model: str, bucket: str, secret: dict[str, str], tmp_path: Path
    ) -> None:
        names = [name for name in FILES if name.startswith("split/")]
        done = download(secret, tmp_path, S3_BUCKET=bucket, S3_PREFIX=f"{model}/", MODEL_FILES="\n".join(names))
        assert (done.returncode, tree(tmp_path)) == (0, {name: FILES[name] for name in names}), done.stderr

    def test_an_address_needs_no_other_variable(self, model: str, bucket: str, secret: dict[str, str], tmp_path: Path) -> None:
        source = f"s3://{bucket}/{model}"
        names = [name for name in FILES if name.startswith("split/")]
        done = download(secret, tmp_path, MODEL_SOURCE=source, MODEL_FILES="\n".join(names))
        assert (done.returncode, tree(tmp_path)) == (0, {name: FILES[name] for name in names}), done.stderr

    def test_the_endpoint_has_a_second_name(self, model: str, bucket: str, secret: dict[str, str], tmp_path: Path) -> None:
        env = {**secret, "AWS_ENDPOINT_URL": "", "S3_ENDPOINT": secret["AWS_ENDPOINT_URL"]}
        assert download(env, tmp_path, S3_BUCKET=bucket, S3_PREFIX=model).returncode == 0
        assert tree(tmp_path) == FILES


class TestErrors:
    def test_a_wrong_key_is_reported_in_the_words_of_curl(
        self, model: str, bucket: str, secret: dict[str, str], tmp_path: Path
    ) -> None:
        done = download(secret, tmp_path, S3_BUCKET=bucket, S3_KEY=model, AWS_SECRET_ACCESS_KEY="wr0ng/secret")
        assert (done.returncode, "wr0ng" in done.stderr) == (77, False)
        assert "returned error: 403" in last_line(done.stderr)

    def test_a_missing_object_is_reported_in_the_words_of_curl(
        self, bucket: str, secret: dict[str, str], tmp_path: Path
    ) -> None:
        done = download(secret, tmp_path, S3_BUCKET=bucket, S3_KEY="nothing.gguf")
        assert (done.returncode, "returned error: 404" in last_line(done.stderr)) == (66, True)


class TestSource:
    @pytest.mark.parametrize(
        ("environ", "uri"),
        [
            ({"S3_BUCKET": "b", "S3_KEY": "k.gguf"}, "s3://b/k.gguf"),
            ({"S3_BUCKET": "b", "S3_PREFIX": "/p/"}, "s3://b/p/"),
            ({"S3_BUCKET": "b"}, "s3://b/"),
            ({"MODEL_SOURCE": "s3://b/p/", "S3_BUCKET": "b", "S3_PREFIX": "p"}, "s3://b/p/"),
            ({"MODEL_SOURCE": "s3://b/p/k", "S3_BUCKET": "b", "S3_PREFIX": "p"}, "s3://b/p"),
            ({"MODEL_SOURCE": "s3://b/p", "S3_BUCKET": "b"}, "s3://b/p"),
            ({"MODEL_SOURCE": "hf://org/model", "S3_BUCKET": "b", "S3_KEY": "k"}, "hf://org/model"),
        ],
    )
    def test_variables_name_the_source(self, environ: dict[str, str], uri: str) -> None:
        assert request_of({"CACHE_DIR": "/models/key", **environ}).ref.uri == uri


class TestAuthorities:
    @pytest.fixture
    def secure(self) -> Iterator[Origin]:
        with Origin(tls=["cdn"]) as running:
            yield running

    def test_the_first_mounted_file_is_trusted(self, secure: Origin, tmp_path: Path) -> None:
        """A ConfigMap is mounted with hidden directories beside its keys."""
        mounted = tmp_path / "custom-certs"
        (mounted / "..data").mkdir(parents=True)
        shutil.copy(secure.ca_file, mounted / "ca.crt")
        env = {"MODEL_SOURCE": secure.add_file("/model.gguf", b"weights"), "CACHE_DIR": str(tmp_path / "models")}
        assert run_command((sys.executable, "-c", MOUNTING), mounted, env=env).returncode == 0
        assert tree(tmp_path / "models") == {"model.gguf": b"weights"}

    def test_an_empty_or_missing_directory_adds_none(self, tmp_path: Path) -> None:
        assert authorities_in(tmp_path) is None
        assert authorities_in(tmp_path / "missing") is None
