"""Pins and holds in a root: files of their own, that several nodes write at the same time."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fetcher.errors import UsageError
from fetcher.store.claims import Claim, claim, claims, unclaim

KEY = "0123456789abcdef"
PIN = Claim(KEY, "pin", None)
HOLD = Claim(KEY, "hold", 1_900_000_000.0, "8d5e3b5c-1f5e-4a8e-9d0a-4f0a1b2c3d4e")


def test_what_is_claimed_is_listed(tmp_path: Path) -> None:
    claim(tmp_path, PIN)
    claim(tmp_path, HOLD)
    assert sorted(claims(tmp_path)[KEY], key=lambda each: each.kind) == [HOLD, PIN]


def test_a_root_without_records_has_no_claims(tmp_path: Path) -> None:
    assert claims(tmp_path) == {}


def test_a_second_claim_replaces_the_first_of_the_same_holder(tmp_path: Path) -> None:
    claim(tmp_path, HOLD)
    claim(tmp_path, Claim(KEY, "hold", None, HOLD.holder))
    assert claims(tmp_path)[KEY] == [Claim(KEY, "hold", None, HOLD.holder)]


def test_holders_do_not_disturb_each_other(tmp_path: Path) -> None:
    other = Claim(KEY, "hold", None, "another-pod")
    claim(tmp_path, HOLD)
    claim(tmp_path, other)
    unclaim(tmp_path, HOLD)
    assert claims(tmp_path)[KEY] == [other]


def test_a_claim_lasts_until_its_time() -> None:
    assert HOLD.until is not None
    assert HOLD.lasts(HOLD.until - 1)
    assert not HOLD.lasts(HOLD.until)
    assert PIN.lasts(1e12)


def test_removing_a_claim_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    unclaim(tmp_path, PIN)


@pytest.mark.parametrize("holder", ["", "../../escape", "a/b", "a.b", "-x", "x" * 64, "a\nb", "ü"])
def test_a_holder_that_is_no_name_is_a_usage_error(tmp_path: Path, holder: str) -> None:
    with pytest.raises(UsageError, match="holder"):
        claim(tmp_path, Claim(KEY, "hold", None, holder))
    assert list(tmp_path.iterdir()) == []


class TestHostileRecords:
    """Other users may write to the root. A record that makes no sense keeps the artifact."""

    @pytest.mark.parametrize(
        "text",
        [b"", b"{", b"[]", b"null", b'{"format_version": 99, "until": "2001-01-01T00:00:00+00:00"}', b'{"format_version": 1}',
         b'{"format_version": 1, "until": 5}', b'{"format_version": 1, "until": "never"}', b"[" * 100_000],
        ids=["empty", "cut", "a list", "null", "a later format", "no end", "a number", "no date", "nested"],
    )  # fmt: skip
    def test_a_record_that_cannot_be_read_lasts(self, tmp_path: Path, text: bytes) -> None:
        claim(tmp_path, PIN)
        (tmp_path / ".fetcher/usage" / PIN.name).write_bytes(text)
        (found,) = claims(tmp_path)[KEY]
        assert found.lasts(1e12)

    def test_a_pipe_or_a_link_in_its_place_lasts_and_is_not_opened(self, tmp_path: Path) -> None:
        usage = tmp_path / ".fetcher/usage"
        usage.mkdir(parents=True)
        os.mkfifo(usage / PIN.name)
        (usage / HOLD.name).symlink_to("/dev/zero")
        assert all(each.lasts(1e12) for each in claims(tmp_path)[KEY])

    def test_other_names_are_no_claims(self, tmp_path: Path) -> None:
        usage = tmp_path / ".fetcher/usage"
        usage.mkdir(parents=True)
        for name in (KEY, f"{KEY}.hold.", f"{KEY}.hold.a.b", f"{KEY}.pin.x", f"{KEY}.other", ".draft"):
            (usage / name).write_text("{}")
        assert claims(tmp_path) == {}

    def test_a_record_is_readable_for_others(self, tmp_path: Path) -> None:
        claim(tmp_path, HOLD)
        document = json.loads((tmp_path / ".fetcher/usage" / HOLD.name).read_text())
        assert document["until"] == "2030-03-17T17:46:40+00:00"
