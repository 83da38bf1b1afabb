"""The digest of a listing, by which nodes know that they fetch what the controller resolved."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.listing import listing_digest
from fetcher.artifact import Checksum, Digest, RemoteFile

WEIGHTS = RemoteFile("model.safetensors", 10, (Digest("sha256", "a" * 64),), checksums=(Checksum("md5", "b" * 32),))
CONFIG = RemoteFile("config.json", 2, (Digest("git-sha1", "c" * 40),))


def test_the_order_of_the_listing_does_not_matter() -> None:
    assert listing_digest([WEIGHTS, CONFIG]) == listing_digest([CONFIG, WEIGHTS])


def test_what_names_no_content_does_not_matter() -> None:
    described = replace(WEIGHTS, validator="etag", ranges=False, facts={"blob_id": "1"})
    assert listing_digest([described]) == listing_digest([WEIGHTS])


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(replace(WEIGHTS, path="other"), id="path"),
        pytest.param(replace(WEIGHTS, size=11), id="size"),
        pytest.param(replace(WEIGHTS, size=None), id="unknown size"),
        pytest.param(replace(WEIGHTS, digests=()), id="digest"),
        pytest.param(replace(WEIGHTS, checksums=()), id="checksum"),
    ],
)
def test_another_content_is_another_digest(other: RemoteFile) -> None:
    assert listing_digest([other]) != listing_digest([WEIGHTS])


def test_it_never_changes_between_versions() -> None:
    assert listing_digest([WEIGHTS, CONFIG]) == "8ca7b05d2363d61617e18092ddf16e21868139535946e00b69477807efdb7b31"
