"""Cache keys, digests, identities, and redaction of addresses."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.artifact import CHUNK_SIZE, ArtifactRef, ByteRange, Checksum, Digest, RemoteFile, listing_digest, redact
from fetcher.errors import UsageError
from fetcher.manifest import ManifestFile


class TestCacheKey:
    @pytest.mark.parametrize(
        ("uri", "key"),
        [
            ("hf://org/m", "5df9d7cea3b612c3"),
            ("hf://Qwen/Qwen3-14B-GGUF", "9da7779bcdce8224"),
            ("s3://models/org/Repo-GGUF", "adbdb57480d39e37"),
            ("hf://meta-llama/meta-llama-3-8b-instruct", "c277d78a31bc6624"),
        ],
    )
    def test_the_cache_key_equals_that_of_kserve_and_llmkube(self, uri: str, key: str) -> None:
        assert ArtifactRef(uri).key == key

    @pytest.mark.parametrize(
        ("ref", "key"),
        [
            # printf 'hf://org/m\n{"exclude":[],"include":[],"revision":"v1.0"}' | sha256sum | cut -c1-16
            (ArtifactRef("hf://org/m", "v1.0"), "e5acbee6cd0dff86"),
            (
                ArtifactRef("hf://meta-llama/Llama-3.1-8B", include=("*.safetensors", "*.json"), exclude=("*.pth",)),
                "3e2b07fa41164d09",
            ),
            (ArtifactRef("/mnt/mod\u00e8les"), "9f255cf8ef9c224c"),
        ],
    )
    def test_cache_keys_never_change(self, ref: ArtifactRef, key: str) -> None:
        """A change would make every existing cache useless."""
        assert ref.key == key

    @pytest.mark.parametrize("uri", ["hf://org/model", "hf://org/model@main", "https://example.com/f.bin?x=1", "s\u00fc\u00df"])
    def test_a_bare_uri_is_hashed_as_written(self, uri: str) -> None:
        assert ArtifactRef(uri).key == hashlib.sha256(uri.encode()).hexdigest()[:16]

    def test_a_selection_is_appended_as_canonical_json(self) -> None:
        ref = ArtifactRef("hf://org/model", "v1", include=("b*", "a*"), exclude=("*.bin",))
        text = 'hf://org/model\n{"exclude":["*.bin"],"include":["a*","b*"],"revision":"v1"}'
        assert ref.key == hashlib.sha256(text.encode()).hexdigest()[:16]

    @settings(max_examples=30)
    @given(st.lists(st.text(max_size=5)), st.lists(st.text(max_size=5)), st.none() | st.text(min_size=1, max_size=5))
    def test_the_order_of_patterns_does_not_matter(self, include: list[str], exclude: list[str], revision: str | None) -> None:
        one = ArtifactRef("hf://org/model", revision, tuple(include), tuple(exclude))
        other = ArtifactRef("hf://org/model", revision, tuple(reversed(include)), tuple(reversed(exclude)))
        assert one.key == other.key

    def test_including_and_excluding_a_pattern_are_different_artifacts(self) -> None:
        assert ArtifactRef("u", include=("*",)).key != ArtifactRef("u", exclude=("*",)).key
        assert json.loads(ArtifactRef("u", include=("*",)).key_text.partition("\n")[2])["revision"] is None

    def test_a_path_that_is_not_valid_unicode_has_a_key(self) -> None:
        assert len(ArtifactRef("/models/\udcff").key) == 16


class TestDigest:
    def test_a_digest_is_read_in_any_case(self) -> None:
        assert str(Digest.parse(" SHA256:" + "AB" * 32)) == "sha256:" + "ab" * 32

    @pytest.mark.parametrize("text", ["", "sha256", "sha256:", "sha256:abc", "md5:" + "0" * 32, "sha256:" + "g" * 64])
    def test_an_invalid_digest_is_refused(self, text: str) -> None:
        with pytest.raises(UsageError):
            Digest.parse(text)

    @pytest.mark.parametrize(("algorithm", "length"), [("sha256", 40), ("git-sha1", 64), ("sha1", 40)])
    def test_each_algorithm_requires_its_length(self, algorithm: Any, length: int) -> None:
        with pytest.raises(UsageError, match="not a digest"):
            Digest(algorithm, "a" * length)


class TestIdentity:
    def test_digests_identify_content_in_any_order_and_before_a_validator(self) -> None:
        one, other = Digest("sha256", "a" * 64), Digest("git-sha1", "b" * 40)
        assert RemoteFile("f", 5, (one, other), "etag x").identity == RemoteFile("g", 5, (other, one)).identity

    def test_a_different_size_is_different_content(self) -> None:
        assert RemoteFile("f", 5, validator="etag x").identity != RemoteFile("f", 6, validator="etag x").identity

    def test_a_file_without_digest_and_validator_has_no_identity(self) -> None:
        assert RemoteFile("f", 5).identity is None


@pytest.mark.parametrize(("start", "stop"), [(-1, 0), (2, 1)])
def test_a_backward_range_is_refused(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="not a byte range"):
        ByteRange(start, stop)


def test_a_chunk_has_16_mib() -> None:
    """Another size would invalidate every existing journal and manifest."""
    assert CHUNK_SIZE == 16 * 1024 * 1024


def test_a_range_is_half_open() -> None:
    assert len(ByteRange(5, 5)) == 0
    assert len(ByteRange(5, 7)) == 2


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://user:secret@host/f?token=secret&b=secret#sha256=ab", "https://host/f?token=...&b=...#sha256=ab"),
        ("https://host:8443/f", "https://host:8443/f"),
        ("https://host/f?secret", "https://host/f?..."),
        ("hf://org/model@refs/pr/1", "hf://org/model@refs/pr/1"),
        ("hf://gpt2@v1.0", "hf://gpt2@v1.0"),
        ("/a/path?with=question", "/a/path?with=question"),
        ("HTTPS://user:secret@host/f?a=secret=secret", "https://host/f?a=..."),
        ("https://user:secret@[bad/f?token=secret", "https:..."),
    ],
)
def test_possible_secrets_in_an_address_are_redacted(uri: str, shown: str) -> None:
    assert redact(uri) == shown


@settings(max_examples=50)
@given(st.sampled_from(["http", "https"]), st.text(max_size=20), st.text(max_size=20))
def test_passwords_and_signatures_are_always_redacted(scheme: str, name: str, value: str) -> None:
    secret = "hunter2" + quote(value, safe="")
    assert "hunter2" not in redact(f"{scheme}://{quote(name, safe='')}:{secret}@host/f?sig={secret}")


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://bucket/a key/with ?&#%20", "s3://bucket/a key/with ?&#%20"),
        ("s3://bucket/key?versionId=abc", "s3://bucket/key?versionId=abc"),
        ("s3://bucket/key?X-Amz-Signature=s3cret&versionId=1", "s3://bucket/key?X-Amz-Signature=...&versionId=1"),
        ("s3://AKID:s3cret@bucket/key", "s3:..."),
        ("s3://AKID:s3/cret@bucket/key", "s3:..."),
        ("oci://user:s3cret@registry/model:v1", "oci:..."),
        ("oci://registry:5000/model@sha256:abc", "oci://registry:5000/model@sha256:abc"),
    ],
)
def test_addresses_of_stores_show_no_secret(uri: str, shown: str) -> None:
    assert redact(uri) == shown


class TestListingDigest:
    WEIGHTS = RemoteFile("model.safetensors", 3, (Digest("sha256", "ab" * 32),), checksums=(Checksum("crc32c", "01234567"),))
    CONFIG = RemoteFile("config.json", 2, (Digest("git-sha1", "cd" * 20),))
    PLAIN = RemoteFile("plain", 1, checksums=(Checksum("crc32c", "01234567"),))

    def test_it_never_changes(self) -> None:
        # printf '["config.json", 2, ["git-sha1:%s"]]\n' "$(printf 'cd%.0s' $(seq 20))" | sha256sum
        assert (
            listing_digest([self.CONFIG])
            == hashlib.sha256(b'["config.json", 2, ["git-sha1:' + b"cd" * 20 + b'"]]\n').hexdigest()
        )

    def test_the_order_of_a_listing_does_not_matter(self) -> None:
        assert listing_digest([self.WEIGHTS, self.CONFIG]) == listing_digest([self.CONFIG, self.WEIGHTS])

    @pytest.mark.parametrize(
        "other",
        [
            RemoteFile("model.bin", 3, WEIGHTS.digests),
            RemoteFile("model.safetensors", 4, WEIGHTS.digests),
            RemoteFile("model.safetensors", 3, (Digest("sha256", "ac" * 32),)),
            RemoteFile("model.safetensors", None, WEIGHTS.digests),
        ],
        ids=["path", "size", "digest", "no size"],
    )
    def test_each_fact_changes_it(self, other: RemoteFile) -> None:
        assert listing_digest([other]) != listing_digest([self.WEIGHTS])

    def test_a_manifest_has_the_digest_of_its_listing(self) -> None:
        kept = [
            ManifestFile("model.safetensors", 3, self.WEIGHTS.digests, ("",), shared="link"),
            ManifestFile("config.json", 2, self.CONFIG.digests, ("",)),
            ManifestFile("plain", 1, (), ("",), checksums=("crc32c:01234567",)),
        ]
        assert listing_digest(kept) == listing_digest([self.WEIGHTS, self.CONFIG, self.PLAIN])

    def test_the_validator_stands_for_a_file_without_digest_and_checksum_alone(self) -> None:
        one, other = (RemoteFile("f", 1, validator=mark) for mark in ("one", "other"))
        assert listing_digest([one]) != listing_digest([other])
        assert listing_digest([replace(self.PLAIN, validator="one")]) == listing_digest([self.PLAIN])

    def test_a_path_with_a_line_break_is_not_two_lines(self) -> None:
        assert listing_digest([RemoteFile("a\nb", 1)]) != listing_digest([RemoteFile("a", 1), RemoteFile("b", 1)])

    def test_a_path_that_is_not_unicode_has_a_digest(self) -> None:
        assert listing_digest([RemoteFile("\udcff", 1)]) != listing_digest([RemoteFile("\udcfe", 1)])
