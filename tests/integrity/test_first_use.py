"""Several threads can be the first to hash. Each of them chooses the lanes, and none sees a partial choice."""

from __future__ import annotations

import subprocess
import sys

from fetcher.integrity.lanes import available
from tests.lab.availability import missing

MANY_AT_ONCE = """
import hashlib, sys, threading, time
from fetcher.integrity import _sha256, lanes

sys.setswitchinterval(1e-6)
BLOCK, STREAMS = memoryview(bytes(64)), 600  # a kernel is looked up for every few of them, without the GIL
WIDTHS = bytes([16 if 16 in _sha256.use_level(2) else 4] * 17)
until, wrong = time.monotonic() + 2, []

def choose():
    while time.monotonic() < until:
        for _ in range(1000):
            _sha256.use_level(2)
            _sha256.use_openssl(ADDRESS)

def hash_many():
    expected = hashlib.sha256(BLOCK).hexdigest()
    while time.monotonic() < until:
        hashers = tuple(_sha256.Sha256() for _ in range(STREAMS))
        _sha256.advance(hashers, (BLOCK,) * STREAMS, WIDTHS)
        wrong.extend(each for each in hashers if each.hexdigest() != expected)

ADDRESS = lanes.address_of_openssl()
threads = [threading.Thread(target=each) for each in (choose, hash_many, hash_many, hash_many)]
for each in threads: each.start()
for each in threads: each.join()
sys.exit(len(wrong))
"""


def test_digests_are_right_while_other_threads_choose_the_lanes() -> None:
    if not available():
        missing("compiled part", "a C compiler and Python's headers, then make setup")
    done = subprocess.run([sys.executable, "-c", MANY_AT_ONCE], capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
