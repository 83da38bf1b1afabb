"""The lock on an owner's heartbeat proves a death, on filesystems of this kernel, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fetcher.errors import NewerFormat
from fetcher.store import heartbeat as module
from fetcher.store.heartbeat import Heartbeat, check_heartbeat, given_up, parse_heartbeat, read_heartbeat

HOLD = """
import sys
from pathlib import Path
from fetcher.store.heartbeat import Heartbeat
heartbeat = Heartbeat.create(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lease.owner"


def test_the_fields_of_a_heartbeat_are_read_as_written(path: Path) -> None:
    heartbeat = Heartbeat.create(path)
    assert parse_heartbeat(read_heartbeat(path)).items() >= {"counter": 0, "locked": True, "format_version": 1}.items()
    heartbeat.write({"counter": 7, "fetched": 5})
    assert parse_heartbeat(read_heartbeat(path)).items() >= {"counter": 7, "fetched": 5, "locked": True}.items()
    heartbeat.close()


def test_a_heartbeat_has_the_same_length_for_all_numbers(path: Path) -> None:
    heartbeat = Heartbeat.create(path)
    length = len(read_heartbeat(path))
    heartbeat.write({"counter": 10**15, "fetched": 10**15, "total": 10**15})
    assert len(read_heartbeat(path)) == length
    heartbeat.close()


def test_an_owner_detects_that_its_heartbeat_was_replaced_and_does_not_write_to_the_other_file(path: Path) -> None:
    heartbeat = Heartbeat.create(path)
    copied(path)
    before = read_heartbeat(path)
    with pytest.raises(FileNotFoundError, match="another file"):
        heartbeat.write({"counter": 1})
    assert read_heartbeat(path) == before
    heartbeat.close()


def test_a_copy_of_a_heartbeat_proves_no_death(path: Path) -> None:
    """Nobody holds a lock on the copy, but the owner is alive."""
    heartbeat = Heartbeat.create(path)
    copied(path)
    assert not given_up(path)
    heartbeat.close()


def copied(path: Path) -> None:
    """Replace the file by a copy, as restoring a backup or `sed -i` does."""
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.rename(path)


class TestFormats:
    def test_a_heartbeat_of_an_older_version_has_no_format_number_and_is_read(self, path: Path) -> None:
        path.write_text(json.dumps({"counter": 3, "released": True, "locked": True}))
        check_heartbeat(read_heartbeat(path), what=str(path))
        assert parse_heartbeat(read_heartbeat(path))["released"]

    def test_a_heartbeat_of_a_later_version_shows_only_its_version(self, path: Path) -> None:
        path.write_text(json.dumps({"format_version": 2, "version": "9.0", "released": True, "locked": True}))
        assert parse_heartbeat(read_heartbeat(path)) == {}
        assert not given_up(path)
        with pytest.raises(NewerFormat, match=r"weightlift 9\.0 in format 2; this version reads up to format 1"):
            check_heartbeat(read_heartbeat(path), what=str(path))

    @pytest.mark.parametrize("number", ["one", 0, -1, True, None, 1.5])
    def test_an_invalid_format_number_is_not_a_later_version(self, number: object) -> None:
        check_heartbeat(json.dumps({"format_version": number}).encode(), what="lease")


def test_a_previous_owner_does_not_create_its_heartbeat_again(path: Path) -> None:
    heartbeat = Heartbeat.create(path)
    heartbeat.remove()
    with pytest.raises(FileNotFoundError):
        heartbeat.write({"counter": 1})
    assert not path.exists()
    heartbeat.close()


def test_an_owner_has_given_up_once_its_process_is_killed_and_not_before(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert not given_up(path)
        holder.kill()
        holder.wait()
        assert given_up(path)


def test_checking_for_a_death_does_not_change_the_result(path: Path) -> None:
    heartbeat = Heartbeat.create(path)
    heartbeat.close()
    assert given_up(path)
    assert given_up(path)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"locked": false}', b"\xff"])
def test_a_heartbeat_that_was_never_locked_proves_no_death(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert not given_up(path)


def test_a_missing_heartbeat_proves_no_death(path: Path) -> None:
    assert not given_up(path)


def test_a_lock_on_a_filesystem_of_another_kernel_is_not_trusted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(json.dumps({"counter": 1, "locked": True}))
    monkeypatch.setattr(module, "of_this_kernel", lambda _: False)
    assert not given_up(path)
    path.unlink()
    before = os.listdir("/proc/self/fd")
    heartbeat = Heartbeat.create(path)
    assert parse_heartbeat(read_heartbeat(path))["locked"] is False
    assert os.listdir("/proc/self/fd") == before
    heartbeat.write({"counter": 1})
    heartbeat.close()
