"""What heads, statuses and addresses mean; nothing here speaks to anyone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.artifact import ArtifactRef, ByteRange
from fetcher.errors import (
    BadResponse,
    ConfigurationError,
    ContentChanged,
    FetchError,
    GatedRepo,
    NotFound,
    RangesUnsupported,
    RateLimited,
    Unauthorized,
    Unreachable,
    UnsupportedScheme,
    UsageError,
)
from fetcher.sources.addresses import HubAddress, hub_address, scheme_of
from fetcher.sources.locations import EXPIRY_MARGIN, Location, expiry
from fetcher.transport.ranges import check_part, check_whole, parse_content_range, range_header, validator
from fetcher.transport.statuses import LONGEST_WAIT, error_for, retry_after

HUB = {"HF_ENDPOINT": "https://hub.example/mirror"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class TestRanges:
    @given(st.integers(0, 2**60), st.integers(1, 2**60))
    def test_inclusive_on_the_wire_half_open_here(self, start: int, length: int) -> None:
        wanted = ByteRange(start, start + length)
        first, _, last = range_header(wanted).removeprefix("bytes=").partition("-")
        assert parse_content_range(f"bytes {first}-{last}/{start + length}") == (wanted, start + length)

    @pytest.mark.parametrize("text", ["", "bytes", "bytes 5-4/10", "items 0-1/2", "bytes 0-1", "bytes a-b/c", "bytes -1-2/3"])
    def test_what_makes_no_sense_is_refused(self, text: str) -> None:
        with pytest.raises(BadResponse):
            parse_content_range(text)

    @pytest.mark.parametrize(
        ("status", "headers", "error"),
        [
            (200, {}, RangesUnsupported),
            (204, {}, BadResponse),
            (206, {"Content-Range": "bytes 0-9/100"}, BadResponse),
            (206, {"Content-Range": "bytes 10-19/99"}, ContentChanged),
            (206, {"Content-Range": "bytes 10-19/100", "Content-Length": "9"}, BadResponse),
            (206, {"Content-Range": "bytes 10-19/100", "Content-Encoding": "gzip"}, BadResponse),
            (206, {"Content-Range": "bytes 10-19/100", "Content-Type": "multipart/byteranges; boundary=x"}, BadResponse),
            (206, {}, BadResponse),
        ],
    )
    def test_a_head_that_does_not_answer_the_question_is_noticed(
        self, status: int, headers: dict[str, str], error: type[FetchError]
    ) -> None:
        with pytest.raises(error):
            check_part(status, headers, wanted=ByteRange(10, 20), size=100)

    def test_one_that_does_tells_the_size(self) -> None:
        head = {"Content-Range": "bytes 10-19/100", "Content-Length": "10"}
        assert check_part(206, head, wanted=ByteRange(10, 20), size=None) == 100
        with pytest.raises(ContentChanged):
            check_whole(200, {"Content-Length": "99"}, size=100)

    def test_only_a_strong_etag_identifies_content(self) -> None:
        assert validator({"ETag": '"a"', "Last-Modified": "then"}) == 'etag "a"'
        assert validator({"ETag": 'W/"a"', "Last-Modified": "then"}) == "modified then"
        assert validator({}) is None


class TestStatuses:
    @pytest.mark.parametrize(
        ("status", "code", "error"),
        [
            (401, "", Unauthorized), (401, "RepoNotFound", Unauthorized), (403, "", Unauthorized),
            (403, "GatedRepo", GatedRepo), (401, "GatedRepo", GatedRepo), (410, "", NotFound),
            (404, "RepoNotFound", NotFound), (404, "EntryNotFound", NotFound),
            (407, "", ConfigurationError), (408, "", Unreachable), (429, "", RateLimited), (500, "", Unreachable),
            (503, "", Unreachable), (400, "", BadResponse), (418, "", BadResponse),
        ],
    )  # fmt: skip
    def test_each_has_its_word(self, status: int, code: str, error: type[FetchError]) -> None:
        assert type(error_for(status, {"X-Error-Code": code}, what="a file")) is error

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({}, None),
            ({"Retry-After": "7"}, 7.0),
            ({"Retry-After": "1.5"}, 1.5),
            ({"Retry-After": "999999"}, LONGEST_WAIT),
            ({"Retry-After": "Sat, 21 Nov 2026 12:00:30 GMT"}, 30.0),
            ({"Retry-After": "Sat, 21 Nov 2026 11:00:00 GMT"}, 0.0),
            ({"Retry-After": "soon"}, None),
            ({"RateLimit": '"resolvers";r=0;t=55'}, 56.0),
            ({"RateLimit": '"resolvers";r=3;t=55'}, None),
        ],
    )
    def test_how_long_to_wait(self, headers: dict[str, str], seconds: float | None) -> None:
        assert retry_after(headers, now=datetime(2026, 11, 21, 12, tzinfo=UTC)) == seconds


class TestAddresses:
    @pytest.mark.parametrize(
        ("uri", "address"),
        [
            ("hf://org/model", HubAddress("models", "org/model", "main")),
            ("hf://gpt2", HubAddress("models", "gpt2", "main")),
            ("hf://org/model@v1.0", HubAddress("models", "org/model", "v1.0")),
            ("hf://org/model:refs/pr/3", HubAddress("models", "org/model", "refs/pr/3")),
            (f"hf://datasets/org/data@{COMMIT}", HubAddress("datasets", "org/data", COMMIT)),
            ("https://hub.example/mirror/org/m/resolve/main/a/b.bin", HubAddress("models", "org/m", "main", "a/b.bin")),
            (
                "https://hub.example/mirror/datasets/o/d/resolve/refs%2Fpr%2F1/f",
                HubAddress("datasets", "o/d", "refs/pr/1", "f"),
            ),
            ("https://elsewhere.example/org/m/resolve/main/f", None),
            ("https://hub.example/mirror/org/m/raw/main/f", None),
        ],
    )
    def test_what_belongs_to_the_hub(self, uri: str, address: HubAddress | None) -> None:
        assert hub_address(ArtifactRef(uri), HUB) == address

    @pytest.mark.parametrize(
        "uri", ["hf://", "hf://a/b/c", "hf://datasets", "hf://org/model@", "hf://org/model@a..b", "hf://o/m@/x"]
    )
    def test_what_names_no_repository_is_refused(self, uri: str) -> None:
        with pytest.raises(UsageError):
            hub_address(ArtifactRef(uri), HUB)

    def test_two_revisions_that_differ_are_refused(self) -> None:
        with pytest.raises(UsageError, match="give one of them"):
            hub_address(ArtifactRef("hf://org/model@v1", "v2"), HUB)
        found = hub_address(ArtifactRef("hf://org/model@v1", "v1"), HUB)
        assert found is not None
        assert found.revision == "v1"

    @pytest.mark.parametrize("scheme", ["s3", "gs", "az", "oci", "ftp"])
    def test_what_does_not_work_yet_is_said_with_what_does(self, scheme: str) -> None:
        with pytest.raises(UnsupportedScheme, match="these work: hf://, http://"):
            scheme_of(f"{scheme}://bucket/model")


class TestLocations:
    def test_when_a_signed_address_ends(self) -> None:
        signed = "https://cdn.example/f?X-Amz-Date=20261121T120000Z&X-Amz-Expires=3600&X-Amz-Signature=s"
        assert expiry(signed) == datetime(2026, 11, 21, 13, tzinfo=UTC).timestamp()
        assert expiry("https://cdn.example/f?Expires=1790000000&Signature=s") == 1790000000.0
        assert expiry("https://cdn.example/f?Expires=soon") is None

    def test_it_is_not_begun_shortly_before_its_end(self) -> None:
        location = Location("https://cdn.example/f", expires=1000.0, direct=False)
        assert not location.stale(now=1000.0 - EXPIRY_MARGIN)
        assert location.stale(now=1001.0 - EXPIRY_MARGIN)
        assert not Location("https://cdn.example/f", expires=None, direct=False).stale(now=1e12)
