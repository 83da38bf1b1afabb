"""The lists of sha256sum that `--expect-file` reads."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fetcher.artifact import Digest
from fetcher.errors import ConfigurationError, DigestMismatch
from fetcher.planning.digest_lists import DigestList, joined, parse_list

ONE, TWO = "1" * 64, "a" * 64


def test_text_and_binary_lines_are_read() -> None:
    found = parse_list(f"{ONE}  config.json\n{TWO.upper()} *sub/a b.bin\n".encode(), where="SUMS")
    assert found.digests == {"config.json": Digest("sha256", ONE), "sub/a b.bin": Digest("sha256", TWO)}


@pytest.mark.parametrize("name", ["plain", "two  spaces", "*star", "line\nbreak", "back\\slash", "car\rriage", "\\n", "\udcff"])
def test_what_sha256sum_writes_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"content")
    for flag in ("--text", "--binary"):
        listed = subprocess.run(["sha256sum", flag, "--", name], cwd=tmp_path, capture_output=True, check=True).stdout
        assert list(parse_list(listed, where="SUMS").digests) == [name]


def test_a_path_may_begin_with_a_dot_and_lines_may_end_as_on_windows() -> None:
    assert list(parse_list(f"{ONE}  ./a\r\n{ONE}  b\r\n".encode(), where="SUMS").digests) == ["a", "b"]


@pytest.mark.parametrize(
    "line", ["", "# comment", "1" * 63 + "  a", ONE, f"{ONE}  ", f"{ONE} a", f"SHA256 (a) = {ONE}", f"\\{ONE}  a\\t", "\0"]
)
def test_a_malformed_line_is_named_with_file_and_number(line: str) -> None:
    with pytest.raises(ConfigurationError, match="SUMS, line 2: not a line of sha256sum"):
        parse_list(f"{ONE}  a\n{line}\n".encode(), where="SUMS")


def test_two_digests_of_one_path_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"SUMS, line 2: another digest for '\./a'"):
        parse_list(f"{ONE}  a\n{TWO}  ./a\n".encode(), where="SUMS")


def test_pins_and_a_list_may_agree_and_must_not_contradict() -> None:
    one, two = Digest("sha256", ONE), Digest("sha256", TWO)
    assert joined({"a": one}, DigestList("SUMS", {"a": one, "b": two})) == {"a": one, "b": two}
    with pytest.raises(DigestMismatch, match="a: --expect says"):
        joined({"a": one}, DigestList("SUMS", {"a": two}))
