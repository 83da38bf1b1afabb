"""Digests equal those of hashlib and git, for any split of the bytes."""

from __future__ import annotations

import hashlib
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.artifact import Digest
from fetcher.errors import DigestUnavailable
from fetcher.integrity.digests import DigestCheck, new_hasher
from tests.lab.availability import program

PIECES = st.lists(st.binary(max_size=200), max_size=8)


def sha256(content: bytes) -> Digest:
    return Digest("sha256", hashlib.sha256(content).hexdigest())


def git_sha1(content: bytes) -> Digest:
    return Digest("git-sha1", hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest())


@pytest.mark.parametrize("content", [b"", b"a", b"{}\n", bytes(range(256)) * 5000])
def test_a_git_digest_equals_that_of_git(content: bytes) -> None:
    git = program("git", package="git")
    printed = subprocess.run([git, "hash-object", "--stdin"], input=content, capture_output=True, check=True).stdout
    hasher = new_hasher("git-sha1", size=len(content))
    hasher.update(content)
    assert hasher.hexdigest() == printed.decode().strip()


def test_a_git_digest_needs_the_size() -> None:
    with pytest.raises(DigestUnavailable, match="the source does not report the size"):
        new_hasher("git-sha1", size=None)
    assert new_hasher("sha256", size=None).hexdigest() == hashlib.sha256().hexdigest()


class TestDigestCheck:
    @settings(max_examples=40)
    @given(PIECES, st.sampled_from([1, 4, 16]))
    def test_right_content_has_no_mismatch(self, pieces: list[bytes], streams: int) -> None:
        content = b"".join(pieces)
        check = DigestCheck([sha256(content), git_sha1(content)], size=len(content), streams=streams)
        for piece in pieces:
            check.update(piece)
        assert check.mismatch() is None

    @settings(max_examples=40)
    @given(st.binary(min_size=1, max_size=300), st.data())
    def test_a_flipped_bit_is_reported_with_both_digests(self, content: bytes, data: st.DataObject) -> None:
        damaged = bytearray(content)
        damaged[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        check = DigestCheck([sha256(content)], size=len(content))
        check.update(damaged)
        assert check.mismatch() == (sha256(content), str(sha256(bytes(damaged))))

    def test_all_digests_of_a_file_must_agree(self) -> None:
        check = DigestCheck([sha256(b"right"), git_sha1(b"wrong")], size=5)
        check.update(b"right")
        assert check.mismatch() == (git_sha1(b"wrong"), str(git_sha1(b"right")))

    def test_a_file_without_digests_has_no_mismatch(self) -> None:
        check = DigestCheck([], size=5)
        check.update(b"whatever")
        assert check.mismatch() is None


class TestContinuing:
    """Only a single SHA-256 can resume in another process; see `tests/integrity/test_lanes.py`."""

    @pytest.mark.parametrize(
        "digests", [[], [git_sha1(b"")], [sha256(b""), git_sha1(b"")]], ids=["none", "git's", "two of them"]
    )
    def test_only_a_single_sha256_is_saved_and_restored(self, digests: list[Digest]) -> None:
        check = DigestCheck(digests, size=0)
        assert check.save() is None
        with pytest.raises(DigestUnavailable):
            check.restore(b"", length=0)

    def test_an_invalid_state_is_refused(self) -> None:
        with pytest.raises(DigestUnavailable):
            DigestCheck([sha256(b"")], size=0).restore(b"no state", length=8)
