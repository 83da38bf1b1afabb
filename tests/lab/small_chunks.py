"""The real commands with smaller chunks: `WEIGHTLIFT_TEST_CHUNK=1048576 python -m tests.lab.small_chunks fetch ...`.

A swarm needs many chunks, and a test few bytes. All processes that share a root or chunks need the same size. With
`WEIGHTLIFT_TEST_PATIENCE=1000` nobody in a swarm is late before so many seconds, however busy the machine is.
"""

from __future__ import annotations

import os
import sys

from fetcher import artifact

SIZE, PATIENCE = "WEIGHTLIFT_TEST_CHUNK", "WEIGHTLIFT_TEST_PATIENCE"

if __name__ == "__main__":
    artifact.CHUNK_SIZE = int(os.environ[SIZE])  # before any other module reads it
    from fetcher.cli import main
    from fetcher.planning import owners, peer, swarm

    if seconds := os.environ.get(PATIENCE):
        owners.PATIENCE = peer.SILENCE = swarm.STARVED = float(seconds)

    sys.exit(main())
