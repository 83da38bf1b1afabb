"""The real commands with smaller chunks: `WEIGHTLIFT_TEST_CHUNK=1048576 python -m tests.lab.small_chunks fetch ...`.

A swarm needs many chunks, and a test few bytes. All processes that share a root or chunks need the same size.
"""

from __future__ import annotations

import os
import sys

from fetcher import artifact

SIZE = "WEIGHTLIFT_TEST_CHUNK"

if __name__ == "__main__":
    artifact.CHUNK_SIZE = int(os.environ[SIZE])  # before any other module reads it
    from fetcher.cli import main

    sys.exit(main())
