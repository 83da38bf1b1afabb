"""Existing files are read again in parallel. Each problem is reported for the right file only."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.artifact import CHUNK_SIZE, Digest
from fetcher.engine.incoming import STRETCH
from fetcher.engine.rereading import FileOnDisk, chunk_digests, wrong_digests
from fetcher.testing.checkpoint import random_bytes
from tests.lab.faultfs import Rule
from tests.lab.faults import FaultFilesystem

LARGE = random_bytes("rereading", 2 * CHUNK_SIZE + 777)


def sha256(content: bytes) -> Digest:
    return Digest("sha256", hashlib.sha256(content).hexdigest())


def git(content: bytes) -> Digest:
    return Digest("git-sha1", hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest())


def on_disk(directory: Path, name: str, content: bytes, *digests: Digest) -> FileOnDisk:
    (directory / name).write_bytes(content)
    return FileOnDisk(name, directory / name, len(content), digests or (sha256(content),))


def test_chunk_digests_are_in_the_order_of_the_content(tmp_path: Path) -> None:
    reported: list[int] = []
    files = [on_disk(tmp_path, "large", LARGE), on_disk(tmp_path, "empty", b""), on_disk(tmp_path, "small", b"x")]
    found = chunk_digests(files, lambda _, size: reported.append(size))
    pieces = [LARGE[start : start + CHUNK_SIZE] for start in range(0, len(LARGE), CHUNK_SIZE)]
    assert found == [tuple(map(xxhash.xxh3_128_hexdigest, pieces)), (), (xxhash.xxh3_128_hexdigest(b"x"),)]
    assert sum(reported) == len(LARGE) + 1


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(0, 300_000), min_size=1, max_size=40), data=st.data())
def test_only_wrong_files_among_many_are_named(
    sizes: list[int], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("many")
    wrong = data.draw(st.sets(st.integers(0, len(sizes) - 1)))
    files, expected = [], []
    for number, size in enumerate(sizes):
        content = random_bytes(str(number), size)
        kind = sha256 if number % 3 else git
        files.append(on_disk(directory, str(number), content, kind(content + b"!") if number in wrong else kind(content)))
        expected.append((kind(content + b"!"), str(kind(content))) if number in wrong else None)
    assert wrong_digests(files) == expected


def test_a_file_longer_than_one_mapping_is_hashed(tmp_path: Path) -> None:
    content = random_bytes("stretches", STRETCH + 5000)
    files = [on_disk(tmp_path, "long", content), on_disk(tmp_path, "short", b"s")]
    assert wrong_digests(files) == [None, None]


def test_missing_truncated_and_forbidden_files_do_not_affect_other_files(tmp_path: Path) -> None:
    files = [on_disk(tmp_path, name, LARGE) for name in ("gone", "cut", "whole")]
    os.unlink(tmp_path / "gone")
    os.truncate(tmp_path / "cut", CHUNK_SIZE + 5)
    gone, cut, whole = chunk_digests(files, lambda *_: None)
    assert isinstance(gone, FileNotFoundError)
    assert isinstance(cut, tuple)
    assert (cut[0], cut[1]) == (xxhash.xxh3_128_hexdigest(LARGE[:CHUNK_SIZE]), "")
    assert isinstance(whole, tuple)
    assert all(whole)
    missing, short, right = wrong_digests(files)
    assert isinstance(missing, FileNotFoundError)
    assert isinstance(short, EOFError)
    assert right is None


def test_a_disk_error_affects_only_its_file(faulty: FaultFilesystem) -> None:
    files = [on_disk(faulty.path, name, LARGE) for name in ("bad", "good")]
    faulty.obey(Rule("read", match="bad", error=errno.EIO, after=1024 * 1024))
    bad, good = wrong_digests(files)
    assert isinstance(bad, OSError)
    assert good is None


def test_only_chosen_chunks_are_read(tmp_path: Path) -> None:
    reported: list[int] = []
    file = on_disk(tmp_path, "large", LARGE)
    found = chunk_digests([file], lambda _, size: reported.append(size), chosen={"large": [0, 2]})
    assert found == [tuple(map(xxhash.xxh3_128_hexdigest, (LARGE[:CHUNK_SIZE], LARGE[2 * CHUNK_SIZE :])))]
    assert sum(reported) == CHUNK_SIZE + 777
