"""Agents that take bytes from each other, on a real API server and a real origin. The test plays the controller."""

from __future__ import annotations

import os
import random
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from cluster.certificates import Authority, new_authority, new_key, now
from cluster.resources import NODE_CACHE
from fetcher.cache.offering import Offers
from fetcher.sources.access import HttpAccess
from fetcher.testing.origin import Origin
from tests.cluster.agent.cluster import Entry, Node, Play
from tests.lab.servers import free_port
from tests.lab.waiting import wait_until
from tests.serving.peer import Peer

MiB = 1024 * 1024
SIZE = 40 * MiB
NO_ADDRESS = "https://[:::::]:8650"
"""The schema of the API server takes it."""
PUBLISHED = {"config.json": b"{}", "model.safetensors": os.urandom(SIZE)}


class Pool:
    """The nodes of a pool in which peers are on, each with an address of this machine's own."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self.port = free_port()
        self.authority = Authority(*new_authority(now()))
        self._net = f"127.{random.randint(64, 250)}.{random.randint(0, 250)}"
        self._count = 0

    def started(self, *wanted: Entry, peers: tuple[Node, ...] = (), beside: tuple[str, ...] = ()) -> Node:
        """A new node that shall have `wanted`, with its certificate. It is told of `peers`, and of the addresses `beside`."""
        self._count += 1
        node = self.play.node(f"n{self._count}")
        self.want(node)
        node.start("--peer-address", f"{self._net}.{self._count}", "--peer-port", str(self.port))
        wait_until(lambda: node.status.peer_key is not None, "the node asks for a certificate")
        self.want(node, *wanted, peers=peers, beside=beside)
        return node

    def want(self, node: Node, *wanted: Entry, peers: tuple[Node, ...] = (), beside: tuple[str, ...] = ()) -> None:
        """Write the specification of a node, with its certificate once it has asked for one."""
        told: dict[str, Any] = {"authority": self.authority.pem}
        if node.process is not None and (status := node.status).peer_key is not None:
            assert status.peer_address is not None
            told["certificate"] = self.authority.issue(node.name, status.peer_address, status.peer_key, now())
        if peers:
            addresses = [*beside, *(peer.status.peer_address for peer in peers)]
            told["addresses"] = {each.key: addresses for each, _ in wanted}
        self.play.want(node, *wanted, peers=told)


@pytest.fixture
def origin(origin: Origin) -> Origin:
    origin.add_repo("org/m", PUBLISHED)
    origin.add_repo("org/private", PUBLISHED, private=True, readers=["good"])
    return origin


@pytest.fixture
def pool(play: Play) -> Pool:
    return Pool(play)


async def test_the_second_node_gets_its_bytes_from_the_first_and_both_say_whence(
    origin: Origin, play: Play, pool: Pool
) -> None:
    model = await play.model("m", "hf://org/m")
    first = pool.started(model.wanted("default"))
    said = first.becomes(model, "Ready")
    assert (said.from_origin, said.from_peers) == (model.bytes, 0)
    origin.clear_requests()
    second = pool.started(model.wanted("default"), peers=(first,))
    said = second.becomes(model, "Ready")
    assert second.contents(model) == PUBLISHED
    assert (said.from_origin, said.from_peers) == (0, model.bytes)
    assert [request for request in origin.requests if request.origin == "cdn"] == []
    assert second.metric("peer_bytes_total") == model.bytes


async def test_a_model_with_a_token_comes_from_peers_too_since_they_prove_who_they_are(
    origin: Origin, play: Play, pool: Pool
) -> None:
    play.secret("hub", token="good")
    auth = {"secretKeyRef": {"name": f"{play.mark}-hub", "key": "token"}}
    model = await play.model("m", "hf://org/private", auth=auth, credentials=HttpAccess.bearer("good"))
    first = pool.started(model.wanted("default"))
    first.becomes(model, "Ready")
    origin.clear_requests()
    second = pool.started(model.wanted("default"), peers=(first,))
    assert second.becomes(model, "Ready").from_peers == model.bytes


async def test_an_address_that_is_none_is_said_and_the_others_are_asked(play: Play, pool: Pool) -> None:
    model = await play.model("m", "hf://org/m")
    first = pool.started(model.wanted("default"))
    first.becomes(model, "Ready")
    second = pool.started(model.wanted("default"), peers=(first,), beside=(NO_ADDRESS,))
    assert second.becomes(model, "Ready").from_peers == model.bytes
    _, log = second.stop()
    assert log.count(NO_ADDRESS) == 1


@pytest.mark.parametrize("address", ["https://10.0.0.7:99999", "https://10.0.0.7:0", "https://10.0.0.256:1", "https://node:1"])
def test_a_port_or_a_host_that_cannot_be_is_not_taken_by_the_api_server(play: Play, pool: Pool, address: str) -> None:
    peers = {"authority": pool.authority.pem, "addresses": {"0" * 16: [address]}}
    document = {
        "apiVersion": NODE_CACHE.api_version,
        "kind": NODE_CACHE.name,
        "metadata": {"name": f"{play.mark}-refused"},
        "spec": {"pool": "pool", "peers": peers},
    }
    assert f'Invalid value: "{address}"' in play.cluster.apply(document)


class TestRights:
    async def test_a_node_has_what_its_node_cache_names_and_nothing_else(self, play: Play, pool: Pool, tmp_path: Path) -> None:
        model = await play.model("m", "hf://org/m")
        first = pool.started(model.wanted("default"))
        first.becomes(model, "Ready")
        offer = Offers(first.root).find(model.ref.key)
        assert offer is not None
        entitled, empty, other = play.node("entitled"), play.node("empty"), play.node("other")
        play.want(entitled, model.wanted("default"))
        play.want(empty)
        play.want(other, model.wanted("default", listing_digest="0" * 64))  # the same model, and another listing
        statuses = {
            name: _asked(first, self.shown(pool, name, tmp_path), tmp_path, f"/v1/{model.ref.key}/{offer.listing}/config.json")
            for name in (entitled.name, empty.name, other.name, f"{play.mark}-unknown")
        }
        assert list(statuses.values()) == [200, 401, 401, 401]

    async def test_who_has_no_certificate_of_the_authority_is_not_spoken_to(
        self, play: Play, pool: Pool, tmp_path: Path
    ) -> None:
        model = await play.model("m", "hf://org/m")
        first = pool.started(model.wanted("default"))
        first.becomes(model, "Ready")
        entitled = play.node("entitled")
        play.want(entitled, model.wanted("default"))
        stranger = Pool(play)
        for certificate in (self.shown(stranger, entitled.name, tmp_path, trusted=pool), None):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                _asked(first, certificate, tmp_path, f"/v1/{model.ref.key}/have")

    def shown(self, pool: Pool, name: str, place: Path, *, trusted: Pool | None = None) -> tuple[Path, Path]:
        """A certificate of the pool for a node of this name, and its key."""
        private, public = new_key()
        (place / "shown.pem").write_text(pool.authority.issue(name, "https://127.0.0.1:1", public, now()))
        (place / "shown-key.pem").write_bytes(private)
        (place / "authority.pem").write_text((trusted or pool).authority.pem)
        return place / "shown.pem", place / "shown-key.pem"


async def test_without_a_certificate_a_node_serves_nobody_and_takes_all_from_the_source(play: Play, pool: Pool) -> None:
    model = await play.model("m", "hf://org/m")
    first = pool.started(model.wanted("default"))
    first.becomes(model, "Ready")
    node = play.node("uncertified")
    told = {"authority": pool.authority.pem, "addresses": {model.ref.key: [first.status.peer_address]}}
    play.want(node, model.wanted("default"), peers=told)
    node.start("--peer-address", "127.0.0.1", "--peer-port", "1")  # a port that it may not have
    said = node.becomes(model, "Ready")
    assert (said.from_origin, said.from_peers) == (model.bytes, 0)


async def test_with_peers_off_again_nobody_is_served(play: Play, pool: Pool) -> None:
    model = await play.model("m", "hf://org/m")
    first = pool.started(model.wanted("default"))
    first.becomes(model, "Ready")
    where = first.status.peer_address
    assert where is not None
    play.cluster.run("patch", "nodecache", first.name, "--type=merge", "-p", '{"spec":{"peers":null}}')
    wait_until(lambda: first.status.peer_address is None, "the node has withdrawn its address")
    with pytest.raises(ConnectionError):
        Peer(where)


def _asked(node: Node, certificate: tuple[Path, Path] | None, place: Path, path: str) -> int:
    """The status of the answer of a node's agent."""
    where = node.status.peer_address
    assert where is not None
    assert urlsplit(where).scheme == "https"
    with Peer(where, trusting=place / "authority.pem", certificate=certificate) as peer:
        return peer.get(path).status
