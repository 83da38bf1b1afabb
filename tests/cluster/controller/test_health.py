"""/healthz and /readyz of a controller, as the kubelet asks them: ready is who could lead."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.controller.playing import Stage, controller
from tests.cluster.faults import Refuse, faulty_api
from tests.lab.asking import asked
from tests.lab.waiting import wait_until

ENDPOINT = ("--metrics-port", "0", "--metrics-address", "127.0.0.1")
READY = (200, "ready\n")
UNKNOWN = (503, "the cluster is not known yet\n")


def address(log: Path) -> str:
    """Where the controller serves, once its log says it."""
    mark = "listening at "
    wait_until(lambda: log.exists() and mark in log.read_text(), "the controller listens", timeout=60)
    return log.read_text().partition(mark)[2].partition(": ")[0]


def readiness(where: str) -> tuple[int, str]:
    """What /readyz says, of a controller that is alive."""
    assert asked(f"{where}/healthz").code == 200
    answer = asked(f"{where}/readyz")
    return answer.code, answer.text


def leads(where: str) -> bool:
    return "\nweightlift_controller_leading 1\n" in asked(f"{where}/metrics").text


async def test_a_controller_is_ready_once_it_knows_the_cluster_whether_or_not_it_leads(cluster: Stage, tmp_path: Path) -> None:
    """And stays so while the API server is away: it goes on where it was."""
    logs = tmp_path / "one", tmp_path / "two"
    with faulty_api() as front:
        proxied = Stage(cluster.api, front.kubeconfig(tmp_path / "kubeconfig"), cluster.name)
        front.fail(Refuse(503), path="/modelcaches")  # one of many kinds
        with controller(proxied, logs[0], *ENDPOINT), controller(proxied, logs[1], *ENDPOINT):
            both = [address(log) for log in logs]
            wait_until(lambda: any(map(leads, both)), "one leads", timeout=60)
            wait_until(lambda: all("Unavailable" in log.read_text() for log in logs), "both have asked", timeout=60)
            assert [readiness(each) for each in both] == [UNKNOWN, UNKNOWN]

            front.heal()
            wait_until(lambda: [readiness(each) for each in both] == [READY, READY], "both are ready", timeout=60)
            assert sorted(map(leads, both)) == [False, True]

            said = [log.stat().st_size for log in logs]
            with front.away():
                wait_until(lambda: all(log.stat().st_size > size for log, size in zip(logs, said, strict=True)), "both notice")
                assert [readiness(each) for each in both] == [READY, READY]
