"""The summary beside each manifest: read instead of it, made again when it does not match, never believed against it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fetcher.artifact import ArtifactRef, Digest
from fetcher.errors import NewerFormat
from fetcher.manifest import RELATIVE_PATH, Manifest, ManifestFile
from fetcher.store.catalog import entries
from fetcher.store.summary import SUMMARY_PATH, Summary, summarized, summary_path
from tests.lab.fixtures import MakeFilesystem

MiB = 1024 * 1024
CONFIG, SHARD = Digest("git-sha1", "1" * 40), Digest("sha256", "2" * 64)
FILES = (
    ManifestFile("config.json", 10, (CONFIG,), ("0" * 32,), shared="copy"),
    ManifestFile("model.safetensors", 3 * MiB, (SHARD,), ("0" * 32,), shared="link"),
    ManifestFile("notes.txt", 5, (), ("0" * 32,)),
)


def manifest(uri: str = "hf://org/model", files: tuple[ManifestFile, ...] = FILES) -> Manifest:
    ref = ArtifactRef(uri)
    return Manifest.for_request(ref, revision="abc", files=files, created="2026-01-01T00:00:00+00:00", version="0.1.0")


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """The manifest of one artifact in the root `tmp_path`."""
    return placed(tmp_path, manifest())


def placed(root: Path, what: Manifest) -> Path:
    path = root / what.fingerprint[:16] / RELATIVE_PATH
    path.parent.mkdir(parents=True)
    path.write_bytes(what.to_bytes())
    return path


def listed(root: Path) -> list[Summary]:
    return [each.summary for each in entries(root, on_newer=refused)]


def refused(error: Exception) -> None:
    raise error


class TestContent:
    def test_it_sums_the_manifest_up(self, tmp_path: Path, record: Path) -> None:
        (summary,) = listed(tmp_path)
        assert (summary.uri, summary.revision, summary.files) == ("hf://org/model", "abc", 3)
        assert (summary.size, summary.shared, summary.verified) == (3 * MiB + 15, 3 * MiB, False)
        assert summary.digests == {str(CONFIG): "config.json", str(SHARD): "model.safetensors"}

    def test_it_is_the_same_when_it_is_read_again(self, record: Path) -> None:
        summary = Summary.of(manifest(), record.stat())
        assert Summary.from_bytes(summary.to_bytes()) == summary

    def test_it_does_not_grow_with_the_chunks(self, record: Path) -> None:
        large = ManifestFile("model.safetensors", 50_000 * 16 * MiB, (SHARD,), ("0" * 32,) * 50_000)
        assert len(Summary.of(manifest(files=(large,)), record.stat()).to_bytes()) < 1024


class TestReading:
    def test_no_manifest_is_read_while_all_summaries_match(self, tmp_path: Path, record: Path) -> None:
        before = listed(tmp_path)
        status = record.stat()
        with record.open("r+b") as stream:
            stream.write(b"unreadable")
        os.utime(record, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert Manifest.read(record) is None
        assert listed(tmp_path) == before

    @pytest.mark.parametrize(
        "change",
        [
            lambda record: record.write_bytes(manifest("hf://org/other").to_bytes()),
            lambda record: os.utime(record, (1, 1)),
            lambda record: (record.rename(record.with_name("old")), record.write_bytes(manifest("hf://org/other").to_bytes())),
        ],
        ids=["written", "touched", "replaced"],
    )
    def test_a_changed_manifest_is_summed_up_again(
        self, tmp_path: Path, record: Path, change: Callable[[Path], object]
    ) -> None:
        listed(tmp_path)
        change(record)
        present = Manifest.read(record)
        assert present is not None
        assert [each.uri for each in listed(tmp_path)] == [present.uri]
        assert Summary.from_bytes(summary_path(record).read_bytes()) == Summary.of(present, record.stat())

    @pytest.mark.parametrize(
        "damage",
        [
            b"", b"{", b"[" * 100_000, b"null", b"[]", b'{"format_version": 1}', b'{"format_version": true}', b"\xff\xfe",
            b'{"format_version": 1' + b"0" * 5000 + b"}",
        ],
        ids=["empty", "torn", "deep", "null", "list", "without fields", "odd format", "no text", "huge number"],
    )  # fmt: skip
    def test_a_damaged_one_is_made_again(self, tmp_path: Path, record: Path, damage: bytes) -> None:
        before = listed(tmp_path)
        summary_path(record).write_bytes(damage)
        assert listed(tmp_path) == before
        assert Summary.from_bytes(summary_path(record).read_bytes()) == before[0]

    @pytest.mark.parametrize("field", ["size", "digests", "manifest", "uri", "verified", "revision"])
    def test_one_with_a_field_of_another_kind_is_made_again(self, tmp_path: Path, record: Path, field: str) -> None:
        before = listed(tmp_path)
        document = json.loads(summary_path(record).read_text())
        summary_path(record).write_text(json.dumps(document | {field: [1]}))
        assert listed(tmp_path) == before

    def test_one_of_a_later_format_is_missing_and_stays(self, tmp_path: Path, record: Path) -> None:
        before = listed(tmp_path)
        later = json.dumps(json.loads(summary_path(record).read_text()) | {"format_version": 2, "uri": "later"})
        summary_path(record).write_text(later)
        assert listed(tmp_path) == before
        assert summary_path(record).read_text() == later

    def test_a_manifest_of_a_later_format_is_named(self, tmp_path: Path, record: Path) -> None:
        listed(tmp_path)
        record.write_text(json.dumps(json.loads(record.read_text()) | {"format_version": 2}))
        with pytest.raises(NewerFormat):
            listed(tmp_path)

    def test_an_artifact_without_a_manifest_is_none(self, tmp_path: Path, record: Path) -> None:
        listed(tmp_path)
        record.unlink()
        assert listed(tmp_path) == []


class TestWriting:
    def test_a_read_only_root_is_listed_from_memory(self, small_filesystem: MakeFilesystem) -> None:
        filesystem = small_filesystem("ext4", size=8 * MiB)
        path = placed(filesystem.path, manifest())
        filesystem.remount_read_only()
        assert [each.uri for each in listed(filesystem.path)] == ["hf://org/model"]
        assert not summary_path(path).exists()

    @pytest.mark.parametrize("plant", ["summary", "directory"])
    def test_no_planted_link_is_followed(self, tmp_path: Path, plant: str) -> None:
        root, victim = tmp_path / "root", tmp_path / "victim"
        path = placed(root, manifest())
        if plant == "summary":
            victim.write_text("untouched")
            summary_path(path).symlink_to(victim)
        else:
            path.parents[1].rename(victim)
            path.parents[1].symlink_to(victim)
        assert [each.uri for each in listed(root)] == ["hf://org/model"]
        if plant == "summary":
            assert victim.read_text() == "untouched"
        else:
            assert not (victim / SUMMARY_PATH).exists()

    @pytest.mark.parametrize("plant", [os.mkdir, os.mkfifo])
    def test_what_is_not_a_file_does_not_hang(self, tmp_path: Path, record: Path, plant: Callable[[Path], None]) -> None:
        plant(summary_path(record))
        assert [each.uri for each in listed(tmp_path)] == ["hf://org/model"]

    def test_a_manifest_that_is_a_link_has_none(self, tmp_path: Path) -> None:
        outside = placed(tmp_path / "outside", manifest())
        link = tmp_path / "root" / "key" / RELATIVE_PATH
        link.parent.mkdir(parents=True)
        link.symlink_to(outside)
        assert summarized(tmp_path / "root", link) is not None
        assert not summary_path(link).exists()
