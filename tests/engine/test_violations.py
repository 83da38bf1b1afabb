"""A server that always breaks HTTP is given up soon. A server that breaks it now and then is retried."""

from __future__ import annotations

import pytest

from fetcher.engine.retry import VIOLATIONS
from fetcher.errors import BadResponse, ContentChanged
from fetcher.events import Retrying
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.effects import Body, Header, LongBody, Redirect, Slices, Status, UnaskedPart, WrongContentRange
from fetcher.testing.faults import Fault
from fetcher.testing.origin import Origin
from tests.engine.conftest import Fetcher, MiB, contents

CONTENT = {"config.json": b"{}", "model.safetensors": random_bytes("violations", 18 * MiB)}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the waiting time of real use: only the number of answers decides."""
    monkeypatch.setattr("fetcher.engine.retry.VIOLATED_FOR", 0.0)
    monkeypatch.setattr("fetcher.engine.retry.FIRST_DELAY", 0.01)


SHIFTED = [Fault(WrongContentRange(shift=7), origin="cdn")]
WHOLE_AS_PART = [Fault(Slices(1), origin="cdn"), Fault(UnaskedPart(), origin="cdn", ranged=False)]
VIOLATING: dict[str, tuple[list[Fault], str]] = {
    "a shifted Content-Range": (SHIFTED, r"bytes=\d+-\d+ was requested, and the server sends Content-Range 'bytes \d+-\d+/"),
    "a part that nobody asked for": (WHOLE_AS_PART, r"the whole file was requested, .* status 206 and Content-Range 'bytes 0-"),
    "several parts that nobody asked for": (
        [*WHOLE_AS_PART, Fault(Header("Content-Type", "multipart/byteranges; boundary=x"), origin="cdn")],
        "the whole file was requested, .* status 206",
    ),
    "more bytes than the range has": ([Fault(LongBody(100), origin="cdn")], r"was requested, .* announces [\d,]+ bytes under"),
    "another status of success": ([Fault(Status(202), origin="cdn")], r"bytes=\d+-\d+ was requested, .* with status 202"),
    "a coding that nobody asked for": (
        [Fault(Header("Content-Encoding", "gzip"), origin="cdn")],
        "Content-Encoding gzip although identity",
    ),
    "redirects in circles": ([Fault(Redirect("{target}"), origin="cdn")], "redirects"),
}


@pytest.mark.parametrize("connections", [1, 8])
@pytest.mark.parametrize(("faults", "message"), VIOLATING.values(), ids=VIOLATING)
async def test_a_repeated_violation_is_given_up_for_any_retry_time(
    origin: Origin, fetch: Fetcher, faults: list[Fault], message: str, connections: int
) -> None:
    origin.add_repo("org/model", CONTENT)
    for fault in faults:
        origin.faults.add(fault)
    with pytest.raises(BadResponse, match=message) as caught:
        await fetch(retry_for=3600.0, max_concurrency=connections)
    sentence = caught.value.sentence()
    assert "model.safetensors" in sentence
    assert "answers in a row broke the protocol; check HF_ENDPOINT and the proxy, or use another mirror" in sentence
    assert len([event for event in fetch.events if isinstance(event, Retrying)]) == VIOLATIONS - 1


@pytest.mark.parametrize("place", ["/tree/", "/revision/"])
async def test_a_repeated_violation_in_a_listing_is_given_up(origin: Origin, fetch: Fetcher, place: str) -> None:
    origin.add_repo("org/model", CONTENT)
    login = origin.faults.add(Fault(Body(b"<html>Log in</html>"), path=place))
    with pytest.raises(BadResponse, match="org/model is not JSON; 5 answers in a row broke the protocol"):
        await fetch(retry_for=3600.0)
    assert origin.faults.fired(login) == VIOLATIONS


@pytest.mark.parametrize("effect", [WrongContentRange(shift=7), LongBody(100), Status(202)])
async def test_a_repeated_violation_at_a_plain_address_is_given_up(
    origin: Origin, fetch: Fetcher, effect: WrongContentRange | LongBody | Status
) -> None:
    address = origin.add_file("/model.bin", CONTENT["model.safetensors"])
    wrong = origin.faults.add(Fault(effect))
    with pytest.raises(BadResponse, match="5 answers in a row broke the protocol"):
        await fetch(address, retry_for=3600.0)
    assert origin.faults.fired(wrong) == VIOLATIONS


@pytest.mark.parametrize("effect", [WrongContentRange(shift=7), LongBody(100), Status(202)])
async def test_a_single_wrong_answer_of_a_proxy_is_retried(
    origin: Origin, fetch: Fetcher, effect: WrongContentRange | LongBody | Status
) -> None:
    origin.add_repo("org/model", CONTENT)
    origin.faults.add(Fault(effect, origin="cdn", times=VIOLATIONS - 1))
    assert contents((await fetch(retry_for=60.0, max_concurrency=1)).path) == CONTENT


async def test_a_fetch_succeeds_with_one_bad_replica_of_two(origin: Origin, fetch: Fetcher) -> None:
    content = {"model.safetensors": random_bytes("replicas", 80 * MiB)}
    origin.add_repo("org/model", content)
    origin.faults.add(Fault(WrongContentRange(shift=7), origin="cdn", every=2))
    assert contents((await fetch(retry_for=60.0)).path) == content


async def test_a_changed_total_size_is_a_changed_file(origin: Origin, fetch: Fetcher) -> None:
    origin.add_repo("org/model", CONTENT)
    origin.faults.add(Fault(WrongContentRange(total=len(CONTENT["model.safetensors"]) + 1), origin="cdn"))
    with pytest.raises(ContentChanged, match="bytes now, not") as caught:
        await fetch(retry_for=3600.0, max_concurrency=1)
    assert "model.safetensors" in caught.value.sentence()
    assert not [event for event in fetch.events if isinstance(event, Retrying)]
