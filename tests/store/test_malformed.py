"""Foreign names and files under a root: none of them stops a command, and no link leads outside."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import xxhash

from fetcher.errors import FetchError
from fetcher.filesystem import storing, write_durably
from fetcher.store import heartbeat as module
from fetcher.store.heartbeat import Heartbeat, given_up, parse_heartbeat, read_heartbeat
from fetcher.store.journal import JournalledFile, read_journals
from fetcher.store.keyed import sweep_old
from fetcher.store.layout import Root
from fetcher.store.lease import acquire
from fetcher.store.owner import Owner
from fetcher.store.salvage import remove_unlisted_files

RENAMED = """
import ctypes, sys
ctypes.CDLL(None).prctl(15, bytes.fromhex(sys.argv[1]), 0, 0, 0)  # PR_SET_NAME
print("renamed", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("pid", [10**20, 1 << 31, (1 << 22) + 1, 0, -1])
def test_a_name_with_an_impossible_pid_is_not_an_owner(pid: int) -> None:
    assert Owner.parse(str(replace(Owner.new(), pid=pid))) is None


@pytest.mark.parametrize("content", [b"[" * 200_000, b'{"a":' * 200_000, b"\xff", b"9" * 5000])
def test_a_malformed_heartbeat_has_no_fields(content: bytes) -> None:
    assert parse_heartbeat(content) == {}


def test_a_heartbeat_that_is_not_a_regular_file_reads_as_empty_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lease.fifo")
    (tmp_path / "lease.directory").mkdir()
    (tmp_path / "lease.link").symlink_to("/dev/zero")
    for path in tmp_path.iterdir():
        assert read_heartbeat(path) == b""
        assert not given_up(path)


def test_a_heartbeat_that_could_not_be_written_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_all", full)
    with pytest.raises(OSError, match="No space left"):
        Heartbeat.create(tmp_path / "lease.owner")
    assert not list(tmp_path.iterdir())


def test_a_process_name_may_be_invalid_in_every_encoding() -> None:
    """The process may have the pid of a previous owner, so it is looked up when that owner's lease is found."""
    name = b"\xff) Z \xfe"
    with subprocess.Popen(
        [sys.executable, "-c", RENAMED, name.hex()], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"renamed\n"
        assert replace(Owner.new(), pid=process.pid, started=1).proven_dead()
        process.communicate()


@pytest.mark.parametrize("record", [b"[" * 200_000, b"nonsense", b"\xff", b"9" * 5000])
def test_a_malformed_journal_record_with_a_correct_checksum_is_ignored(tmp_path: Path, record: bytes) -> None:
    lines = (b'["file","a",{"identity":"one"}]', record)
    text = b"".join(b"%s %s\n" % (xxhash.xxh3_64_hexdigest(line).encode(), line) for line in lines)
    (tmp_path / "journal.owner").write_bytes(text)
    assert read_journals([tmp_path / "journal.owner"]).files == {"a": JournalledFile("one")}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # os.walk leaves its scandir open then
def test_directories_that_are_nested_too_deep_are_reported(tmp_path: Path) -> None:
    """A foreign user nests them in staging. Walking them takes one frame of Python's stack for each."""
    lease = acquire(tmp_path / ".fetcher" / "staging", "key", stale=60.0)
    assert lease is not None
    descriptor = os.open(lease.data, os.O_RDONLY)
    for _ in range(1900):
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    try:
        with pytest.raises(FetchError), storing("continue what is staged"):
            remove_unlisted_files(lease, ())
        lease.dissolve()
    finally:
        subprocess.run(["rm", "-rf", tmp_path / ".fetcher"], check=True)


@pytest.mark.parametrize("text", ["plain\n", "caf\u00e9\n", "\udcff\n"])
def test_small_files_are_written_in_utf_8_in_every_locale(tmp_path: Path, text: str) -> None:
    script = "import sys; from pathlib import Path; from fetcher.filesystem import write_whole\n"
    script += f"write_whole(Path(sys.argv[1]), {text!a})"
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", script, tmp_path / "file"], env=env, check=True)
    assert (tmp_path / "file").read_bytes() == text.encode(errors="backslashreplace")
    assert os.listdir(tmp_path) == ["file"]


def test_foreign_names_in_old_are_kept(tmp_path: Path) -> None:
    old = Root(tmp_path).old
    for name in ("key-r.²", "key-r.٣", "key-r." + "9" * 200, "key-r.", "plain", "key-r.1"):
        (old / name).mkdir(parents=True)
    sweep_old(tmp_path)
    assert "key-r.1" not in os.listdir(old)
    assert len(os.listdir(old)) == 5


def test_a_link_that_replaces_old_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "k-r.1").mkdir(parents=True)
    Root(tmp_path).old.parent.mkdir()
    Root(tmp_path).old.symlink_to("../elsewhere")
    sweep_old(tmp_path)
    assert (tmp_path / "elsewhere" / "k-r.1").is_dir()


@pytest.mark.parametrize("plant", ["file", "hard link", "dangling", "directory"])
def test_a_link_that_replaces_a_usage_record_is_not_followed(tmp_path: Path, plant: str) -> None:
    victim, usage = tmp_path / "victim", tmp_path / ".fetcher" / "usage"
    victim.touch(mode=0o600)
    os.utime(victim, (1, 1))
    usage.mkdir(parents=True)
    if plant == "hard link":
        os.link(victim, usage / "key")
    elif plant == "directory":
        usage.rmdir()
        usage.symlink_to("..")
    else:
        (usage / "key").symlink_to(victim if plant == "file" else tmp_path / "made")
    Root(tmp_path).touch_usage("key")
    assert (victim.stat().st_mode & 0o777, victim.stat().st_mtime) == (0o600, 1)
    assert sorted(os.listdir(tmp_path)) == [".fetcher", "victim"]


def test_the_name_of_a_draft_cannot_be_guessed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"theirs")
    (tmp_path / f".record.{os.getpid()}.draft").symlink_to("victim")
    write_durably(tmp_path / "record", b"ours", mode=0o644)
    assert (tmp_path / "victim").read_bytes() == b"theirs"
    assert not (tmp_path / "record").is_symlink()
