"""Many threads may be the first to hash: none finds lanes that are only half chosen."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fetcher.integrity.lanes import available

MANY_AT_ONCE = """
import hashlib, sys, threading
from fetcher.integrity import lanes

sys.setswitchinterval(1e-6)
DATA = bytes(range(256)) * 400
ready, wrong = threading.Barrier(12), []

def first(number):
    hashers = [lanes._sha256.Sha256() for _ in range(number % 16 + 1)]
    ready.wait()
    for _ in range(20):
        lanes._costs.cache_clear()  # every round is a first use
        lanes.advance([(hasher, memoryview(DATA)) for hasher in hashers])
    wrong.extend(each for each in hashers if each.hexdigest() != hashlib.sha256(DATA * 20).hexdigest())

threads = [threading.Thread(target=first, args=(number,)) for number in range(12)]
for each in threads: each.start()
for each in threads: each.join()
sys.exit(len(wrong))
"""

pytestmark = pytest.mark.skipif(not available(), reason="the extension is not built")


@pytest.mark.parametrize("attempt", range(3))
def test_threads_that_hash_while_others_choose_the_lanes_get_right_digests(attempt: int) -> None:
    done = subprocess.run([sys.executable, "-c", MANY_AT_ONCE], capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
