"""A pod that mounts a pool's root, and its own `fetcher fetch`, beside the agent of the node."""

from __future__ import annotations

import json
import os

from fetcher.testing.origin import Origin
from tests.cluster.agent.cluster import Node, Play
from tests.lab.command import end, run_fetcher, started_fetcher
from tests.lab.waiting import wait_until

MiB = 1024 * 1024


async def test_what_the_agent_has_is_a_hit_that_asks_the_source_nothing(origin: Origin, play: Play, node: Node) -> None:
    origin.add_repo("org/m", {"model.safetensors": os.urandom(2 * MiB)})
    model = await play.model("m", "hf://org/m")
    play.want(node, model.wanted("default"))
    node.start()
    node.becomes(model, "Ready")
    origin.clear_requests()

    done = run_fetcher("fetch", "hf://org/m", "--cache-dir", node.root, env={"HF_ENDPOINT": origin.endpoint})

    assert (done.returncode, done.stdout.strip()) == (0, str(node.path(model))), done.stderr
    assert not origin.requests


async def test_what_the_agent_fetches_is_waited_for_and_comes_from_the_source_once(
    origin: Origin, play: Play, node: Node
) -> None:
    published = {"model.safetensors": os.urandom(24 * MiB)}
    origin.add_repo("org/m", published)
    model = await play.model("m", "hf://org/m")
    play.want(node, model.wanted("default"))
    origin.throttle(total=4 * MiB)
    node.start()
    wait_until(lambda: any(each.origin == "cdn" for each in origin.requests), "the agent fetches", timeout=60)

    words = ("fetch", "hf://org/m", "--cache-dir", node.root, "--progress", "json")
    pod = started_fetcher(*words, env={"HF_ENDPOINT": origin.endpoint})
    try:
        assert pod.stderr is not None
        assert any(json.loads(each).get("event") == "LeaseWaiting" for each in pod.stderr)
        assert not node.path(model).exists()
        origin.throttle()
        told, _ = pod.communicate(timeout=60)
    finally:
        end(pod)

    assert (pod.returncode, told.strip()) == (0, str(node.path(model)))
    node.becomes(model, "Ready")
    assert node.contents(model) == published
    bodies = [each for each in origin.requests if each.origin == "cdn" and each.method == "GET"]
    assert sum(len(each.byte_range) for each in bodies if each.byte_range) == 24 * MiB
