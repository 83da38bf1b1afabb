"""Servers that cut ranges short, or do not say which part they send. Parts are used, or the whole file is requested."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.effects import Header, ShortBody, Slices
from fetcher.testing.faults import Effect, Fault
from fetcher.testing.origin import Origin
from tests.engine.conftest import Fetcher, MiB, contents

CONTENT = {"model.safetensors": random_bytes("slices", 20 * MiB + 7)}
Publish = Callable[[Origin], str]


def on_the_hub(origin: Origin) -> str:
    origin.add_repo("org/model", CONTENT)
    return "hf://org/model"


def on_the_web(origin: Origin) -> str:
    return origin.add_file("/model.safetensors", CONTENT["model.safetensors"])


@pytest.mark.parametrize("publish", [on_the_hub, on_the_web])
@pytest.mark.parametrize("size", [64 * 1024, MiB + 1, 16 * MiB])
async def test_shortened_ranges_are_used(origin: Origin, fetch: Fetcher, publish: Publish, size: int) -> None:
    uri = publish(origin)
    origin.faults.add(Fault(Slices(size), origin="cdn"))
    artifact = await fetch(uri, retry_for=0.0)
    assert contents(artifact.path) == CONTENT
    assert artifact.bytes_fetched == artifact.bytes


@pytest.mark.parametrize("publish", [on_the_hub, on_the_web])
async def test_a_body_shorter_than_its_content_range_is_used(origin: Origin, fetch: Fetcher, publish: Publish) -> None:
    uri = publish(origin)
    origin.faults.add(Fault(ShortBody(missing=100_000), origin="cdn", ranged=True, times=1))
    artifact = await fetch(uri, retry_for=0.0)
    assert contents(artifact.path) == CONTENT
    assert artifact.bytes_fetched == artifact.bytes


USELESS = {
    "one byte": Slices(1),
    "less than a request is worth": Slices(64 * 1024 - 1),
    "no Content-Range": Header("Content-Range", None),
    "a Content-Range without a size": Header("Content-Range", "bytes 0-99"),
    "a Content-Range without a place": Header("Content-Range", "bytes */20971527"),
    "a Content-Range in other words": Header("Content-Range", "0-20971526/20971527"),
    "several parts": Header("Content-Type", "multipart/byteranges; boundary=x"),
}


@pytest.mark.parametrize("publish", [on_the_hub, on_the_web])
@pytest.mark.parametrize("effect", USELESS.values(), ids=USELESS)
async def test_useless_parts_are_abandoned_for_the_whole_file(
    origin: Origin, fetch: Fetcher, publish: Publish, effect: Effect
) -> None:
    uri = publish(origin)
    origin.faults.add(Fault(effect, origin="cdn", ranged=True))
    artifact = await fetch(uri, retry_for=0.0)
    assert contents(artifact.path) == CONTENT
