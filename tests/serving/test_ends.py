"""How answers and servers end: eviction, damage, draining."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from http.client import IncompleteRead

import pytest

from fetcher.serving import ServingLimits
from tests.lab.command import run_fetcher
from tests.lab.waiting import wait_until
from tests.serving.conftest import CONFIG, WEIGHTS, Cache, Running, Start
from tests.serving.peer import Answer, Peer

MiB = 1024 * 1024
SLOW = ServingLimits(rate=4 * MiB)
"""The weights take more than a second."""


def asks(cache: Cache, running: Running, peer: Peer) -> None:
    """Ask for the weights, and wait until they are being sent."""
    peer.send(f"GET {cache.path('model.safetensors')} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    wait_until(lambda: running.server.counts.uploads == 1, "the weights are being sent")


class TestEviction:
    def test_an_artifact_that_is_being_sent_is_in_use(self, cache: Cache, start: Start) -> None:
        running = start(limits=SLOW)
        with running.peer() as peer:
            asks(cache, running, peer)
            refused = run_fetcher("rm", cache.key, "--cache-dir", cache.root)
            assert (refused.returncode, refused.stderr.split(":")[0]) == (75, "InUse")
            assert peer.receive().body == WEIGHTS

    def test_an_idle_server_keeps_no_artifact(self, cache: Cache, start: Start) -> None:
        with start().peer() as peer:
            target = cache.path("config.json")
            assert peer.get(target).body == CONFIG
            assert run_fetcher("rm", cache.key, "--cache-dir", cache.root).returncode == 0
            assert peer.get(target).status == 404

    def test_what_is_removed_nevertheless_is_sent_to_its_end_and_is_404_afterwards(self, cache: Cache, start: Start) -> None:
        running, target = start(limits=SLOW), cache.path("config.json")
        with running.peer() as peer:
            asks(cache, running, peer)
            shutil.rmtree(cache.directory)
            assert peer.receive().body == WEIGHTS
            assert peer.get(target).status == 404

    def test_a_file_that_shrinks_while_it_is_sent_is_cut_off(self, cache: Cache, start: Start) -> None:
        running = start(limits=SLOW)
        with running.peer() as peer:
            asks(cache, running, peer)
            with (cache.directory / "model.safetensors").open("r+b") as stream:
                stream.truncate(0)
            with pytest.raises(IncompleteRead):
                peer.receive()


class TestDraining:
    def test_what_is_being_sent_is_finished(self, cache: Cache, start: Start) -> None:
        running = start(limits=SLOW)
        with running.peer() as peer, running.peer() as idle, ThreadPoolExecutor(1) as other:
            asks(cache, running, peer)
            answer = other.submit(peer.receive)
            assert running.server.drain(30)
            whole: Answer = answer.result()
            assert whole.body == WEIGHTS
            assert idle.ended()
            assert peer.ended()

    def test_nobody_can_connect_any_more(self, start: Start) -> None:
        running = start()
        assert running.server.drain(30)
        with pytest.raises(ConnectionRefusedError):
            running.peer()

    def test_what_takes_longer_is_cut_off(self, cache: Cache, start: Start) -> None:
        running = start(limits=ServingLimits(rate=MiB))
        with running.peer() as peer:
            asks(cache, running, peer)
            assert not running.server.drain(0.05)
            with pytest.raises((IncompleteRead, ConnectionResetError)):
                peer.receive()

    def test_a_server_without_connections_is_drained_at_once(self, start: Start) -> None:
        assert start().server.drain(30)
