"""A signal ends a command in order, also when Python loses or changes the exception that the handler raises."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROBE = """
import asyncio, pathlib, signal, sys, threading, time, weakref
from fetcher.cli.signals import run_interruptibly
from fetcher.command.running import run_command

class Gone: pass

def send_signal(*_):
    signal.raise_signal(signal.SIGTERM)
    for _ in range(1000): pass

{moment}

sys.exit(run_command(work, log=None, interrupted="nothing is lost"))
"""

LOSING = {
    "a callback whose exceptions Python drops": """
def work(report):
    gone = Gone()
    reference = weakref.ref(gone, send_signal)
    del gone
    time.sleep(30)
    return {}
""",
    "a callback just before an event loop begins": """
def work(report):
    gone = Gone()
    reference = weakref.ref(gone, send_signal)
    del gone
    run_interruptibly(asyncio.sleep(30))
    return {}
""",
    "the making of an event loop": """
import fetcher.transport.tls as tls
class Loop(tls.TlsEventLoop):
    def __init__(self):
        super().__init__()
        send_signal()
tls.TlsEventLoop = Loop
def work(report):
    run_interruptibly(asyncio.sleep(30))
    return {}
""",
    "the closing of an event loop": """
import fetcher.transport.tls as tls
class Loop(tls.TlsEventLoop):
    def close(self):
        super().close()
        send_signal()
tls.TlsEventLoop = Loop
def work(report):
    run_interruptibly(asyncio.sleep(0))
    return {}
""",
    "the first step of the work": """
async def stepping():
    send_signal()
    await asyncio.sleep(30)
def work(report):
    run_interruptibly(stepping())
    return {}
""",
    "an import that turns it into another error": """
def work(report):
    try:
        send_signal()
    except BaseException as error:
        raise RuntimeError("Error calling __set_name__") from error
""",
    "a signal after an event loop has ended": """
def work(report):
    run_interruptibly(asyncio.sleep(0))
    send_signal()
    time.sleep(30)
    return {}
""",
    "the start of the thread that writes metrics": """
from fetcher.cli.metrics import publish
threading.Thread.start = send_signal
def work(report):
    publish({"metrics_file": pathlib.Path("metrics")}, report, print)
    return {}
""",
}


def run_probe(moment: str, directory: Path) -> subprocess.CompletedProcess[str]:
    probe = PROBE.replace("{moment}", moment)
    return subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=20, check=False, cwd=directory)


@pytest.mark.parametrize("moment", LOSING.values(), ids=LOSING)
def test_a_signal_is_never_lost(moment: str, tmp_path: Path) -> None:
    done = run_probe(moment, tmp_path)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert done.stderr == "Interrupted: SIGTERM received; nothing is lost\n"


def test_a_signal_during_the_last_line_is_ignored(tmp_path: Path) -> None:
    done = run_probe("def work(report): report.at_end.append(send_signal); return {}", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_other_unraisable_errors_are_still_reported(tmp_path: Path) -> None:
    done = run_probe(
        "def work(report): gone = Gone(); kept = weakref.ref(gone, lambda _: 1 / 0); del gone; return {}", tmp_path
    )
    assert done.returncode == 0
    assert "ZeroDivisionError" in done.stderr


def test_an_event_loop_that_cannot_be_imported_leaves_no_warning_behind(tmp_path: Path) -> None:
    done = run_probe(
        "def work(report): sys.modules['fetcher.transport.tls'] = None; run_interruptibly(asyncio.sleep(0))", tmp_path
    )
    assert done.returncode == 70
    assert "Internal: ModuleNotFoundError" in done.stderr
    assert "never awaited" not in done.stderr
