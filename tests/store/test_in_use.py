"""Whether somebody has a file open: the kernel's answer, where it can give one."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fetcher.store.in_use import use_of
from tests.lab.availability import require_root
from tests.lab.faults import FaultFilesystem
from tests.lab.filesystems import SMALLEST, Kind
from tests.lab.fixtures import MakeFilesystem

HOLDING = "import sys, time; held = open(sys.argv[1], 'rb'); print('open', flush=True); time.sleep(60)"


@contextmanager
def held_by(*command: str) -> Iterator[None]:
    """Run a process that opens a file and says so."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield
        process.kill()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(8192))
    return path


def use(path: Path) -> str:
    return use_of(path.parent, [path])


class TestOnThisKernel:
    @pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs"])
    def test_an_open_file_is_seen_on_every_local_filesystem(self, kind: Kind, small_filesystem: MakeFilesystem) -> None:
        path = small_filesystem(kind, size=max(SMALLEST[kind], 1 << 20)).path / "weights"
        path.write_bytes(b"weights")
        assert use(path) == "closed"
        with held_by(sys.executable, "-c", HOLDING, str(path)):
            assert use(path) == "open"
        assert use(path) == "closed"

    def test_a_file_that_is_only_mapped_is_in_use(self, file: Path) -> None:
        with file.open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        assert use(file) == "open"
        mapped.close()
        assert use(file) == "closed"

    def test_a_process_in_another_pid_namespace_is_seen(self, file: Path) -> None:
        require_root("see other PID namespaces")
        with held_by("unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", HOLDING, str(file)):
            assert use(file) == "open"

    def test_one_open_file_of_many_is_enough(self, tmp_path: Path) -> None:
        paths = [tmp_path / str(number) for number in range(20)]
        for path in paths:
            path.write_bytes(b"x")
        with paths[11].open("rb"):
            assert use_of(tmp_path, paths) == "open"

    def test_missing_files_are_not_in_use(self, tmp_path: Path) -> None:
        assert use_of(tmp_path, [tmp_path / "gone", tmp_path / "no" / "where"]) == "closed"

    def test_a_link_in_the_path_counts_as_in_use_and_is_not_followed(self, tmp_path: Path, file: Path) -> None:
        (tmp_path / "link").symlink_to(file)
        assert use_of(tmp_path, [tmp_path / "link"]) == "open"

    def test_another_users_file_counts_as_in_use_without_the_right_to_ask(self, file: Path) -> None:
        require_root("become another user")
        file.chmod(0o644)
        # The directory of the test belongs to root alone, so the file is opened before the user changes.
        asking = """
import os, sys
from fetcher.store import in_use
descriptor = os.open(sys.argv[1], os.O_RDONLY)
os.setuid(65534)
print(in_use._open_elsewhere(descriptor))
"""
        done = subprocess.run([sys.executable, "-c", asking, str(file)], capture_output=True, text=True, check=True)
        assert done.stdout == "True\n"


class TestSignals:
    def test_readers_who_open_the_file_meanwhile_never_kill_the_asking_process(self, file: Path) -> None:
        reading = "import sys\nwhile True: open(sys.argv[1], 'rb').close()"
        with subprocess.Popen([sys.executable, "-c", reading, str(file)]) as reader:
            answers = {use(file) for _ in range(2000)}
            reader.kill()
        assert answers <= {"open", "closed"}

    def test_the_mask_of_the_thread_is_restored(self, file: Path) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        use(file)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before

    def test_any_thread_may_ask(self, file: Path) -> None:
        answers: list[str] = []
        thread = threading.Thread(target=lambda: answers.append(use(file)))
        thread.start()
        thread.join()
        assert answers == ["closed"]


def test_a_filesystem_of_another_process_cannot_tell(faulty: FaultFilesystem) -> None:
    path = faulty.path / "weights"
    path.write_bytes(b"weights")
    assert use(path) == "unknown"
    descriptor = os.open(path, os.O_RDONLY)
    assert use(path) == "unknown"
    os.close(descriptor)
