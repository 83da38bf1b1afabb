"""What one client, or many, can take of a server."""

from __future__ import annotations

import json
import time
from contextlib import suppress

import pytest

from fetcher.errors import ConfigurationError
from fetcher.serving import ServingLimits, Times
from fetcher.serving.limits import MOST_CONNECTIONS, PER_CONNECTION
from fetcher.serving.pace import FIRST, LEAST, PATIENCE, STEP, Rate, Reader
from fetcher.serving.sending import BUFFER, WAIT
from fetcher.telemetry.exposition import exposition
from tests.lab.metrics import samples
from tests.lab.waiting import wait_until
from tests.serving.conftest import CONFIG, WEIGHTS, Cache, Running, Start
from tests.serving.peer import Peer

MiB = 1024 * 1024
QUICK = Times(first=0.3, idle=0.3, tick=0.02)


def counted(running: Running) -> dict[str, float]:
    return samples(exposition(running.server.counts.metrics()))


def request(cache: Cache, name: str) -> bytes:
    return f"GET {cache.path(name)} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


class TestUploads:
    def test_one_more_than_the_limit_is_told_to_come_again(self, cache: Cache, start: Start) -> None:
        running = start(limits=ServingLimits(uploads=1, rate=8 * MiB))
        with running.peer() as first, running.peer() as second:
            first.send(request(cache, "model.safetensors"))
            wait_until(lambda: running.server.counts.uploads == 1, "the first is being sent")
            answer = second.get(cache.path("config.json"))
            assert (answer.status, answer.fields["Retry-After"]) == (503, "1")
            assert first.receive().body == WEIGHTS
            wait_until(lambda: running.server.counts.uploads == 0, "the place is free")
            assert second.get(cache.path("config.json")).body == CONFIG

    def test_a_place_is_free_again_after_any_end(self, cache: Cache, start: Start) -> None:
        running = start(limits=ServingLimits(uploads=1))
        for target in (cache.path("empty"), cache.path("nothing"), "/v1/x/have"):
            with running.peer() as peer:
                peer.get(target)
        with running.peer() as peer:
            peer.send(request(cache, "model.safetensors") * 20)
            peer.read(1)
        wait_until(lambda: running.server.counts.uploads == 0, "the peer that hung up holds no place")
        with running.peer() as peer:
            assert peer.get(cache.path("config.json")).body == CONFIG

    def test_the_rate_is_for_all_of_them_together(self, cache: Cache, start: Start) -> None:
        running = start(limits=ServingLimits(rate=20 * MiB))
        began = time.monotonic()
        with running.peer() as first, running.peer() as second:
            for each in (first, second):
                each.send(request(cache, "model.safetensors"))
            assert first.receive().body == second.receive().body == WEIGHTS
        assert time.monotonic() - began > 0.2  # 10 MiB, of which 5 may be sent at once

    def test_a_reader_that_takes_nothing_loses_its_place(
        self, cache: Cache, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fetcher.serving.sending.WAIT", 0.1)
        monkeypatch.setattr("fetcher.serving.pace.PATIENCE", 0.3)
        monkeypatch.setattr("fetcher.serving.pace.LEAST", 1 << 40)
        running = start()
        with running.peer(buffer=4096) as peer:
            peer.send(request(cache, "model.safetensors") * 8)
            wait_until(lambda: counted(running)['fetcher_served_cut_total{reason="slow"}'] == 1, "it is cut")
            assert peer.ended()


class TestReaders:
    def test_a_reader_may_be_slow_for_a_while(self) -> None:
        reader = Reader()
        assert not reader.took(0, PATIENCE - 1)
        assert reader.took(1, 2)

    def test_a_reader_that_is_fast_enough_may_take_for_ever(self) -> None:
        reader = Reader()
        assert not any(reader.took(LEAST * 10, 9) for _ in range(1000))

    def test_a_byte_now_and_then_is_too_slow(self) -> None:
        reader = Reader()
        assert any(reader.took(1, 1) for _ in range(40))

    def test_a_fast_one_is_sent_more_at_once(self) -> None:
        """Each turn waits for the interpreter's lock."""
        reader = Reader()
        steps = []
        for _ in range(6):
            steps.append(reader.step)
            reader.took(reader.step, 0.01)
        assert steps == [FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST, STEP, STEP]

    def test_one_that_takes_more_than_the_least_keeps_its_place_though_only_whole_steps_count(self) -> None:
        reader = Reader()
        for _ in range(100):
            step, seconds = reader.step, reader.step / (1.5 * LEAST)
            while seconds > WAIT:
                assert not reader.took(0, WAIT)
                seconds -= WAIT
            assert not reader.took(step, seconds)


class TestRate:
    def test_after_a_pause_a_quarter_of_a_second_may_be_sent_at_once(self) -> None:
        rate = Rate(1000.0, lambda: 100.0)
        assert [rate.take(250), rate.take(250)] == [0.0, 0.0]
        assert rate.take(1000) == pytest.approx(0.25)
        assert rate.take(1) == pytest.approx(1.25)

    def test_without_a_limit_nobody_waits(self) -> None:
        assert Rate(None, lambda: 0.0).take(1 << 40) == 0.0


class TestConnections:
    @pytest.fixture
    def few(self, start: Start) -> Running:
        return start(limits=ServingLimits(uploads=1, memory=BUFFER + 4 * PER_CONNECTION))

    def test_the_oldest_idle_one_makes_room(self, cache: Cache, few: Running) -> None:
        peers = [few.peer() for _ in range(4)]
        for each in peers:
            assert each.get(cache.path("config.json")).body == CONFIG
        with few.peer() as fifth:
            assert fifth.get(cache.path("config.json")).body == CONFIG
            assert peers[0].ended()
            assert peers[3].get(cache.path("config.json")).body == CONFIG
        for each in peers:
            each.close()

    def test_where_all_wait_for_a_change_the_oldest_of_them_makes_room(self, cache: Cache, few: Running) -> None:
        peers = [few.peer() for _ in range(4)]
        for each in peers:
            at = json.loads(each.get(f"/v1/{cache.key}/have").body)["at"]
            each.send(f"GET /v1/{cache.key}/have?since={at} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        wait_until(lambda: few.server.counts.polls == 4, "all of them wait")
        with few.peer() as fifth:
            assert fifth.get(cache.path("config.json")).body == CONFIG
        assert peers[0].ended()
        wait_until(lambda: few.server.counts.polls == 3, "the others wait on")

    def test_memory_bounds_uploads_and_connections_together(self) -> None:
        assert ServingLimits(uploads=32).connections == MOST_CONNECTIONS
        small = ServingLimits(uploads=32, memory=64 * MiB)
        assert small.connections * PER_CONNECTION + small.uploads * BUFFER <= small.memory

    def test_more_uploads_than_memory_are_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="--max-uploads"):
            _ = ServingLimits(uploads=512, memory=16 * MiB).connections

    def test_a_silent_client_is_ended(self, start: Start) -> None:
        with start(times=QUICK).peer() as peer:
            assert peer.ended()

    def test_an_idle_one_is_ended(self, cache: Cache, start: Start) -> None:
        with start(times=QUICK).peer() as peer:
            assert peer.get(cache.path("config.json")).body == CONFIG
            assert peer.ended()

    def test_a_byte_now_and_then_does_not_renew_the_time_for_a_request(self, start: Start) -> None:
        began = time.monotonic()
        with start(times=QUICK).peer() as peer, suppress(OSError):
            while time.monotonic() - began < 15:
                peer.send(b"G")
                time.sleep(0.05)
        assert time.monotonic() - began < 15

    def test_while_silent_clients_come_others_are_served(self, cache: Cache, few: Running) -> None:
        silent = []
        for _ in range(10):
            silent.append(few.peer())
            with few.peer() as peer:
                assert peer.get(cache.path("config.json")).body == CONFIG
        for each in silent:
            each.close()


class TestRequests:
    @pytest.mark.parametrize(
        "text",
        [
            "GET\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "get / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET x HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nA: b\nc\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
            "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
        ],
    )
    def test_what_is_ambiguous_is_400_and_the_end(self, peer: Peer, text: str) -> None:
        peer.send(text.encode("latin-1"))
        assert peer.receive().status == 400
        assert peer.ended()

    def test_a_request_that_is_too_long_is_431_and_the_end(self, peer: Peer) -> None:
        peer.send(b"GET / HTTP/1.1\r\nA: " + b"a" * 16 * 1024)
        assert peer.receive().status == 431
        assert peer.ended()

    def test_too_many_fields_are_431(self, peer: Peer) -> None:
        peer.send(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"A%d: b\r\n" % number for number in range(70)) + b"\r\n")
        assert peer.receive().status == 431

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
    def test_other_methods_are_405(self, cache: Cache, peer: Peer, method: str) -> None:
        answer = peer.get(cache.path("config.json"), method)
        assert (answer.status, answer.fields["Allow"]) == (405, "GET, HEAD")

    def test_a_proxys_form_of_an_address_is_understood(self, cache: Cache, peer: Peer) -> None:
        assert peer.get(f"http://elsewhere:80{cache.path('config.json')}").body == CONFIG

    def test_a_client_may_ask_for_the_end(self, cache: Cache, peer: Peer) -> None:
        assert peer.get(cache.path("config.json"), Connection="close").fields["Connection"] == "close"
        assert peer.ended()


def test_a_server_counts_what_it_sends_and_names_no_file(cache: Cache, start: Start) -> None:
    running = start()
    with running.peer() as peer:
        peer.get(cache.path("model.safetensors"), Range="bytes=0-99")
        peer.get(cache.path("config.json"))
        peer.get("/nothing")
    text = exposition(running.server.counts.metrics())
    numbers = samples(text)
    assert numbers["fetcher_served_bytes_total"] == 100 + len(CONFIG)
    assert [numbers[f'fetcher_served_requests_total{{code="{code}"}}'] for code in (200, 206, 404)] == [1, 1, 1]
    assert cache.key not in text
