"""`loader.open` of an address: tensors straight from their source, compared before the last of a file is delivered."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

import loader
from fetcher import api
from fetcher.artifact import ByteRange
from fetcher.errors import (
    DigestMismatch,
    DigestUnavailable,
    NotFound,
    Unauthorized,
    Unreachable,
    UsageError,
)
from fetcher.sources.access import HttpAccess
from fetcher.sources.s3 import S3Access, S3Keys
from fetcher.testing.effects import FlipBit, IgnoreRange, ShortBody, Status
from fetcher.testing.faults import Fault
from fetcher.testing.interruptions import Finish, Reset, Stall
from fetcher.testing.origin import Origin
from loader.errors import MalformedCheckpoint
from loader.tensors.weights import Weights
from tests.cli.conftest import last_line
from tests.lab.checksums import require_crcs
from tests.lab.command import run_loader
from tests.lab.front import in_front_of
from tests.lab.seaweed import KEY_ID, SECRET, S3Server

MiB = 1024 * 1024
URI = "hf://org/model"
DRAWN = np.random.default_rng(5)
FIRST = {
    "a.large": DRAWN.integers(0, 255, (9, MiB), np.uint8),
    "a.odd": DRAWN.integers(0, 255, 1001, np.uint8),
    "a.nothing": np.zeros((0, 4), np.float16),
}
SECOND = {"b.large": DRAWN.integers(0, 255, (20, MiB), np.uint8), "b.scalar": np.array(7, np.int64)}
ARRAYS = {**FIRST, **SECOND}
CONTENTS = {name: value.tobytes() for name, value in ARRAYS.items()}
NAMES = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = {"weight_map": {name: NAMES[name in SECOND] for name in ARRAYS}}
FILES = {
    "config.json": b"{}",
    "model.safetensors.index.json": json.dumps(INDEX).encode(),
    NAMES[0]: save(FIRST),
    NAMES[1]: save(SECOND),
}


@pytest.fixture
def origin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    with Origin(lfs_threshold=MiB) as running:
        running.add_repo("org/model", FILES)
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


@pytest.fixture(autouse=True)
def nothing_runs_on() -> Iterator[None]:
    """No thread outlives the weights that needed it."""
    yield
    gc.collect()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith(("source", "read", "header"))] == []


def opened(uri: str = URI, **options: Any) -> Weights:
    return loader.open(uri, **{"timeout_stall": 1.0, "retry_for": 3.0, **options})


def delivered_before_the_error(weights: Weights) -> list[str]:
    """Return the names of the tensors that came before DigestMismatch."""
    names = []

    def deliver() -> None:
        for name, _ in weights.tensors():
            names.append(name)

    with pytest.raises(DigestMismatch, match=r"model-00002-of-00002.safetensors: expected sha256:.* its tensors must not be"):
        deliver()
    return names


def equal(arrays: dict[str, Any]) -> bool:
    return {name: np.asarray(value).tobytes() for name, value in arrays.items()} == CONTENTS


class TestReading:
    def test_only_headers_are_read_when_it_is_opened(self, origin: Origin) -> None:
        weights = opened()
        assert {name: info.shape for name, info in weights.checkpoint.tensors.items()} == {
            name: value.shape for name, value in ARRAYS.items()
        }
        bodies = [each for each in origin.requests if each.origin == "cdn" and each.method == "GET"]
        assert len(bodies) == 2
        assert {each.range for each in bodies} == {"bytes=0-131071"}

    def test_tensors_come_in_the_order_of_the_files(self, origin: Origin) -> None:
        weights = opened()
        arrays = dict(weights.tensors())
        assert list(arrays) == [name for file in (FIRST, SECOND) for name in weights.checkpoint.tensors if name in file]
        assert equal(arrays)
        assert weights.verified_by == {f"{URI}/{name}": "sha256" for name in NAMES}
        assert weights.unverified == {}

    def test_everything_at_once_is_the_same(self, origin: Origin) -> None:
        assert equal(opened().load())

    def test_it_can_be_read_again(self, origin: Origin) -> None:
        weights = opened()
        assert equal(dict(weights.tensors()))
        assert equal(dict(weights.tensors()))

    def test_one_file_by_its_address(self, origin: Origin) -> None:
        address = origin.add_file("/some where/model.safetensors", save(SECOND))
        weights = opened(address)
        assert [shard.path for shard in weights.checkpoint.shards] == [address]
        assert np.asarray(weights.load()["b.large"]).tobytes() == SECOND["b.large"].tobytes()
        assert list(weights.unverified.values()) == ["its source publishes no digest or checksum of it"]

    def test_another_revision(self, origin: Origin) -> None:
        repository = origin.add_repo("org/tagged", {"model.safetensors": save({"x": np.array(1)})})
        origin.update_repo(repository, {"model.safetensors": save({"x": np.array(2)})}, revision="v2")
        assert [opened("hf://org/tagged", revision=revision).load()["x"] for revision in (None, "v2")] == [1, 2]

    def test_a_reading_that_is_left_early_ends_its_requests(self, origin: Origin) -> None:
        reading = opened().tensors()
        next(reading)
        del reading  # the fixture sees that no thread is left

    def test_many_readings_at_the_same_time(self, origin: Origin) -> None:
        weights = opened()
        results: list[bool] = []
        threads = [threading.Thread(target=lambda: results.append(equal(dict(weights.tensors())))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [True] * 3


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(Reset(after=3 * MiB), origin="cdn", times=4), id="connections that break inside the body"),
        pytest.param(Fault(Finish(after=MiB), origin="cdn", times=2), id="bodies that end early"),
        pytest.param(Fault(Stall(after=MiB), origin="cdn", times=1), id="a body that stalls"),
        pytest.param(Fault(ShortBody(missing=100), origin="cdn", times=1), id="a short body"),
        pytest.param(Fault(Status(503), origin="cdn", times=4), id="a burst of 503"),
        pytest.param(Fault(Status(403), origin="cdn", times=1, nth=3), id="an address that expires midway"),
        pytest.param(Fault(Status(502), origin="hub", times=2), id="a Hub that fails twice"),
    ],
)
def test_every_byte_arrives_after(fault: Fault, origin: Origin) -> None:
    origin.faults.add(fault)
    assert equal(dict(opened().tensors()))
    assert origin.faults.fired(fault) > 0


class TestVerification:
    def test_a_wrong_file_raises_before_its_last_tensor(self, origin: Origin) -> None:
        weights = opened()
        origin.faults.add(Fault(FlipBit(30 * MiB), origin="cdn"))
        origin.faults.add(Fault(FlipBit(15 * MiB), origin="cdn"))
        delivered = delivered_before_the_error(weights)
        assert set(delivered) < set(ARRAYS)
        assert weights.checkpoint.shards[-1].tensors[-1].name not in delivered

    def test_a_wrong_header_that_can_be_read_is_found_too(self, origin: Origin) -> None:
        whole = bytearray(FILES[NAMES[0]])
        at = whole.index(b"a.odd")
        fault = origin.faults.add(Fault(FlipBit(at), origin="cdn", path=NAMES[0]))
        weights = opened()
        origin.faults.remove(fault)
        assert "a.odd" not in weights.checkpoint.tensors
        with pytest.raises(DigestMismatch, match=NAMES[0]):
            weights.load()

    def test_held_back_until_it_is_verified(self, origin: Origin) -> None:
        weights = opened(verify="before")
        origin.faults.add(Fault(FlipBit(15 * MiB), origin="cdn"))
        delivered = delivered_before_the_error(weights)
        assert set(delivered) == set(FIRST)
        origin.faults.clear()
        assert equal(dict(weights.tensors()))

    def test_a_part_of_a_file_is_not_verified_and_said_so(self, origin: Origin) -> None:
        weights = opened()
        assert [name for name, _ in weights.tensors(["a.odd", "b.large", "b.scalar"])] == ["a.odd", "b.large", "b.scalar"]
        assert weights.unverified == {
            f"{URI}/{NAMES[0]}": "only 1 of its 3 tensors are read",
            f"{URI}/{NAMES[1]}": "its tensors are not read in their order",
        } or weights.unverified == {f"{URI}/{NAMES[0]}": "only 1 of its 3 tensors are read"}

    def test_a_part_cannot_be_held_back(self, origin: Origin) -> None:
        with pytest.raises(DigestUnavailable, match="only 1 of its 3 tensors are read"):
            list(opened(verify="before").tensors(["a.odd"]))

    def test_a_required_digest_that_is_not_published_is_an_error(self, origin: Origin) -> None:
        address = origin.add_file("/model.safetensors", save(SECOND))
        with pytest.raises(DigestUnavailable, match="--require-digests"):
            opened(address, require_digests=True)

    def test_a_required_digest_that_a_part_cannot_have_is_an_error(self, origin: Origin) -> None:
        with pytest.raises(DigestUnavailable, match="only 1 of its 3 tensors are read"):
            list(opened(require_digests=True).tensors(["a.odd"]))

    @pytest.mark.parametrize("tensors", [{}, {"nothing": np.zeros((0, 4), np.float32)}], ids=["none", "one without elements"])
    def test_a_file_of_a_header_alone_is_verified_when_it_is_opened(
        self, origin: Origin, tensors: dict[str, np.ndarray[Any, Any]]
    ) -> None:
        origin.add_repo("org/empty", {"model.safetensors": save(tensors, {"note": "x" * 2 * MiB})})
        assert opened("hf://org/empty").load().keys() == tensors.keys()
        origin.faults.add(Fault(FlipBit(MiB), origin="cdn"))
        with pytest.raises(DigestMismatch):
            opened("hf://org/empty")


class TestWhatIsRefused:
    def test_a_source_without_ranges(self, origin: Origin) -> None:
        origin.faults.add(Fault(IgnoreRange(), origin="cdn"))
        with pytest.raises(UsageError, match=r"cannot send a part of a file.*fetcher fetch"):
            opened().load()

    def test_a_source_that_stays_away(self, origin: Origin) -> None:
        weights = opened(retry_for=0.5)
        origin.faults.add(Fault(Status(500), origin="cdn"))
        with pytest.raises(Unreachable, match="gave up"):
            weights.load()

    def test_an_artifact_without_weights(self, origin: Origin) -> None:
        origin.add_repo("org/none", {"config.json": b"{}", "sub/model.safetensors": save(SECOND)})
        with pytest.raises(NotFound, match=r"hf://org/none has no .safetensors files; .* sub"):
            opened("hf://org/none")

    def test_a_missing_shard(self, origin: Origin) -> None:
        origin.add_repo("org/part", {name: FILES[name] for name in FILES if name != NAMES[1]})
        with pytest.raises(NotFound, match=f"{NAMES[1]} is missing"):
            opened("hf://org/part")

    def test_a_malformed_header(self, origin: Origin) -> None:
        origin.add_repo("org/bad", {"model.safetensors": b"\xff" * 8 + b"x" * 100})
        with pytest.raises(MalformedCheckpoint, match=r"hf://org/bad/model.safetensors: header length"):
            opened("hf://org/bad")

    def test_a_web_page_in_place_of_a_file(self, origin: Origin) -> None:
        origin.add_repo("org/page", {"model.safetensors": b"<html>log in</html>"})
        with pytest.raises(MalformedCheckpoint, match=r"hf://org/page/model.safetensors: it is a web page"):
            opened("hf://org/page")

    def test_a_private_repository_without_a_token(self, origin: Origin) -> None:
        origin.add_repo("org/private", FILES, private=True, readers=["secret-token"])
        with pytest.raises(Unauthorized):
            opened("hf://org/private")
        access = HttpAccess.bearer("secret-token")
        assert equal(opened("hf://org/private", credentials=access).load())

    def test_a_strategy_of_local_files(self) -> None:
        with pytest.raises(UsageError, match="strategy direct is for files of this machine"):
            loader.open(URI, strategy="direct")

    def test_options_of_an_address_for_a_path(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="revision is for an address"):
            loader.open(tmp_path, revision="main")

    def test_options_that_have_no_meaning_without_a_disk(self) -> None:
        with pytest.raises(UsageError, match="open_source takes no cache_dir"):
            loader.open(URI, cache_dir="/models")


class TestOpenSource:
    def test_ranges_of_files_for_any_thread(self, origin: Origin) -> None:
        with api.open_source(URI, include=["*.json"]) as artifact:
            files = {file.path: file for file in artifact.files}
            assert files.keys() == {"config.json", "model.safetensors.index.json"}
            buffer = memoryview(bytearray(5))
            artifact.read(files["model.safetensors.index.json"], ByteRange(2, 7), buffer)
            assert buffer == FILES["model.safetensors.index.json"][2:7]

    def test_nothing_can_be_read_after_it_is_closed(self, origin: Origin) -> None:
        artifact = api.open_source(URI)
        artifact.close()
        artifact.close()
        with pytest.raises(RuntimeError, match="closed"):
            artifact.read(artifact.files[0], ByteRange(0, 1), memoryview(bytearray(1)))

    def test_closing_ends_a_range_that_is_being_read(self, origin: Origin) -> None:
        artifact = api.open_source(URI, retry_for=60.0, timeout_stall=60.0)
        (file,) = artifact.described([each for each in artifact.files if each.path == NAMES[1]])
        stall = origin.faults.add(Fault(Stall(after=0), origin="cdn"))
        errors: list[BaseException] = []

        def read() -> None:
            try:
                artifact.read(file, ByteRange(0, 8), memoryview(bytearray(8)))
            except BaseException as error:  # noqa: BLE001  compared below
                errors.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        while not origin.faults.fired(stall):
            pass
        artifact.close()
        thread.join(10)
        assert not thread.is_alive()
        assert len(errors) == 1

    def test_it_stays_in_its_process(self, origin: Origin) -> None:
        with api.open_source(URI) as artifact:
            with pytest.raises(TypeError, match="open it again"):
                pickle.dumps(artifact)
            child = os.fork()
            if child == 0:
                try:
                    artifact.read(artifact.files[0], ByteRange(0, 1), memoryview(bytearray(1)))
                except RuntimeError:
                    os._exit(7)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


class TestCommand:
    def test_it_tells_what_was_loaded_and_how_it_was_verified(self, origin: Origin) -> None:
        done = run_loader("load", URI)
        assert done.returncode == 0, done.stderr
        assert "5 tensors, 29.0 MiB in" in done.stdout
        assert "stream: the bytes come from the source" in done.stdout
        assert "2 files verified by sha256" in done.stdout

    def test_json_has_the_same(self, origin: Origin) -> None:
        fields = json.loads(run_loader("load", URI, "--json", "--verify", "before", "--revision", "main").stdout)
        assert (fields["strategy"], fields["verified_by"], fields["unverified"]) == ("stream", {"sha256": 2}, {})

    def test_a_wrong_byte_ends_with_its_exit_code(self, origin: Origin) -> None:
        origin.faults.add(Fault(FlipBit(15 * MiB), origin="cdn"))
        done = run_loader("load", URI)
        assert done.returncode == 65
        assert last_line(done.stderr).startswith(f"DigestMismatch: {NAMES[1]}: expected sha256:")

    def test_a_secret_in_an_address_is_not_shown(self, origin: Origin) -> None:
        address = origin.add_file("/model.safetensors", save(SECOND)) + "?signature=hush"
        done = run_loader("load", address, "--json")
        assert done.returncode == 0, done.stderr
        assert "hush" not in done.stdout + done.stderr


class TestStore:
    """A real store, whose checksums need no order."""

    @pytest.fixture
    def uri(self, s3_server: S3Server, s3_client: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> str:
        require_crcs()
        for name, content in FILES.items():
            s3_client.put_object(Bucket=bucket, Key=f"model/{name}", Body=content, ChecksumAlgorithm="CRC32")
        for name, value in {
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": s3_server.endpoint,
        }.items():
            monkeypatch.setenv(name, value)
        return f"s3://{bucket}/model"

    def test_tensors_come_verified_by_the_checksum_of_the_store(self, uri: str) -> None:
        weights = opened(uri)
        assert equal(dict(weights.tensors()))
        assert set(weights.verified_by.values()) == {"crc32"}

    def test_a_wrong_byte_is_found(self, uri: str, s3_server: S3Server) -> None:
        access = S3Access(S3Keys(KEY_ID, SECRET), endpoint="")
        with in_front_of(s3_server.host, s3_server.port) as front:
            weights = opened(uri, credentials=dataclasses.replace(access, endpoint=front.endpoint))
            front.faults.add(Fault(FlipBit(15 * MiB), method="GET"))
            with pytest.raises(DigestMismatch, match=f"{NAMES[1]}: expected crc32:"):
                weights.load()

    def test_the_command_reads_it(self, uri: str) -> None:
        done = run_loader("load", uri)
        assert done.returncode == 0, done.stderr
        assert "2 files verified by crc32" in done.stdout
