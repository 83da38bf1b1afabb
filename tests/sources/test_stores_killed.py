"""A fetch from a store that is killed midway continues, keyed and in place; a server in front holds back the second half."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fetcher.artifact import CHUNK_SIZE
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.exchange import Request
from tests.lab.command import run_fetcher
from tests.lab.fixtures import StartFetcher
from tests.lab.front import Front, Reply, in_front_of
from tests.lab.stores import AzureServer, GcsServer
from tests.lab.waiting import wait_until

SMALL = random_bytes("small", 100_000)
LARGE = random_bytes("large", 40 * 1024 * 1024)
Published = tuple[str, dict[str, str], Front]


@pytest.fixture
def in_gcs(gcs: GcsServer) -> Iterator[Published]:
    bucket = f"killed-{uuid.uuid4().hex[:12]}"
    gcs.make_bucket(bucket)
    gcs.publish(bucket, {"m/config.json": SMALL, "m/model.safetensors": LARGE})
    with in_front_of("127.0.0.1", gcs.port) as front:
        yield f"gs://{bucket}/m", {"STORAGE_EMULATOR_HOST": front.endpoint}, front


@pytest.fixture
def in_azure(azure: AzureServer) -> Iterator[Published]:
    container = f"killed-{uuid.uuid4().hex[:12]}"
    azure.make_container(container)
    azure.publish(container, {"m/config.json": SMALL, "m/model.safetensors": LARGE})
    with in_front_of("127.0.0.1", azure.port) as front:
        connection = f"AccountName={azure.account};AccountKey={azure.key};BlobEndpoint={front.endpoint}/{azure.account}"
        yield f"az://{container}/m", {"AZURE_STORAGE_CONNECTION_STRING": connection}, front


@pytest.mark.parametrize("store", ["in_gcs", "in_azure"])
@pytest.mark.parametrize("place", ["--cache-dir", "--dest"])
def test_a_killed_fetch_continues(
    store: str, place: str, request: pytest.FixtureRequest, start_fetcher: StartFetcher, tmp_path: Path
) -> None:
    uri, env, front = request.getfixturevalue(store)
    killed = threading.Event()
    front.rule = held_back(beyond=CHUNK_SIZE, until=killed)
    words = ("fetch", uri, place, tmp_path / "weights", "--max-concurrency", "2")
    fetching = start_fetcher(*words, env=env)
    journals = (tmp_path / "weights").rglob
    wait_until(lambda: any(b'"part"' in path.read_bytes() for path in journals("journal.*")), "some data is journalled")
    fetching.kill()
    fetching.communicate(timeout=10)
    killed.set()
    front.rule = lambda asked: None
    done = run_fetcher(*words, "--json", env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bytes_reused"] > 0
    assert next((tmp_path / "weights").rglob("model.safetensors")).read_bytes() == LARGE


def held_back(*, beyond: int, until: threading.Event) -> Callable[[Request], Reply | None]:
    """A rule that lets requests for bytes from `beyond` on wait until the fetch was killed."""

    def rule(asked: Request) -> Reply | None:
        start = asked.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0]
        if int(start) >= beyond:
            until.wait(60)
        return None

    return rule
