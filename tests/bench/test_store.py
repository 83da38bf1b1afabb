"""nginx as a store, whose checksums the fetcher compares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.publishing import Shape, publish
from benchmarks.store.servers import ALGORITHMS, PREFIX, by_nginx
from tests.lab.availability import program
from tests.lab.command import run_fetcher


@pytest.mark.parametrize("bucket", ALGORITHMS)
def test_the_fetcher_compares_the_checksums_that_nginx_publishes(tmp_path: Path, bucket: str) -> None:
    program("nginx", package="nginx-light")
    repository = publish(tmp_path / "served", Shape(3, 1_000_003))
    with by_nginx(repository, tmp_path / "nginx") as store:
        words = ("fetch", f"s3://{bucket}/{PREFIX}", "--require-checksums", "--dest", tmp_path / "copy")
        environ = {"PATH": os.defpath, **store.environment(tmp_path)}
        done = run_fetcher(*words, env=environ)
        assert done.returncode == 0, done.stderr
        refused = run_fetcher("fetch", f"s3://plain/{PREFIX}", "--require-checksums", "--dest", tmp_path / "other", env=environ)
        assert refused.returncode == 65, refused.stderr
    assert repository.arrived(tmp_path / "copy") is None
