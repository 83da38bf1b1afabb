"""What a lock on an owner's sign of life proves: a death, on filesystems of this kernel, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fetcher.errors import NewerFormat
from fetcher.store import sign as module
from fetcher.store.sign import Sign, check_sign, given_up, parse_sign, read_sign

HOLD = """
import sys
from pathlib import Path
from fetcher.store.sign import Sign
sign = Sign.create(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lease.owner"


def test_what_is_written_is_read(path: Path) -> None:
    sign = Sign.create(path)
    assert parse_sign(read_sign(path)).items() >= {"counter": 0, "locked": True, "format_version": 1}.items()
    sign.write({"counter": 7, "fetched": 5})
    assert parse_sign(read_sign(path)).items() >= {"counter": 7, "fetched": 5, "locked": True}.items()
    sign.close()


def test_it_is_of_one_length_however_large_its_numbers_are(path: Path) -> None:
    sign = Sign.create(path)
    length = len(read_sign(path))
    sign.write({"counter": 10**15, "fetched": 10**15, "total": 10**15})
    assert len(read_sign(path)) == length
    sign.close()


def test_an_owner_whose_sign_is_replaced_notices_it_and_leaves_the_other_file_alone(path: Path) -> None:
    sign = Sign.create(path)
    copied(path)
    before = read_sign(path)
    with pytest.raises(FileNotFoundError, match="another file"):
        sign.write({"counter": 1})
    assert read_sign(path) == before
    sign.close()


def test_a_copy_in_the_place_of_a_sign_proves_no_death(path: Path) -> None:
    """Nobody holds a lock on the copy, while the owner is at work."""
    sign = Sign.create(path)
    copied(path)
    assert not given_up(path)
    sign.close()


def copied(path: Path) -> None:
    """As a backup that is restored, or `sed -i`, leaves it."""
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.rename(path)


class TestFormats:
    def test_a_sign_of_an_older_version_has_no_number_and_is_read(self, path: Path) -> None:
        path.write_text(json.dumps({"counter": 3, "released": True, "locked": True}))
        check_sign(read_sign(path), what=str(path))
        assert parse_sign(read_sign(path))["released"]

    def test_a_sign_of_a_later_version_says_nothing_but_what_it_is(self, path: Path) -> None:
        path.write_text(json.dumps({"format_version": 2, "version": "9.0", "released": True, "locked": True}))
        assert parse_sign(read_sign(path)) == {}
        assert not given_up(path)
        with pytest.raises(NewerFormat, match=r"weightlift 9\.0 in format 2; this version reads up to format 1"):
            check_sign(read_sign(path), what=str(path))

    @pytest.mark.parametrize("number", ["one", 0, -1, True, None, 1.5])
    def test_a_number_that_is_none_is_no_later_version(self, number: object) -> None:
        check_sign(json.dumps({"format_version": number}).encode(), what="lease")


def test_a_former_owner_does_not_bring_its_file_back(path: Path) -> None:
    sign = Sign.create(path)
    sign.remove()
    with pytest.raises(FileNotFoundError):
        sign.write({"counter": 1})
    assert not path.exists()
    sign.close()


def test_as_long_as_its_process_lives_an_owner_has_not_given_up_and_then_it_has_however_it_ended(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert not given_up(path)
        holder.kill()
        holder.wait()
        assert given_up(path)


def test_looking_takes_nothing_away(path: Path) -> None:
    sign = Sign.create(path)
    sign.close()
    assert given_up(path)
    assert given_up(path)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"locked": false}', b"\xff"])
def test_an_owner_that_could_not_lock_proves_nothing(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert not given_up(path)


def test_nor_does_one_that_left_no_sign(path: Path) -> None:
    assert not given_up(path)


def test_where_others_have_a_say_no_lock_is_believed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(json.dumps({"counter": 1, "locked": True}))
    monkeypatch.setattr(module, "of_this_kernel", lambda _: False)
    assert not given_up(path)
    path.unlink()
    before = os.listdir("/proc/self/fd")
    sign = Sign.create(path)
    assert parse_sign(read_sign(path))["locked"] is False
    assert os.listdir("/proc/self/fd") == before
    sign.write({"counter": 1})
    sign.close()
