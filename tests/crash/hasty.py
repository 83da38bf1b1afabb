"""Runs a module with a shorter patience on network filesystems: `python hasty.py SECONDS MODULE ARGUMENT...`.

The patience allows for the caches of other clients of a server. A FUSE filesystem of the lab has one client, and a test has
less time than an eviction there takes, 180 s.
"""

from __future__ import annotations

import runpy
import sys

from fetcher.store import lease

if __name__ == "__main__":
    lease.STALE_NETWORK = float(sys.argv[1])
    module = sys.argv[2]
    sys.argv = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name="__main__")
