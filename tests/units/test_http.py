"""The meaning of heads, statuses and addresses, without a network."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from huggingface_hub.file_download import repo_folder_name
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.artifact import ArtifactRef, ByteRange, Digest
from fetcher.errors import (
    BadResponse,
    ConfigurationError,
    ContentChanged,
    FetchError,
    GatedRepo,
    NotFound,
    RangesUnsupported,
    RateLimited,
    Refused,
    Transient,
    Unauthorized,
    Unreachable,
    UnsupportedScheme,
    UsageError,
)
from fetcher.sources.addresses import HubAddress, hub_address, hub_endpoint, scheme_of
from fetcher.sources.locations import EXPIRY_MARGIN, Location, expiry
from fetcher.transport.ranges import check_part, check_whole, content_length, parse_content_range, range_header, validator
from fetcher.transport.statuses import LONGEST_WAIT, Refusal, error_for, is_temporary, retry_after
from fetcher.transport.urls import address_from, origin_of

HUB = {"HF_ENDPOINT": "https://hub.example/mirror"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class TestRanges:
    @given(st.integers(0, 2**60), st.integers(1, 2**60))
    def test_ranges_are_inclusive_in_http_and_half_open_in_python(self, start: int, length: int) -> None:
        wanted = ByteRange(start, start + length)
        first, _, last = range_header(wanted).removeprefix("bytes=").partition("-")
        assert parse_content_range(f"bytes {first}-{last}/{start + length}") == (wanted, start + length)

    @pytest.mark.parametrize(
        "text", ["", "bytes", "bytes 5-4/10", "items 0-1/2", "bytes 0-1", "bytes a-b/c", "bytes -1-2/3", "bytes 10/20"]
    )
    def test_an_invalid_content_range_is_refused(self, text: str) -> None:
        with pytest.raises(BadResponse):
            parse_content_range(text)

    @pytest.mark.parametrize(
        ("status", "headers", "error"),
        [
            (200, {}, RangesUnsupported),
            (204, {}, BadResponse),
            (207, {"Content-Range": "bytes 10-19/100"}, BadResponse),
            (206, {"Content-Range": "bytes 0-9/100"}, BadResponse),
            (206, {"Content-Range": "bytes 10-19/99"}, ContentChanged),
            (206, {"Content-Range": "bytes 10-19/100", "Content-Length": "9"}, RangesUnsupported),
            (206, {"Content-Range": "bytes 10-19/100", "Content-Length": "11"}, BadResponse),
            (206, {"Content-Range": "bytes 10-19/100", "Content-Encoding": "gzip"}, BadResponse),
            (206, {"Content-Range": "bytes 10-19/100", "Content-Type": "Multipart/ByteRanges; boundary=x"}, RangesUnsupported),
            (206, {}, RangesUnsupported),
            (206, {"Content-Range": "bytes 10-14/100"}, RangesUnsupported),
            (206, {"Content-Range": "bytes 10-20/100"}, RangesUnsupported),
            (206, {"Content-Range": "bytes 10-19/15"}, RangesUnsupported),
            (206, {"Content-Range": "bytes */100"}, RangesUnsupported),
            (206, {"Content-Range": "items 10-19/100"}, RangesUnsupported),
        ],
    )
    def test_a_head_for_another_range_is_refused(self, status: int, headers: dict[str, str], error: type[FetchError]) -> None:
        with pytest.raises(error):
            check_part(status, headers, wanted=ByteRange(10, 20), size=100)

    def test_the_beginning_of_a_requested_range_is_accepted(self) -> None:
        head = {"Content-Range": "bytes 100000-199999/9000000", "Content-Length": "100000"}
        assert check_part(206, head, wanted=ByteRange(100_000, 5_000_000), size=9_000_000) == 100_000

    def test_a_matching_head_gives_the_length_of_the_body(self) -> None:
        head = {"Content-Range": "bytes 10-19/100", "Content-Length": "10"}
        assert check_part(206, head, wanted=ByteRange(10, 20), size=None) == 10
        assert check_whole(200, {"Content-Length": "100"}, size=100) == 100
        assert check_whole(200, {"Transfer-Encoding": "chunked"}, size=100) is None
        with pytest.raises(ContentChanged):
            check_whole(200, {"Content-Length": "99"}, size=100)

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("bytes 0-9/*", (ByteRange(0, 10), None)),
            ("bytes */100", (None, 100)),
            ("bytes */*", (None, None)),
            (" bytes  5-5/6 ", (ByteRange(5, 6), 6)),
        ],
    )
    def test_an_unstated_range_or_total_is_none(self, text: str, found: tuple[ByteRange | None, int | None]) -> None:
        assert parse_content_range(text) == found

    @settings(max_examples=50)
    @given(st.text(max_size=40) | st.from_regex(r"bytes \d{1,21}-\d{1,21}/(\d{1,21}|\*)", fullmatch=True))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        with suppress(BadResponse):
            parse_content_range(text)
        with suppress(BadResponse):
            content_length({"Content-Length": text})

    def test_an_unknown_total_does_not_contradict_the_size(self) -> None:
        head = {"Content-Range": "bytes 10-19/*"}
        assert check_part(206, head, wanted=ByteRange(10, 20), size=100) == 10

    @pytest.mark.parametrize(
        ("headers", "length"),
        [
            ({}, None),
            ({"Content-Length": "0"}, 0),
            ({"Content-Length": " 7 "}, 7),
            ({"Content-Length": "7", "Transfer-Encoding": "Chunked"}, None),
        ],
    )
    def test_the_length_of_a_body_is_read(self, headers: dict[str, str], length: int | None) -> None:
        assert content_length(headers) == length

    @pytest.mark.parametrize("text", ["", "-1", "+7", "7.0", "0x7", "7, 7", "9" * 20])
    def test_an_invalid_length_is_refused(self, text: str) -> None:
        with pytest.raises(BadResponse, match="Content-Length"):
            content_length({"Content-Length": text})

    @pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip"])
    def test_an_encoded_body_is_refused(self, encoding: str) -> None:
        with pytest.raises(BadResponse, match="identity was requested"):
            check_whole(200, {"Content-Encoding": encoding}, size=None)
        for plain in ("", "identity", " Identity "):
            check_whole(200, {"Content-Encoding": plain}, size=None)

    @pytest.mark.parametrize("status", [204, 206, 304])
    def test_a_whole_file_needs_status_200(self, status: int) -> None:
        with pytest.raises(BadResponse, match=f"status {status}"):
            check_whole(status, {}, size=None)

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
            (503, "", Unreachable), (400, "", Refused), (402, "", Refused), (405, "", Refused), (418, "", Refused),
            (422, "", Refused), (451, "", Refused), (501, "", Refused), (505, "", Refused), (511, "", ConfigurationError),
            (420, "", RateLimited), (409, "", Unreachable), (423, "", Unreachable), (425, "", Unreachable),
            (499, "", Unreachable), (520, "", Unreachable), (204, "", BadResponse), (304, "", BadResponse),
        ],
    )  # fmt: skip
    def test_each_status_has_its_error(self, status: int, code: str, error: type[FetchError]) -> None:
        assert type(error_for(Refusal(status, {"X-Error-Code": code}), what="a file")) is error

    @pytest.mark.parametrize(
        ("status", "code", "advice"),
        [
            (404, "RepoNotFound", "no such repository"), (404, "RevisionNotFound", "no such revision"),
            (404, "EntryNotFound", "no such file"), (404, "", "nothing at this address"), (410, "?", "nothing at this address"),
            (401, "", "does not exist, or is private"), (401, "RepoNotFound", "does not exist, or is private"),
            (401, "InvalidToken", "no credentials were sent: this address may"), (403, "", "no credentials were sent"),
            (403, "RepoNotFound", "no credentials were sent"), (403, "GatedRepo", "access must be granted"),
            (407, "", "HTTPS_PROXY"), (451, "", "the same request would be refused again"),
        ],
    )  # fmt: skip
    def test_each_status_has_its_advice(self, status: int, code: str, advice: str) -> None:
        assert advice in error_for(Refusal(status, {"X-Error-Code": code}), what="a file").message

    @given(st.integers(400, 599))
    def test_a_final_status_is_never_retryable(self, status: int) -> None:
        assert isinstance(error_for(Refusal(status, {}), what="a file"), Transient) == is_temporary(status)

    def test_the_message_of_the_server_comes_first_and_a_sent_token_is_not_requested(self) -> None:
        refusal = Refusal(401, {}, said="token is expired", sent="HF_TOKEN")
        assert error_for(refusal, what="a file").message == (
            'the server returned error: 401 for a file: the server says "token is expired"; '
            "credentials were sent (from HF_TOKEN): they are wrong, expired, or lack the right to read it"
        )
        assert "set HF_TOKEN" in error_for(Refusal(401, {}), what="a file").message

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({}, None),
            ({"Retry-After": "7"}, 7.0),
            ({"Retry-After": "1.5"}, 1.5),
            ({"Retry-After": "999999"}, LONGEST_WAIT),
            ({"Retry-After": "Sat, 21 Nov 2026 12:00:30 GMT"}, 30.0),
            ({"Retry-After": "Sat, 21 Nov 2026 14:00:30 +0200"}, 30.0),
            ({"Retry-After": "Sat, 21 Nov 2026 12:00:30 -0000"}, 30.0),
            ({"Retry-After": "Sat, 21 Nov 2026 11:00:00 GMT"}, 0.0),
            ({"Retry-After": "soon"}, None),
            ({"RateLimit": '"resolvers";r=0;t=55'}, 56.0),
            ({"RateLimit": '"resolvers";r=3;t=55'}, None),
            ({"RateLimit": '"resolvers";r=0;t=99999'}, LONGEST_WAIT),
            ({"Retry-After": "7", "RateLimit": '"resolvers";r=0;t=55'}, 7.0),
            ({"Retry-After": "Sat, 21 Nov 2026 12:00:30 +99999999999999999999"}, None),
            ({"Retry-After": "Sat, 21 Nov 99999999999999999999 12:00:30 GMT"}, None),
        ],
    )
    def test_retry_after_is_read(self, headers: dict[str, str], seconds: float | None) -> None:
        assert retry_after(headers, now=datetime(2026, 11, 21, 12, tzinfo=UTC)) == seconds

    @settings(max_examples=50)
    @given(st.text(max_size=40) | st.from_regex(r"Sat, \d{1,3} Nov \d{1,25} \d\d:\d\d:\d\d [+-]\d{1,25}", fullmatch=True))
    def test_any_retry_after_is_bounded(self, text: str) -> None:
        wait = retry_after({"Retry-After": text}, now=datetime(2026, 11, 21, 12, tzinfo=UTC))
        assert wait is None or 0 <= wait <= LONGEST_WAIT

    @settings(max_examples=50)
    @given(st.integers(400, 599), st.sampled_from(["", "RepoNotFound", "RevisionNotFound", "EntryNotFound", "GatedRepo", "?"]))
    def test_every_message_contains_the_words_that_operators_search_for(self, status: int, code: str) -> None:
        error = error_for(Refusal(status, {"X-Error-Code": code, "Retry-After": "7"}), what="a file")
        assert f"returned error: {status} for a file" in error.sentence()
        if isinstance(error, RateLimited | Unreachable):
            assert error.retry_after == 7.0


class TestAddresses:
    @pytest.mark.parametrize(
        ("uri", "address"),
        [
            ("hf://org/model", HubAddress("models", "org/model", "main")),
            ("hf://gpt2", HubAddress("models", "gpt2", "main")),
            ("hf://org/model@v1.0", HubAddress("models", "org/model", "v1.0")),
            ("hf://org/model:refs/pr/3", HubAddress("models", "org/model", "refs/pr/3")),
            ("hf://org/model/", HubAddress("models", "org/model", "main")),
            ("hf://org/model@v1.0/", HubAddress("models", "org/model", "v1.0")),
            (f"hf://datasets/org/data@{COMMIT}", HubAddress("datasets", "org/data", COMMIT)),
            ("https://hub.example/mirror/org/m/resolve/main/a/b.bin", HubAddress("models", "org/m", "main", "a/b.bin")),
            (
                "https://hub.example/mirror/datasets/o/d/resolve/refs%2Fpr%2F1/f",
                HubAddress("datasets", "o/d", "refs/pr/1", "f"),
            ),
            (
                "HTTPS://Hub.Example/mirror/org/m/resolve/v1/f%20g?download=true",
                HubAddress("models", "org/m", "v1", "f g"),
            ),
            ("https://hub.example:8443/mirror/org/m/resolve/main/f", None),
            ("https://user:pw@hub.example/mirror/org/m/resolve/main/f", None),
            ("https://elsewhere.example/org/m/resolve/main/f", None),
            ("https://hub.example/mirror/org/m/raw/main/f", None),
        ],
    )
    def test_addresses_of_the_hub_are_recognized(self, uri: str, address: HubAddress | None) -> None:
        assert hub_address(ArtifactRef(uri), HUB) == address

    @pytest.mark.parametrize(
        "uri", ["hf://", "hf://a/b/c", "hf://datasets", "hf://org/model@", "hf://org/model@a..b", "hf://o/m@/x"]
    )
    def test_an_address_without_a_repository_is_refused(self, uri: str) -> None:
        with pytest.raises(UsageError):
            hub_address(ArtifactRef(uri), HUB)

    def test_an_address_of_the_hub_can_be_pinned(self) -> None:
        address = "https://hub.example/mirror/org/m/resolve/main/f"
        found = hub_address(ArtifactRef(f"{address}#sha256={'AB' * 32}"), HUB)
        assert found == HubAddress("models", "org/m", "main", "f", (Digest("sha256", "ab" * 32),))
        with pytest.raises(UsageError, match="not a pin: #sha256=ab;"):
            hub_address(ArtifactRef(f"{address}#sha256=ab"), HUB)

    @pytest.mark.parametrize("uri", ["https://[::1/f", "http://host:99999/f", "http://host:port/f", "https:///f"])
    def test_an_address_with_an_invalid_host_is_refused(self, uri: str) -> None:
        with pytest.raises(UsageError, match="check its host and port"):
            hub_address(ArtifactRef(uri), HUB)

    @pytest.mark.parametrize("endpoint", ["hub.example", "ftp://hub.example", "https://", "https://[::1", "https://h:port"])
    def test_an_invalid_endpoint_is_a_configuration_error(self, endpoint: str) -> None:
        with pytest.raises(ConfigurationError, match="HF_ENDPOINT is not a web address"):
            hub_endpoint({"HF_ENDPOINT": endpoint})

    def test_the_default_endpoint_is_the_hub(self) -> None:
        assert hub_endpoint({}) == hub_endpoint({"HF_ENDPOINT": " "}) == "https://huggingface.co"
        assert hub_endpoint({"HF_ENDPOINT": "http://hub.example:8080/mirror/"}) == "http://hub.example:8080/mirror"

    @pytest.mark.parametrize(
        ("uri", "kind", "name"),
        [("hf://org/m", "model", "org/m"), ("hf://datasets/o/d", "dataset", "o/d"), ("hf://gpt2", "model", "gpt2")],
    )
    def test_the_folder_in_a_hub_cache_equals_that_of_the_client(self, uri: str, kind: str, name: str) -> None:
        found = hub_address(ArtifactRef(uri), {})
        assert found is not None
        assert found.folder == repo_folder_name(repo_id=name, repo_type=kind)

    @pytest.mark.parametrize(
        ("uri", "scheme"),
        [("HF://org/m", "hf"), ("/models/m", "file"), ("models/a:b", "file"), ("file:///m", "file"), ("pvc://claim/m", "pvc")],
    )
    def test_the_kind_of_source_is_recognized(self, uri: str, scheme: str) -> None:
        assert scheme_of(uri) == scheme

    @pytest.mark.parametrize("uri", ["", "  "])
    def test_an_empty_address_is_refused(self, uri: str) -> None:
        with pytest.raises(UsageError, match="the URI is empty"):
            scheme_of(uri)

    def test_two_different_revisions_are_refused(self) -> None:
        with pytest.raises(UsageError, match="give one of them"):
            hub_address(ArtifactRef("hf://org/model@v1", "v2"), HUB)
        found = hub_address(ArtifactRef("hf://org/model@v1", "v1"), HUB)
        assert found is not None
        assert found.revision == "v1"

    @pytest.mark.parametrize("scheme", ["ftp", "hdfs", "s4"])
    def test_an_unsupported_scheme_is_refused_with_an_alternative(self, scheme: str) -> None:
        with pytest.raises(UnsupportedScheme) as caught:
            scheme_of(f"{scheme}://bucket/model")
        works = "hf://, s3://, gs://, az://, oci://, http://, https://, file://, pvc://, a path"
        assert caught.value.message == f"{scheme}:// is not supported; these work: {works}"


class TestLocations:
    def test_the_expiry_of_a_signed_address_is_read(self) -> None:
        signed = "https://cdn.example/f?X-Amz-Date=20261121T120000Z&X-Amz-Expires=3600&X-Amz-Signature=s"
        assert expiry(signed) == datetime(2026, 11, 21, 13, tzinfo=UTC).timestamp()
        assert expiry("https://cdn.example/f?Expires=1790000000&Signature=s") == 1790000000.0
        assert expiry("https://cdn.example/f?Expires=soon") is None

    @pytest.mark.parametrize(
        "query",
        [
            "X-Amz-Date=20269999T000000Z&X-Amz-Expires=3600",
            "X-Amz-Date=20261121T120000Z&X-Amz-Expires=%C2%B2",
            "X-Amz-Date=20261121T120000Z",
            "X-Amz-Expires=3600",
            "Expires=" + "9" * 12,
        ],
    )
    def test_an_unreadable_expiry_is_unknown(self, query: str) -> None:
        assert expiry(f"https://cdn.example/f?{query}") is None

    def test_an_expiry_is_bounded_by_the_limit_of_amazon(self) -> None:
        signed = "https://cdn.example/f?X-Amz-Date=20261121T120000Z&X-Amz-Expires=999999999"
        assert expiry(signed) == datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp()

    def test_an_address_is_not_used_shortly_before_its_expiry(self) -> None:
        location = Location("https://cdn.example/f", expires=1000.0, direct=False)
        assert not location.stale(now=1000.0 - EXPIRY_MARGIN)
        assert location.stale(now=1001.0 - EXPIRY_MARGIN)
        assert not Location("https://cdn.example/f", expires=None, direct=False).stale(now=1e12)

    def test_the_clock_is_the_default_time(self) -> None:
        assert Location("https://cdn.example/f", expires=1000.0, direct=False).stale()
        assert not Location("https://cdn.example/f", expires=1e12, direct=False).stale()


class TestOrigins:
    @pytest.mark.parametrize(
        ("url", "origin"),
        [
            ("https://Host.example/f", "https://host.example:443"),
            ("http://host.example/f", "http://host.example:80"),
            ("https://host.example:8443/f", "https://host.example:8443"),
            ("https://user:pw@host.example/f", "https://host.example:443"),
        ],
    )
    def test_the_port_is_always_written(self, url: str, origin: str) -> None:
        assert origin_of(url) == origin

    @pytest.mark.parametrize(
        "url", ["", "/f", "ftp://h/f", "file:///etc/passwd", "https://", "http://h:99999/", "http://[::1/f"]
    )
    def test_an_invalid_web_address_has_no_origin(self, url: str) -> None:
        with pytest.raises(BadResponse, match="not a web address"):
            origin_of(url)

    def test_a_redirect_can_be_relative_but_not_invalid(self) -> None:
        assert address_from("https://a.example/x/y", "../z") == "https://a.example/z"
        assert address_from("https://a.example/x", "//b.example/z") == "https://b.example/z"
        with pytest.raises(BadResponse, match="not a web address"):
            address_from("https://a.example/x", "//[b/z")
