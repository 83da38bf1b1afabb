"""Texts become settings, errors become messages and exit codes, manifests are read as they were written."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher import errors
from fetcher.artifact import CHUNK_SIZE, ArtifactRef, Digest, RemoteFile
from fetcher.errors import (
    CannotWrite,
    ConfigurationError,
    FetchError,
    LocalIOError,
    OutOfSpace,
    StoreError,
    UsageError,
    from_os_error,
)
from fetcher.manifest import Manifest, ManifestFile
from fetcher.quantities import parse_duration, parse_rate, parse_size
from fetcher.settings import default_cache_dir, parse_expect, parse_mount

EXIT_CODES = {
    64: {"UsageError", "UnsupportedScheme"},
    65: {
        "DigestMismatch",
        "DigestUnavailable",
        "ContentChanged",
        "Differs",
        "HostilePath",
        "LfsPointer",
        "MalformedArchive",
        "SignatureInvalid",
    },
    66: {"NotFound"},
    69: {"Unreachable", "Stalled", "BadResponse", "MirrorFailed", "Untrusted", "Offline", "Transient", "RangesUnsupported"},
    73: {"OutOfSpace", "CannotWrite", "PinnedArtifact"},
    74: {"LocalIOError"},
    75: {
        "RateLimited",
        "LeaseLost",
        "OtherRevision",
        "LeaseTimeout",
        "LeaseError",
        "CacheBusy",
        "InUse",
        "InUseUnknown",
        "KeepsChanging",
    },
    77: {"Unauthorized", "GatedRepo", "Refused", "SourceNotAllowed"},
    78: {"ConfigurationError", "TooManyOpenFiles", "NewerFormat"},
}
RETRYABLE = {69, 74, 75}


class TestSettings:
    @pytest.mark.parametrize(
        ("text", "size"),
        [("4096", 4096), ("256Mi", 2**28), ("1.5GiB", 3 * 2**29), ("500MB", 5 * 10**8), ("2k", 2000), (" 1 Ti ", 2**40)],
    )
    def test_sizes_are_parsed(self, text: str, size: int) -> None:
        assert parse_size(text) == size

    @pytest.mark.parametrize("text", ["", "-1", "1X", "Mi", "1e9", "1 2", "9" * 30])
    def test_an_invalid_size_is_refused(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match="not a size"):
            parse_size(text)

    @pytest.mark.parametrize(
        ("text", "rate"),
        [
            ("0", None), ("none", None), ("0M", None), ("0.0", None), ("0 MB/s", None), ("0.4", None),
            ("10MB/s", 1e7), ("1Gi", 2.0**30), ("5k/sec", 5e3),
        ],
    )  # fmt: skip
    def test_rates_are_parsed(self, text: str, rate: float | None) -> None:
        assert parse_rate(text) == rate

    @pytest.mark.parametrize(("text", "seconds"), [("30", 30), ("1.5", 1.5), ("250ms", 0.25), ("1h30m", 5400), ("2d", 172800)])
    def test_durations_are_parsed(self, text: str, seconds: float) -> None:
        assert parse_duration(text) == seconds

    @pytest.mark.parametrize("text", ["", "s", "5x", "1h 30m", "-3", "1m2"])
    def test_an_invalid_duration_is_refused(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match="not a duration"):
            parse_duration(text)

    def test_pins_and_mounts_are_parsed(self) -> None:
        assert parse_expect("a=b/c.bin=sha256:" + "a" * 64) == ("a=b/c.bin", Digest("sha256", "a" * 64))
        assert parse_mount("claim=/mnt=x") == ("claim", Path("/mnt=x"))
        for text in ("", "=", "claim=", "=/mnt"):
            with pytest.raises(ConfigurationError):
                parse_mount(text)
        for text in ("", "path", "=sha256:" + "a" * 64, "path=", "path=md5:" + "a" * 32, "path=sha256:" + "a" * 63):
            with pytest.raises((ConfigurationError, UsageError)):
                parse_expect(text)

    @given(st.integers(0, 10**6), st.sampled_from([("", 1), ("k", 10**3), ("Ki", 2**10), ("MB", 10**6), ("GiB", 2**30)]))
    def test_a_whole_number_of_units_is_exact(self, count: int, unit: tuple[str, int]) -> None:
        assert parse_size(f"{count}{unit[0]}") == count * unit[1]

    @settings(max_examples=30)
    @given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
    def test_the_parts_of_a_duration_add_up(self, hours: int, minutes: int, seconds: int) -> None:
        assert parse_duration(f"{hours}h{minutes}m{seconds}s") == 3600 * hours + 60 * minutes + seconds

    @pytest.mark.parametrize("parse", [parse_size, parse_rate, parse_duration, parse_expect, parse_mount])
    @settings(max_examples=50)
    @given(text=st.text(max_size=8) | st.text("0123456789.kmgtibsdh/= ", max_size=8))
    def test_any_text_is_read_or_refused(self, parse: Callable[[str], object], text: str) -> None:
        with suppress(ConfigurationError, UsageError):
            parse(text)

    def test_the_default_cache_is_below_the_home_directory(self) -> None:
        assert default_cache_dir({"XDG_CACHE_HOME": "/xdg", "HOME": "/home"}) == Path("/xdg/weightlift")
        # The specification of XDG: ignore relative paths.
        assert default_cache_dir({"XDG_CACHE_HOME": "xdg", "HOME": "/home"}) == Path("/home/.cache/weightlift")
        with pytest.raises(ConfigurationError, match="cannot choose a cache directory"):
            default_cache_dir({})


class TestErrors:
    def test_every_error_has_its_exit_code(self) -> None:
        found: dict[int, set[str]] = {}
        abstract = {"FetchError", "SourceError", "StoreError"}
        for each in vars(errors).values():
            if isinstance(each, type) and issubclass(each, FetchError) and each.__name__ not in abstract:
                found.setdefault(each.exit_code, set()).add(each.__name__)
                assert each.retryable == (each.exit_code in RETRYABLE), each
        assert found == EXIT_CODES

    def test_a_message_is_one_line_with_the_reason_word_and_the_file(self) -> None:
        assert OutOfSpace("no\n  room", path="a/b").sentence() == "OutOfSpace: a/b: no room"
        assert OutOfSpace("a/b is too large", path="a/b").sentence() == "OutOfSpace: a/b is too large"

    @pytest.mark.parametrize(
        ("code", "error"),
        [(errno.ENOSPC, OutOfSpace), (errno.EDQUOT, OutOfSpace), (errno.EROFS, CannotWrite), (errno.EACCES, CannotWrite),
         (errno.EPERM, CannotWrite), (errno.ENOTDIR, CannotWrite), (errno.EISDIR, CannotWrite),
         (errno.ENAMETOOLONG, CannotWrite), (errno.EIO, LocalIOError), (errno.ESTALE, LocalIOError)],
    )  # fmt: skip
    def test_each_errno_has_its_error(self, code: int, error: type[StoreError]) -> None:
        found = from_os_error(OSError(code, "why", "/data/file"), doing="write it", path="file")
        assert (type(found), found.path) == (error, "file")
        assert "cannot write it /data/file" in found.message

    def test_an_error_without_a_file_names_the_artifact(self) -> None:
        assert "cannot write it f: why" in from_os_error(OSError(errno.EIO, "Why"), doing="write it", path="f").message
        assert from_os_error(OSError("odd"), doing="write it").message.startswith("cannot write it: odd")

    def test_messages_contain_the_words_that_operators_search_for(self) -> None:
        assert "no space left on device" in from_os_error(OSError(errno.EDQUOT, "quota"), doing="write").sentence()

    @settings(max_examples=50)
    @given(st.text(), st.none() | st.text(min_size=1))
    def test_a_message_is_always_one_line(self, message: str, path: str | None) -> None:
        sentence = LocalIOError(message, path=path).sentence()
        assert sentence.startswith("IOError:")
        assert len(sentence.splitlines()) == 1


FILES = st.builds(
    ManifestFile,
    path=st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=3, max_size=20)
    | st.sampled_from(["odd\udcff", "a/b"]),
    size=st.integers(1, CHUNK_SIZE),
    digests=st.lists(st.just(Digest("sha256", "a" * 64)), max_size=1).map(tuple),
    chunks=st.just(("0" * 32,)),
    validator=st.none() | st.text(min_size=1, max_size=5),
)


WHOLE = Manifest.for_request(ArtifactRef("hf://org/model"), revision=None, files=(), created="now", version="1").to_bytes()
ENTRY = {"path": "f", "size": 1, "digests": ["sha256:" + "a" * 64], "xxh3_128": ["0" * 32]}


def with_entry(**changes: object) -> bytes:
    """A manifest of one file, with something changed."""
    return WHOLE.replace(b'"files": []', b'"files": [%s]' % json.dumps(ENTRY | changes).encode())


DAMAGED = [
    WHOLE[:-1],
    *(
        WHOLE.replace(b'"format_version": 1', b'"format_version": ' + number)
        for number in (b"0", b"-1", b"true", b'"1"', b"1.0")
    ),
    WHOLE.replace(b'"created"', b'"somebody_elses"'),
    *(with_entry(xxh3_128=chunks) for chunks in (None, [], [5], ["0" * 32] * 2)),
    *(with_entry(path=path) for path in ("/etc/passwd", "..", "../up", "a/../../up", 5, None)),
    *(with_entry(size=size) for size in ("1", 1.0, None, True, -1)),
    *(with_entry(digests=digests) for digests in (["md5:" + "a" * 32], ["sha256:short"], ["sha256"], [5], None)),
]
"""Manifests with one error each."""


class TestManifest:
    def test_a_file_of_a_manifest_is_found_by_its_path(self) -> None:
        manifest = Manifest.from_bytes(with_entry())
        file = ManifestFile("f", 1, (Digest("sha256", "a" * 64),), ("0" * 32,))
        assert (manifest.file("f"), manifest.file("g")) == (file, None)
        assert (manifest.size, manifest.verified) == (1, True)
        assert file.identity == RemoteFile("f", 1, file.digests).identity

    def test_a_manifest_is_verified_only_if_every_file_is(self) -> None:
        files = [ManifestFile("a", 1, (Digest("sha256", "a" * 64),), ()), ManifestFile("b", 2, (), (), "etag x")]
        manifest = Manifest.for_request(ArtifactRef("hf://org/model"), revision=None, files=files, created="", version="")
        assert not manifest.verified

    @pytest.mark.parametrize(
        "other",
        [
            ArtifactRef("hf://org/other", "v1", ("*",)),
            ArtifactRef("hf://org/model", None, ("*",)),
            ArtifactRef("hf://org/model", "v2", ("*",)),
            ArtifactRef("hf://org/model", "v1", ("*.json",)),
            ArtifactRef("hf://org/model", "v1", ("*",), ("*.bin",)),
            ArtifactRef("hf://org/model", "v1"),
        ],
    )
    def test_a_manifest_answers_exactly_one_request(self, other: ArtifactRef) -> None:
        ref = ArtifactRef("hf://org/model", "v1", ("*",))
        manifest = Manifest.for_request(ref, revision=None, files=(), created="", version="")
        assert manifest.answers(ref)
        assert not manifest.answers(other)

    @settings(max_examples=40)
    @given(st.lists(FILES, max_size=4), st.none() | st.just("v1"))
    def test_a_manifest_is_read_as_it_was_written(self, files: list[ManifestFile], revision: str | None) -> None:
        ref = ArtifactRef("hf://org/model", revision, include=("*",))
        manifest = Manifest.for_request(ref, revision="c" * 40, files=files, created="now", version="1")
        again = Manifest.from_bytes(manifest.to_bytes())
        assert again == manifest
        assert again.answers(ref)
        assert not again.answers(ArtifactRef("hf://org/model", revision))

    @pytest.mark.parametrize(
        "data", [b"", b"{}", b"[]", b"null", b"[" * 100_000, b'{"format_version": 1}', b"\xff\xfe", b'{"files": 3}', *DAMAGED]
    )
    def test_an_invalid_manifest_is_never_accepted(self, data: bytes, tmp_path: Path) -> None:
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
