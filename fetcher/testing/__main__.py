"""`python -m fetcher.testing DIR`: serve a directory as a Hub repository."""

from __future__ import annotations

import sys

from fetcher.testing.serving import main

sys.exit(main(sys.argv[1:]))
