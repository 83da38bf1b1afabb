"""What a lock on an owner's sign of life proves: a death, on filesystems of this kernel, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fetcher.store import sign as module
from fetcher.store.sign import Sign, given_up, parse_sign, read_sign

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
    assert parse_sign(read_sign(path)) == {"counter": 0, "locked": True}
    sign.write({"counter": 7, "fetched": 5})
    assert parse_sign(read_sign(path)) == {"counter": 7, "fetched": 5, "locked": True}
    sign.close()


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
