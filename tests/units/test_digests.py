"""Digests are those of hashlib and of git itself, whatever the pieces in which the bytes come."""

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
def test_gits_is_the_one_that_git_computes(content: bytes) -> None:
    git = program("git", package="git")
    told = subprocess.run([git, "hash-object", "--stdin"], input=content, capture_output=True, check=True).stdout
    hasher = new_hasher("git-sha1", size=len(content))
    hasher.update(content)
    assert hasher.hexdigest() == told.decode().strip()


def test_gits_can_not_be_begun_without_the_size() -> None:
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
    def test_one_flipped_bit_is_told_with_both_digests(self, content: bytes, data: st.DataObject) -> None:
        damaged = bytearray(content)
        damaged[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        check = DigestCheck([sha256(content)], size=len(content))
        check.update(damaged)
        assert check.mismatch() == (sha256(content), str(sha256(bytes(damaged))))

    def test_all_of_a_files_digests_must_agree(self) -> None:
        check = DigestCheck([sha256(b"right"), git_sha1(b"wrong")], size=5)
        check.update(b"right")
        assert check.mismatch() == (git_sha1(b"wrong"), str(git_sha1(b"right")))

    def test_a_file_without_any_has_nothing_to_disagree_with(self) -> None:
        check = DigestCheck([], size=5)
        check.update(b"whatever")
        assert check.mismatch() is None


class TestContinuing:
    """Only a lone SHA-256 can go on in another process; what it does then is shown in `tests/integrity/test_lanes.py`."""

    @pytest.mark.parametrize(
        "digests", [[], [git_sha1(b"")], [sha256(b""), git_sha1(b"")]], ids=["none", "git's", "two of them"]
    )
    def test_nothing_else_is_saved_or_restored(self, digests: list[Digest]) -> None:
        check = DigestCheck(digests, size=0)
        assert check.save() is None
        with pytest.raises(DigestUnavailable):
            check.restore(b"", length=0)

    def test_what_is_no_state_is_refused(self) -> None:
        with pytest.raises(DigestUnavailable):
            DigestCheck([sha256(b"")], size=0).restore(b"no state", length=8)
