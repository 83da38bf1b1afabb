"""How callers share the places for uploads: nobody can take them all, and one alone gets as many as a fetch asks for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trustme

from fetcher.serving import Caller, CertificateFiles, ServingLimits, Verdict
from fetcher.serving.places import WAITING, Places
from fetcher.telemetry.exposition import exposition
from tests.lab.metrics import samples
from tests.lab.waiting import wait_until
from tests.serving.certificates import issued
from tests.serving.conftest import CONFIG, Cache, Running, Start
from tests.serving.peer import Peer

A_FETCH = 16
"""Requests of one fetch to one peer, at most."""
HELD = ServingLimits(uploads=8, rate=4096)
"""Nothing that is being sent ends during a test."""


def asks(cache: Cache, running: Running, count: int, **settings: Any) -> list[Peer]:
    """Ask for the weights on so many connections, one after the other, each until it is sent or refused."""
    peers = []
    for _ in range(count):
        after = _answers(running) + 1
        peers.append(running.peer(**settings))
        peers[-1].send(f"GET {cache.path('model.safetensors')} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        _wait_for(running, after)
    return peers


def _wait_for(running: Running, answers: float) -> None:
    wait_until(lambda: _answers(running) >= answers, "an answer")


def _answers(running: Running) -> float:
    numbers = samples(exposition(running.server.counts.metrics()))
    return sum(number for name, number in numbers.items() if name.startswith("fetcher_served_requests_total"))


class TestOneWhoTakesAllThatThereIs:
    def test_leaves_half_of_it_to_others(self, cache: Cache, start: Start) -> None:
        running = start(limits=HELD)
        asks(cache, running, 12, source="127.0.0.2")
        assert running.server.counts.uploads == 4
        with running.peer(source="127.0.0.3") as other:
            other.send(f"HEAD {cache.path('config.json')} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert other.receive("HEAD").status == 200

    def test_is_told_to_come_again(self, cache: Cache, start: Start) -> None:
        peers = asks(cache, start(limits=HELD), 5, source="127.0.0.2")
        answer = peers[-1].receive()
        assert (answer.status, answer.fields["Retry-After"]) == (503, "1")

    def test_is_known_by_its_name_where_each_has_one_and_not_by_its_addresses(
        self, cache: Cache, start: Start, authority: trustme.CA, authority_file: Path, tmp_path: Path
    ) -> None:
        own, greedy, other = (issued(authority, tmp_path, each, ("127.0.0.1", each)) for each in ("own", "greedy", "other"))
        running = start(
            limits=HELD,
            certificates=CertificateFiles(own.chain, own.key, authority_file),
            authorization=_everybody,
            named=True,
        )
        for number in range(12):
            asks(cache, running, 1, **_shown(greedy, authority_file), source=f"127.0.1.{number}")
        assert running.server.counts.uploads == 4
        assert asks(cache, running, 1, **_shown(other, authority_file), source="127.0.1.1")
        assert running.server.counts.uploads == 5

    def test_is_known_by_its_address_where_all_have_the_same_name(
        self, cache: Cache, start: Start, authority: trustme.CA, authority_file: Path, tmp_path: Path
    ) -> None:
        own = issued(authority, tmp_path, "own")
        running = start(limits=HELD, certificates=CertificateFiles(own.chain, own.key, authority_file))
        for number in range(8):
            asks(cache, running, 1, **_shown(own, authority_file), source=f"127.0.1.{number}")
        assert running.server.counts.uploads == 8


def test_a_fetch_alone_gets_all_that_it_asks_for(cache: Cache, start: Start) -> None:
    running = start(limits=ServingLimits(rate=65536))
    asks(cache, running, A_FETCH)
    assert running.server.counts.uploads == A_FETCH


def test_what_was_given_back_can_be_had_again(cache: Cache, start: Start) -> None:
    running = start(limits=ServingLimits(uploads=2))
    with running.peer() as peer:
        assert [peer.get(cache.path("config.json")).body for _ in range(20)] == [CONFIG] * 20


class TestPlaces:
    @pytest.mark.parametrize(("callers", "each"), [(1, 32), (2, 21), (3, 16), (7, 8), (31, 2), (63, 1)])
    def test_each_of_many_who_want_all_has_its_share_and_one_more_finds_a_place(self, callers: int, each: int) -> None:
        places, held = Places(64, patience=0.0), dict.fromkeys(map(str, range(callers)), 0)
        for _ in range(64):
            for caller in held:
                held[caller] += places.take(caller)
        assert max(held.values()) - min(held.values()) <= 1
        assert min(held.values()) == each
        assert places.take("one more")

    def test_the_last_one_is_for_anybody(self) -> None:
        places = Places(1, patience=0.0)
        assert [places.take("a"), places.take("b")] == [True, False]
        places.give_back("a")
        assert places.take("b")

    def test_a_place_that_is_given_back_in_a_moment_is_waited_for(self) -> None:
        places = Places(1, patience=3600.0)
        assert places.take("a")
        with ThreadPoolExecutor(1) as other:
            taken = other.submit(places.take, "a")
            assert not taken.done()
            places.give_back("a")
            assert taken.result()

    def test_those_who_are_refused_hold_few_threads_meanwhile(self) -> None:
        places = Places(1, patience=3600.0)
        assert places.take("a")
        with ThreadPoolExecutor(20) as others:
            taken = [others.submit(places.take, "a") for _ in range(20)]
            wait_until(lambda: sum(each.done() for each in taken) == 20 - WAITING, "all but some are refused")
            for _ in range(WAITING):
                places.give_back("a")
        assert sum(each.result() for each in taken) == WAITING


def _everybody(caller: Caller, key: str) -> Verdict:  # noqa: ARG001 - an Authorization
    return "granted"


def _shown(files: CertificateFiles, authority: Path) -> dict[str, Any]:
    return {"trusting": authority, "certificate": (files.chain, files.key)}
