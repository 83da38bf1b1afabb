"""Models that an agent keeps in memory, and models on a medium that is memory: real pages, real locks, a real tmpfs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cluster.controller.daemon_set import resources_of
from cluster.resources import CachePoolSpec
from cluster.resources.pool import Memory
from fetcher.host.memory import fields
from fetcher.testing.checkpoint import make_checkpoint
from fetcher.testing.origin import Origin
from tests.cluster.agent.cluster import Model, Node, Play
from tests.lab.cgroups import in_group, made_cgroup
from tests.lab.fixtures import MakeFilesystem
from tests.lab.waiting import wait_until
from tests.loader.conftest import cool, resident

MiB = 1024 * 1024
pytestmark = pytest.mark.page_cache


async def published(origin: Origin, play: Play, name: str, size: int = 8 * MiB) -> Model:
    """Publish a checkpoint of two shards, and declare it."""
    made = make_checkpoint(play.directory / f"source-{name}", shards=2, shard_size=size // 2, seed=name)
    origin.add_repo(f"org/{name}", {path.name: path.read_bytes() for path in made.iterdir()})
    return await play.model(name, f"hf://org/{name}")


def of_process(node: Node, name: str) -> int:
    """A number of the agent's /proc/PID/status, in bytes."""
    assert node.process is not None
    return fields(Path(f"/proc/{node.process.pid}/status").read_text())[name]


def warm(node: Node, model: Model) -> str | None:
    observed = node.observed(model)
    return observed.warm if observed is not None else None


def is_warm(node: Node, model: Model) -> bool:
    return resident(node.path(model)) == 1


class TestPageCache:
    async def test_a_model_is_in_memory_and_is_read_again_when_it_was_reclaimed_until_its_entry_changes(
        self, origin: Origin, play: Play, node: Node
    ) -> None:
        model = await published(origin, play, "m")
        play.want(node, model.wanted("default", warm="PageCache"), memoryBudget=9 * MiB)
        node.start()
        node.becomes(model, "Ready")
        assert (warm(node, model), is_warm(node, model), of_process(node, "VmLck")) == ("PageCache", True, 0)
        writes = node.metric("status_writes_total")
        cool(node.path(model))
        wait_until(lambda: is_warm(node, model), "it is read again")
        wait_until(lambda: node.metric("rewarmed_bytes_total") > 7 * MiB, "that is counted")
        assert node.metric("memory_budget_bytes") == 9 * MiB
        assert node.metric("status_writes_total") <= writes + 2  # Warming and Ready, and not one for each look
        play.want(node, model.wanted("default"), memoryBudget=9 * MiB)
        wait_until(lambda: warm(node, model) is None, "it is not kept any more")
        assert node.phase(model) == "Ready"
        cool(node.path(model))
        node.surveys()
        assert resident(node.path(model)) == 0
        assert node.metric("warm_bytes") == 0


class TestLocked:
    async def test_a_model_is_locked_until_it_is_not_wanted_any_more(self, origin: Origin, play: Play, node: Node) -> None:
        model = await published(origin, play, "m")
        play.want(node, model.wanted("default", warm="Locked"), memoryBudget=9 * MiB)
        node.start()
        node.becomes(model, "Ready")
        assert warm(node, model) == "Locked"
        assert of_process(node, "VmLck") >= model.bytes
        assert of_process(node, "RssAnon") < 100 * MiB
        cool(node.path(model))
        assert is_warm(node, model)
        wait_until(lambda: node.metric("locked_bytes") == model.bytes, "the metric shows it")
        play.want(node, memoryBudget=9 * MiB)
        wait_until(lambda: of_process(node, "VmLck") == 0, "it is unlocked")

    async def test_without_the_right_to_lock_it_is_kept_by_reading_and_what_no_loader_can_read_is_told(
        self, origin: Origin, play: Play, node: Node
    ) -> None:
        model = await published(origin, play, "m")
        origin.add_repo("org/strange", {"model.safetensors": os.urandom(MiB)})
        strange = await play.model("strange", "hf://org/strange")
        entries = (each.wanted("default", warm="Locked") for each in (model, strange))
        play.want(node, *entries, memoryBudget=12 * MiB)
        node.within = ("setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock", "prlimit", "--memlock=65536")
        node.start()
        observed = node.becomes(model, "Ready/NotLocked")
        assert observed.warm == "PageCache"
        assert "no CAP_IPC_LOCK" in str(observed.message)
        assert is_warm(node, model)
        assert node.becomes(strange, "Ready/MalformedCheckpoint").warm is None


class TestBudget:
    async def test_what_does_not_fit_says_so_with_numbers_and_no_byte_of_it_is_read(
        self, origin: Origin, play: Play, node: Node
    ) -> None:
        model = await published(origin, play, "m")
        play.want(node, model.wanted("default"))
        node.start()
        node.becomes(model, "Ready")
        cool(node.path(model))
        play.want(node, model.wanted("default", warm="Locked"), memoryBudget=5 * MiB)
        assert "needs 8.0 MiB, and that is more than the pool's memory.budget, 5.0 MiB" in str(
            node.becomes(model, "Ready/MemoryExceeded").message
        )
        node.surveys()
        assert (resident(node.path(model)), of_process(node, "VmLck"), node.metric("warm_bytes")) == (0, 0, 0)

    async def test_a_budget_for_two_of_three_keeps_two_and_the_third_follows_when_there_is_room(
        self, origin: Origin, play: Play, node: Node
    ) -> None:
        a, b, c = [await published(origin, play, name) for name in "abc"]

        def want(*models: Model) -> None:
            play.want(node, *(each.wanted("default", warm="PageCache") for each in models), memoryBudget=17 * MiB)

        want(a, b)
        node.start()
        node.becomes(a, "Ready")
        node.becomes(b, "Ready")
        want(a, b, c)
        message = node.becomes(c, "Ready/MemoryExceeded").message
        assert "2 models that are kept there use 16.0 MiB of the pool's memory.budget, 17.0 MiB" in str(message)
        assert (warm(node, a), warm(node, b)) == ("PageCache", "PageCache")
        want(a, c)
        node.becomes(c, "Ready")
        assert (warm(node, a), warm(node, c)) == ("PageCache", "PageCache")

    async def test_under_the_limit_that_the_controller_renders_all_stays_warm_while_more_is_fetched(
        self, origin: Origin, play: Play, node: Node
    ) -> None:
        kept = await published(origin, play, "kept", 64 * MiB)
        other = await published(origin, play, "other", 160 * MiB)
        own: dict[str, Any] = {"limits": {"memory": "160Mi"}}
        limit = resources_of(CachePoolSpec("/m", memory=Memory("65Mi"), resources=own))["limits"]["memory"]
        assert limit == "227Mi"
        text = str(int(limit.removesuffix("Mi")) * MiB)
        with made_cgroup("memory", v1={"memory.limit_in_bytes": text}, v2={"memory.max": text}) as group:
            node.within = in_group(group)
            play.want(node, kept.wanted("default", warm="PageCache"), memoryBudget=65 * MiB)
            node.start("--memory-limit", "64Mi")
            node.becomes(kept, "Ready")
            play.want(node, kept.wanted("default", warm="PageCache"), other.wanted("default"), memoryBudget=65 * MiB)
            node.becomes(other, "Ready")
            node.surveys()
            node.becomes(kept, "Ready")
            wait_until(lambda: is_warm(node, kept), "what the fetch displaced is read again")
            code, log = node.stop()
            assert code == 0, log


class TestMemory:
    """Pools whose medium is memory."""

    async def test_the_budget_bounds_what_lies_on_a_tmpfs_and_after_a_reboot_it_is_fetched_again(
        self, origin: Origin, play: Play, small_filesystem: MakeFilesystem
    ) -> None:
        memory = small_filesystem("tmpfs", size=64 * MiB)
        node = play.node("n")
        node.root = memory.path
        small, large = await published(origin, play, "small"), await published(origin, play, "large", 24 * MiB)
        spec: dict[str, Any] = {"medium": "Memory", "memoryBudget": 20 * MiB, "limit": "40Mi", "allowRootFilesystem": False}
        play.want(node, small.wanted("default", warm="PageCache"), large.wanted("default"), **spec)
        node.start()
        assert node.becomes(small, "Ready").warm == "PageCache"
        message = str(node.becomes(large, "Failed/CapacityExceeded").message)
        assert message.startswith("the pool's memory.budget, 20.0 MiB, bounds what lies in memory: ")
        assert "needed 24.0 MiB" in message
        node.surveys()
        assert node.status.capacity == 20 * MiB
        node.stop()
        memory.unmount()
        memory.mount()
        node.start()
        wait_until(lambda: node.path(small).exists(), "it is fetched again")
        node.becomes(small, "Ready")
        node.kill()

    async def test_a_root_on_a_disk_is_no_memory_and_nothing_is_fetched(self, origin: Origin, play: Play, node: Node) -> None:
        model = await published(origin, play, "m")
        origin.clear_requests()
        play.want(node, model.wanted("default"), medium="Memory", memoryBudget=20 * MiB)
        node.start()
        assert "mount a tmpfs there" in str(node.becomes(model, "Queued/MediumMismatch").message)
        assert node.condition("Ready") == ("False", "MediumMismatch")
        assert not origin.requests

    async def test_a_root_in_memory_is_no_disk_and_nothing_is_fetched(
        self, origin: Origin, play: Play, small_filesystem: MakeFilesystem
    ) -> None:
        node = play.node("n")
        node.root = small_filesystem("tmpfs", size=64 * MiB).path
        model = await published(origin, play, "m")
        origin.clear_requests()
        play.want(node, model.wanted("default"))
        node.start()
        assert "set medium: Memory" in str(node.becomes(model, "Queued/MediumMismatch").message)
        assert not origin.requests
        node.kill()
