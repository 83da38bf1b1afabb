"""Hostile listings are refused, selections are the Hub client's, chunks cover files."""

from __future__ import annotations

import posixpath
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from huggingface_hub.utils._paths import filter_repo_objects
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.artifact import CHUNK_SIZE, RemoteFile
from fetcher.errors import HostilePath, NotFound
from fetcher.planning.paths import refuse_hostile_paths
from fetcher.planning.ranges import chunk_count, chunk_range
from fetcher.planning.selection import select, unmatched

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
            "", "/etc/passwd", "../up", "a/../b", "a/./b", "a//b", "a/", "back\\slash", "C:drive", "nul\0", "line\nbreak",
            ".fetcher/x", "a/.FETCHER/x", "\udcff", "x" * 256, "/".join(["d" * 200] * 11),
        ],
    )  # fmt: skip
    def test_one_that_leaves_its_directory_is_refused(self, path: str) -> None:
        with pytest.raises(HostilePath):
            refuse_hostile_paths(["config.json", path])

    @pytest.mark.parametrize(
        "paths",
        [
            ["a", "A"],
            ["stra\u00dfe", "STRASSE"],
            ["caf\u00e9", "cafe\u0301"],
            ["a", "a/b"],
            ["A", "a/b"],
            ["d/a", "D/b"],
            ["a", "a"],
        ],
    )
    def test_two_that_some_filesystem_takes_for_one_are_refused(self, paths: list[str]) -> None:
        with pytest.raises(HostilePath):
            refuse_hostile_paths(paths)

    def test_ordinary_ones_pass(self) -> None:
        refuse_hostile_paths(["config.json", "a/b/c.bin", "a/b/d.bin", ".gitattributes", "\u6a21\u578b.safetensors", "a..b"])

    @given(st.lists(st.text("ab./\\~: \0C", max_size=12), max_size=5))
    def test_what_passes_stays_below_its_directory(self, paths: list[str]) -> None:
        try:
            refuse_hostile_paths(paths)
        except HostilePath:
            return
        for path in paths:
            assert posixpath.normpath(posixpath.join("/root", path)) == f"/root/{path}"
            assert PureWindowsPath(path).parts == PurePosixPath(path).parts
            assert not any(other.startswith(f"{path}/") for other in paths)

    @settings(max_examples=25)
    @given(st.lists(st.from_regex(r"[a-z]{1,3}(/[a-z]{1,3}){0,2}\.bin", fullmatch=True), unique=True, max_size=8))
    def test_plain_relative_paths_are_never_refused(self, paths: list[str]) -> None:
        refuse_hostile_paths(paths)

    def test_the_refusal_names_the_path_in_plain_letters(self) -> None:
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

    def test_nothing_left_and_nothing_there_are_told_apart(self) -> None:
        with pytest.raises(NotFound, match="matches none of its 1 files"):
            select([RemoteFile("a", 1)], include=(), exclude=("*",))
        with pytest.raises(NotFound, match="there are no"):
            select([], include=(), exclude=())

    @given(NAMES, PATTERNS, PATTERNS)
    def test_it_is_what_the_hubs_client_selects(self, names: list[str], include: list[str], exclude: list[str]) -> None:
        expected = list(filter_repo_objects(names, allow_patterns=include or None, ignore_patterns=exclude or None))
        files = [RemoteFile(name, 1) for name in names]
        if not expected:
            with pytest.raises(NotFound):
                select(files, include=tuple(include), exclude=tuple(exclude))
        else:
            chosen = select(files, include=tuple(include), exclude=tuple(exclude))
            assert [file.path for file in chosen] == expected


class TestPatternsThatMatchNothing:
    PATHS = ("config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "Q4_K_M/model.gguf")

    def said(self, *include: str, exclude: tuple[str, ...] = ()) -> tuple[str, ...]:
        return unmatched(self.PATHS, include=include, exclude=exclude)

    def test_those_that_match_are_not_mentioned(self) -> None:
        assert self.said("*.json", "Q4_K_M/", exclude=("*.gguf",)) == ()

    @pytest.mark.parametrize(
        ("pattern", "meant"),
        [
            ("*.safetensor", "*.safetensors"),
            ("*.GGUF", "*.gguf"),
            ("./config.json", "config.json"),
            ("/config.json", "config.json"),
            ("Config.json", "config.json"),
            ("model-00001-of-0002.safetensors", "model-00001-of-00002.safetensors"),
        ],
    )
    def test_the_nearest_that_would_match_is_named(self, pattern: str, meant: str) -> None:
        assert self.said(pattern) == (f"--include {pattern!r} matches nothing (did you mean {meant!r}?)",)
        assert self.said(exclude=(pattern,)) == (f"--exclude {pattern!r} matches nothing (did you mean {meant!r}?)",)

    def test_where_nothing_is_near_nothing_is_suggested(self) -> None:
        assert self.said("zzz") == ("--include 'zzz' matches nothing",)

    def test_a_selection_that_leaves_nothing_says_why(self) -> None:
        files = [RemoteFile(path, 1) for path in self.PATHS]
        with pytest.raises(NotFound, match=r"none of its 4 files: --include '\*.safetensor' matches nothing \(did you mean"):
            select(files, include=("*.safetensor",), exclude=())
        with pytest.raises(NotFound, match="--include and --exclude together leave nothing"):
            select(files, include=("*.json",), exclude=("config*",))
        with pytest.raises(NotFound, match="there are no files"):
            select([], include=(), exclude=())
