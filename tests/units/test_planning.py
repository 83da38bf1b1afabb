"""Hostile listings are refused, selections are the Hub client's, memory is shared out within its limit."""

from __future__ import annotations

import pytest
from huggingface_hub.utils._paths import filter_repo_objects
from hypothesis import given
from hypothesis import strategies as st

from fetcher.artifact import RemoteFile
from fetcher.errors import HostilePath, NotFound
from fetcher.planning.memory import HASH_BUFFER, MiB, plan_memory
from fetcher.planning.paths import refuse_hostile_paths
from fetcher.planning.selection import select

NAMES = st.lists(st.sampled_from(["a", "b.bin", "c/d.json", "c/e/f.safetensors", "[x]", "A"]), min_size=1, unique=True)
PATTERNS = st.lists(st.sampled_from(["*", "*.bin", "c/", "c/*", "*.json", "?", "[ab]*", "[[]x]", "**/f*", "A", "nothing"]))


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


class TestSelection:
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


class TestMemory:
    @given(st.integers(16 * MiB, 8192 * MiB), st.integers(1, 1024), st.integers(1, 64))
    def test_all_buffers_together_stay_within_the_limit(self, limit: int, connections: int, threads: int) -> None:
        plan = plan_memory(limit, connections=connections, hash_threads=threads)
        assert 1 <= plan.connections <= connections
        if plan.connections > 1:
            assert plan.total + threads * HASH_BUFFER <= limit
        assert plan.buffers == 2 * plan.connections

    def test_fewer_connections_have_larger_buffers(self) -> None:
        sizes = [plan_memory(256 * MiB, connections=count, hash_threads=1).buffer for count in (4, 32, 64, 1024)]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[0] > sizes[-1]
