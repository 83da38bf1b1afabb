"""A restarted pod meets a cache hit, which must be fast and must not need the network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fetcher.testing.origin import Origin
from tests.cli.conftest import URI
from tests.lab.command import FETCHER, run_fetcher

NETWORK = {"aiohttp", "asyncio", "huggingface_hub", "rich", "ssl", "uvloop"}
"""Includes asyncio: it imports ssl, and takes a third of the time that a hit takes without it."""


def hit(tmp_path: Path, origin: Origin) -> list[str]:
    """Fetch the artifact, stop the origin, and return the arguments of a second fetch, which is a hit."""
    words = ["fetch", URI, "--cache-dir", str(tmp_path)]
    assert run_fetcher(*words).returncode == 0
    origin.stop()
    return words


def test_a_hit_takes_less_than_half_a_second_of_cpu_time(origin: Origin, tmp_path: Path) -> None:
    words = hit(tmp_path, origin)
    times = []
    for _ in range(3):
        pid = os.posix_spawn(FETCHER[0], [*FETCHER, *words], os.environ)
        _, status, usage = os.wait4(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        times.append(usage.ru_utime + usage.ru_stime)
    assert min(times) < 0.35, times


def test_a_hit_imports_no_network_or_terminal_libraries(origin: Origin, tmp_path: Path) -> None:
    words = hit(tmp_path, origin)
    probe = "import sys; from fetcher.cli import main; code = main(); print(code, *sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe, *words], capture_output=True, text=True, check=True)
    path, report = done.stdout.splitlines()
    code, *modules = report.split()
    assert (code, Path(path).is_dir()) == ("0", True)
    assert not NETWORK & set(modules)


def test_a_hit_on_a_read_only_volume_is_a_hit(origin: Origin, tmp_path: Path) -> None:
    words = hit(tmp_path, origin)
    usage = tmp_path / ".fetcher" / "usage"
    for path in usage.iterdir():
        path.unlink()
    usage.rmdir()
    usage.write_bytes(b"")  # the usage can no longer be recorded
    assert run_fetcher(*words).returncode == 0


def test_a_command_ends_without_looking_for_garbage() -> None:
    probe = (
        "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 0));"
        "from fetcher.cli import main; main(['key', 'hf://org/model'])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "True"


def test_importing_the_package_imports_no_engine() -> None:
    probe = "import sys, fetcher; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.split()
    assert not (NETWORK | {"fetcher.engine", "fetcher.api"}) & set(modules)
