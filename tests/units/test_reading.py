"""Texts become settings, errors become sentences and exit codes, manifests come back as they were written."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher import errors
from fetcher.artifact import ArtifactRef, Digest
from fetcher.errors import CannotWrite, ConfigurationError, FetchError, LocalIOError, OutOfSpace, StoreError, from_os_error
from fetcher.manifest import Manifest, ManifestFile
from fetcher.settings import parse_duration, parse_expect, parse_mount, parse_rate, parse_size

EXIT_CODES = {
    64: {"UsageError", "UnsupportedScheme"},
    65: {"DigestMismatch", "DigestUnavailable", "ContentChanged", "HostilePath"},
    66: {"NotFound"},
    69: {"Unreachable", "Stalled", "BadResponse", "Untrusted", "Offline", "Transient", "RangesUnsupported"},
    73: {"OutOfSpace", "CannotWrite"},
    74: {"LocalIOError"},
    75: {"RateLimited", "LeaseLost", "LeaseTimeout", "LeaseError"},
    77: {"Unauthorized", "GatedRepo"},
    78: {"ConfigurationError"},
}
RETRYABLE = {69, 74, 75}


class TestSettings:
    @pytest.mark.parametrize(
        ("text", "size"),
        [("4096", 4096), ("256Mi", 2**28), ("1.5GiB", 3 * 2**29), ("500MB", 5 * 10**8), ("2k", 2000), (" 1 Ti ", 2**40)],
    )
    def test_sizes(self, text: str, size: int) -> None:
        assert parse_size(text) == size

    @pytest.mark.parametrize("text", ["", "-1", "1X", "Mi", "1e9", "1 2", "9" * 30])
    def test_what_is_no_size_is_refused(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match="not a size"):
            parse_size(text)

    @pytest.mark.parametrize(
        ("text", "rate"), [("0", None), ("none", None), ("10MB/s", 1e7), ("1Gi", 2.0**30), ("5k/sec", 5e3)]
    )
    def test_rates(self, text: str, rate: float | None) -> None:
        assert parse_rate(text) == rate

    @pytest.mark.parametrize(("text", "seconds"), [("30", 30), ("1.5", 1.5), ("250ms", 0.25), ("1h30m", 5400), ("2d", 172800)])
    def test_durations(self, text: str, seconds: float) -> None:
        assert parse_duration(text) == seconds

    @pytest.mark.parametrize("text", ["", "s", "5x", "1h 30m", "-3", "1m2"])
    def test_what_is_no_duration_is_refused(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match="not a duration"):
            parse_duration(text)

    def test_pins_and_mounts(self) -> None:
        assert parse_expect("a=b/c.bin=sha256:" + "a" * 64) == ("a=b/c.bin", Digest("sha256", "a" * 64))
        assert parse_mount("claim=/mnt=x") == ("claim", Path("/mnt=x"))
        for text in ("", "=", "claim=", "=/mnt"):
            with pytest.raises(ConfigurationError):
                parse_mount(text)


class TestErrors:
    def test_every_error_has_its_exit_code(self) -> None:
        found: dict[int, set[str]] = {}
        abstract = {"FetchError", "SourceError", "StoreError"}
        for each in vars(errors).values():
            if isinstance(each, type) and issubclass(each, FetchError) and each.__name__ not in abstract:
                found.setdefault(each.exit_code, set()).add(each.__name__)
                assert each.retryable == (each.exit_code in RETRYABLE), each
        assert found == EXIT_CODES

    def test_a_sentence_is_one_line_with_the_word_first_and_the_file(self) -> None:
        assert OutOfSpace("no\n  room", path="a/b").sentence() == "OutOfSpace: a/b: no room"
        assert OutOfSpace("a/b is too large", path="a/b").sentence() == "OutOfSpace: a/b is too large"

    @pytest.mark.parametrize(
        ("code", "error"),
        [(errno.ENOSPC, OutOfSpace), (errno.EDQUOT, OutOfSpace), (errno.EROFS, CannotWrite), (errno.EACCES, CannotWrite),
         (errno.EIO, LocalIOError), (errno.ESTALE, LocalIOError)],
    )  # fmt: skip
    def test_what_the_disk_says(self, code: int, error: type[StoreError]) -> None:
        found = from_os_error(OSError(code, "why", "/data/file"), doing="write it", path="file")
        assert (type(found), found.path) == (error, "file")
        assert "cannot write it /data/file" in found.message


FILES = st.builds(
    ManifestFile,
    path=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20) | st.just("odd\udcff"),
    size=st.integers(0, 2**50),
    digests=st.lists(st.just(Digest("sha256", "a" * 64)), max_size=1).map(tuple),
    chunks=st.lists(st.just("0" * 32), max_size=3).map(tuple),
    validator=st.none() | st.text(min_size=1, max_size=5),
)


class TestManifest:
    @given(st.lists(FILES, max_size=4), st.none() | st.just("v1"))
    def test_it_comes_back_as_it_was_written(self, files: list[ManifestFile], revision: str | None) -> None:
        ref = ArtifactRef("hf://org/model", revision, include=("*",))
        manifest = Manifest.for_request(ref, revision="c" * 40, files=files, created="now", version="1")
        again = Manifest.from_bytes(manifest.to_bytes())
        assert again == manifest
        assert again.answers(ref)
        assert not again.answers(ArtifactRef("hf://org/model", revision))

    @pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"format_version": 99}', b"\xff\xfe", b'{"files": 3}'])
    def test_what_is_none_is_never_one(self, data: bytes, tmp_path: Path) -> None:
        path = tmp_path / "manifest.json"
        path.write_bytes(data)
        assert Manifest.read(path) is None
        assert Manifest.read(tmp_path / "absent") is None
        assert Manifest.read(tmp_path) is None

    def test_a_signed_address_is_recognized_but_not_kept(self) -> None:
        ref = ArtifactRef("https://host/f?sig=secret")
        manifest = Manifest.for_request(ref, revision=None, files=(), created="", version="")
        assert b"secret" not in manifest.to_bytes()
        assert manifest.answers(ref)
        assert not manifest.answers(ArtifactRef("https://host/f?sig=other"))
