"""A report says whether SHA-256 was computed with SHA extensions, and marks a run in which they were hidden."""

from __future__ import annotations

import re

import pytest

from benchmarks.surroundings import OPENSSL_MASK, flags_for_openssl, flags_in_words, hashing, mask, openssl_rate
from tests.lab.availability import program


@pytest.mark.parametrize("flag", ["sha_ni", "sha2"])
def test_a_processor_with_sha_extensions_is_named_as_one(flag: str) -> None:
    assert hashing({flag, "avx2"}, {}) == "with SHA extensions"


def test_a_processor_without_sha_extensions_is_named_as_one() -> None:
    assert hashing({"avx2", "avx512f"}, {}) == "without SHA extensions"


def test_a_run_whose_extensions_are_hidden_from_openssl_is_marked() -> None:
    said = hashing({"sha_ni"}, {OPENSSL_MASK: ":~0x20000000"})
    assert said.startswith("**SHA extensions hidden from OpenSSL by OPENSSL_ia32cap=:~0x20000000")


@pytest.mark.parametrize(
    ("mask", "seen"),
    [
        ("", {"avx2", "sha_ni"}),
        (":~0x20000000", {"avx2"}),
        (":~0x20000000:~0x1", {"avx2"}),
        ("~0x20000000", {"avx2", "sha_ni"}),  # another bit of the first word
        (":~0x100", {"avx2", "sha_ni"}),
        (":0x100", {"avx2"}),  # only this bit is left
        (":0x20000000", {"avx2", "sha_ni"}),
        (":nonsense", {"avx2", "sha_ni"}),
    ],
)
def test_verdicts_are_those_of_the_extensions_that_openssl_may_use(mask: str, seen: set[str]) -> None:
    assert flags_for_openssl({"avx2", "sha_ni"}, {OPENSSL_MASK: mask}) == seen


def test_contenders_see_the_mask_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(OPENSSL_MASK, raising=False)
    assert mask() == {}
    monkeypatch.setenv(OPENSSL_MASK, ":~0x20000000")
    assert mask() == {OPENSSL_MASK: ":~0x20000000"}


def test_missing_flags_are_listed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert flags_in_words({"sha_ni", "avx2"}) == "SHA-NI, AVX2, no AVX-512"
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert flags_in_words({"sha2"}) == "SHA2"


def test_the_rate_of_openssl_on_one_core_is_stated() -> None:
    program("openssl", package="openssl")
    assert re.fullmatch(r"one core's `openssl speed -evp sha256`: \d+\.\d\d GB/s", openssl_rate())
