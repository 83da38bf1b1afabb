"""Replicas and edges of a CDN differ in ETag and Last-Modified. A digest decides, or else one response of one server."""

from __future__ import annotations

import hashlib

import pytest

from fetcher.artifact import Digest
from fetcher.errors import ContentChanged, DigestMismatch
from fetcher.events import Warned
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.effects import Header, Replace
from fetcher.testing.faults import Fault
from fetcher.testing.origin import Origin
from tests.engine.conftest import FILES, Fetcher, MiB, contents

LARGE = random_bytes("large", 66 * MiB)
"""More than the first range, which `resolve` requests."""


def several_edges(origin: Origin, *names: str, path: str | None = None) -> None:
    """Three edges answer requests in turn."""
    for name in names:
        for turn in (2, 3):
            origin.faults.add(Fault(Header(name, f'"edge {turn}"'), origin="cdn", path=path, every=turn))


DIFFERING = {
    "ETag": ("ETag",),
    "Last-Modified alone": ("Last-Modified",),
    "both": ("ETag", "Last-Modified"),
}


@pytest.mark.parametrize("names", DIFFERING.values(), ids=DIFFERING)
async def test_the_digest_of_the_hub_decides(origin: Origin, fetch: Fetcher, names: tuple[str, ...]) -> None:
    origin.add_repo("org/model", FILES)
    if names == ("Last-Modified",):
        origin.faults.add(Fault(Header("ETag", None), origin="cdn"))
    several_edges(origin, *names)
    artifact = await fetch()
    assert contents(artifact.path) == FILES
    assert artifact.bytes_fetched == artifact.bytes


@pytest.mark.parametrize("pin", ["fragment", "expect"])
async def test_a_pin_decides(origin: Origin, fetch: Fetcher, pin: str) -> None:
    address = origin.add_file("/model.bin", LARGE)
    several_edges(origin, "ETag")
    digest = Digest("sha256", hashlib.sha256(LARGE).hexdigest())
    uri, expect = (f"{address}#sha256={digest.hex}", {}) if pin == "fragment" else (address, {"model.bin": digest})
    artifact = await fetch(uri, expect=expect)
    assert contents(artifact.path) == {"model.bin": LARGE}
    assert not [event for event in fetch.events if isinstance(event, Warned)]


async def test_a_pin_still_refuses_parts_of_two_contents(origin: Origin, fetch: Fetcher) -> None:
    address = origin.add_file("/model.bin", LARGE)
    origin.faults.add(Fault(Replace(LARGE[::-1]), path="/model.bin", every=2))
    with pytest.raises(DigestMismatch):
        await fetch(f"{address}#sha256={hashlib.sha256(b'another').hexdigest()}")
    assert fetch.visible() == []


async def test_different_sizes_are_different_contents_before_the_digest_is_checked(origin: Origin, fetch: Fetcher) -> None:
    address = origin.add_file("/model.bin", LARGE)
    origin.faults.add(Fault(Replace(LARGE[:-1]), path="/model.bin", every=2))
    with pytest.raises(ContentChanged, match="bytes now, not"):
        await fetch(f"{address}#sha256={hashlib.sha256(LARGE).hexdigest()}")


async def test_a_file_without_a_digest_is_fetched_in_one_response(origin: Origin, fetch: Fetcher) -> None:
    address = origin.add_file("/model.bin", LARGE)
    several_edges(origin, "ETag")

    artifact = await fetch(address)

    assert contents(artifact.path) == {"model.bin": LARGE}
    assert origin.requests[-1].range is None
    manifest = Manifest.read(artifact.path / RELATIVE_PATH)
    assert manifest is not None
    assert (manifest.revision, manifest.files[0].validator) == (None, None)


async def test_two_contents_of_one_size_are_never_mixed(origin: Origin, fetch: Fetcher) -> None:
    address = origin.add_file("/model.bin", LARGE)
    origin.faults.add(Fault(Replace(LARGE[::-1]), path="/model.bin", every=2))

    artifact = await fetch(address)

    assert contents(artifact.path)["model.bin"] in (LARGE, LARGE[::-1])


async def test_a_file_fetched_in_one_response_never_counts_as_unchanged(origin: Origin, fetch: Fetcher) -> None:
    address = origin.add_file("/model.bin", LARGE)
    several_edges(origin, "ETag")
    await fetch(address)
    origin.faults.clear()
    origin.faults.add(Fault(Replace(LARGE[::-1]), path="/model.bin"))

    artifact = await fetch(address, refresh="on-change")

    assert contents(artifact.path) == {"model.bin": LARGE[::-1]}


async def test_two_contents_of_different_sizes_end_as_changed(origin: Origin, fetch: Fetcher) -> None:
    address = origin.add_file("/model.bin", LARGE)
    origin.faults.add(Fault(Replace(LARGE[:-1]), path="/model.bin", every=2))
    with pytest.raises(ContentChanged):  # or KeepsChanging, if its listings differed too
        await fetch(address)
    assert fetch.visible() == []
