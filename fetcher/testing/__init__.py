"""For tests of the fetcher and of whatever is built on it: an origin that misbehaves on demand, and a source's contract.

::

    origin          Origin: a Hub and a CDN on loopback; also `python -m fetcher.testing DIR`
    faults          Fault and Faults: which requests go wrong
    effects         ... by another response: status, redirect, lying heads, wrong bytes
    listings        ... by a hostile listing
    interruptions   ... by a reset, a FIN, a stall, a trickle
    checkpoint      generated weights
    conformance     SourceConformance: the contract of a source as a pytest suite

Import from the modules: `conformance` needs pytest, and an origin with TLS trustme; the rest needs neither.
"""

from __future__ import annotations
