"""Pins of the user are checked in addition to published digests. A contradiction is refused immediately."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from fetcher.artifact import Digest, RemoteFile
from fetcher.engine.choosing import pinned
from fetcher.errors import DigestMismatch, DigestUnavailable, NotFound
from fetcher.settings import Settings

RIGHT, WRONG = Digest("sha256", "a" * 64), Digest("sha256", "b" * 64)
BLOB = Digest("git-sha1", "c" * 40)


def settings(expect: Mapping[str, Digest] | None = None, *, require_digests: bool = False) -> Settings:
    return Settings(cache_dir=Path("/cache"), expect=expect or {}, require_digests=require_digests)


@pytest.mark.parametrize(
    ("published", "checked"),
    [((), (RIGHT,)), ((BLOB,), (BLOB, RIGHT)), ((RIGHT,), (RIGHT,))],
    ids=["nothing", "git's", "the same"],
)
def test_a_pin_is_added_to_the_published_digests(published: tuple[Digest, ...], checked: tuple[Digest, ...]) -> None:
    files = [RemoteFile("a", 1, published), RemoteFile("b", 1, (BLOB,))]
    assert pinned(files, settings({"a": RIGHT})) == (RemoteFile("a", 1, checked), files[1])


def test_a_pin_that_contradicts_the_listing_is_refused_with_both_digests() -> None:
    with pytest.raises(DigestMismatch, match=f"expected {WRONG}, but the source lists {RIGHT}") as caught:
        pinned([RemoteFile("a", 1, (BLOB, RIGHT))], settings({"a": WRONG}))
    assert (caught.value.path, caught.value.expected, caught.value.actual) == ("a", str(WRONG), str(RIGHT))


def test_a_pin_in_the_address_that_contradicts_the_listing_is_refused() -> None:
    """A source lists the pin after its published digests."""
    with pytest.raises(DigestMismatch, match=f"expected {WRONG}, but the source lists {RIGHT}"):
        pinned([RemoteFile("a", 1, (RIGHT, WRONG))], settings())


def test_a_pin_of_a_missing_file_is_not_found() -> None:
    with pytest.raises(NotFound, match="--expect names b"):
        pinned([RemoteFile("a", 1)], settings({"b": RIGHT}))


def test_a_pin_satisfies_required_digests() -> None:
    files = [RemoteFile("a", 1), RemoteFile("b", 1, (BLOB,))]
    with pytest.raises(DigestUnavailable, match="--expect a=sha256:"):
        pinned(files, settings(require_digests=True))
    assert pinned(files, settings({"a": RIGHT}, require_digests=True))
