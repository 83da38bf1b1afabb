"""Maps of chunks: what a peer has, told when it changes."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.cache.offer import Offer
from fetcher.cache.offering import Offers
from fetcher.manifest import RELATIVE_PATH
from fetcher.planning.have import HEAD, LARGEST, HaveMap, Mark, bitmap, room
from fetcher.serving import Counts, Times
from fetcher.serving.answering import Answerer
from fetcher.serving.authorization import anonymous
from fetcher.serving.maps import Maps
from fetcher.serving.pace import Rate
from fetcher.serving.places import Places
from fetcher.serving.requests import Request
from fetcher.serving.sending import Sender
from tests.lab.waiting import wait_until
from tests.serving.conftest import Cache, Start
from tests.serving.peer import Answer, Peer

LISTING = "ab" * 32
MARK = Mark("0123456789abcdef", 7)
SIZES = {"a": 100, "b": 16, "empty": 0}
LONG = Times(poll=60.0, tick=0.02)
SHORT = Times(poll=0.05, tick=0.02)


def parsed(**changed: Any) -> HaveMap:
    document: dict[str, Any] = {
        "format": 1,
        "listing": LISTING,
        "at": str(MARK),
        "chunk_size": 10,
        "complete": False,
        "files": {},
    }
    return HaveMap.from_bytes(json.dumps({**document, **changed}).encode(), SIZES)


class TestTheFormat:
    @given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 1)))
    def test_a_map_is_read_as_it_was_written(self, first: set[int], second: set[int]) -> None:
        have = HaveMap(LISTING, MARK, 10, complete=False, files={"a": bitmap(first, 10), "b": bitmap(second, 2)})
        read = HaveMap.from_bytes(have.to_bytes(), SIZES)
        assert read == have
        assert {chunk for chunk in range(20) if read.has("a", chunk)} == first
        assert {chunk for chunk in range(20) if read.has("b", chunk)} == second

    def test_a_complete_one_has_every_chunk(self) -> None:
        assert HaveMap.from_bytes(HaveMap(LISTING, MARK, 10, complete=True).to_bytes(), SIZES).has("a", 9)

    @pytest.mark.parametrize(
        "changed",
        [
            {"format": 2},
            {"listing": "ab"},
            {"listing": 1},
            {"at": "7"},
            {"at": "0123456789abcdef.-1"},
            {"chunk_size": 0},
            {"chunk_size": "10"},
            {"complete": 1},
            {"files": []},
            {"files": {"a": 1}},
            {"files": {"a": "not base64"}},
            {"files": {"a": "AAAA"}},
            {"files": {"a": "AP8="}},
            {"files": {"c": ""}},
            {"files": {"empty": "AA=="}},
        ],
    )
    def test_what_a_peer_invents_is_refused(self, changed: dict[str, Any]) -> None:
        with pytest.raises(ValueError):  # noqa: PT011 - the message is for nobody
            parsed(**changed)

    @pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"[" * 100_000, b"{}", b" " * 5_000_000])
    def test_what_is_no_map_is_refused(self, data: bytes) -> None:
        with pytest.raises(ValueError):  # noqa: PT011 - the message is for nobody
            HaveMap.from_bytes(data, SIZES)

    def test_its_number_has_a_bit_for_each_chunk_in_the_order_of_the_files(self) -> None:
        have = HaveMap(LISTING, MARK, 10, complete=False, files={"a": bitmap({0, 9}, 10), "b": bitmap({1}, 2)})
        assert have.as_number(SIZES) == 1 | 1 << 9 | 1 << 11
        assert HaveMap(LISTING, MARK, 10, complete=True).as_number(SIZES) == (1 << 12) - 1


class TestChanges:
    FIRST = HaveMap(LISTING, MARK, 10, complete=False, files={"a": bitmap({1}, 10), "b": bitmap({0}, 2)})

    def test_a_change_replaces_the_files_that_it_names(self) -> None:
        later = HaveMap(LISTING, Mark(MARK.epoch, 8), 10, complete=False, files={"a": bitmap({2}, 10)})
        both = self.FIRST.followed_by(later)
        assert (both.has("a", 1), both.has("a", 2), both.has("b", 0)) == (False, True, True)
        assert both.at == later.at

    @pytest.mark.parametrize(
        "later",
        [
            HaveMap(LISTING, Mark("f" * 16, 1), 10, complete=False),
            HaveMap("cd" * 32, Mark(MARK.epoch, 8), 10, complete=False),
            HaveMap(LISTING, Mark(MARK.epoch, 8), 10, complete=True),
        ],
        ids=["another run", "another listing", "complete"],
    )
    def test_the_map_of_another_run_or_listing_stands_alone(self, later: HaveMap) -> None:
        assert self.FIRST.followed_by(later) == later


def offered(held: dict[str, bytes] | None, listing: str = LISTING) -> Offer:
    return Offer("0123456789abcdef", listing, {}, 10, authenticated=False, held=held)


class TestTelling:
    def test_who_knows_a_mark_is_told_the_files_that_changed_since(self) -> None:
        maps = Maps()
        first = maps.of(offered({"a": b"\1", "b": b"\1"}))
        later = maps.of(offered({"a": b"\3", "b": b"\1"}), first.at)
        assert (first.files, later.files) == ({"a": b"\1", "b": b"\1"}, {"a": b"\3"})
        assert maps.of(offered({"a": b"\3", "b": b"\1"}), later.at) == replace(later, files={})

    def test_a_file_that_is_gone_has_no_chunk(self) -> None:
        maps = Maps()
        first = maps.of(offered({"a": b"\1", "b": b"\1"}))
        later = maps.of(offered({"b": b"\1"}), first.at)
        assert later.files == {"a": b"\0"}
        assert not first.followed_by(later).has("a", 0)

    def test_who_has_seen_another_listing_or_a_complete_one_is_told_everything(self) -> None:
        maps = Maps()
        seen = [maps.of(offered({"a": b"\1"}, "cd" * 32)).at, maps.of(offered(None)).at]
        held = {"a": b"\1", "b": b"\1"}
        for at in seen:
            told = maps.of(offered(held), at)
            assert (told.files, told.at.epoch != at.epoch) == (held, True)

    def test_what_does_not_fit_is_told_by_the_next_answer(self) -> None:
        maps, held = Maps(), {f"{number:04}" * 500: b"\1" for number in range(1000)}
        pages: list[HaveMap] = []
        at = None
        while not pages or pages[-1].files:
            pages.append(maps.of(offered(held), at))
            at = pages[-1].at
            assert len(pages[-1].to_bytes()) <= LARGEST
        assert len(pages) == 4
        assert {path: bits for page in pages for path, bits in page.files.items()} == held

    @given(st.dictionaries(st.text(), st.integers(0, 100), min_size=1))
    def test_a_map_never_takes_more_than_the_room_of_its_files(self, counts: dict[str, int]) -> None:
        files = {path: bitmap(range(count), count) for path, count in counts.items()}
        document = HaveMap(LISTING, Mark("f" * 16, 10**16 - 1), 10**12, complete=False, files=files).to_bytes()
        assert len(document) <= HEAD + sum(room(path, count) for path, count in counts.items())

    @given(st.lists(st.dictionaries(st.sampled_from("abc"), st.sampled_from([b"\0", b"\1", b"\2"]))))
    def test_the_changes_together_are_the_map(self, states: list[dict[str, bytes]]) -> None:
        maps, mine = Maps(), None
        for held in states:
            told = maps.of(offered(held), mine.at if mine is not None else None)
            mine = told if mine is None else mine.followed_by(told)
            assert {path: bits for path, bits in mine.files.items() if any(bits)} == {
                path: bits for path, bits in held.items() if any(bits)
            }


def asked(peer: Peer, target: str) -> Callable[[], Answer]:
    """Ask on a thread. The function returned waits for the answer."""
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(peer.get(target)), daemon=True)
    thread.start()

    def answer() -> Answer:
        thread.join(30)
        return answers[0]

    return answer


class TestWaiting:
    def test_who_knows_nothing_is_answered_at_once(self, cache: Cache, start: Start) -> None:
        with start(times=LONG).peer() as peer:
            for since in ("", "?since=", "?since=nonsense", "?since=0123456789abcdef.1"):
                assert json.loads(peer.get(f"/v1/{cache.key}/have{since}").body)["complete"] is True

    def test_who_knows_all_waits_until_the_time_is_over_and_is_told_the_same(self, cache: Cache, start: Start) -> None:
        with start(times=SHORT).peer() as peer:
            first = json.loads(peer.get(f"/v1/{cache.key}/have").body)
            assert json.loads(peer.get(f"/v1/{cache.key}/have?since={first['at']}").body) == first

    def test_who_says_how_long_to_wait_waits_no_longer(self, cache: Cache, start: Start) -> None:
        with start(times=LONG).peer() as peer:
            first = json.loads(peer.get(f"/v1/{cache.key}/have").body)
            assert json.loads(peer.get(f"/v1/{cache.key}/have?since={first['at']}&wait=0").body) == first

    def test_who_waits_is_told_that_the_artifact_is_gone(self, cache: Cache, start: Start) -> None:
        running = start(times=LONG)
        with running.peer() as peer:
            at = json.loads(peer.get(f"/v1/{cache.key}/have").body)["at"]
            answer = asked(peer, f"/v1/{cache.key}/have?since={at}")
            wait_until(lambda: running.server.counts.polls == 1, "the peer waits")
            shutil.rmtree(cache.directory)
            assert answer().status == 404

    def test_who_waits_is_told_of_another_listing(self, cache: Cache, start: Start) -> None:
        running = start(times=LONG)
        with running.peer() as peer:
            first = json.loads(peer.get(f"/v1/{cache.key}/have").body)
            answer = asked(peer, f"/v1/{cache.key}/have?since={first['at']}")
            wait_until(lambda: running.server.counts.polls == 1, "the peer waits")
            record = cache.directory / RELATIVE_PATH
            draft = record.with_name("draft")
            draft.write_bytes(record.read_bytes().replace(b'"path": "empty"', b'"path": "other"'))
            draft.rename(record)
            document = json.loads(answer().body)
        assert document["listing"] != first["listing"]
        assert document["at"] != first["at"]

    def test_a_peer_that_waits_holds_no_upload_and_no_thread(self, cache: Cache, start: Start) -> None:
        running = start(times=LONG)
        peers = [running.peer() for _ in range(60)]
        for each in peers:
            at = json.loads(each.get(f"/v1/{cache.key}/have").body)["at"]
            each.send(f"GET /v1/{cache.key}/have?since={at} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        wait_until(lambda: running.server.counts.polls == 60, "all of them wait")
        with running.peer() as other:
            assert other.get(cache.path("config.json")).status == 200
        wait_until(lambda: running.server.counts.uploads == 0, "the upload is over, and the peers that wait are none")
        for each in peers:
            each.close()

    def test_all_who_wait_for_an_artifact_are_compared_by_one_look_at_it(self, cache: Cache) -> None:
        looks = list[str]()

        class Looked(Offers):
            def find(self, key: str, listing: str | None = None) -> Offer | None:
                looks.append(key)
                return super().find(key, listing)

        offers, maps = Looked(cache.root), Maps()
        sender = Sender(Rate(None, time.monotonic), Counts(), threading.Event())
        answerer = Answerer(offers, maps, anonymous, sender, Counts(), Places(1), private=True, named=False)
        offer = offers.find(cache.key)
        assert offer is not None
        known, unknown = (Request("GET", f"/v1/{cache.key}/have?since={at}") for at in (maps.of(offer).at, MARK))
        looks.clear()
        assert answerer.changed([known, unknown, known]) == [False, True, False]
        assert looks == [cache.key]

    def test_a_drain_answers_who_waits(self, cache: Cache, start: Start) -> None:
        running = start(times=LONG)
        with running.peer() as peer:
            at = json.loads(peer.get(f"/v1/{cache.key}/have").body)["at"]
            answer = asked(peer, f"/v1/{cache.key}/have?since={at}")
            wait_until(lambda: running.server.counts.polls == 1, "the peer waits")
            assert running.server.drain(20)
            assert answer().status == 200
