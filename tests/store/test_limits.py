"""The limits of a root: written once, obeyed by every fetch."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fetcher.errors import ConfigurationError, NewerFormat, UsageError
from fetcher.quantities import Amount, parse_amount
from fetcher.store.limits import CacheLimits, read_limits, refuse_looser, write_limits
from tests.lab.faults import FaultFilesystem

LIMITS = CacheLimits(Amount(1000.0), Amount(5.0, percent=True), 60.0)


def document(root: Path) -> Path:
    return root / ".fetcher/root.json"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_limits(tmp_path, LIMITS)
    assert read_limits(tmp_path) == LIMITS


def test_a_root_that_was_not_initialized_has_no_limit(tmp_path: Path) -> None:
    assert not read_limits(tmp_path).bounded


def test_a_percentage_is_of_the_filesystem(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    total = status.f_blocks * status.f_frsize
    bounds = CacheLimits(max_size=parse_amount("50%")).bounds(tmp_path)
    assert bounds.max_size == pytest.approx(total / 2, rel=0.01)


@pytest.mark.parametrize("text", ["101%", "-1%", "5 %%", "%", "ten", ""])
def test_an_amount_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_amount(text)


class TestRecord:
    def test_fields_of_a_later_version_are_kept(self, tmp_path: Path) -> None:
        write_limits(tmp_path, LIMITS)
        fields = json.loads(document(tmp_path).read_text())
        document(tmp_path).write_text(json.dumps({**fields, "watermark": 3}))
        write_limits(tmp_path, CacheLimits())
        assert json.loads(document(tmp_path).read_text())["watermark"] == 3

    def test_a_later_format_is_never_overwritten(self, tmp_path: Path) -> None:
        write_limits(tmp_path, LIMITS)
        later = '{"format_version": 2, "max_size": "1"}'
        document(tmp_path).write_text(later)
        with pytest.raises(NewerFormat):
            read_limits(tmp_path)
        with pytest.raises(NewerFormat):
            write_limits(tmp_path, LIMITS)
        assert document(tmp_path).read_text() == later

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "[]",
            "{}",
            '{"format_version": 1, "max_size": 5}',
            '{"format_version": 1, "max_size": "x"}',
            '{"format_version": 1, "min_idle": []}',
        ],
    )
    def test_a_damaged_record_is_an_error_and_not_no_limit(self, tmp_path: Path, text: str) -> None:
        write_limits(tmp_path, LIMITS)
        document(tmp_path).write_text(text)
        with pytest.raises(ConfigurationError, match="fetcher init"):
            read_limits(tmp_path)


class TestFlags:
    def test_a_stricter_flag_is_accepted(self, tmp_path: Path) -> None:
        refuse_looser(CacheLimits(Amount(100), Amount(10)), CacheLimits(Amount(50), Amount(20)), tmp_path)

    @pytest.mark.parametrize("asked", [CacheLimits(max_size=Amount(101)), CacheLimits(min_free=Amount(9))])
    def test_a_looser_flag_is_a_usage_error(self, tmp_path: Path, asked: CacheLimits) -> None:
        with pytest.raises(UsageError, match="fetcher init"):
            refuse_looser(CacheLimits(Amount(100), Amount(10)), asked, tmp_path)


class TestNetworkFilesystem:
    """FUSE stands for all filesystems that others change too."""

    def test_a_percentage_is_refused(self, faulty: FaultFilesystem) -> None:
        with pytest.raises(UsageError, match="in bytes"):
            write_limits(faulty.path, CacheLimits(max_size=parse_amount("80%"), min_idle=60.0))

    def test_a_limit_needs_an_explicit_idle_time(self, faulty: FaultFilesystem) -> None:
        with pytest.raises(UsageError, match="--min-idle"):
            write_limits(faulty.path, CacheLimits(max_size=Amount(1000)))
        write_limits(faulty.path, CacheLimits(max_size=Amount(1000), min_idle=60.0))
