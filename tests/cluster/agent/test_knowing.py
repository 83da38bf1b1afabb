"""What the agent learns while it looks at its root."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from cluster.agent import remembering
from cluster.agent.config import Config
from cluster.agent.knowing import Knowledge
from cluster.agent.notices import Notices
from cluster.agent.options import config_from
from cluster.agent.peering import Peering
from cluster.agent.states import Attempt, Lying, Survey, Wanted
from cluster.agent.surveying import Surveyor
from cluster.client import Api
from cluster.resources import NODE_CACHE, NodeCacheSpec, Peers

KEY = "1" * 16
WANTED = Wanted(KEY, "team", "m", 1, "rev1", "listing")
LYING = Lying(KEY, "rev1", "listing", "Digest")
NOBODY = cast(Api, None)
"""No API server is asked here."""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_from({"node": "n", "root": tmp_path}, {}, "weightlift")


async def test_a_copy_that_is_completed_during_a_survey_stays_confirmed_and_keeps_whence_it_came(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The survey has read the root before, so it does not know the copy."""
    under_way, completed = threading.Event(), threading.Event()
    found = iter(({}, {KEY: LYING}))

    def survey(*_: object) -> Survey:
        lying = next(found)
        under_way.set()
        assert completed.wait(10)
        return Survey(lying)

    monkeypatch.setattr(Surveyor, "survey", survey)
    known = Knowledge(NOBODY, config, Notices(lambda event: None))
    spec = {"pool": "p", "allowRootFilesystem": True, "minFree": "0"}
    known.look(NODE_CACHE.read({"metadata": {"name": "n", "uid": "u"}, "spec": spec}))
    surveying = asyncio.ensure_future(known.survey_if_due())
    await asyncio.to_thread(under_way.wait, 10)
    known.learn(remembering.completed(known.memory, WANTED, cached=False, brought=(1, 2)))
    completed.set()
    await surveying
    assert known.survey.lying == {KEY: LYING}
    assert (known.memory.brought, known.memory.confirmed) == ({KEY: (1, 2)}, {KEY: ("rev1", "listing")})


async def test_a_node_has_peers_on_from_its_specification_on(config: Config) -> None:
    """Also before it has made its key: a fetch may end earlier, and says whence its bytes came all the same."""
    peering = Peering(NOBODY, config, notices=Notices(lambda event: None), on_change=lambda: None)
    assert not peering.on
    peering.look(NodeCacheSpec("p", peers=Peers("authority")))
    assert (peering.on, peering.announced) == (True, None)


@pytest.mark.parametrize(
    ("before", "now", "tried"),
    [
        pytest.param({"held": True}, {}, True, id="a model is held no more"),
        pytest.param({"retain": "Always"}, {"retain": "WhileUsed"}, True, id="a model shall not always stay any more"),
        pytest.param({"held": True}, {"held": True, "warm": "PageCache"}, False, id="nothing more may make room"),
        pytest.param({}, {"held": True}, False, id="a model is held"),
    ],
)
def test_what_waits_for_room_is_tried_again_when_something_more_may_make_it(
    config: Config, before: dict[str, Any], now: dict[str, Any], tried: bool
) -> None:
    known = Knowledge(NOBODY, config, Notices(lambda event: None))
    waiting, large, other = "2" * 16, "3" * 16, "4" * 16

    def look(entry: dict[str, Any]) -> None:
        entries = {key: {"mark": "0" * 16, **more} for key, more in ((KEY, entry), (waiting, {}), (large, {}), (other, {}))}
        known.look(NODE_CACHE.read({"metadata": {"name": "n", "uid": "u"}, "spec": {"pool": "p", "artifacts": entries}}))

    look(before)
    reasons = {waiting: "Capacity", large: "CapacityExceeded", other: "Unreachable"}
    attempts = {key: Attempt(WANTED, reason, "", False, 3, 600.0) for key, reason in reasons.items()}
    known.memory = replace(known.memory, attempts=attempts)

    look(now)

    assert known.memory.attempts.keys() == ({large, other} if tried else {waiting, large, other})


def test_a_use_by_pods_is_to_be_recorded_when_it_begins_and_when_it_ends(config: Config) -> None:
    """Also after a restart, since nobody has recorded how long the use lasted before."""
    known = Knowledge(NOBODY, config, Notices(lambda event: None))

    def uses_after(version: int, *held: str) -> frozenset[str]:
        entries = {key: {"mark": "0" * 16, **({"held": True} if key in held else {})} for key in (KEY, "2" * 16)}
        metadata = {"name": "n", "uid": "u", "resourceVersion": str(version)}
        known.look(NODE_CACHE.read({"metadata": metadata, "spec": {"pool": "p", "artifacts": entries}}))
        used, known.used = known.used, frozenset()
        return used

    assert uses_after(1, KEY) == {KEY}
    assert uses_after(2, KEY) == frozenset()
    known.look(None)  # a NodeCache that is missing ends no use
    assert known.used == frozenset()
    assert uses_after(3, "2" * 16, KEY) == {KEY, "2" * 16}
    assert uses_after(4, "2" * 16) == {KEY}
    assert uses_after(5) == {"2" * 16}
