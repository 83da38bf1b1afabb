"""How much a whole roll-out writes: by default 40 nodes x 20 models, and with WEIGHTLIFT_TEST_ROLLOUT=1000x200 the size for
which the bounds are promised. Sizes are checked, times are only printed: they depend on the machine.
"""

from __future__ import annotations

import os
import resource

import pytest

from tests.cluster.controller.rolling import Counted, Rollout

SIZE = os.environ.get("WEIGHTLIFT_TEST_ROLLOUT", "40x20")
"""Nodes x models. Read at import, because the environment of a test is cleaned."""
GiB = 1024**3


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("peers", [False, True], ids=["from the source", "with peers"])
async def test_a_roll_out_writes_little_and_slowly(capfd: pytest.CaptureFixture[str], peers: bool) -> None:
    nodes, models = map(int, SIZE.split("x"))
    rollout = Rollout(nodes=nodes, models=models, fetch=10.0, max_fetching=max(8, nodes // 16), peers=peers)

    outcome = await rollout.run()

    counted = rollout.server.counted
    total = Counted(*(sum(getattr(each, name) for each in counted.values()) for name in Counted.__slots__))
    statuses = max(rollout.server.by_node.values())
    key, began = rollout.add("one-more"), rollout.now
    while rollout.named(key) < nodes:
        await rollout.decide()
        rollout.now += max(1.0, nodes / 100)
    planned = rollout.now - began
    with capfd.disabled():
        print(
            f"\n{SIZE}{' with peers' if peers else ''} in {outcome.seconds:.0f} simulated s, fetches of 10 s; a model more is "
            f"planned in {planned:.0f} s"
        )
        for kind, each in sorted(counted.items()):
            print(f"  {kind}: {each.writes} writes, bodies {each.sent / 1e6:.1f} MB, objects {each.kept / 1e6:.1f} MB")
        print(
            f"  all: bodies {total.sent / 1e6:.1f} MB, objects {total.kept / 1e6:.1f} MB, worst minute "
            f"{outcome.most_in_a_minute / 1e6:.2f} MB/s, {statuses} statuses of a node at most; controller: {outcome.passes} "
            f"passes, {outcome.processor:.0f} s of a processor, slowest {outcome.slowest:.1f} s; process with all agents: "
            f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB"
        )
    assert statuses <= 2 * models
    share = nodes * models / 200_000
    assert total.sent <= share * GiB
    assert outcome.most_in_a_minute <= 1_000_000
    assert planned <= 30
