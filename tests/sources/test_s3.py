"""`s3://` on a real server (SeaweedFS), with a front that can fail; its signatures against those of botocore."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from fetcher.artifact import ByteRange, Checksum
from fetcher.errors import (
    BadResponse,
    ConfigurationError,
    ContentChanged,
    HostilePath,
    NotFound,
    RateLimited,
    Unauthorized,
    Unreachable,
    UsageError,
)
from fetcher.sources.base import Source
from fetcher.sources.objects import Page
from fetcher.sources.s3 import S3Access, S3Keys
from fetcher.sources.s3.address import S3Address
from fetcher.sources.s3.addressing import address_of, at_home
from fetcher.sources.s3.documents import checksum_of, digest_of, even_parts, fitting_parts, parse_page, parse_parts
from fetcher.sources.s3.finding import found_access
from fetcher.sources.s3.signing import signed_headers
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.conformance import MakeSource, SourceConformance, again_at_once, listing_of, read
from fetcher.testing.effects import Body, FlipBit, Header, Status
from fetcher.testing.exchange import Request, Response
from fetcher.testing.faults import Fault, Faults
from tests.lab.command import run_fetcher
from tests.lab.front import Front, Reply, in_front_of
from tests.lab.seaweed import KEY_ID, SECRET, S3Server
from tests.sources.mirrored import Mirrored
from tests.sources.s3_objects import ERROR, KEYS, UNEVEN, MiB, described, environment, put, source_of, uploaded


@pytest.fixture
def front(s3_server: S3Server) -> Iterator[Front]:
    with in_front_of(s3_server.host, s3_server.port) as running:
        yield running


class TestConformance(SourceConformance):
    secret = SECRET
    options: ClassVar[dict[str, str]] = {}

    @pytest.fixture
    def faults(self, front: Front) -> Faults:
        return front.faults

    @pytest.fixture
    def make_source(self, front: Front, s3_client: Any, bucket: str) -> MakeSource:
        def make(files: Mapping[str, bytes]) -> Source:
            for each in s3_client.list_objects_v2(Bucket=bucket).get("Contents", []):
                s3_client.delete_object(Bucket=bucket, Key=each["Key"])
            put(s3_client, bucket, {f"model/{path}": content for path, content in files.items()}, **self.options)
            return source_of(f"s3://{bucket}/model", front.endpoint)

        return make

    @pytest.fixture
    def missing_source(self, front: Front, bucket: str) -> Source:
        return source_of(f"s3://{bucket}/nothing", front.endpoint)


class TestConformanceWithMirrors(Mirrored, TestConformance):
    options: ClassVar = {"ChecksumAlgorithm": "SHA256"}
    brings: ClassVar = "a peer"


async def listed(source: Source) -> dict[str, int | None]:
    async with aclosing(source):
        return {file.path: file.size for file in (await listing_of(source)).files}


class TestWhichObjects:
    async def test_a_prefix_ends_at_a_slash(self, s3_client: Any, bucket: str, s3_server: S3Server) -> None:
        put(s3_client, bucket, {"llama/a": b"1", "llama-old/b": b"22", "llama.txt": b"333"})
        assert await listed(source_of(f"s3://{bucket}/llama", s3_server.endpoint)) == {"a": 1}
        assert await listed(source_of(f"s3://{bucket}/llama/", s3_server.endpoint)) == {"a": 1}

    async def test_one_object_is_one_file(self, s3_client: Any, bucket: str, s3_server: S3Server) -> None:
        put(s3_client, bucket, {"dir/model.bin": b"weights", "dir/model.bin.old": b"w"})
        assert await listed(source_of(f"s3://{bucket}/dir/model.bin", s3_server.endpoint)) == {"model.bin": 7}

    async def test_a_whole_bucket_is_an_artifact_too(self, s3_client: Any, bucket: str, s3_server: S3Server) -> None:
        put(s3_client, bucket, {"a": b"1", "b/c": b"22", "d e+f%20": b"333", "\u00fc/x": b""})
        for uri in (f"s3://{bucket}", f"s3://{bucket}/"):
            assert await listed(source_of(uri, s3_server.endpoint)) == {"a": 1, "b/c": 2, "d e+f%20": 3, "\u00fc/x": 0}

    async def test_a_directory_of_the_prefixes_own_name_keeps_its_place(
        self, s3_client: Any, bucket: str, s3_server: S3Server
    ) -> None:
        put(s3_client, bucket, {"model/model/x": b"1", "model/y": b"22"})
        assert await listed(source_of(f"s3://{bucket}/model", s3_server.endpoint)) == {"model/x": 1, "y": 2}

    async def test_more_objects_than_a_page_has(self, s3_client: Any, bucket: str, front: Front) -> None:
        front.faults.add(Fault(Header("X-Nothing", "")))
        put(s3_client, bucket, {f"m/{number:04}": b"x" for number in range(1005)})
        assert len(await listed(source_of(f"s3://{bucket}/m", front.endpoint))) == 1005
        assert len([each for each in front.requests if "list-type" in each.query]) == 2

    async def test_a_version_of_an_object_stays_readable(self, s3_client: Any, bucket: str, s3_server: S3Server) -> None:
        s3_client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        first = s3_client.put_object(Bucket=bucket, Key="model.bin", Body=b"first")["VersionId"]
        s3_client.put_object(Bucket=bucket, Key="model.bin", Body=b"second version")
        for uri, revision in ((f"s3://{bucket}/model.bin?versionId={first}", None), (f"s3://{bucket}/model.bin", first)):
            async with aclosing(source_of(uri, s3_server.endpoint, revision=revision)) as source:
                (file,) = (await listing_of(source)).files
                assert await read(source, file) == b"first"

    async def test_a_version_that_a_store_ignores_is_not_found(self, s3_client: Any, bucket: str, front: Front) -> None:
        put(s3_client, bucket, {"model.bin": b"newest"})
        front.faults.add(Fault(Header("x-amz-version-id", None)))
        with pytest.raises(NotFound, match="no version 3"):
            await listed(source_of(f"s3://{bucket}/model.bin", front.endpoint, revision="3"))

    async def test_a_missing_bucket_and_a_missing_key_are_named(self, bucket: str, s3_server: S3Server) -> None:
        for uri in ("s3://no-such-bucket/model", f"s3://{bucket}/no/such/key"):
            with pytest.raises(NotFound, match=uri):
                await listed(source_of(uri, s3_server.endpoint))


class TestPins:
    async def test_an_object_that_is_replaced_meanwhile_is_noticed_by_if_match(
        self, s3_client: Any, bucket: str, s3_server: S3Server
    ) -> None:
        put(s3_client, bucket, {"model.bin": b"a" * 1000})
        async with aclosing(source_of(f"s3://{bucket}/model.bin", s3_server.endpoint)) as source:
            (file,) = (await listing_of(source)).files
            put(s3_client, bucket, {"model.bin": b"b" * 1000})
            with pytest.raises(ContentChanged, match="replaced or removed at the store"):
                await read(source, file, ByteRange(0, 10))

    @pytest.mark.parametrize(("times", "code"), [(3, 0), (None, 75)])
    def test_an_object_that_is_replaced_again_and_again_is_listed_three_times_more(
        self, s3_client: Any, bucket: str, s3_server: S3Server, tmp_path: Path, times: int | None, code: int
    ) -> None:
        put(s3_client, bucket, {"m/model.bin": b"0"})
        replaced: list[int] = []

        class Writer(Front):
            """Replaces the object before each read of it."""

            def answer(self, request: Request) -> Response:
                if "if-match" in request.headers and (times is None or len(replaced) < times):
                    replaced.append(len(replaced) + 1)
                    put(s3_client, bucket, {"m/model.bin": str(replaced[-1]).encode()})
                return super().answer(request)

        with in_front_of(s3_server.host, s3_server.port, Writer(s3_server.host, s3_server.port)) as front:
            env = environment(front)
            done = run_fetcher("fetch", f"s3://{bucket}/m", "--cache-dir", tmp_path, env=env)
        assert done.returncode == code, done.stderr
        assert len(replaced) == (times or 4)
        if code:
            assert done.stderr.splitlines()[-1].startswith("KeepsChanging: ")
        else:
            assert (Path(done.stdout.strip()) / "model.bin").read_bytes() == b"3"

    @pytest.mark.parametrize(
        ("status", "code", "error"),
        [
            (404, "NoSuchKey", ContentChanged),
            (301, "PermanentRedirect", ConfigurationError),
            (400, "RequestTimeout", Unreachable),
            (500, "InternalError", Unreachable),
        ],
    )
    async def test_a_range_of_a_listed_object_that_is_refused(
        self, s3_client: Any, bucket: str, front: Front, status: int, code: str, error: type[Exception]
    ) -> None:
        put(s3_client, bucket, {"model.bin": b"a" * 1000})
        async with aclosing(source_of(f"s3://{bucket}/model.bin", front.endpoint)) as source:
            (file,) = (await listing_of(source)).files
            front.faults.add(Fault(Status(status, (), ERROR.format(code).encode())))
            with pytest.raises(error):
                await read(source, file, ByteRange(0, 10))

    async def test_a_server_that_ignores_if_match_is_found_by_its_etag(self, s3_client: Any, bucket: str, front: Front) -> None:
        put(s3_client, bucket, {"model.bin": b"a" * 1000})
        async with aclosing(source_of(f"s3://{bucket}/model.bin", front.endpoint)) as source:
            (file,) = (await listing_of(source)).files
            front.faults.add(Fault(Header("ETag", '"0123"')))
            with pytest.raises(ContentChanged):
                await read(source, file, ByteRange(0, 10))


POLYNOMIALS = {"CRC32": (32, 0xEDB88320), "CRC32C": (32, 0x82F63B78), "CRC64NVME": (64, 0x9A6C9329AC4BC9B5)}


def published(algorithm: str, content: bytes) -> bytes:
    """The checksum of `content` as the uploader gives it, bit by bit."""
    if algorithm == "SHA256":
        return hashlib.sha256(content).digest()
    width, polynomial = POLYNOMIALS[algorithm]
    value = (1 << width) - 1
    for byte in content:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (polynomial if value & 1 else 0)
    return (value ^ (1 << width) - 1).to_bytes(width // 8, "big")


def without_attributes(request: Request) -> Reply | None:
    """The answer of a store that does not know GetObjectAttributes."""
    return (501, {}, ERROR.format("NotImplemented").encode()) if "attributes" in request.query else None


class TestChecksums:
    @pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA256"])
    async def test_what_the_uploader_chose_is_described(
        self, s3_client: Any, bucket: str, s3_server: S3Server, algorithm: str
    ) -> None:
        content = b"weights" * 1000
        value = base64.b64encode(published(algorithm, content)).decode()
        put(s3_client, bucket, {"model.bin": content}, **{f"Checksum{algorithm}": value})
        async with aclosing(source_of(f"s3://{bucket}/model.bin", s3_server.endpoint)) as source:
            (file,) = await source.describe((await listing_of(source)).files)
        if algorithm == "SHA256":
            assert [each.hex for each in file.digests] == [hashlib.sha256(content).hexdigest()]
        else:
            assert file.checksums == (Checksum(algorithm.lower(), published(algorithm, content).hex()),)  # type: ignore[arg-type]

    @pytest.mark.parametrize("algorithm", ["CRC32", None])
    @pytest.mark.parametrize("listed", [True, False], ids=["parts are listed", "parts are asked for one by one"])
    async def test_an_upload_in_parts_of_different_sizes_is_described_with_them(
        self, s3_client: Any, bucket: str, front: Front, algorithm: str | None, listed: bool
    ) -> None:
        if not listed:
            front.rule = without_attributes
        uploaded(s3_client, bucket, UNEVEN, algorithm)
        (checksum,) = (await described(source_of(f"s3://{bucket}/model.bin", front.endpoint))).checksums
        assert (checksum.algorithm, checksum.parts) == ("crc32" if algorithm else "md5", tuple(map(len, UNEVEN)))
        if checksum.algorithm == "md5":
            whole = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in UNEVEN)).hexdigest()  # noqa: S324
            assert checksum.hex == whole

    @pytest.mark.parametrize("algorithm", ["CRC32", None])
    def test_an_upload_in_parts_of_different_sizes_is_compared(
        self, s3_client: Any, bucket: str, front: Front, tmp_path: Path, algorithm: str | None
    ) -> None:
        uploaded(s3_client, bucket, UNEVEN, algorithm)
        words = ("fetch", f"s3://{bucket}/model.bin", "--cache-dir", tmp_path, "--require-checksums", "--json")
        done = run_fetcher(*words, env=environment(front))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["verified_by"] == {"crc32" if algorithm else "md5": 1}
        front.faults.add(Fault(FlipBit(7 * MiB)))
        assert run_fetcher(*words[:3], tmp_path / "other", env=environment(front)).returncode == 65

    @pytest.mark.parametrize("get", [400, 206], ids=["GET is refused too", "only HEAD is refused"])
    async def test_a_store_that_does_not_tell_the_parts_leaves_size_and_validator(
        self, s3_client: Any, bucket: str, front: Front, tmp_path: Path, get: int
    ) -> None:
        def rule(request: Request) -> Reply | None:
            if "partNumber" in request.query:
                return (400, {}, b"") if request.method == "HEAD" else (get, {}, b"x")
            return without_attributes(request)

        front.rule = rule
        uploaded(s3_client, bucket, UNEVEN, "CRC32")
        assert (await described(source_of(f"s3://{bucket}/model.bin", front.endpoint))).checksums == ()
        words = ("fetch", f"s3://{bucket}/model.bin", "--cache-dir", tmp_path, "--json")
        done = run_fetcher(*words, env=environment(front))
        assert json.loads(done.stdout)["verified_by"] == {"size": 1}
        refused = run_fetcher(*words, "--require-checksums", env=environment(front))
        assert refused.returncode == 65
        assert "model.bin" in refused.stderr.splitlines()[-1]

    async def test_what_the_store_told_of_parts_is_not_asked_again_after_a_failure(
        self, s3_client: Any, bucket: str, front: Front
    ) -> None:
        front.rule = without_attributes
        uploaded(s3_client, bucket, UNEVEN, None)
        front.faults.add(Fault(Status(503, (), ERROR.format("SlowDown").encode()), path="^3$", times=1))
        file = await described(source_of(f"s3://{bucket}/model.bin", front.endpoint), ask=again_at_once)
        assert file.checksums[0].parts == tuple(map(len, UNEVEN))
        assert [each.query["partNumber"] for each in front.requests if "partNumber" in each.query] == ["1", "2", "3", "3", "4"]

    def test_the_best_one_is_taken(self) -> None:
        crc32, crc64 = {"x-amz-checksum-crc32": "AAAAAA=="}, {"x-amz-checksum-crc64nvme": "AAAAAAAAAAA="}
        etag = "0" * 32
        assert checksum_of(crc32 | crc64, etag, ()) == Checksum("crc64nvme", "0" * 16)
        assert checksum_of(crc32, etag, ()) == Checksum("crc32", "0" * 8)
        assert checksum_of({}, etag, ()) == Checksum("md5", etag)
        assert checksum_of({}, f"{etag}-2", (10, 5)) == Checksum("md5", etag, (10, 5))
        assert checksum_of({"x-amz-checksum-crc32c": "AAAAAA==-2"}, "", (10, 5)) == Checksum("crc32c", "0" * 8, (10, 5))

    @pytest.mark.parametrize("parts", [(), (15,), (5, 5, 5)])
    def test_a_composite_whose_parts_do_not_fit_is_none(self, parts: tuple[int, ...]) -> None:
        assert checksum_of({"x-amz-checksum-crc32c": "AAAAAA==-2"}, f"{'0' * 32}-2", parts) is None

    @pytest.mark.parametrize("parts", [(), (15,), (5, 5, 5), (10, 0), (10, 6), (16, -1)])
    def test_parts_that_do_not_make_up_the_object_are_none(self, parts: tuple[int, ...]) -> None:
        assert fitting_parts(parts, 15, 2) == ()
        assert fitting_parts((10, 5), 15, 2) == (10, 5)

    def test_of_many_parts_some_have_to_show_that_all_are_equally_large(self) -> None:
        assert even_parts({1: 8, 75: 8, 150: 3}, 149 * 8 + 3, 150) == (*([8] * 149), 3)
        assert even_parts({1: 8, 75: 9, 150: 3}, 149 * 8 + 3, 150) == ()
        assert even_parts({1: 8, 75: 8, 150: 4}, 149 * 8 + 3, 150) == ()
        assert even_parts({1: 8, 75: 8}, 149 * 8 + 3, 150) == ()

    def test_parts_are_in_the_order_of_their_numbers(self) -> None:
        parts = "".join(f"<Part><PartNumber>{number}</PartNumber><Size>{number}</Size></Part>" for number in (10, 2, 1))
        more = "<IsTruncated>true</IsTruncated><NextPartNumberMarker>10</NextPartNumberMarker>"
        for tail, marker in (("", None), (more, "10")):
            text = f"<GetObjectAttributesResponse><ObjectParts>{parts}{tail}</ObjectParts></GetObjectAttributesResponse>"
            assert parse_parts(text.encode()) == ((1, 2, 10), marker)

    @pytest.mark.parametrize(
        "data",
        [b"", b"weights", b"<a/>", b"<a><ObjectParts><Part><Size>-1</Size></Part></ObjectParts></a>", b"<!DOCTYPE a><a/>"],
    )
    def test_what_tells_no_parts_has_none(self, data: bytes) -> None:
        assert parse_parts(data) == ((), None)

    @pytest.mark.parametrize("header", ["x-amz-server-side-encryption", "x-amz-server-side-encryption-customer-algorithm"])
    def test_the_etag_of_an_encrypted_object_is_no_md5(self, header: str) -> None:
        assert checksum_of({header: "aws:kms"}, "0" * 32, ()) is None

    def test_the_sha256_of_parts_is_no_digest(self) -> None:
        value = "A" * 43 + "="
        assert digest_of({"x-amz-checksum-sha256": value}) is not None
        assert digest_of({"x-amz-checksum-sha256": value, "x-amz-checksum-type": "COMPOSITE"}) is None
        assert digest_of({"x-amz-checksum-sha256": f"{value}-2"}) is None


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "code", "error"),
        [
            (403, "AccessDenied", Unauthorized),
            (403, "SignatureDoesNotMatch", Unauthorized),
            (400, "ExpiredToken", Unauthorized),
            (403, "InvalidObjectState", NotFound),
            (404, "NoSuchBucket", NotFound),
            (403, "RequestTimeTooSkewed", ConfigurationError),
            (301, "PermanentRedirect", ConfigurationError),
            (400, "AuthorizationHeaderMalformed", ConfigurationError),
            (503, "SlowDown", RateLimited),
        ],
    )
    async def test_each_code_has_its_error(
        self, s3_client: Any, bucket: str, front: Front, status: int, code: str, error: type[Exception]
    ) -> None:
        put(s3_client, bucket, {"m/a": b"1"})
        front.faults.add(Fault(Status(status, (), ERROR.format(code).encode())))
        async with aclosing(source_of(f"s3://{bucket}/m/", front.endpoint)) as source:
            with pytest.raises(error):
                await source.resolve()

    async def test_a_wrong_secret_is_unauthorized_and_not_shown(self, s3_client: Any, bucket: str, s3_server: S3Server) -> None:
        put(s3_client, bucket, {"m/a": b"1"})
        with pytest.raises(Unauthorized) as caught:
            await listed(source_of(f"s3://{bucket}/m", s3_server.endpoint, keys=S3Keys(KEY_ID, "wr0ng-s3cret")))
        assert "wr0ng-s3cret" not in str(caught.value)

    @pytest.mark.parametrize("endpoint", ["https://s3.amazonaws.com", "https://s3.amazonaws.com/"])
    def test_amazons_own_endpoint_is_no_other_store(self, endpoint: str) -> None:
        access = at_home(S3Access(KEYS, "eu-west-1", endpoint))
        assert address_of("b", "k", {}, access, "eu-west-1") == "https://b.s3.eu-west-1.amazonaws.com/k"

    @pytest.mark.parametrize(
        ("bucket", "region", "host"),
        [
            ("b", "us-west-2", "b.s3.us-west-2.amazonaws.com/k"),
            ("b.c", "us-west-2", "s3.us-west-2.amazonaws.com/b.c/k"),
            ("b", "cn-north-1", "b.s3.cn-north-1.amazonaws.com.cn/k"),
        ],
    )
    def test_each_region_has_its_host(self, bucket: str, region: str, host: str) -> None:
        assert address_of(bucket, "k", {}, S3Access(KEYS), region) == f"https://{host}"

    def test_a_default_port_is_not_signed(self) -> None:
        urls = [f"https://h{port}/b" for port in ("", ":443", ":9000")]
        of = [signed_headers("GET", url, KEYS, region="r", now=0)["Authorization"] for url in urls]
        assert (of[0] == of[1], of[0] == of[2]) == (True, False)

    async def test_keys_that_expire_midway_are_renewed_and_nothing_is_lost(
        self, s3_client: Any, bucket: str, front: Front
    ) -> None:
        put(s3_client, bucket, {"model.bin": b"w" * 1000})
        renewals: list[int] = []

        def renew() -> S3Keys:
            renewals.append(1)
            return dataclasses.replace(KEYS, expires=time.time() + 3600)

        async with aclosing(source_of(f"s3://{bucket}/model.bin", front.endpoint, renew=renew)) as source:
            (file,) = (await listing_of(source)).files
            front.faults.add(Fault(Status(400, (), ERROR.format("ExpiredToken").encode()), times=1))
            assert await read(source, file) == b"w" * 1000
        assert renewals == [1]

    async def test_keys_that_are_about_to_expire_are_renewed_before_they_are_used(
        self, s3_client: Any, bucket: str, s3_server: S3Server
    ) -> None:
        put(s3_client, bucket, {"model.bin": b"w"})
        old = S3Keys("AKIDOLD", "old", expires=time.time() + 5)
        source = source_of(f"s3://{bucket}/model.bin", s3_server.endpoint, keys=old, renew=lambda: KEYS)
        assert await listed(source) == {"model.bin": 1}

    async def test_a_wrong_clock_is_corrected_once_by_that_of_the_server(
        self, s3_client: Any, bucket: str, front: Front
    ) -> None:
        put(s3_client, bucket, {"m/a": b"1"})
        now = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        skewed = Status(403, (("Date", now),), ERROR.format("RequestTimeTooSkewed").encode())
        front.faults.add(Fault(skewed, times=1))
        assert await listed(source_of(f"s3://{bucket}/m/", front.endpoint)) == {"a": 1}

    @pytest.mark.parametrize(
        ("code", "error"), [("ExpiredToken", None), ("RequestTimeTooSkewed", None), ("AccessDenied", Unauthorized)]
    )
    async def test_a_refused_head_is_explained_by_a_get(
        self, s3_client: Any, bucket: str, front: Front, code: str, error: type[Exception] | None
    ) -> None:
        """The answer to HEAD has no document. What can be corrected is, for a single object too."""
        put(s3_client, bucket, {"model.bin": b"w"})
        now = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        refusal = Status(403, (("Date", now),), ERROR.format(code).encode())
        front.faults.add(Fault(refusal, times=2 if error is None else None))
        renewed = dataclasses.replace(KEYS, expires=time.time() + 3600)
        source = source_of(f"s3://{bucket}/model.bin", front.endpoint, renew=lambda: renewed)
        if error is None:
            assert await listed(source) == {"model.bin": 1}
        else:
            with pytest.raises(error):
                await listed(source)

    async def test_requester_pays_is_said_and_signed(self, s3_client: Any, bucket: str, front: Front) -> None:
        put(s3_client, bucket, {"m/a": b"1"})
        await listed(source_of(f"s3://{bucket}/m/", front.endpoint, requester_pays=True))
        assert {each.headers.get("x-amz-request-payer") for each in front.requests} == {"requester"}

    async def test_two_tenants_of_one_process_use_their_own_keys(
        self, s3_client: Any, bucket: str, s3_server: S3Server
    ) -> None:
        put(s3_client, bucket, {"m/a": b"1"})
        assert await listed(source_of(f"s3://{bucket}/m", s3_server.endpoint)) == {"a": 1}
        with pytest.raises(Unauthorized):
            await listed(source_of(f"s3://{bucket}/m", s3_server.endpoint, keys=S3Keys("AKIDOTHER", "other")))
        with pytest.raises(Unauthorized, match="no credentials were sent"):
            await listed(source_of(f"s3://{bucket}/m", s3_server.endpoint, keys=None))


def page(body: str) -> Page:
    return parse_page(f"<ListBucketResult>{body}</ListBucketResult>".encode(), where="s3://b/p")


class TestHostileListings:
    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"<Error/>",
            b"{}",
            b"\xff",
            b'<!DOCTYPE x [<!ENTITY a "b">]><ListBucketResult/>',
            b"<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>",
            b"<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>",
            b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        ],
    )
    def test_what_is_no_listing_is_a_bad_response(self, data: bytes) -> None:
        with pytest.raises(BadResponse):
            parse_page(data, where="s3://b/p")

    def test_keys_are_decoded_once(self) -> None:
        entry = "<Contents><Key>{}</Key><Size>1</Size><ETag>&quot;e&quot;</ETag></Contents>"
        assert page(f"<EncodingType>url</EncodingType>{entry.format('a%2Bb+c%2520')}").objects[0].key == "a+b c%20"
        assert page(entry.format("a%2Bb")).objects[0].key == "a%2Bb"

    async def test_a_listing_that_repeats_itself_ends(self, bucket: str, front: Front) -> None:
        more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
        front.faults.add(Fault(Body(f"<ListBucketResult>{more}</ListBucketResult>".encode())))
        with pytest.raises(BadResponse, match="repeats itself"):
            await listed(source_of(f"s3://{bucket}/m/", front.endpoint))

    async def test_a_listing_of_another_prefix_is_refused(self, bucket: str, front: Front) -> None:
        body = "<ListBucketResult><Contents><Key>other/a</Key><Size>1</Size></Contents></ListBucketResult>"
        front.faults.add(Fault(Body(body.encode())))
        with pytest.raises(BadResponse, match="is not below it"):
            await listed(source_of(f"s3://{bucket}/m/", front.endpoint))

    @pytest.mark.parametrize("key", ["m/../../etc/passwd", "m//etc/passwd", "m/a/../b", "m/a\\b", "m/a&#10;b"])
    async def test_a_hostile_key_never_becomes_a_path(self, bucket: str, front: Front, tmp_path: Path, key: str) -> None:
        import fetcher

        body = f"<ListBucketResult><Contents><Key>{key}</Key><Size>1</Size></Contents></ListBucketResult>"
        front.faults.add(Fault(Body(body.encode())))
        access = S3Access(KEYS, endpoint=front.endpoint)
        with pytest.raises(HostilePath):
            await fetcher.fetch_async(f"s3://{bucket}/m/", cache_dir=tmp_path, credentials=access)


class TestAddresses:
    def test_a_key_may_contain_what_other_addresses_may_not(self) -> None:
        assert S3Address.parse("s3://bucket/a b#c?d%20", None) == S3Address("bucket", "a b#c?d%20")
        assert S3Address.parse("S3://bucket", None) == S3Address("bucket", "")

    @pytest.mark.parametrize(
        "uri",
        ["s3://", "s3:///key", "s3://arn:aws:s3:eu:1:accesspoint/x", "s3://b--x-s3/key", "s3://user:pw@bucket/key", "s3://-/"],
    )
    def test_what_is_no_bucket_is_a_usage_error(self, uri: str) -> None:
        with pytest.raises(UsageError):
            S3Address.parse(uri, None)

    def test_two_versions_contradict_each_other(self) -> None:
        with pytest.raises(UsageError, match="version one and"):
            S3Address.parse("s3://bucket/key?versionId=one", "two")


class TestCredentials:
    def test_keys_in_the_environment_need_no_library(self) -> None:
        environ = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "hidden", "AWS_REGION": "eu-west-1"}
        with patch.dict("sys.modules", {"botocore.session": None}):
            access = found_access(environ)
        assert access == S3Access(S3Keys("AKID", "hidden"), "eu-west-1", given_by="AWS_ACCESS_KEY_ID")
        assert "hidden" not in repr(access)

    def test_without_library_a_profile_is_one_sentence(self) -> None:
        with patch.dict("sys.modules", {"botocore.session": None}):
            with pytest.raises(ConfigurationError, match=r"pip install 'weightlift\[s3\]'"):
                found_access({"AWS_PROFILE": "work"})
            assert found_access({}) == S3Access()

    def test_a_profile_gives_keys_region_and_endpoint(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "credentials").write_text("[work]\naws_access_key_id = AKID\naws_secret_access_key = hidden\n")
        (tmp_path / "config").write_text(
            "[profile work]\nregion = eu-north-1\nservices = mine\n[services mine]\ns3 =\n  endpoint_url = http://127.0.0.1:1\n"
        )
        environ = {
            "AWS_PROFILE": "work",
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
            "AWS_CONFIG_FILE": str(tmp_path / "config"),
        }
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        access = found_access(environ)
        assert (access.region, access.endpoint) == ("eu-north-1", "http://127.0.0.1:1")
        assert access.keys is not None
        assert (access.keys.key_id, access.keys.secret) == ("AKID", "hidden")

    def test_endpoints_of_the_environment_in_their_order(self) -> None:
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        both = keys | {"AWS_ENDPOINT_URL": "http://all", "AWS_ENDPOINT_URL_S3": "http://s3"}
        assert found_access(both).endpoint == "http://s3"
        assert found_access(both | {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}).endpoint is None


class TestSignatures:
    @settings(max_examples=50, deadline=None)
    @given(
        st.sampled_from(["GET", "HEAD"]),
        st.text("abc/-_.~ +%ü", max_size=12),
        st.dictionaries(st.sampled_from(["list-type", "prefix", "versionId", "x"]), st.text("ab/+ =&ü", max_size=6)),
        st.none() | st.text("tok/+=", min_size=1, max_size=9),
    )
    def test_they_are_those_of_botocore(self, method: str, key: str, query: dict[str, str], token: str | None) -> None:
        from urllib.parse import quote, urlencode

        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        words = urlencode(query, quote_via=quote, safe="-_.~")
        url = f"https://bucket.s3.eu-west-1.amazonaws.com/{quote(key, safe='-_.~/')}" + (f"?{words}" if words else "")
        moment = datetime(2026, 11, 26, 12, 0, 0, tzinfo=UTC)
        ours = signed_headers(
            method,
            url,
            S3Keys("AKID", "secret", token),
            region="eu-west-1",
            now=moment.timestamp(),
            headers={"x-amz-a": "b  c"},
        )
        request = AWSRequest(method, url, headers={"x-amz-a": "b  c"})
        with patch("botocore.auth.get_current_datetime", lambda **_: moment.replace(tzinfo=None)):
            S3SigV4Auth(Credentials("AKID", "secret", token), "s3", "eu-west-1").add_auth(request)
        assert ours["Authorization"] == request.headers["Authorization"]


class TestCommands:
    """The commands as users run them, with the variables of Amazon's tools."""

    def test_fetch_plan_verify_and_refresh(self, s3_client: Any, bucket: str, s3_server: S3Server, tmp_path: Path) -> None:
        env = environment(s3_server)
        files = {"config.json": b"{}", "model.safetensors": random_bytes("s3", 20 * MiB), "x/optimizer.bin": b"o"}
        put(s3_client, bucket, {f"m/{path}": content for path, content in files.items()})
        words = (f"s3://{bucket}/m", "--cache-dir", tmp_path, "--exclude", "*.bin")
        plan = run_fetcher("plan", *words, "--json", env=env)
        assert json.loads(plan.stdout)["bytes_to_fetch"] == 20 * MiB + 2
        first = json.loads(run_fetcher("fetch", *words, "--require-checksums", "--json", env=env).stdout)
        assert (first["verified"], sum(first["verified_by"].values()), first["verified_by"].get("size", 0)) == (False, 2, 0)
        assert sorted(path.name for path in Path(first["path"]).iterdir() if path.is_file()) == [
            "config.json",
            "model.safetensors",
        ]
        assert (Path(first["path"]) / "model.safetensors").read_bytes() == files["model.safetensors"]
        assert run_fetcher("verify", first["cache_key"], "--cache-dir", tmp_path).returncode == 0
        again = json.loads(run_fetcher("fetch", *words, "--refresh", "on-change", "--json", env=env).stdout)
        assert (again["cached"], again["revision"]) == (True, first["revision"])
        put(s3_client, bucket, {"m/config.json": b'{"new": 1}'})
        newer = json.loads(run_fetcher("fetch", *words, "--refresh", "on-change", "--json", env=env).stdout)
        assert newer["bytes_fetched"] == len(b'{"new": 1}')
        assert newer["revision"] != first["revision"]
        assert SECRET not in (tmp_path / newer["cache_key"] / ".fetcher/manifest.json").read_text()
        done = run_fetcher("fetch", f"s3://{bucket}/m", "--dest", tmp_path / "dest", env=env)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "dest/x/optimizer.bin").read_bytes() == b"o"

    def test_a_damaged_chunk_is_repaired_from_the_store(
        self, s3_client: Any, bucket: str, s3_server: S3Server, tmp_path: Path
    ) -> None:
        env = environment(s3_server)
        content = random_bytes("s3", 20 * MiB)
        put(s3_client, bucket, {"m/model.safetensors": content})
        words = (f"s3://{bucket}/m", "--cache-dir", tmp_path)
        path = Path(run_fetcher("fetch", *words, env=env).stdout.strip()) / "model.safetensors"
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        done = run_fetcher("verify", *words, "--repair", env=env)
        assert done.returncode == 0, done.stderr
        assert path.read_bytes() == content
