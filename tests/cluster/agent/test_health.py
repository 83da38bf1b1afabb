"""/healthz and /readyz of an agent, as the kubelet asks them: ready is who can work."""

from __future__ import annotations

from pathlib import Path

from fetcher.testing.origin import Origin
from tests.cluster.agent.cluster import Node, Play
from tests.cluster.agent.link import linked
from tests.cluster.api import KUBECONFIG
from tests.lab.asking import asked
from tests.lab.waiting import wait_until

MiB = 1024 * 1024
READY = (200, "ready\n")
UNKNOWN = (503, "the NodeCache was not seen yet\n")


def readiness(node: Node) -> tuple[int, str]:
    """What /readyz says, of an agent that is alive."""
    assert asked(f"{node.address}/healthz").code == 200
    answer = asked(f"{node.address}/readyz")
    return answer.code, answer.text


def becomes(node: Node, wanted: tuple[int, str]) -> None:
    wait_until(lambda: readiness(node) == wanted, f"readiness is {wanted}", timeout=60)


async def test_an_agent_is_ready_once_it_has_seen_its_node_cache_and_can_use_its_root(play: Play, node: Node) -> None:
    node.root.rmdir()
    node.start()
    wait_until(lambda: play.renewed(node), "the agent is at work")
    assert readiness(node) == UNKNOWN

    play.want(node)
    becomes(node, (503, "RootMissing\n"))

    node.root.mkdir()
    becomes(node, READY)


async def test_it_waits_for_the_api_server_and_stays_ready_without_it(
    origin: Origin, play: Play, node: Node, tmp_path: Path
) -> None:
    origin.add_repo("org/m", {"model.safetensors": bytes(2 * MiB)})
    model = await play.model("m", "hf://org/m")
    play.want(node)
    with linked(Path(str(KUBECONFIG)), tmp_path) as (link, kubeconfig):
        link.cut()
        node.start("--kubeconfig", str(kubeconfig))
        wait_until(lambda: link.refused > 0, "the agent has asked")
        assert readiness(node) == UNKNOWN

        link.mend()
        becomes(node, READY)

        link.cut()
        refused = link.refused
        wait_until(lambda: link.refused > refused, "the agent has noticed")
        node.surveys()
        assert readiness(node) == READY
        play.want(node, model.wanted("default"))

        link.mend()
        node.becomes(model, "Ready")


async def test_an_agent_that_fetches_is_ready_and_lives_until_it_ends(origin: Origin, play: Play, node: Node) -> None:
    origin.add_repo("org/m", {"model.safetensors": bytes(24 * MiB)})
    model = await play.model("m", "hf://org/m")
    play.want(node, model.wanted("default"))
    origin.throttle(total=4 * MiB)
    node.start()
    node.becomes(model, "Fetching")
    assert readiness(node) == READY
    code, log = node.stop()
    assert code == 0, log
