"""A signal ends a command in order, also in the moments in which Python loses or changes what a handler raises."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROBE = """
import asyncio, pathlib, signal, sys, threading, time, weakref
from fetcher.cli.signals import run_interruptibly
from fetcher.command.running import carried_out

class Gone: pass

def come(*_):
    signal.raise_signal(signal.SIGTERM)
    for _ in range(1000): pass

{moment}

sys.exit(carried_out(work, log=None, interrupted="nothing is lost"))
"""

LOSING = {
    "a callback whose exceptions Python drops": """
def work(report):
    gone = Gone()
    reference = weakref.ref(gone, come)
    del gone
    time.sleep(30)
    return {}
""",
    "a callback just before an event loop begins": """
def work(report):
    gone = Gone()
    reference = weakref.ref(gone, come)
    del gone
    run_interruptibly(asyncio.sleep(30))
    return {}
""",
    "an import that makes another error of it": """
def work(report):
    try:
        come()
    except BaseException as error:
        raise RuntimeError("Error calling __set_name__") from error
""",
    "what comes after an event loop has ended": """
def work(report):
    run_interruptibly(asyncio.sleep(0))
    come()
    time.sleep(30)
    return {}
""",
    "the start of the thread that writes metrics": """
from fetcher.cli.metrics import publish
threading.Thread.start = come
def work(report):
    publish({"metrics_file": pathlib.Path("metrics")}, report, print)
    return {}
""",
}


def ended(moment: str, directory: Path) -> subprocess.CompletedProcess[str]:
    probe = PROBE.replace("{moment}", moment)
    return subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=20, check=False, cwd=directory)


@pytest.mark.parametrize("moment", LOSING.values(), ids=LOSING)
def test_no_moment_loses_a_signal(moment: str, tmp_path: Path) -> None:
    done = ended(moment, tmp_path)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert done.stderr == "Interrupted: SIGTERM received; nothing is lost\n"


def test_one_that_comes_while_the_last_words_are_written_changes_nothing(tmp_path: Path) -> None:
    done = ended("def work(report): report.at_end.append(come); return {}", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_other_errors_that_python_drops_are_reported_as_ever(tmp_path: Path) -> None:
    done = ended("def work(report): gone = Gone(); kept = weakref.ref(gone, lambda _: 1 / 0); del gone; return {}", tmp_path)
    assert done.returncode == 0
    assert "ZeroDivisionError" in done.stderr
