"""`s3://` on servers with quirks: moto, which takes every key, and rclone, which ignores conditions."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from zlib import crc32

import pytest

from fetcher.artifact import ByteRange, Checksum
from fetcher.errors import ContentChanged, NotFound
from fetcher.sources.base import Source
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.conformance import MakeSource, SourceConformance, listing_of, read
from fetcher.testing.exchange import Request
from fetcher.testing.faults import Faults
from tests.lab.command import run_fetcher
from tests.lab.front import Front, Reply, in_front_of
from tests.lab.s3_servers import client_of
from tests.lab.seaweed import SECRET, S3Server
from tests.sources.s3_objects import UNEVEN, MiB, described, environment, put, source_of, uploaded


class OtherServer(SourceConformance):
    """The conformance suite on a server that the fixture `server` gives."""

    secret = SECRET

    @pytest.fixture
    def client(self, server: S3Server) -> Any:
        return client_of(server)

    @pytest.fixture
    def bucket(self, client: Any) -> str:
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        client.create_bucket(Bucket=name)
        return name

    @pytest.fixture
    def front(self, server: S3Server) -> Iterator[Front]:
        with in_front_of(server.host, server.port) as running:
            yield running

    @pytest.fixture
    def faults(self, front: Front) -> Faults:
        return front.faults

    @pytest.fixture
    def make_source(self, front: Front, client: Any, bucket: str) -> MakeSource:
        def make(files: Mapping[str, bytes]) -> Source:
            for each in client.list_objects_v2(Bucket=bucket).get("Contents", []):
                client.delete_object(Bucket=bucket, Key=each["Key"])
            put(client, bucket, {f"model/{path}": content for path, content in files.items()})
            return source_of(f"s3://{bucket}/model", front.endpoint)

        return make

    @pytest.fixture
    def missing_source(self, front: Front, bucket: str) -> Source:
        return source_of(f"s3://{bucket}/nothing", front.endpoint)


class TestMoto(OtherServer):
    @pytest.fixture
    def server(self, moto_server: S3Server) -> S3Server:
        return moto_server

    @pytest.mark.parametrize("key", ["m/../../etc/passwd", "m//etc/passwd", "m/a/../b", "m/a\\b", "m/./a"])
    def test_a_hostile_key_ends_the_fetch(self, server: S3Server, client: Any, bucket: str, key: str, tmp_path: Path) -> None:
        put(client, bucket, {"m/model.bin": b"1", key: b"2"})
        done = run_fetcher("fetch", f"s3://{bucket}/m", "--cache-dir", tmp_path / "root", env=environment(server))
        assert (done.returncode, last_word(done)) == (65, "HostilePath:")
        assert not list(tmp_path.rglob("model.bin"))

    def test_a_key_that_begins_with_a_slash_is_no_path(
        self, server: S3Server, client: Any, bucket: str, tmp_path: Path
    ) -> None:
        put(client, bucket, {"/etc/passwd": b"1"})
        done = run_fetcher("fetch", f"s3://{bucket}", "--cache-dir", tmp_path / "root", env=environment(server))
        assert (done.returncode, last_word(done)) == (65, "HostilePath:")

    def test_keys_that_differ_in_case_are_two_files_where_the_filesystem_has_two(
        self, server: S3Server, client: Any, bucket: str, tmp_path: Path, folding: Path
    ) -> None:
        put(client, bucket, {"m/Model.bin": b"1", "m/model.bin": b"2"})
        words = ("fetch", f"s3://{bucket}/m", "--json", "--cache-dir")
        done = run_fetcher(*words, tmp_path, env=environment(server))
        assert done.returncode == 0, done.stderr
        path = Path(json.loads(done.stdout)["path"])
        assert [(path / name).read_bytes() for name in ("Model.bin", "model.bin")] == [b"1", b"2"]
        refused = run_fetcher(*words, folding / "root", env=environment(server))
        assert (refused.returncode, last_word(refused)) == (73, "CannotWrite:")

    def test_a_key_of_1024_bytes_is_a_path_or_refused_before_anything_is_fetched(
        self, server: S3Server, client: Any, bucket: str, tmp_path: Path
    ) -> None:
        long = "/".join(["d" * 200] * 5)
        put(client, bucket, {f"m/{long}/{'f' * 17}": b"1"})
        place = ("--cache-dir", tmp_path, "--json")
        done = run_fetcher("fetch", f"s3://{bucket}/m", *place, env=environment(server))
        assert done.returncode == 0, done.stderr
        assert (Path(json.loads(done.stdout)["path"]) / long / ("f" * 17)).read_bytes() == b"1"
        put(client, bucket, {f"n/{'f' * 1022}": b"1", "n/model.bin": b"2"})
        refused = run_fetcher("fetch", f"s3://{bucket}/n", *place, env=environment(server))
        assert (refused.returncode, last_word(refused)) == (65, "HostilePath:")

    def test_an_archived_object_is_refused_before_anything_is_fetched(
        self, server: S3Server, front: Front, client: Any, bucket: str, tmp_path: Path
    ) -> None:
        put(client, bucket, {"m/a.bin": b"1"})
        put(client, bucket, {"m/b.bin": b"2"}, StorageClass="GLACIER")
        words = ("fetch", f"s3://{bucket}/m", "--cache-dir", tmp_path)
        done = run_fetcher(*words, env=environment(front))
        assert done.returncode == 66
        assert f"s3://{bucket}/m/b.bin is archived; restore it in the store first" in done.stderr.splitlines()[-1]
        assert not [each for each in front.requests if each.range]
        assert run_fetcher(*words, "--exclude", "b.bin", env=environment(front)).returncode == 0
        client.restore_object(Bucket=bucket, Key="m/b.bin", RestoreRequest={"Days": 1})
        restored = run_fetcher(*words, env=environment(front))
        assert restored.returncode == 0, restored.stderr

    async def test_an_archived_object_alone_is_refused_too(self, server: S3Server, client: Any, bucket: str) -> None:
        put(client, bucket, {"b.bin": b"2"}, StorageClass="DEEP_ARCHIVE")
        with pytest.raises(NotFound, match="restore it in the store first"):
            await described(source_of(f"s3://{bucket}/b.bin", server.endpoint))

    def test_a_checksum_that_is_wrong_at_the_store_is_a_mismatch(
        self, server: S3Server, client: Any, bucket: str, tmp_path: Path
    ) -> None:
        """moto publishes the CRC32 of the parts' CRC32s as that of the object."""
        uploaded(client, bucket, UNEVEN, "CRC32")
        done = run_fetcher("fetch", f"s3://{bucket}/model.bin", "--cache-dir", tmp_path, env=environment(server))
        assert (done.returncode, last_word(done)) == (65, "DigestMismatch:")
        assert "crc32" in done.stderr.splitlines()[-1]

    def test_the_etag_of_parts_of_different_sizes_is_compared(
        self, server: S3Server, client: Any, bucket: str, tmp_path: Path
    ) -> None:
        """moto knows no GetObjectAttributes, and answers a HEAD of a part with 200."""
        uploaded(client, bucket, UNEVEN, None)
        done = run_fetcher("fetch", f"s3://{bucket}/model.bin", "--cache-dir", tmp_path, "--json", env=environment(server))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["verified_by"] == {"md5": 1}

    def test_the_projected_token_of_a_pod_is_exchanged_at_sts(
        self, server: S3Server, front: Front, client: Any, bucket: str, tmp_path: Path
    ) -> None:
        (tmp_path / "token").write_text("eyJhbGciOi")
        put(client, bucket, {"m/model.bin": b"1"})
        env = {
            "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/models",
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
            "AWS_ENDPOINT_URL_STS": server.endpoint,
            "AWS_ENDPOINT_URL_S3": front.endpoint,
            "AWS_REGION": "us-east-1",
        }
        done = run_fetcher("fetch", f"s3://{bucket}/m", "--cache-dir", tmp_path / "root", env=env)
        assert done.returncode == 0, done.stderr
        keys = {each.headers["authorization"].partition("Credential=")[2].partition("/")[0] for each in front.requests}
        assert [key[:4] for key in keys] == ["ASIA"]
        assert all(each.headers["x-amz-security-token"] for each in front.requests)


class TestRclone:
    """rclone answers a range with 200 and Content-Range, so its objects come whole."""

    @pytest.fixture
    def client(self, rclone_server: S3Server) -> Any:
        return client_of(rclone_server)

    @pytest.fixture
    def bucket(self, client: Any) -> str:
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        client.create_bucket(Bucket=name)
        return name

    def test_objects_are_fetched_whole_and_compared(
        self, rclone_server: S3Server, client: Any, bucket: str, tmp_path: Path
    ) -> None:
        files = {"config.json": b"{}", "x/model.safetensors": random_bytes("rclone", 20 * MiB)}
        put(client, bucket, {f"m/{path}": content for path, content in files.items()})
        words = ("fetch", f"s3://{bucket}/m", "--cache-dir", tmp_path, "--require-checksums", "--json")
        done = run_fetcher(*words, env=environment(rclone_server))
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["verified_by"] == {"crc32": 2}
        assert {path: (Path(told["path"]) / path).read_bytes() for path in files} == files

    async def test_the_checksum_with_a_range_is_not_taken_for_that_of_the_range(
        self, rclone_server: S3Server, client: Any, bucket: str
    ) -> None:
        put(client, bucket, {"model.bin": b"w" * 1000})
        with in_front_of(rclone_server.host, rclone_server.port) as front:
            front.rule = partial(as_a_part, front)
            async with aclosing(source_of(f"s3://{bucket}/model.bin", front.endpoint)) as source:
                (file,) = await source.describe((await listing_of(source)).files)
                assert await read(source, file, ByteRange(10, 20)) == b"w" * 10
        assert file.checksums == (Checksum("crc32", crc32(b"w" * 1000).to_bytes(4).hex()),)

    async def test_an_object_that_is_replaced_is_noticed_although_if_match_is_ignored(
        self, rclone_server: S3Server, client: Any, bucket: str
    ) -> None:
        put(client, bucket, {"model.bin": b"a" * 1000})
        async with aclosing(source_of(f"s3://{bucket}/model.bin", rclone_server.endpoint)) as source:
            (file,) = (await listing_of(source)).files
            put(client, bucket, {"model.bin": b"b" * 1000})
            with pytest.raises(ContentChanged):
                await read(source, file)

    def test_a_wrong_secret_is_unauthorized(self, rclone_server: S3Server, bucket: str, tmp_path: Path) -> None:
        env = {**environment(rclone_server), "AWS_SECRET_ACCESS_KEY": "wr0ng"}
        done = run_fetcher("fetch", f"s3://{bucket}/m", "--cache-dir", tmp_path, env=env)
        assert (done.returncode, last_word(done)) == (77, "Unauthorized:")
        assert "wr0ng" not in done.stderr


def last_word(done: CompletedProcess[str]) -> str:
    """The reason word of the last line on stderr."""
    return done.stderr.splitlines()[-1].partition(" ")[0]


def as_a_part(front: Front, request: Request) -> Reply | None:
    """What rclone sends for a range, with the status that it should have."""
    if request.range is None:
        return None
    answer = front.forwarded(request)
    assert answer.status == 200
    return 206, dict(answer.headers), answer.body.read()
