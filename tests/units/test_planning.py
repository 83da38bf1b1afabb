"""Hostile listings are refused, selections equal those of the Hub client, chunks cover files."""

from __future__ import annotations

import posixpath

import pytest
from huggingface_hub.utils._paths import filter_repo_objects
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.artifact import CHUNK_SIZE, Digest, RemoteFile
from fetcher.errors import DigestMismatch, HostilePath, NotFound
from fetcher.planning.paths import look_alikes, refuse_hostile_paths, without_duplicates
from fetcher.planning.ranges import chunk_count, chunk_range
from fetcher.planning.selection import select, unmatched_patterns

NAMES = st.lists(st.sampled_from(["a", "b.bin", "c/d.json", "c/e/f.safetensors", "[x]", "A"]), min_size=1, unique=True)
PATTERNS = st.lists(
    st.sampled_from(["*", "*.bin", "c/", "c/*", "*.json", "?", "[ab]*", "[[]x]", "**/f*", "A", "nothing"])
    | st.text("abc*?[]!-./", min_size=1, max_size=6),
    max_size=4,
)


class TestPaths:
    @pytest.mark.parametrize(
        "path",
        [
            "", "/etc/passwd", "../up", "a/../b", "a/./b", "a//b", "a/", "back\\slash", "nul\0", "line\nbreak",
            ".fetcher/x", "a/.FETCHER/x", ".fetcher. /x", ".fet\u200dcher/x", "a/.. /b", "...", " ", "\udcff", "x" * 256,
            "/".join(["d" * 200] * 11),
        ],
    )  # fmt: skip
    def test_a_hostile_path_is_refused(self, path: str) -> None:
        with pytest.raises(HostilePath):
            refuse_hostile_paths(["config.json", path])

    @pytest.mark.parametrize("paths", [["a", "a/b"], ["a/b/c", "a/b"], ["x/y/z/file", "x"]])
    def test_a_file_where_another_path_needs_a_directory_is_refused(self, paths: list[str]) -> None:
        with pytest.raises(HostilePath, match="needs a directory"):
            refuse_hostile_paths(paths)

    @pytest.mark.parametrize(
        ("paths", "names"),
        [
            (["README.md", "readme.md"], ("README.md", "readme.md")),
            (["stra\u00dfe", "STRASSE"], ("stra\u00dfe", "STRASSE")),
            (["caf\u00e9", "cafe\u0301"], ("caf\u00e9", "cafe\u0301")),
            (["Data/a", "data/b"], ("Data", "data")),
            (["A", "a/b"], ("A", "a")),
            (["model", "model."], ("model", "model.")),
            (["data/a", "data /b"], ("data", "data ")),
            (["a\u200db", "ab"], ("a\u200db", "ab")),
            (["x/y/K/1", "x/y/\u212a/2", "x/y/k/3"], ("K", "\u212a", "k")),
        ],
    )
    def test_look_alike_names_are_legal_and_reported(self, paths: list[str], names: tuple[str, ...]) -> None:
        refuse_hostile_paths(paths)
        assert look_alikes(paths) == (names,)

    def test_equal_names_in_two_directories_are_not_look_alikes(self) -> None:
        assert look_alikes(["a/README.md", "b/readme.md", "a/sub/x", "a/sub/y"]) == ()

    def test_a_path_listed_twice_with_the_same_content_is_one_file(self) -> None:
        file = RemoteFile("a.bin", 3, (Digest("sha256", "1" * 64),))
        assert without_duplicates([file, RemoteFile("b.bin", 1), file]) == (file, RemoteFile("b.bin", 1))

    @pytest.mark.parametrize("other", [RemoteFile("a", 4), RemoteFile("a", 3, (Digest("sha256", "1" * 64),))])
    def test_a_path_listed_with_two_contents_is_refused(self, other: RemoteFile) -> None:
        with pytest.raises(DigestMismatch, match="'a' twice, with different contents"):
            without_duplicates([RemoteFile("a", 3), other])

    def test_ordinary_paths_are_accepted(self) -> None:
        refuse_hostile_paths(
            ["config.json", "a:b.json", "C:x", "a/b/c.bin", "a/b/d.bin", ".gitattributes", "\u6a21\u578b.safetensors", "a..b"]
        )

    @given(st.lists(st.text("ab./\\~: \0C", max_size=12), max_size=5))
    def test_an_accepted_path_stays_below_its_directory(self, paths: list[str]) -> None:
        try:
            refuse_hostile_paths(paths)
        except HostilePath:
            return
        for path in paths:
            assert posixpath.normpath(posixpath.join("/root", path)) == f"/root/{path}"
            assert not any(other.startswith(f"{path}/") for other in paths)

    @settings(max_examples=25)
    @given(st.lists(st.from_regex(r"[a-z]{1,3}(/[a-z]{1,3}){0,2}\.bin", fullmatch=True), unique=True, max_size=8))
    def test_plain_relative_paths_are_never_refused(self, paths: list[str]) -> None:
        refuse_hostile_paths(paths)

    def test_the_message_shows_the_path_in_ascii(self) -> None:
        with pytest.raises(HostilePath) as caught:
            refuse_hostile_paths(["../\u0430\x1b[0m"])
        assert r"'../\u0430\x1b[0m'" in caught.value.message
        assert "nothing was fetched" in caught.value.message


class TestRanges:
    @given(st.integers(0, 10 * CHUNK_SIZE))
    def test_chunks_follow_each_other_and_cover_the_file(self, size: int) -> None:
        chunks = [chunk_range(index, size) for index in range(chunk_count(size))]
        assert [0, *(chunk.stop for chunk in chunks)] == [*(chunk.start for chunk in chunks), size]
        assert all(len(chunk) == CHUNK_SIZE for chunk in chunks[:-1])
        assert not chunks or 0 < len(chunks[-1]) <= CHUNK_SIZE


class TestSelection:
    @pytest.mark.parametrize(
        ("pattern", "path", "matches"),
        [
            ("*.json", "config.json", True),
            ("*.json", "sub/config.json", True),
            ("sub/", "sub/deep/config.json", True),
            ("sub", "sub/config.json", False),
            ("Config.json", "config.json", False),
            ("model-0000[1-3]-of-*", "model-00002-of-00009.bin", True),
            ("model-0000[!1-3]-of-*", "model-00002-of-00009.bin", False),
        ],
    )
    def test_a_pattern_is_matched_against_the_whole_path(self, pattern: str, path: str, matches: bool) -> None:
        chosen = select([RemoteFile(path, 1), RemoteFile("other", 1)], include=(pattern, "other"), exclude=())
        assert (len(chosen) == 2) is matches

    def test_an_empty_selection_and_an_empty_listing_have_different_messages(self) -> None:
        with pytest.raises(NotFound, match="matches none of the 1 files"):
            select([RemoteFile("a", 1)], include=(), exclude=("*",))
        with pytest.raises(NotFound, match="lists no files"):
            select([], include=(), exclude=())

    @pytest.mark.parametrize(
        ("pattern", "hint"),
        [
            ("Config.json", "patterns are case-sensitive, there is 'config.json'"),
            ("./config.json", "paths begin without ./ and /, write 'config.json'"),
            ("/Q4/*", "paths begin without ./ and /, write 'Q4/*'"),
            ("Q4", "that is a directory, write 'Q4/'"),
            ("m.gguf", "a pattern is compared with the whole path, write '*/m.gguf'"),
            ("confg.json", "there is 'config.json'"),
            ("*.onnx", "matches no file"),
        ],
    )
    def test_a_pattern_without_a_match_is_reported_with_a_hint(self, pattern: str, hint: str) -> None:
        files = [RemoteFile("config.json", 1), RemoteFile("Q4/m.gguf", 1)]
        (sentence,) = unmatched_patterns(files, include=("*.json",), exclude=(pattern,))
        assert sentence.startswith(f"--exclude {pattern!r} matches no file")
        assert sentence.endswith(hint)
        with pytest.raises(NotFound) as caught:
            select(files, include=(pattern,), exclude=())
        assert hint in caught.value.message

    def test_matching_patterns_are_not_reported(self) -> None:
        assert unmatched_patterns([RemoteFile("a/b", 1)], include=("*", "a/", "?/b"), exclude=("*b",)) == ()

    @given(NAMES, PATTERNS, PATTERNS)
    def test_the_selection_equals_that_of_the_hub_client(
        self, names: list[str], include: list[str], exclude: list[str]
    ) -> None:
        expected = list(filter_repo_objects(names, allow_patterns=include or None, ignore_patterns=exclude or None))
        files = [RemoteFile(name, 1) for name in names]
        if not expected:
            with pytest.raises(NotFound):
                select(files, include=tuple(include), exclude=tuple(exclude))
        else:
            chosen = select(files, include=tuple(include), exclude=tuple(exclude))
            assert [file.path for file in chosen] == expected
