"""Agents on a real API server and a real origin. The test plays the controller."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from fetcher.sources.access import HttpAccess
from fetcher.testing.effects import Redirect
from fetcher.testing.faults import Fault
from fetcher.testing.origin import Origin
from tests.cluster.agent.cluster import Node, Play
from tests.lab.fixtures import MakeFilesystem
from tests.lab.waiting import wait_until

MiB = 1024 * 1024


def files(size: int = 3 * MiB) -> dict[str, bytes]:
    return {"config.json": b"{}", "model.safetensors": os.urandom(size)}


def journalled(node: Node) -> int:
    """The number of chunks that a fetch under way has finished."""
    return sum(journal.read_bytes().count(b'"chunk"') for journal in node.root.rglob("journal.*"))


def flip(path: Path, place: int) -> None:
    """Change one bit of a file, as a disk does."""
    with open(path, "r+b") as stream:
        stream.seek(place)
        byte = stream.read(1)
        stream.seek(place)
        stream.write(bytes([byte[0] ^ 1]))


def bodies(origin: Origin) -> int:
    """The number of requests for contents of files."""
    return sum(request.origin == "cdn" or "/resolve/" in request.path for request in origin.requests)


def ranges(origin: Origin) -> list[Any]:
    return [request for request in origin.requests if request.origin == "cdn"]


class TestCopies:
    async def test_three_agents_have_three_copies_of_one_model(self, origin: Origin, play: Play) -> None:
        published = files()
        origin.add_repo("org/m", published)
        model = await play.model("m", "hf://org/m")
        nodes = [play.node(f"n{number}") for number in range(3)]
        for node in nodes:
            play.want(node, model.wanted("default"))
            node.start()
        for node in nodes:
            assert node.becomes(model, "Ready").content == model.content
            assert node.contents(model) == published

    async def test_a_model_whose_turn_has_not_come_waits_and_then_is_fetched(
        self, origin: Origin, play: Play, node: Node
    ) -> None:
        origin.add_repo("org/m", files())
        model = await play.model("m", "hf://org/m")
        origin.clear_requests()
        play.want(node, model.wanted("default", turn=False))
        node.start()
        node.becomes(model, "Queued/Turn")
        assert not origin.requests
        play.want(node, model.wanted("default", turn=True))
        node.becomes(model, "Ready")

    async def test_a_new_revision_replaces_the_old_one_that_stays_readable_until_then(
        self, origin: Origin, play: Play, node: Node
    ) -> None:
        old, new = files(), files()
        repository = origin.add_repo("org/m", old)
        before = await play.model("m", "hf://org/m")
        play.want(node, before.wanted("default"))
        node.start()
        node.becomes(before, "Ready")
        origin.update_repo(repository, new)
        after = await play.model("m", "hf://org/m")
        repository.private = True  # nothing can be fetched now
        play.want(node, after.wanted("default"))
        node.becomes(after, "Failed/Unauthorized")
        assert node.contents(after) == old
        repository.private = False
        play.apply(play.with_note(after))
        assert node.becomes(after, "Ready").content == after.content
        assert node.contents(after) == new

    async def test_a_source_that_moved_on_is_not_fetched(self, origin: Origin, play: Play, node: Node) -> None:
        origin.add_repo("org/m", files())
        model = await play.model("m", "hf://org/m")
        play.want(node, model.wanted("default", listing_digest="0" * 64))
        origin.clear_requests()
        node.start()
        node.becomes(model, "Waiting/OtherRevision")
        assert bodies(origin) == 0
        assert not node.path(model).exists()


class TestRestarts:
    async def test_what_lies_there_is_ready_without_asking_the_source(self, origin: Origin, play: Play, node: Node) -> None:
        origin.add_repo("org/m", files())
        model = await play.model("m", "hf://org/m")
        play.want(node, model.wanted("default"))
        node.start()
        node.becomes(model, "Ready")
        code, log = node.stop()
        assert code == 0, log
        origin.stop()
        node.start()
        node.surveys()
        node.becomes(model, "Ready")
        assert node.metric("fetched_bytes_total") == 0

    @pytest.mark.parametrize("how", ["killed", "ended"])
    async def test_an_agent_that_is_stopped_in_the_middle_goes_on(
        self, how: str, origin: Origin, play: Play, node: Node
    ) -> None:
        published = {f"model-{number}.safetensors": os.urandom(24 * MiB) for number in range(3)}
        origin.add_repo("org/m", published)
        model = await play.model("m", "hf://org/m")
        play.want(node, model.wanted("default"))
        origin.throttle(total=30 * MiB)
        node.start("--max-concurrency", "3")
        wait_until(lambda: journalled(node) >= 2, "two chunks are journalled", timeout=90)
        if how == "killed":
            node.kill()
        else:
            code, log = node.stop()
            assert code == 0, log
            assert node.phase(model).startswith("Queued")
        assert not node.path(model).exists()
        origin.throttle()
        node.start()
        node.becomes(model, "Ready")
        assert node.contents(model) == published
        assert 0 < node.metric("fetched_bytes_total") <= (72 - 16) * MiB


class TestCredentials:
    async def test_a_refused_token_fails_with_its_reason_and_a_corrected_secret_makes_it_ready(
        self, origin: Origin, play: Play, node: Node
    ) -> None:
        published = files()
        origin.add_repo("org/m", published, private=True, readers=["reader-token"])
        play.secret("hub", token="another-token")
        auth = {"secretKeyRef": {"name": f"{play.mark}-hub", "key": "token"}}
        model = await play.model("m", "hf://org/m", credentials=HttpAccess.bearer("reader-token"), auth=auth)
        play.want(node, model.wanted("default"))
        node.start()
        node.becomes(model, "Failed/Unauthorized")
        play.secret("hub", token="reader-token")
        node.becomes(model, "Ready")
        assert node.contents(model) == published
        _, log = node.stop()
        assert "reader-token" not in log
        assert "another-token" not in log

    async def test_a_missing_secret_is_named(self, origin: Origin, play: Play, node: Node) -> None:
        origin.add_repo("org/m", files())
        auth = {"secretKeyRef": {"name": f"{play.mark}-none", "key": "token"}}
        model = await play.model("m", "hf://org/m", auth=auth)
        play.want(node, model.wanted("default"))
        node.start()
        assert f"{play.mark}-none" in str(node.becomes(model, "Failed/SecretMissing").message)

    async def test_the_environment_of_the_agent_is_no_credential(
        self, origin: Origin, play: Play, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        origin.add_repo("org/m", files(), private=True, readers=["reader-token"])
        model = await play.model("m", "hf://org/m", credentials=HttpAccess.bearer("reader-token"))
        monkeypatch.setenv("HF_TOKEN", "reader-token")
        play.want(node, model.wanted("default"))
        node.start()
        node.becomes(model, "Failed/Unauthorized")

    async def test_a_source_that_the_pool_does_not_allow_is_not_asked(self, origin: Origin, play: Play, node: Node) -> None:
        origin.add_repo("org/m", files())
        model = await play.model("m", "hf://org/m")
        origin.clear_requests()
        play.want(node, model.wanted("default"), allowedSources=["hf://other/"])
        node.start()
        node.becomes(model, "Failed/SourceNotAllowed")
        assert not origin.requests

    async def test_a_redirect_to_a_private_address_is_not_followed(self, origin: Origin, play: Play, node: Node) -> None:
        origin.add_repo("org/m", files())
        model = await play.model("m", "hf://org/m")
        origin.faults.add(Fault(Redirect("http://10.255.255.1/inside"), origin="cdn"))
        play.want(node, model.wanted("default"))
        node.start()
        assert "10.255.255.1:80 is no public address" in str(node.becomes(model, "Failed/SourceNotAllowed").message)


class TestDamage:
    async def test_a_directory_that_disappears_is_fetched_again(self, origin: Origin, play: Play, node: Node) -> None:
        published = files()
        origin.add_repo("org/m", published)
        model = await play.model("m", "hf://org/m")
        play.want(node, model.wanted("default"))
        node.start()
        node.becomes(model, "Ready")
        origin.clear_requests()
        node.path(model).rename(play.directory / "taken away")
        wait_until(lambda: bodies(origin) > 0, "it is fetched again")
        node.becomes(model, "Ready")
        wait_until(lambda: node.path(model).exists() and node.contents(model) == published, "all bytes are back")

    async def test_a_flipped_byte_is_repaired_by_at_most_two_chunks(self, origin: Origin, play: Play, node: Node) -> None:
        published = files(80 * MiB)
        origin.add_repo("org/m", published)
        model = await play.model("m", "hf://org/m")
        play.want(node, model.wanted("default"))
        node.start()
        node.becomes(model, "Ready")
        before = node.metric("fetched_bytes_total")
        flip(node.path(model) / "model.safetensors", 40 * MiB)
        assert node.process is not None
        node.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: node.contents(model) == published, "the file is whole again", timeout=90)
        node.becomes(model, "Ready")
        assert 0 < node.metric("fetched_bytes_total") - before <= 32 * MiB


class TestRoom:
    async def three(self, origin: Origin, play: Play) -> list[Any]:
        models = []
        for name in "abc":
            origin.add_repo(f"org/{name}", files(20 * MiB))
            models.append(await play.model(name, f"hf://org/{name}"))
        return models

    async def test_the_least_recently_used_makes_room_and_does_not_come_back(
        self, origin: Origin, play: Play, node: Node
    ) -> None:
        a, b, c = await self.three(origin, play)
        play.want(node, a.wanted("default"), b.wanted("default"), limit="50Mi")
        node.start()
        node.becomes(a, "Ready")
        node.becomes(b, "Ready")
        long_ago = time.time() - 1000
        os.utime(node.root / ".fetcher" / "usage" / a.ref.key, (long_ago, long_ago))
        play.want(node, a.wanted("default"), b.wanted("default"), c.wanted("default"), limit="50Mi")
        node.becomes(c, "Ready")
        node.becomes(a, "Evicted/Capacity")
        node.becomes(b, "Ready")
        origin.clear_requests()
        node.kill()
        node.start()  # what was evicted is remembered by the status
        node.becomes(a, "Evicted/Capacity")
        node.surveys()
        assert node.phase(a) == "Evicted/Capacity"
        assert not ranges(origin)
        play.want(node, a.wanted("default"), b.wanted("default"), c.wanted("default"), limit="100Mi")
        node.becomes(a, "Ready")

    async def test_what_is_held_and_what_stays_always_are_spared(self, origin: Origin, play: Play, node: Node) -> None:
        a, b, c = await self.three(origin, play)
        there = (a.wanted("default", held=True), b.wanted("default", retain="Always"))
        play.want(node, *there, limit="50Mi")
        node.start()
        node.becomes(a, "Ready")
        node.becomes(b, "Ready")
        origin.clear_requests()
        play.want(node, *there, c.wanted("default"), limit="50Mi")
        assert "evictable" in str(node.becomes(c, "Queued/Capacity").message)
        assert not ranges(origin)
        play.want(node, a.wanted("default"), there[1], c.wanted("default"), limit="51Mi")
        node.becomes(c, "Ready")
        node.becomes(a, "Evicted/Capacity")
        node.becomes(b, "Ready")

    async def test_a_model_was_used_until_the_pod_that_mounted_it_has_ended(
        self, origin: Origin, play: Play, node: Node
    ) -> None:
        a, b, c = await self.three(origin, play)
        play.want(node, a.wanted("default"), b.wanted("default"), limit="50Mi")
        node.start()
        node.becomes(a, "Ready")
        node.becomes(b, "Ready")
        for model, ago in ((a, 2000), (b, 1000)):
            then = time.time() - ago
            os.utime(node.root / ".fetcher" / "usage" / model.ref.key, (then, then))
        play.want(node, a.wanted("default", held=True), b.wanted("default"), limit="50Mi")
        wait_until(lambda: any(node.root.glob(f".fetcher/usage/{a.ref.key}.hold.*")), "the model is held", timeout=60)

        play.want(node, a.wanted("default"), b.wanted("default"), c.wanted("default"), limit="50Mi")

        node.becomes(c, "Ready")
        node.becomes(b, "Evicted/Capacity")
        node.becomes(a, "Ready")

    async def test_a_model_that_can_never_fit_says_so_with_numbers_and_fetches_nothing(
        self, origin: Origin, play: Play, node: Node
    ) -> None:
        origin.add_repo("org/m", files(20 * MiB))
        model = await play.model("m", "hf://org/m")
        play.want(node, model.wanted("default"), limit="10Mi")
        origin.clear_requests()
        node.start()
        assert "needed 20.0 MiB" in str(node.becomes(model, "Failed/CapacityExceeded").message)
        assert not ranges(origin)

    async def test_a_disk_that_strangers_fill_costs_the_origin_nothing(
        self, origin: Origin, play: Play, node: Node, small_filesystem: MakeFilesystem
    ) -> None:
        """What may go makes room. What may not is kept, and nothing is fetched again and again into a full disk."""
        disk = small_filesystem("ext4", size=96 * MiB)
        node.root = disk.path / "models"
        node.root.mkdir()
        a, b, c = await self.three(origin, play)
        first = a.wanted("default", retain="Always")
        play.want(node, first, b.wanted("default"), minFree="1Mi")
        node.start()
        node.becomes(a, "Ready")
        node.becomes(b, "Ready")
        stranger = disk.fill(leave=8 * MiB)
        play.want(node, first, b.wanted("default"), c.wanted("default"), minFree="1Mi")
        node.becomes(c, "Ready")
        node.becomes(b, "Evicted/Capacity")
        origin.clear_requests()
        node.surveys()
        assert (node.phase(a), node.phase(b), node.phase(c)) == ("Ready", "Evicted/Capacity", "Ready")
        assert not ranges(origin)
        stranger.unlink()
        node.becomes(b, "Ready")

    async def test_a_root_above_its_limit_says_so_and_evicts_nothing(self, origin: Origin, play: Play, node: Node) -> None:
        origin.add_repo("org/m", files(20 * MiB))
        model = await play.model("m", "hf://org/m")
        play.want(node, model.wanted("default"))
        node.start()
        node.becomes(model, "Ready")
        play.want(node, model.wanted("default"), limit="10Mi")
        wait_until(lambda: node.condition("OverLimit") == ("True", "OverLimit"), "the agent reports it")
        assert node.phase(model) == "Ready"


class TestRoot:
    async def test_a_root_on_the_filesystem_of_the_node_is_refused(self, origin: Origin, play: Play, node: Node) -> None:
        origin.add_repo("org/m", files())
        model = await play.model("m", "hf://org/m")
        play.want(node, model.wanted("default"), allowRootFilesystem=False)
        origin.clear_requests()
        node.start()
        node.becomes(model, "Queued/NotAMountPoint")
        assert node.condition("Ready") == ("False", "NotAMountPoint")
        assert not origin.requests

    async def test_a_missing_root_is_refused_and_never_made(self, origin: Origin, play: Play, node: Node) -> None:
        origin.add_repo("org/m", files())
        model = await play.model("m", "hf://org/m")
        node.root.rmdir()
        play.want(node, model.wanted("default"))
        node.start()
        node.becomes(model, "Queued/RootMissing")
        assert not node.root.exists()
        node.root.mkdir()
        node.becomes(model, "Ready")


class TestIntent:
    async def test_a_node_cache_that_disappears_removes_nothing(self, origin: Origin, play: Play, node: Node) -> None:
        published = files()
        origin.add_repo("org/m", published)
        model = await play.model("m", "hf://org/m")
        play.want(node, model.wanted("default"))
        node.start("--orphan-grace", "0s")
        node.becomes(model, "Ready")
        play.cluster.run("delete", "nodecache", node.name)
        origin.clear_requests()
        play.want(node)
        wait_until(lambda: node.condition("Ready") == ("True", "Ready"), "the agent sees the new one")
        node.surveys()
        assert node.contents(model) == published

    async def test_the_agent_gives_signs_of_life(self, play: Play, node: Node) -> None:
        play.want(node)
        node.start()
        wait_until(lambda: play.renewed(node), "a Lease exists")
