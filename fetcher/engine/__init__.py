"""From a reference to a complete artifact: resolve, plan, transfer, verify, commit.

`fetching` is the entry point, `pipeline` the life of one fetch. The engine uses the contracts of sources and stores, and
reports by events. It renders nothing.
"""

from __future__ import annotations

from fetcher.engine.fetching import bring as bring
from fetcher.engine.fetching import fetch as fetch
from fetcher.engine.fetching import find_cached as find_cached
from fetcher.engine.request import Request as Request
from fetcher.engine.request import recovered as recovered
from fetcher.engine.result import Artifact as Artifact
