"""A fetch never opens more descriptors than are free."""

from __future__ import annotations

import resource
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from fetcher.planning.descriptors import PER_CONNECTION, PER_HASH_THREAD, SPARE, plan_descriptors


@given(st.integers(100, 5000), st.integers(1, 1000), st.integers(1, 200))
def test_the_plan_fits_the_free_descriptors(free: int, connections: int, hash_threads: int) -> None:
    plan = plan_descriptors(free, connections=connections, hash_threads=hash_threads)
    used = plan.files + plan.connections * PER_CONNECTION + plan.hash_threads * PER_HASH_THREAD
    assert used <= free - SPARE
    assert 1 <= plan.connections <= connections
    assert 1 <= plan.hash_threads <= hash_threads


@given(st.integers(0, 100))
def test_the_plan_has_at_least_one_of_each(free: int) -> None:
    plan = plan_descriptors(free, connections=32, hash_threads=8)
    assert min(plan.connections, plan.hash_threads, plan.files) == 1


def test_an_ordinary_limit_does_not_reduce_the_defaults() -> None:
    plan = plan_descriptors(1000, connections=32, hash_threads=8)
    assert (plan.connections, plan.hash_threads) == (32, 8)


SOFT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 400))
{call}
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def limits_after(call: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SOFT.format(call=call)], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.splitlines()[-1]


def test_a_command_raises_the_soft_limit_to_the_hard_one() -> None:
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 400
    assert limits_after("from fetcher.cli import main; main(['key', 'hf://org/model'])") == "400 400"


def test_the_library_leaves_the_limit_alone() -> None:
    call = (
        "import fetcher, tempfile; d = tempfile.mkdtemp(); open(d + '/f', 'w').write('x'); fetcher.fetch(d, cache_dir=d + '/c')"
    )
    assert limits_after(call) == "200 400"
