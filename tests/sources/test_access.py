"""Credentials are values: a source that gets one uses nothing else, whatever the environment holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.errors import Unauthorized, UsageError
from fetcher.settings import Settings
from fetcher.sources import open_source
from fetcher.sources.access import Access, HttpAccess
from fetcher.sources.base import Source
from fetcher.testing.conformance import listing_of
from fetcher.testing.origin import Origin

SETTINGS = Settings(cache_dir=Path("/nowhere"), timeout_stall=2.0)
FILES = {"config.json": b"{}"}


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(tokens=["hf_ours"]) as running:
        yield running


def source_of(uri: str, access: Access, environ: dict[str, str]) -> Source:
    return open_source(ArtifactRef(uri), SETTINGS, environ, credentials=access)


async def test_two_tenants_of_one_process_use_their_own_tokens(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment holds a token that would be refused, and one that would be accepted."""
    origin.add_repo("org/model", FILES, private=True, readers=["hf_ours"])
    environ = {"HF_ENDPOINT": origin.endpoint}
    monkeypatch.setenv("HF_TOKEN", "hf_poison")
    async with aclosing(source_of("hf://org/model", HttpAccess.bearer("hf_ours"), environ)) as ours:
        assert [file.path for file in (await listing_of(ours)).files] == ["config.json"]
    monkeypatch.setenv("HF_TOKEN", "hf_ours")
    async with aclosing(source_of("hf://org/model", HttpAccess.bearer("hf_theirs"), environ)) as theirs:
        with pytest.raises(Unauthorized, match="the caller"):
            await listing_of(theirs)


async def test_anonymous_access_sends_no_token_of_the_environment(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    origin.add_repo("org/model", FILES, private=True, readers=["hf_ours"])
    monkeypatch.setenv("HF_TOKEN", "hf_ours")
    async with aclosing(source_of("hf://org/model", HttpAccess(), {"HF_ENDPOINT": origin.endpoint})) as source:
        with pytest.raises(Unauthorized, match="no credentials were sent"):
            await listing_of(source)


async def test_headers_for_a_web_address_replace_those_of_the_environment(origin: Origin) -> None:
    url = origin.add_file("/model.bin", b"weights")
    environ = {"127.0.0.1-headers": '{"Authorization": "Bearer poison"}'}
    async with aclosing(source_of(url, HttpAccess({"Authorization": "Bearer ours"}), environ)) as source:
        await listing_of(source)
    (sent,) = {request.headers.get("authorization") for request in origin.requests}
    assert sent == "Bearer ours"


def test_credentials_of_another_kind_are_refused() -> None:
    class Other(Access):
        pass

    with pytest.raises(UsageError, match="hf:// takes credentials of the kind HttpAccess, not Other"):
        source_of("hf://org/model", Other(), {})


def test_no_representation_shows_a_token() -> None:
    assert "hf_ours" not in repr(HttpAccess.bearer("hf_ours"))


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "hf_\u00e9"])
def test_a_token_that_cannot_be_one_is_refused(token: str) -> None:
    with pytest.raises(UsageError) as caught:
        HttpAccess.bearer(token)
    assert not token or token not in str(caught.value)
