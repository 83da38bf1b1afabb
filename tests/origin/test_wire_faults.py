"""Every fault does on the wire what its name says, for the requests that match."""

from __future__ import annotations

import gzip
import json
import ssl
import time
from pathlib import Path

import pytest

from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.effects import (
    Body,
    Chunked,
    Expired,
    ExtraBytes,
    FlipBit,
    Gzip,
    Header,
    HugeHeader,
    IgnoreRange,
    Redirect,
    Replace,
    ShortBody,
    Status,
    WrongBody,
    WrongContentRange,
    rate_limited,
)
from fetcher.testing.faults import Effect, Fault
from fetcher.testing.interruptions import Finish, Reset, Stall, Trickle
from fetcher.testing.listings import EndlessPages, NextLink, extra_files
from fetcher.testing.origin import Origin
from fetcher.testing.throttle import Throttle
from tests.origin.wire import Wire, receive

DATA = random_bytes("faults", 100_000)


@pytest.fixture
def address(origin: Origin) -> str:
    return origin.add_file("/file.bin", DATA)


class TestCorrectService:
    def test_ranges_are_served_exactly(self, address: str, wire: Wire) -> None:
        for start, stop in [(0, 1), (500, 70_000), (99_999, 100_000)]:
            reply = wire.ranged(address, start, stop)
            assert (reply.status, reply.body) == (206, DATA[start:stop])
            assert reply.headers["content-range"] == f"bytes {start}-{stop - 1}/100000"
        assert wire.get(address, Range="bytes=-10").body == DATA[-10:]
        assert wire.get(address, Range="bytes=99990-").body == DATA[-10:]
        assert wire.get(address, Range="bytes=0-999999").body == DATA

    def test_a_range_beyond_the_end_is_refused_with_the_size(self, address: str, wire: Wire) -> None:
        reply = wire.get(address, Range="bytes=100000-")
        assert (reply.status, reply.headers["content-range"]) == (416, "bytes */100000")

    def test_if_range_with_another_etag_gets_the_whole_file(self, address: str, wire: Wire) -> None:
        etag = wire.get(address, method="HEAD").headers["etag"]
        assert wire.get(address, Range="bytes=0-9", If_Range=etag).status == 206
        assert wire.get(address, Range="bytes=0-9", If_Range='"other"').status == 200

    def test_files_on_disk_are_served_like_bytes(self, origin: Origin, wire: Wire, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(DATA)
        address = origin.add_file("/on disk", tmp_path / "file")
        assert wire.get(address).body == DATA
        assert wire.ranged(address, 12_345, 67_890).body == DATA[12_345:67_890]

    def test_requests_are_logged_with_query_range_and_token(self, origin: Origin, address: str, wire: Wire) -> None:
        wire.get(address + "?a=%2F", Range="bytes=5-9", Authorization="Bearer hf_x")
        (request,) = origin.requests
        assert (request.origin, request.method, request.path) == ("cdn", "GET", "/file.bin")
        assert (request.query, request.range, request.token) == ({"a": "/"}, "bytes=5-9", "hf_x")
        assert request.byte_range is not None
        assert (request.byte_range.start, request.byte_range.stop) == (5, 10)
        origin.clear_requests()
        assert origin.requests == ()

    def test_an_invalid_request_gets_400(self, address: str, wire: Wire) -> None:
        connection = wire.connection(address)
        connection.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 400"


class TestStopping:
    def test_a_stopped_origin_refuses_connections_and_restarts_on_the_same_port(self, origin: Origin, address: str) -> None:
        origin.stop()
        origin.stop()
        with Wire() as wire, pytest.raises(ConnectionRefusedError):
            wire.get(address)
        origin.start()
        with Wire() as wire:
            assert wire.get(address).body == DATA

    def test_stopping_aborts_a_stalled_connection(self, origin: Origin, address: str, wire: Wire) -> None:
        origin.faults.add(Fault(Stall(after=10)))
        connection = wire.connection(address)
        connection.sendall(b"GET /file.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 200"
        origin.stop()
        assert receive(connection, 200_000)[1] in ("fin", "reset")


class TestMatching:
    def test_a_fault_hits_the_nth_and_later_requests(self, origin: Origin, address: str, wire: Wire) -> None:
        fault = origin.faults.add(Fault(Status(500), nth=2, times=2))
        assert [wire.get(address).status for _ in range(5)] == [200, 500, 500, 200, 200]
        assert origin.faults.fired(fault) == 2

    def test_a_fault_hits_only_matching_requests(self, origin: Origin, address: str, wire: Wire) -> None:
        origin.add_repo("org/model", {"config.json": b"{}"})
        origin.faults.add(Fault(Status(500), origin="cdn", path=r"\.bin$", method="GET", ranged=True))
        assert wire.get(f"{origin.endpoint}/org/model/resolve/main/config.json", Range="bytes=0-1").status == 206
        assert wire.get(address).status == 200
        assert wire.get(address, method="HEAD", Range="bytes=0-1").status == 206
        assert wire.get(address, Range="bytes=0-1").status == 500

    def test_the_path_of_a_fault_matches_the_file_name_of_a_blob(self, origin: Origin, wire: Wire) -> None:
        origin.add_repo("org/model", {"a.bin": DATA, "b.bin": DATA[::-1]})
        fault = origin.faults.add(Fault(Status(500), origin="cdn", path=r"b\.bin"))
        for name, status in [("a.bin", 200), ("b.bin", 500)]:
            signed = wire.get(f"{origin.endpoint}/org/model/resolve/main/{name}").headers["location"]
            assert wire.get(signed).status == status
        assert origin.faults.fired(fault) == 1

    def test_removed_and_cleared_faults_hit_nothing(self, origin: Origin, address: str, wire: Wire) -> None:
        fault = origin.faults.add(Fault(Status(500)))
        origin.faults.remove(fault)
        assert wire.get(address).status == 200
        origin.faults.add(fault)
        origin.faults.clear()
        assert wire.get(address).status == 200


class TestInterruptions:
    @pytest.mark.parametrize("after", [0, 1, 50_000, 99_999])
    @pytest.mark.parametrize(("effect", "ending"), [(Reset, "reset"), (Finish, "fin")])
    def test_the_body_breaks_off_after_exactly_the_given_bytes(
        self, origin: Origin, address: str, wire: Wire, effect: type[Reset | Finish], ending: str, after: int
    ) -> None:
        origin.faults.add(Fault(effect(after=after)))
        reply = wire.get(address)
        assert (reply.body, reply.ending) == (DATA[:after], ending)
        assert reply.headers["content-length"] == "100000"

    @pytest.mark.parametrize(("effect", "error"), [(Reset(), ConnectionResetError), (Finish(), EOFError)])
    def test_the_connection_ends_before_the_head(
        self, origin: Origin, address: str, wire: Wire, effect: Effect, error: type[Exception]
    ) -> None:
        origin.faults.add(Fault(effect))
        with pytest.raises(error):
            wire.get(address)

    @pytest.mark.parametrize("after", [None, 10])
    def test_a_stall_sends_nothing_until_the_client_closes(
        self, origin: Origin, address: str, wire: Wire, after: int | None
    ) -> None:
        origin.faults.add(Fault(Stall(after=after), times=1))
        connection = wire.connection(address)
        connection.sendall(b"GET /file.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.settimeout(0.2)
        received, ending = receive(connection, 200_000)
        assert ending == "silence"
        assert received.partition(b"\r\n\r\n")[2] == DATA[: after or 0]
        assert bool(received) == (after is not None)

    def test_a_short_stall_continues_with_the_rest(self, origin: Origin, address: str, wire: Wire) -> None:
        origin.faults.add(Fault(Stall(after=10, seconds=0.01)))
        assert wire.get(address).body == DATA

    def test_a_trickle_sends_the_whole_body_in_pieces(self, origin: Origin, address: str, wire: Wire) -> None:
        origin.faults.add(Fault(Trickle(after=10, size=5, interval=0.001)))
        assert wire.ranged(address, 100, 160).body == DATA[100:160]


class TestStatuses:
    @pytest.mark.parametrize("status", [401, 403, 500, 502, 503])
    def test_a_fault_can_send_any_status(self, origin: Origin, address: str, wire: Wire, status: int) -> None:
        origin.faults.add(Fault(Status(status, (("X-Error-Code", "GatedRepo"),)), times=1))
        reply = wire.get(address)
        assert (reply.status, reply.headers["x-error-code"]) == (status, "GatedRepo")
        assert wire.get(address).status == 200

    def test_a_rate_limit_has_retry_after_or_ratelimit_or_no_hint(self, origin: Origin, address: str, wire: Wire) -> None:
        for effect in (rate_limited(retry_after=7), rate_limited(reset=55), rate_limited()):
            origin.faults.add(Fault(effect, times=1))
        hinted, counted, bare = (wire.get(address) for _ in range(3))
        assert (hinted.status, counted.status, bare.status) == (429, 429, 429)
        assert hinted.headers["retry-after"] == "7"
        assert counted.headers["ratelimit"] == '"resolvers";r=0;t=55'
        assert not {"retry-after", "ratelimit"} & bare.headers.keys()


class TestHeads:
    @pytest.mark.parametrize("location", ["http://elsewhere.invalid/x", "/relative", "{target}"])
    def test_a_redirect_can_lead_anywhere(self, origin: Origin, address: str, wire: Wire, location: str) -> None:
        origin.faults.add(Fault(Redirect(location, 308)))
        reply = wire.get(address)
        assert (reply.status, reply.headers["location"]) == (308, location.replace("{target}", "/file.bin"))

    def test_a_header_can_be_replaced_or_removed(self, origin: Origin, address: str, wire: Wire) -> None:
        origin.faults.add(Fault(Header("ETag", None)))
        origin.faults.add(Fault(Header("accept-ranges", "none")))
        reply = wire.get(address)
        assert "etag" not in reply.headers
        assert reply.headers["accept-ranges"] == "none"

    def test_a_huge_header_has_the_given_size(self, origin: Origin, address: str, wire: Wire) -> None:
        origin.faults.add(Fault(HugeHeader(70_000)))
        assert len(wire.get(address).headers["x-huge"]) == 70_000


class TestWrongBodies:
    def test_the_whole_file_is_sent_if_the_range_is_ignored(self, origin: Origin, address: str, wire: Wire) -> None:
        origin.faults.add(Fault(IgnoreRange()))
        reply = wire.ranged(address, 500, 600)
        assert (reply.status, reply.body) == (200, DATA)
        assert "content-range" not in reply.headers

    def test_content_range_can_be_shifted_or_have_a_wrong_total(self, origin: Origin, address: str, wire: Wire) -> None:
        origin.faults.add(Fault(WrongContentRange(shift=100), times=1))
        reply = wire.ranged(address, 500, 600)
        assert (reply.headers["content-range"], reply.body) == ("bytes 600-699/100000", DATA[500:600])
        origin.faults.clear()
        origin.faults.add(Fault(WrongContentRange(total=7)))
        assert wire.ranged(address, 500, 600).headers["content-range"] == "bytes 500-599/7"

    def test_the_body_can_be_that_of_another_range(self, origin: Origin, address: str, wire: Wire) -> None:
        origin.faults.add(Fault(WrongBody(shift=50)))
        reply = wire.ranged(address, 500, 600)
        assert (reply.headers["content-range"], reply.body) == ("bytes 500-599/100000", DATA[550:650])

    def test_a_short_body_has_a_wrong_or_a_correct_content_range(self, origin: Origin, address: str, wire: Wire) -> None:
        for honest, content_range in [(False, "bytes 500-599/100000"), (True, "bytes 500-589/100000")]:
            origin.faults.clear()
            origin.faults.add(Fault(ShortBody(missing=10, honest=honest)))
            reply = wire.ranged(address, 500, 600)
            assert (reply.headers["content-length"], reply.body) == ("90", DATA[500:590])
            assert reply.headers["content-range"] == content_range

    def test_extra_bytes_follow_on_an_open_connection(self, origin: Origin, address: str, wire: Wire) -> None:
        planted = b"HTTP/1.1 206 Partial Content\r\n"
        origin.faults.add(Fault(ExtraBytes(planted), times=1))
        assert wire.ranged(address, 0, 100).body == DATA[:100]
        assert receive(wire.connection(address), len(planted)) == (planted, "complete")
        assert wire.ranged(address, 0, 100).body == DATA[:100]

    @pytest.mark.parametrize("announced", [True, False])
    def test_the_body_can_be_compressed(self, origin: Origin, address: str, wire: Wire, announced: bool) -> None:
        origin.faults.add(Fault(Gzip(announced)))
        reply = wire.ranged(address, 500, 1600)
        assert gzip.decompress(reply.body) == DATA[500:1600]
        assert reply.headers.get("content-encoding") == ("gzip" if announced else None)

    def test_one_bit_is_flipped_in_bodies_with_its_byte(self, origin: Origin, address: str, wire: Wire) -> None:
        fault = origin.faults.add(Fault(FlipBit(offset=1000), times=1))
        assert wire.ranged(address, 0, 1000).body == DATA[:1000]
        assert origin.faults.fired(fault) == 0
        wrong = wire.ranged(address, 500, 1500).body
        assert [index for index in range(1000) if wrong[index] != DATA[500 + index]] == [500]
        assert wrong[500] == DATA[1000] ^ 1
        assert wire.ranged(address, 500, 1500).body == DATA[500:1500]

    @pytest.mark.parametrize("keep_etag", [True, False])
    def test_the_content_can_change_between_two_requests(
        self, origin: Origin, address: str, wire: Wire, keep_etag: bool
    ) -> None:
        origin.faults.add(Fault(Replace(DATA[::-1], keep_etag), nth=2))
        before, after = wire.ranged(address, 0, 100), wire.ranged(address, 100, 200)
        assert (before.body, after.body) == (DATA[:100], DATA[::-1][100:200])
        assert (before.headers["etag"] == after.headers["etag"]) == keep_etag

    def test_a_chunked_body_has_no_length(self, origin: Origin, address: str, wire: Wire) -> None:
        origin.faults.add(Fault(Chunked()))
        reply = wire.ranged(address, 500, 600)
        assert "content-length" not in reply.headers
        assert reply.headers["transfer-encoding"] == "chunked"
        framed = b"64\r\n" + DATA[500:600] + b"\r\n0\r\n\r\n"
        assert receive(wire.connection(address), len(framed)) == (framed, "complete")

    def test_several_effects_apply_to_one_response(self, origin: Origin, address: str, wire: Wire) -> None:
        origin.faults.add(Fault(FlipBit(offset=0)))
        origin.faults.add(Fault(IgnoreRange()))
        origin.faults.add(Fault(Finish(after=100)))
        reply = wire.ranged(address, 0, 10)
        assert (reply.status, reply.ending) == (200, "fin")
        assert reply.body == bytes([DATA[0] ^ 1]) + DATA[1:100]


class TestSignedAddresses:
    @pytest.fixture
    def resolve(self, origin: Origin) -> str:
        origin.add_repo("org/model", {"sub folder/it's~a.bin": DATA})
        return f"{origin.endpoint}/org/model/resolve/main/sub%20folder/it%27s~a.bin"

    def test_a_changed_signed_address_is_refused(self, resolve: str, wire: Wire) -> None:
        signed = wire.get(resolve).headers["location"]
        assert wire.get(signed).body == DATA
        for quoted, plain in [("%2F", "/"), ("%27", "'"), ("%7E", "~")]:
            assert quoted in signed
            assert wire.get(signed.replace(quoted, plain)).status == 403
        assert wire.get(signed.partition("?")[0]).status == 403

    def test_all_signed_addresses_can_expire_together(self, origin: Origin, resolve: str, wire: Wire) -> None:
        signed = wire.get(resolve).headers["location"]
        origin.expire_signatures()
        assert wire.get(signed).status == 403
        assert wire.get(wire.get(resolve).headers["location"]).status == 200

    def test_the_address_of_one_request_can_be_expired(self, origin: Origin, resolve: str, wire: Wire) -> None:
        origin.faults.add(Fault(Expired(), origin="cdn", nth=2, times=1))
        signed = wire.get(resolve).headers["location"]
        assert [wire.get(signed).status for _ in range(3)] == [200, 403, 200]

    @pytest.mark.parametrize(
        ("limits", "statuses"),
        [({"signature_uses": 2}, [200, 200, 403]), ({"signature_lifetime": -1.0}, [403, 403, 403])],
        ids=["uses", "lifetime"],
    )
    def test_signed_addresses_have_a_limit_of_uses_and_lifetime(
        self, wire: Wire, limits: dict[str, float], statuses: list[int]
    ) -> None:
        with Origin(**limits) as origin:  # type: ignore[arg-type]  # a different keyword each
            origin.add_repo("org/model", {"model.bin": DATA})
            signed = wire.get(f"{origin.endpoint}/org/model/resolve/main/model.bin").headers["location"]
            assert [wire.get(signed).status for _ in range(3)] == statuses

    def test_hub_and_cdn_send_different_etags_for_one_file(self, resolve: str, wire: Wire) -> None:
        redirect = wire.get(resolve, method="HEAD")
        assert redirect.headers["x-linked-size"] == str(len(DATA))
        assert redirect.headers["x-linked-etag"] != wire.get(redirect.headers["location"]).headers["etag"]


class TestListings:
    @pytest.fixture
    def tree(self, origin: Origin) -> str:
        repository = origin.add_repo("org/model", {"config.json": b"{}"})
        return f"{origin.endpoint}/api/models/org/model/tree/{repository.commit}?recursive=true"

    def test_hostile_paths_are_listed_unchanged(self, origin: Origin, tree: str, wire: Wire) -> None:
        hostile = ("../x", "/abs", "a\\b", "C:x", "nul\0", "CONFIG.JSON", "config.json/file")
        origin.faults.add(Fault(extra_files(*hostile)))
        assert [entry["path"] for entry in json.loads(wire.get(tree).body)] == ["config.json", *hostile]

    def test_the_next_page_can_be_on_another_host(self, origin: Origin, tree: str, wire: Wire) -> None:
        origin.faults.add(Fault(NextLink("http://elsewhere.invalid/tree")))
        assert wire.get(tree).headers["link"] == '<http://elsewhere.invalid/tree>; rel="next"'

    def test_a_listing_can_have_endless_pages(self, origin: Origin, tree: str, wire: Wire) -> None:
        origin.faults.add(Fault(EndlessPages(entries=2)))
        paths: list[str] = []
        for _ in range(3):
            reply = wire.get(tree)
            paths += [entry["path"] for entry in json.loads(reply.body)]
            tree = reply.headers["link"].partition(">")[0].lstrip("<")
        assert len(set(paths)) == 6

    def test_a_listing_can_be_invalid_json(self, origin: Origin, tree: str, wire: Wire) -> None:
        origin.faults.add(Fault(Body(b'[{"type":'), path="/tree/"))
        assert wire.get(tree).body == b'[{"type":'


class TestTls:
    def test_one_authority_signs_the_certificates_of_hub_and_cdn(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(DATA)
        with Origin(tls=("hub", "cdn"), cdn_host="localhost") as origin:
            origin.add_repo("org/model", {"model.bin": tmp_path / "file"})
            trust = ssl.create_default_context(cafile=str(origin.ca_file))
            address = f"{origin.endpoint}/org/model/resolve/main/model.bin"
            assert address.startswith("https://127.0.0.1:")
            with Wire(trust) as wire:
                signed = wire.get(address).headers["location"]
                assert signed.startswith("https://localhost:")
                assert wire.get(signed).body == DATA


class TestThrottle:
    def test_bytes_wait_until_the_rate_allows_them(self) -> None:
        throttle = Throttle(1000.0)
        assert throttle.reserve(500, now=10.0) == pytest.approx(0.5)
        assert throttle.reserve(500, now=10.0) == pytest.approx(1.0)
        assert throttle.reserve(500, now=20.0) == pytest.approx(0.5)
        assert Throttle(None).reserve(10**12, now=0.0) == 0.0

    @pytest.mark.parametrize("limit", ["total", "per_connection"])
    def test_a_throttled_body_takes_as_long_as_its_rate_demands(
        self, origin: Origin, address: str, wire: Wire, limit: str
    ) -> None:
        origin.throttle(**{limit: 1_000_000.0})
        before = time.monotonic()
        assert wire.get(address).body == DATA
        assert time.monotonic() - before > 0.09
