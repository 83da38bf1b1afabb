"""Cache keys, digests, identities, and what is taken out of an address before anyone sees it."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.artifact import ArtifactRef, ByteRange, Digest, RemoteFile, redact
from fetcher.errors import UsageError


class TestCacheKey:
    @pytest.mark.parametrize("uri", ["hf://org/model", "hf://org/model@main", "https://example.com/f.bin?x=1", "s\u00fc\u00df"])
    def test_the_bare_uri_as_written_is_what_is_hashed(self, uri: str) -> None:
        assert ArtifactRef(uri).key == hashlib.sha256(uri.encode()).hexdigest()[:16]

    def test_a_selection_follows_as_canonical_json(self) -> None:
        ref = ArtifactRef("hf://org/model", "v1", include=("b*", "a*"), exclude=("*.bin",))
        text = 'hf://org/model\n{"exclude":["*.bin"],"include":["a*","b*"],"revision":"v1"}'
        assert ref.key == hashlib.sha256(text.encode()).hexdigest()[:16]

    @given(st.lists(st.text(max_size=5)), st.lists(st.text(max_size=5)), st.none() | st.text(min_size=1, max_size=5))
    def test_the_order_of_patterns_does_not_matter(self, include: list[str], exclude: list[str], revision: str | None) -> None:
        one = ArtifactRef("hf://org/model", revision, tuple(include), tuple(exclude))
        other = ArtifactRef("hf://org/model", revision, tuple(reversed(include)), tuple(reversed(exclude)))
        assert one.key == other.key

    def test_the_same_pattern_on_the_other_side_is_another_artifact(self) -> None:
        assert ArtifactRef("u", include=("*",)).key != ArtifactRef("u", exclude=("*",)).key
        assert json.loads(ArtifactRef("u", include=("*",)).key_text.partition("\n")[2])["revision"] is None

    def test_a_path_that_is_no_text_has_a_key_too(self) -> None:
        assert len(ArtifactRef("/models/\udcff").key) == 16


class TestDigest:
    def test_it_is_read_in_any_case(self) -> None:
        assert str(Digest.parse(" SHA256:" + "AB" * 32)) == "sha256:" + "ab" * 32

    @pytest.mark.parametrize("text", ["", "sha256", "sha256:", "sha256:abc", "md5:" + "0" * 32, "sha256:" + "g" * 64])
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(UsageError):
            Digest.parse(text)


class TestIdentity:
    def test_digests_come_before_a_validator_in_any_order(self) -> None:
        one, other = Digest("sha256", "a" * 64), Digest("git-sha1", "b" * 40)
        assert RemoteFile("f", 5, (one, other), "etag x").identity == RemoteFile("g", 5, (other, one)).identity

    def test_another_size_is_another_content(self) -> None:
        assert RemoteFile("f", 5, validator="etag x").identity != RemoteFile("f", 6, validator="etag x").identity

    def test_nothing_vouches_for_a_file_without_either(self) -> None:
        assert RemoteFile("f", 5).identity is None


@pytest.mark.parametrize(("start", "stop"), [(-1, 0), (2, 1)])
def test_a_range_does_not_run_backwards(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="not a byte range"):
        ByteRange(start, stop)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://user:secret@host/f?token=secret&b=secret#sha256=ab", "https://host/f?token=...&b=...#sha256=ab"),
        ("https://host:8443/f", "https://host:8443/f"),
        ("hf://org/model@refs/pr/1", "hf://org/model@refs/pr/1"),
        ("/a/path?with=question", "/a/path?with=question"),
    ],
)
def test_what_could_be_secret_is_not_shown(uri: str, shown: str) -> None:
    assert redact(uri) == shown
