"""What `fetcher fetch s3://...` makes of refusals and lies: the right bytes, or the right exit code and a sentence to act on.

The store is real. A server in front of it answers what the store cannot be made to.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from fetcher.engine.retry import Asker, Patience
from fetcher.errors import BadResponse, RateLimited
from fetcher.events import Event, Retrying
from fetcher.sources.objects import ObjectSource, Page, StoredObject
from fetcher.testing.exchange import Request
from tests.lab.command import run_fetcher
from tests.lab.front import Front, Reply, in_front_of, in_front_of_nothing
from tests.lab.proxy import Proxy, running_proxy
from tests.lab.seaweed import KEY_ID, SECRET, S3Server
from tests.sources.s3_objects import ERROR, environment, put, source_of

XML = {"Content-Type": "application/xml"}


@pytest.fixture
def front(s3_server: S3Server) -> Iterator[Front]:
    with in_front_of(s3_server.host, s3_server.port) as running:
        yield running


@pytest.fixture
def uri(s3_client: Any, bucket: str) -> str:
    put(s3_client, bucket, {"m/a.bin": b"1", "m/b.bin": b"22"})
    return f"s3://{bucket}/m/"


def refusal(code: str, status: int = 403, **headers: str) -> Reply:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {**XML, **told}, ERROR.format(code).encode()


def fetched(uri: str, root: Path, env: dict[str, str], *words: str) -> tuple[int, str]:
    """The exit code of a fetch, and its last line on stderr."""
    done = run_fetcher("fetch", uri, "--cache-dir", root, *words, env=env)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.splitlines()[-1]


class TestSlowDown:
    class Time:
        """A clock that only sleeping moves."""

        def __init__(self) -> None:
            self.now = 0.0

        def __call__(self) -> float:
            return self.now

        async def sleep(self, seconds: float) -> None:
            self.now += seconds

    async def listed(self, front: Front, uri: str, time: Time) -> list[float]:
        """List the source patiently. Returns the delays before requests that were repeated."""
        events: list[Event] = []
        ask = Asker(Patience(300.0, clock=time, uniform=lambda low, high: low), events.append, sleep=time.sleep)
        async with aclosing(source_of(uri, front.endpoint)) as source:
            listing = await source.list(await source.resolve(ask), ask)
        assert [file.path for file in listing.files] == ["a.bin", "b.bin"]
        return [event.delay for event in events if isinstance(event, Retrying)]

    async def test_a_store_that_is_slow_for_a_minute_is_asked_when_it_wants_to_be(self, front: Front, uri: str) -> None:
        time = self.Time()
        front.rule = lambda request: refusal("SlowDown", 503, Retry_After="7") if time.now < 60 else None
        assert await self.listed(front, uri, time) == [7.0] * 9

    async def test_a_store_that_stays_slow_is_given_up_after_five_minutes(self, front: Front, uri: str) -> None:
        time = self.Time()
        front.rule = lambda request: refusal("SlowDown", 503, Retry_After="7")
        with pytest.raises(RateLimited, match=r"gave up after 300 s|asks to wait 7 s") as caught:
            await self.listed(front, uri, time)
        assert caught.value.exit_code == 75
        assert 290 <= time.now <= 300
        assert len(front.requests) <= 44

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_the_command_ends_with_a_retryable_code(self, front: Front, uri: str, tmp_path: Path, method: str) -> None:
        """Listings are GET, descriptions are HEAD, whose answers have no document."""
        front.rule = lambda request: refusal("SlowDown", 503) if request.method == method else None
        code, sentence = fetched(uri, tmp_path, environment(front), "--retry-for", "1")
        assert (code, sentence.partition(" ")[0]) == (75, "RateLimited:")

    def test_the_command_goes_on_after_some(self, front: Front, uri: str, tmp_path: Path) -> None:
        slow = iter([True, False] * 3)
        front.rule = lambda request: refusal("SlowDown", 503, Retry_After="0") if next(slow, False) else None
        assert fetched(uri, tmp_path, environment(front))[0] == 0


class TestClock:
    def test_a_clock_that_is_still_wrong_after_one_correction_is_a_wrong_setting(
        self, front: Front, uri: str, tmp_path: Path
    ) -> None:
        date = (datetime.now(UTC) + timedelta(hours=2)).strftime("%a, %d %b %Y %H:%M:%S GMT")
        front.rule = lambda request: refusal("RequestTimeTooSkewed", Date=date)
        code, sentence = fetched(uri, tmp_path, environment(front))
        assert (code, sentence.partition(" ")[0]) == (78, "Configuration:")
        assert "clock is wrong; synchronize it" in sentence
        assert len(front.requests) == 2
        signed = [datetime.fromisoformat(each.headers["x-amz-date"]) for each in front.requests]
        assert timedelta(minutes=115) < signed[1] - signed[0] < timedelta(minutes=125)

    def test_it_is_the_same_for_a_single_object(self, front: Front, uri: str, tmp_path: Path) -> None:
        date = (datetime.now(UTC) + timedelta(hours=2)).strftime("%a, %d %b %Y %H:%M:%S GMT")
        front.rule = lambda request: refusal("RequestTimeTooSkewed", Date=date)
        code, sentence = fetched(f"{uri}a.bin", tmp_path, environment(front))
        assert (code, "synchronize it" in sentence) == (78, True)


class TestRights:
    def test_requester_pays_only_if_said_so(self, front: Front, uri: str, tmp_path: Path) -> None:
        def rule(request: Request) -> Reply | None:
            return None if request.headers.get("x-amz-request-payer") == "requester" else refusal("AccessDenied")

        front.rule = rule
        code, sentence = fetched(uri, tmp_path, environment(front))
        assert (code, sentence.partition(" ")[0]) == (77, "Unauthorized:")
        assert "set AWS_REQUEST_PAYER=requester" in sentence
        assert fetched(uri, tmp_path, {**environment(front), "AWS_REQUEST_PAYER": "requester"})[0] == 0

    def test_without_the_right_to_list_a_missing_key_is_refused_and_the_sentence_says_both(
        self, front: Front, uri: str, tmp_path: Path
    ) -> None:
        front.rule = lambda request: refusal("AccessDenied")
        code, sentence = fetched(f"{uri}absent", tmp_path, environment(front))
        assert code == 77
        assert "credentials were sent (from AWS_ACCESS_KEY_ID)" in sentence
        assert "without the right to list, a missing key is refused like this too" in sentence

    def test_with_the_right_to_list_it_is_missing(self, front: Front, uri: str, tmp_path: Path) -> None:
        code, sentence = fetched(f"{uri}absent", tmp_path, environment(front))
        assert (code, sentence.partition(" ")[0]) == (66, "NotFound:")
        assert f"{uri}absent" in sentence

    def test_an_object_that_cannot_be_read_although_it_is_listed(self, front: Front, uri: str, tmp_path: Path) -> None:
        front.rule = lambda request: None if "list-type" in request.query else refusal("AccessDenied")
        code, sentence = fetched(uri, tmp_path, environment(front))
        assert (code, sentence.partition(" ")[0]) == (77, "Unauthorized:")
        assert ".bin" in sentence

    def test_an_archive_that_only_a_read_tells_of(self, front: Front, uri: str, tmp_path: Path) -> None:
        front.rule = lambda request: (
            refusal("InvalidObjectState") if request.method == "GET" and "list-type" not in request.query else None
        )
        code, sentence = fetched(uri, tmp_path, environment(front))
        assert (code, sentence.partition(" ")[0]) == (66, "NotFound:")
        assert "restore it in the store first" in sentence


class TestExpiry:
    @contextmanager
    def agent(self, front: Front) -> Iterator[tuple[dict[str, str], Front]]:
        """Variables of a pod whose agent gives keys, each time the same with another token, and the agent."""

        def rule(_: Request) -> Reply:
            token = f"token-{len(agent.requests)}"
            expires = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
            keys = {"AccessKeyId": KEY_ID, "SecretAccessKey": SECRET, "Token": token, "Expiration": expires}
            return 200, {"Content-Type": "application/json"}, json.dumps(keys).encode()

        with in_front_of_nothing() as agent:
            agent.rule = rule
            yield {"AWS_CONTAINER_CREDENTIALS_FULL_URI": agent.endpoint, "AWS_ENDPOINT_URL": front.endpoint}, agent

    def test_keys_that_are_refused_after_one_renewal_are_final(self, front: Front, uri: str, tmp_path: Path) -> None:
        front.rule = lambda request: refusal("ExpiredToken", 400)
        with self.agent(front) as (env, agent):
            code, sentence = fetched(uri, tmp_path, env)
        assert (code, sentence.partition(" ")[0]) == (77, "Unauthorized:")
        assert "the temporary credentials expired; get new ones" in sentence
        assert (len(front.requests), len(agent.requests)) == (2, 2)

    def test_keys_in_the_environment_cannot_be_renewed(self, front: Front, uri: str, tmp_path: Path) -> None:
        front.rule = lambda request: refusal("ExpiredToken", 400)
        code, sentence = fetched(uri, tmp_path, {**environment(front), "AWS_SESSION_TOKEN": "t0ken"})
        assert (code, "get new ones" in sentence, len(front.requests)) == (77, True, 1)

    def test_many_requests_that_are_refused_together_renew_the_keys_once(
        self, s3_client: Any, bucket: str, front: Front, tmp_path: Path
    ) -> None:
        put(s3_client, bucket, {f"many/{number}.bin": b"1" for number in range(16)})

        def rule(request: Request) -> Reply | None:
            stale = request.headers["x-amz-security-token"] == "token-1"
            return refusal("ExpiredToken", 400) if stale and "list-type" not in request.query else played(request)

        contents = "".join(f"<Contents><Key>many/{n}.bin</Key><Size>1</Size><ETag>e</ETag></Contents>" for n in range(16))

        def played(request: Request) -> Reply:
            """The store behind knows no session tokens."""
            if "list-type" in request.query:
                return 200, XML, f"<ListBucketResult>{contents}</ListBucketResult>".encode()
            if request.range:
                return 206, {"ETag": '"e"', "Content-Range": "bytes 0-0/1"}, b"1"
            return 200, {"ETag": '"e"'}, b"1"

        front.rule = rule
        with self.agent(front) as (env, agent):
            assert fetched(f"s3://{bucket}/many/", tmp_path, env)[0] == 0
        assert len(agent.requests) == 2


HOSTS = {region: f"models.s3.{region}.amazonaws.com" for region in ("us-east-1", "eu-west-1", "ap-south-1")}


class TestRegions:
    """Amazon's own addresses, to which a proxy leads."""

    @pytest.fixture
    def amazon(self, authority: trustme.CA) -> Iterator[Front]:
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*HOSTS.values()).configure_cert(context)
        with in_front_of_nothing(tls=context) as running:
            yield running

    @pytest.fixture
    def proxy(self, amazon: Front) -> Iterator[Proxy]:
        with running_proxy({f"{host}:443": amazon.own_port for host in HOSTS.values()}) as running:
            yield running

    @pytest.fixture
    def env(self, proxy: Proxy, authority_file: Path) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "HTTPS_PROXY": proxy.url,
            "AWS_CA_BUNDLE": str(authority_file),
        }

    def moved(self, region: str) -> Reply:
        return refusal("PermanentRedirect", 301, x_amz_bucket_region=region)

    def test_a_bucket_in_another_region_is_asked_there(self, amazon: Front, env: dict[str, str], tmp_path: Path) -> None:
        def rule(request: Request) -> Reply:
            if request.headers["host"] != HOSTS["eu-west-1"]:
                return self.moved("eu-west-1")
            if "list-type" in request.query:
                entry = "<Contents><Key>m/a.bin</Key><Size>1</Size><ETag>e</ETag></Contents>"
                return 200, XML, f"<ListBucketResult>{entry}</ListBucketResult>".encode()
            part = {"Content-Range": "bytes 0-0/1"} if request.range else {}
            return 206 if part else 200, {"ETag": '"e"', **part}, b"1"

        amazon.rule = rule
        code, sentence = fetched("s3://models/m/", tmp_path, env)
        assert code == 0, sentence
        asked = [(each.headers["host"], scope_of(each)) for each in amazon.requests]
        assert asked[0] == (HOSTS["us-east-1"], "us-east-1")
        assert set(asked[1:]) == {(HOSTS["eu-west-1"], "eu-west-1")}

    def test_a_bucket_that_moves_twice_is_a_wrong_setting(self, amazon: Front, env: dict[str, str], tmp_path: Path) -> None:
        regions = iter(["eu-west-1", "ap-south-1", "us-east-1"])
        amazon.rule = lambda request: self.moved(next(regions))
        code, sentence = fetched("s3://models/m/", tmp_path, env)
        assert (code, sentence.partition(" ")[0]) == (78, "Configuration:")
        assert "set AWS_REGION" in sentence
        assert [each.headers["host"] for each in amazon.requests] == [HOSTS["us-east-1"], HOSTS["eu-west-1"]]

    @pytest.mark.parametrize("region", ["cn-north-1", "us-east-1", "evil.example.org/", ""])
    def test_a_region_that_is_none_of_this_cloud_gets_no_signature(
        self, amazon: Front, proxy: Proxy, env: dict[str, str], tmp_path: Path, region: str
    ) -> None:
        amazon.rule = lambda request: self.moved(region)
        assert fetched("s3://models/m/", tmp_path, env)[0] == 78
        assert proxy.tunnels == [f"{HOSTS['us-east-1']}:443"]

    def test_another_store_that_wants_the_name_of_its_region_gets_it(self, front: Front, uri: str, tmp_path: Path) -> None:
        told = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>m</Message><Region>here</Region></Error>"
        front.rule = lambda request: None if scope_of(request) == "here" else (400, XML, told.encode())
        assert fetched(uri, tmp_path, environment(front))[0] == 0
        front.rule = lambda request: (400, XML, told.replace("here", f"r-{time.monotonic_ns()}").encode())
        assert fetched(uri, tmp_path / "other", environment(front))[0] == 78


def scope_of(request: Request) -> str:
    """The region that a request was signed for."""
    return request.headers["authorization"].split("/")[2]


class TestListingsThatLie:
    def entry(self, key: str, size: int = 1) -> str:
        return f"<Contents><Key>{key}</Key><Size>{size}</Size><ETag>e</ETag></Contents>"

    def test_a_size_that_is_not_that_of_the_object(
        self, s3_client: Any, bucket: str, front: Front, uri: str, tmp_path: Path
    ) -> None:
        etag = s3_client.head_object(Bucket=bucket, Key="m/b.bin")["ETag"]
        entry = self.entry("m/b.bin", 1_000).replace(">e<", f">{etag}<")
        listing = f"<ListBucketResult>{entry}</ListBucketResult>".encode()
        front.rule = lambda request: (200, XML, listing) if "list-type" in request.query else None
        code, sentence = fetched(uri, tmp_path, environment(front))
        assert (code, sentence.partition(" ")[0]) == (65, "ContentChanged:")
        assert "b.bin" in sentence

    @pytest.mark.parametrize("key", ["m/a&#10;b", "m/a&#27;[2J", "m/../b", "m//b"])
    def test_a_key_that_is_no_path(self, front: Front, uri: str, tmp_path: Path, key: str) -> None:
        listing = f"<ListBucketResult>{self.entry(key)}</ListBucketResult>".replace("&#27;", "%1B").encode()
        listing = listing.replace(b"<ListBucketResult>", b"<ListBucketResult><EncodingType>url</EncodingType>")
        front.rule = lambda request: (200, XML, listing) if "list-type" in request.query else None
        code, sentence = fetched(uri, tmp_path, environment(front))
        assert (code, sentence.partition(" ")[0]) == (65, "HostilePath:")
        assert sentence.isprintable()

    def test_pages_without_an_end_and_without_objects(self, front: Front, uri: str, tmp_path: Path) -> None:
        def rule(_: Request) -> Reply:
            more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{time.monotonic_ns()}</NextContinuationToken>"
            return 200, XML, f"<ListBucketResult>{self.entry('m/a')}{more}</ListBucketResult>".encode()

        front.rule = rule
        code, sentence = fetched(uri, tmp_path, environment(front))
        assert (code, sentence.partition(" ")[0]) == (69, "BadResponse:")
        assert "goes on for 100 pages without a new object" in sentence
        assert len(front.requests) == 101

    async def test_pages_without_an_end_and_always_new_objects(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fetcher.sources.objects._OBJECTS", 10_000)
        bucket = Endless(1000)
        with pytest.raises(BadResponse, match="more than 10,000 objects; name a prefix with fewer"):
            await ObjectSource(bucket, "m/").resolve()  # type: ignore[arg-type]  # nothing but pages is asked
        assert bucket.pages == 11


class Endless:
    """A bucket whose listing never ends. Each page has `size` new objects."""

    uri = "s3://endless"
    authenticated = False

    def __init__(self, size: int) -> None:
        self.pages = 0
        self._size = size

    async def page(self, prefix: str, token: str | None) -> Page:
        self.pages += 1
        first = self.pages * self._size
        return Page(tuple(StoredObject(f"{prefix}{first + each}", 1, "e") for each in range(self._size)), str(self.pages))
